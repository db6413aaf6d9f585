//! `hookyard check`: is the configuration right, and does everything answer that it names?

mod probes;
mod report;

use std::process::ExitCode;

use clap::Args;

use self::report::{Finding, Report};
use crate::cli::output::{self, Paint};
use crate::config::{BusType, Config, ConfigError, PushAuthMode};
use crate::error::BoxError;

/// What `hookyard check` takes.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Checks, prints what was found, and fails when something has to be mended.
///
/// # Errors
/// None of its own: whatever is wrong is part of the report.
pub(super) async fn check(args: CheckArgs) -> Result<ExitCode, BoxError> {
    let findings = match Config::from_env() {
        Ok(config) => {
            let mut findings = of_configuration(&config);
            findings.extend(probes::all(&config).await);
            findings
        }
        Err(error) => of_problems(&error),
    };
    let report = Report::new(findings);
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?);
    } else {
        output::print(&report.render(Paint::of_stdout()));
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Every variable that is missing or unusable. What depends on them cannot be asked then.
fn of_problems(error: &ConfigError) -> Vec<Finding> {
    let advice = "set it and check again; `hookyard variables` lists them all";
    let findings = error.0.iter();
    findings
        .map(|problem| Finding::failed(problem.variable, problem.what.clone(), advice))
        .collect()
}

/// What is allowed but should be meant.
fn of_configuration(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("configuration", "every variable can be used")];
    if config.server.admin_token.is_none() {
        findings.push(Finding::warning(
            "admin API",
            "closed, ADMIN_TOKEN is not set",
            "set ADMIN_TOKEN to read /metrics and /handlers",
        ));
    }
    if config.push_auth.mode == PushAuthMode::Platform {
        findings.push(Finding::warning(
            "push tokens",
            "signatures are not checked here (PUSH_AUTH_MODE=platform)",
            "make sure that Cloud Run's invoker check is on, or anybody can forge a token",
        ));
    }
    if config.bus.bus_type == BusType::Memory {
        findings.push(Finding::warning(
            "broker",
            "events and dead letters stay in memory and are lost with the process",
            "set EVENT_BUS_TYPE=pubsub anywhere but in tests",
        ));
    } else if config.bus.emulator_host.is_some() {
        findings.push(Finding::warning(
            "broker",
            "messages go to an emulator",
            "unset PUBSUB_EMULATOR_HOST anywhere but in tests",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::report::State;

    fn config(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let base = [
            ("PUSH_AUDIENCE", "https://hookyard.example"),
            ("PUSH_SERVICE_ACCOUNT", "push@acme.example"),
            ("HASURA_GRAPHQL_URL", "http://127.0.0.1:1/v1/graphql"),
            ("HASURA_ADMIN_SECRET", "canary-secret"),
            ("CHARGEBEE_URL", "http://127.0.0.1:1"),
            ("CHARGEBEE_API_KEY", "canary-key"),
            ("EVENT_BUS_TYPE", "memory"),
            ("OIDC_JWKS_URL", "http://127.0.0.1:1/certs"),
        ];
        Config::from_lookup(&|name| {
            let given = changes.iter().rev().chain(base.iter());
            given
                .clone()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_problem_of_the_configuration_is_reported_at_once() {
        let error = config(&[("PORT", "http"), ("LOG_FORMAT", "xml")]).unwrap_err();

        let findings = of_problems(&error);

        let names: Vec<&str> = findings
            .iter()
            .map(|finding| finding.check.as_str())
            .collect();
        assert_eq!(names, ["PORT", "LOG_FORMAT"]);
    }

    #[test]
    fn what_is_only_right_in_tests_is_a_warning() {
        let config = config(&[("PUSH_AUTH_MODE", "platform")]).unwrap();

        let findings = of_configuration(&config);

        let warned = findings.iter().filter(|f| f.state == State::Warning);
        let names: Vec<&str> = warned.map(|finding| finding.check.as_str()).collect();
        assert_eq!(names, ["admin API", "push tokens", "broker"]);
    }

    #[tokio::test]
    async fn what_does_not_answer_fails_and_no_secret_is_shown() {
        let config = config(&[]).unwrap();

        let findings = probes::all(&config).await;

        let failed = findings.iter().filter(|f| f.state == State::Failed);
        let names: Vec<&str> = failed.map(|finding| finding.check.as_str()).collect();
        assert_eq!(names, ["token keys", "Hasura", "Chargebee"]);
        let text = format!("{findings:?}");
        assert!(
            !text.contains("canary") && !text.contains("127.0.0.1"),
            "{text}"
        );
    }
}
