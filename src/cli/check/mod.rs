//! `hookyard check`: is the configuration right, does everything answer that it names, and does
//! every link of the chain from Hasura's trigger to the push fit the next one?

mod chargebee;
mod database;
mod google;
mod hasura;
mod limits;
mod probes;
mod report;
mod settings;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use secrecy::SecretString;

use self::google::Google;
use self::report::{Finding, Report, State};
use self::settings::Settings;
use crate::cli::output::{self, Paint};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{BusType, Config, ConfigError, PushAuthMode};
use crate::error::BoxError;
use crate::telemetry::Metrics;

/// What `hookyard check` takes.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Look at the configuration only, and ask nobody.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    names: google::Names,
    /// Access token for Google's APIs, as `gcloud auth print-access-token` prints it. Without it:
    /// Application Default Credentials. Better set as a variable, where nobody sees it.
    #[arg(long, env = "GOOGLE_OAUTH_ACCESS_TOKEN", hide_env_values = true)]
    access_token: Option<SecretString>,
    #[command(flatten)]
    hasura: hasura::HasuraArgs,
    #[command(flatten)]
    places: google::Places,
}

/// Checks, prints what was found, and fails when something has to be mended.
///
/// # Errors
/// None of its own: whatever is wrong is part of the report.
pub(super) async fn check(args: &CheckArgs) -> Result<ExitCode, BoxError> {
    let findings = if args.offline {
        offline(args)
    } else {
        Box::pin(online(args, &SystemClock::shared(), &Metrics::new()?)).await
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

#[expect(
    clippy::disallowed_methods,
    reason = "what is not set here is taken from the service, which `config` knows nothing of"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl CheckArgs {
    /// Returns a variable's value; a flag goes before the environment.
    fn given(&self, name: &str) -> Option<String> {
        let flag = match name {
            "GOOGLE_CLOUD_PROJECT" => self.names.project(),
            _ => None,
        };
        flag.map(str::to_owned).or_else(|| environment(name))
    }
}

fn offline(args: &CheckArgs) -> Vec<Finding> {
    let mut findings = match Config::from_lookup(&|name| args.given(name)) {
        Ok(config) => {
            let mut findings = of_configuration(&config);
            findings.extend(limits::judge(&config, None));
            findings.push(chargebee::site(&config.chargebee));
            findings
        }
        Err(error) => of_problems(&error),
    };
    let rest = "Google Cloud, Hasura, Chargebee, token keys";
    findings.push(Finding::skipped(rest, "--offline"));
    findings
}

async fn online(args: &CheckArgs, clock: &SharedClock, metrics: &Arc<Metrics>) -> Vec<Finding> {
    let emulator = environment("PUBSUB_EMULATOR_HOST");
    let emulator = emulator.as_deref().map(|host| {
        let host = host.trim().trim_start_matches("http://");
        host.trim_end_matches('/')
    });
    let google = match args.names.project().is_some() {
        true => {
            let emulator = emulator.filter(|host| !host.is_empty());
            let token = args.access_token.as_ref();
            Some(Google::connect(&args.places, token, emulator, clock, metrics).await)
        }
        false => None,
    };
    let service = match &google {
        Some(google) => args.names.read_service(google).await,
        None => Err(Finding::skipped(
            "Google Cloud",
            "GOOGLE_CLOUD_PROJECT is not set",
        )),
    };
    let mut findings = Vec::new();
    let settings = match Settings::read(&|name| args.given(name), service.as_ref().ok()) {
        Ok(settings) => settings,
        Err(error) => {
            findings.extend(of_problems(&error));
            let rest = "everything else";
            findings.extend(service.err());
            findings.push(Finding::skipped(
                rest,
                "needs a configuration that can be used",
            ));
            return findings;
        }
    };
    let config = &settings.config;
    let (service, unseen) = match service {
        Ok(service) => (Some(service), None),
        Err(finding) => (None, Some(finding)),
    };
    // What the service itself is told, where that can be seen, counts for everything around it.
    let (theirs, wrong) = match service.as_ref().map(settings::of_service) {
        Some(Ok(theirs)) => (Some(theirs), None),
        Some(Err(wrong)) => (None, Some(wrong)),
        None => (None, None),
    };
    let deployed = theirs.as_ref().unwrap_or(config);
    findings.extend(of_configuration(config));
    findings.extend(limits::judge(deployed, service.as_ref()));
    let (probed, cloud, hasura, catalogue) = tokio::join!(
        probes::all(&settings, clock, metrics),
        async {
            match &google {
                Some(google) => google::all(google, &args.names, deployed, service.as_ref()).await,
                None => Vec::new(),
            }
        },
        async {
            match settings.skip("Hasura triggers", "HASURA_ADMIN_SECRET") {
                Some(skipped) => vec![skipped],
                None => hasura::all(&config.hasura, &args.hasura, clock, metrics).await,
            }
        },
        async {
            let site = &config.chargebee;
            match settings.skip("Chargebee catalogue", "CHARGEBEE_API_KEY") {
                Some(skipped) => skipped,
                None => chargebee::catalogue(site, service.as_ref(), clock, metrics).await,
            }
        },
    );
    // The same topics, seen twice: the probe asked as the service would.
    let seen = |check: &str| {
        probed
            .iter()
            .any(|it| it.check == check && !it.is_skipped())
    };
    let failed = |check: &str| {
        let mut rows = probed.iter();
        rows.any(|it| it.check == check && it.state == State::Failed)
    };
    let is_seen = |it: &Finding| {
        let topics = [
            ("events topic", "EVENTS_TOPIC", &deployed.bus.events_topic),
            (
                "dead-letter topic",
                "DEAD_LETTER_TOPIC",
                &deployed.bus.dead_letter_topic,
            ),
        ];
        topics.into_iter().any(|(check, variable, topic)| {
            let same = it.subject.as_deref() == Some(google::short(topic));
            same && (it.check == check && seen(variable)
                || it.check == "dead-letter subscription" && failed(variable))
        })
    };
    let cloud: Vec<Finding> = cloud.into_iter().filter(|it| !is_seen(it)).collect();
    findings.extend(probed);
    findings.push(chargebee::site(&config.chargebee));
    findings.push(catalogue);
    findings.extend(hasura);
    findings.extend(unseen);
    if let Some(service) = &service {
        findings.extend(google::differences(service, &environment));
        findings.extend(
            wrong
                .iter()
                .flat_map(|wrong| google::unusable(service, wrong)),
        );
    }
    findings.extend(cloud);
    findings
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
    if config.server.admin.is_closed() {
        findings.push(Finding::warning(
            "admin API",
            "closed, ADMIN_TOKEN is not set",
            "set ADMIN_TOKEN to read /metrics and to use the desk for failed events",
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
        Config::from_lookup(&|name| given(changes, name))
    }

    pub(super) fn settings() -> Settings {
        Settings::read(&|name| given(&[], name), None).unwrap()
    }

    fn given(changes: &[(&str, &str)], name: &str) -> Option<String> {
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
        let mut given = changes.iter().rev().chain(base.iter());
        let found = given.find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
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
        let settings = settings();

        let findings =
            probes::all(&settings, &SystemClock::shared(), &Metrics::new().unwrap()).await;

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
