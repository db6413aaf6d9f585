//! The Cloud Run service: does it let pushes in, and only those, and for long enough?

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::super::report::{Finding, word};
use super::iam::{INVOKE, Member, Policy, Project, Right};
use super::subscription::{duration, project_of, short};
use super::{Google, Unseen};
use crate::config::{Config, ConfigError, PushAuthMode};

/// What Cloud Run says of a service:
/// <https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.services>.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Service {
    /// `projects/p/locations/l/services/s`.
    pub(super) name: String,
    pub(super) uri: Option<String>,
    #[serde(default)]
    urls: Vec<String>,
    ingress: Option<String>,
    #[serde(default)]
    invoker_iam_disabled: bool,
    #[serde(default)]
    custom_audiences: Vec<String>,
    #[serde(default)]
    template: Template,
    terminal_condition: Option<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Template {
    timeout: Option<String>,
    max_instance_request_concurrency: Option<u64>,
    service_account: Option<String>,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Debug, Clone, Deserialize)]
struct Container {
    #[serde(default)]
    env: Vec<Variable>,
    #[serde(default)]
    ports: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
    value_source: Option<ValueSource>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValueSource {
    secret_key_ref: Option<SecretKeyRef>,
}

#[derive(Debug, Clone, Deserialize)]
struct SecretKeyRef {
    #[serde(default)]
    secret: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    state: Option<String>,
}

/// Cloud Run's own defaults.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
const DEFAULT_CONCURRENCY: u64 = 80;

/// Variables that hold secrets.
pub(in super::super) const SECRETS: &[&str] = &[
    "HASURA_ADMIN_SECRET",
    "CHARGEBEE_API_KEY",
    "ADMIN_TOKEN",
    "ADMIN_READ_TOKEN",
    "BRIDGE_SECRET",
    "DATABASE_URL",
];

impl Service {
    /// Reads a service.
    pub(super) async fn read(
        google: &Google,
        project: &str,
        region: &str,
        name: &str,
    ) -> Result<Self, Unseen> {
        let path = format!("/projects/{project}/locations/{region}/services/{name}");
        google.run.get(project, &path).await
    }

    /// Tells whether `endpoint` has the address of this service.
    pub(super) fn serves(&self, endpoint: &Url) -> bool {
        let urls = self.urls.iter().chain(&self.uri);
        let mut hosts = urls.filter_map(|url| Url::parse(url).ok());
        hosts.any(|url| url.origin() == endpoint.origin())
    }

    pub(super) fn short_name(&self) -> &str {
        short(&self.name)
    }

    pub(super) fn project(&self) -> &str {
        project_of(&self.name).unwrap_or_default()
    }

    /// The account the service runs as; `None` is the project's default one.
    pub(super) fn account(&self) -> Option<&str> {
        self.template.service_account.as_deref()
    }

    /// Returns its plain variables, and the secrets' names by variable.
    pub(in super::super) fn environment(&self) -> (BTreeMap<&str, &str>, BTreeMap<&str, &str>) {
        let mut containers = self.template.containers.iter();
        // Beside a sidecar, the one that listens.
        let main = containers.clone().find(|it| !it.ports.is_empty());
        let Some(container) = main.or_else(|| containers.next()) else {
            return Default::default();
        };
        let (mut plain, mut secret) = (BTreeMap::new(), BTreeMap::new());
        for variable in &container.env {
            let from = variable.value_source.as_ref();
            match from.and_then(|from| from.secret_key_ref.as_ref()) {
                Some(reference) => secret.insert(&*variable.name, &*reference.secret),
                None => plain.insert(&*variable.name, &*variable.value),
            };
        }
        (plain, secret)
    }

    /// Writes a `gcloud run services` command about this service.
    fn gcloud(&self, verb: &str, options: &str) -> String {
        let region = self.name.split('/').nth(3).unwrap_or_default();
        let (name, project) = (self.short_name(), self.project());
        format!("gcloud run services {verb} {name} --project={project} --region={region} {options}")
            .trim_end()
            .to_owned()
    }

    /// Writes the command that sets one of its variables.
    pub(in super::super) fn set(&self, variable: &str, value: &str) -> String {
        self.gcloud(
            "update",
            &format!("--update-env-vars={}", word(&format!("{variable}={value}"))),
        )
    }
}

/// Looks at what needs no other question. `config` is what the service itself is configured with.
pub(super) fn judge(service: &Service, config: &Config) -> Vec<Finding> {
    let looks = [
        Some(of_readiness(service)),
        Some(of_timeout(service, config)),
        Some(of_concurrency(service, config)),
        of_plain_secrets(service),
        of_test_settings(service),
    ];
    let findings = looks.into_iter().flatten();
    findings.map(|it| it.of(service.short_name())).collect()
}

fn of_readiness(service: &Service) -> Finding {
    const CHECK: &str = "Cloud Run";
    let state = service.terminal_condition.as_ref();
    match state.and_then(|condition| condition.state.as_deref()) {
        Some("CONDITION_FAILED") => Finding::failed(
            CHECK,
            "its last change failed",
            "an older revision serves, or none: look for the reason",
        )
        .mend(service.gcloud("describe", "")),
        _ => Finding::ok(CHECK, "is deployed"),
    }
}

fn of_timeout(service: &Service, config: &Config) -> Finding {
    const CHECK: &str = "Cloud Run timeout";
    let given = service.template.timeout.as_deref().and_then(duration);
    let given = given.unwrap_or(DEFAULT_TIMEOUT);
    let deadline = config.work.ack_deadline;
    let found = format!("{} s", given.as_secs());
    if given >= deadline {
        return Finding::ok(CHECK, found);
    }
    let seconds = deadline.as_millis().div_ceil(1000) + 10;
    Finding::failed(
        CHECK,
        found,
        format!(
            "ACK_DEADLINE_MS is {} ms: Cloud Run cuts a push off that the service still works on",
            deadline.as_millis()
        ),
    )
    .mend(service.gcloud("update", &format!("--timeout={seconds}")))
}

fn of_concurrency(service: &Service, config: &Config) -> Finding {
    const CHECK: &str = "Cloud Run concurrency";
    let given = match service.template.max_instance_request_concurrency {
        None | Some(0) => DEFAULT_CONCURRENCY,
        Some(given) => given,
    };
    let most = config.server.max_in_flight;
    let found = format!("{given} at once");
    if given == 1 {
        let advice = "an event mostly waits for upstreams: every event at the same time costs an \
                      instance of its own";
        let command = service.gcloud("update", &format!("--concurrency={DEFAULT_CONCURRENCY}"));
        return Finding::warning(CHECK, found, advice).mend(command);
    }
    if given > u64::try_from(most).unwrap_or(u64::MAX) {
        let advice = format!(
            "MAX_IN_FLIGHT is {most}: what is above is answered 503, and Pub/Sub slows down for all"
        );
        let command = service.gcloud("update", &format!("--concurrency={most}"));
        return Finding::warning(CHECK, found, advice).mend(command);
    }
    Finding::ok(CHECK, found)
}

fn of_plain_secrets(service: &Service) -> Option<Finding> {
    let (plain, _) = service.environment();
    let names: Vec<&str> = SECRETS
        .iter()
        .copied()
        .filter(|it| plain.contains_key(it))
        .collect();
    if names.is_empty() {
        return None;
    }
    let secret_of = |name: &&str| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        format!("{}-{name}", service.short_name())
    };
    let pairs = names
        .iter()
        .map(|name| format!("{name}={}:latest", secret_of(name)));
    let pairs: Vec<String> = pairs.collect();
    Some(
        Finding::failed(
            "Cloud Run secrets",
            format!("{} in plain text", names.join(", ")),
            "whoever may look at the service reads them: put them into Secret Manager \
             (scripts/set-secret.sh), and change them",
        )
        .mend(service.gcloud("update", &format!("--update-secrets={}", pairs.join(",")))),
    )
}

fn of_test_settings(service: &Service) -> Option<Finding> {
    let (plain, _) = service.environment();
    let set = |name: &str, is: fn(&str) -> bool| plain.get(name).is_some_and(|value| is(value));
    let mut names = Vec::new();
    if set("PUBSUB_EMULATOR_HOST", |value| !value.is_empty()) {
        names.push("PUBSUB_EMULATOR_HOST");
    }
    if set("EVENT_BUS_TYPE", |value| value == "memory") {
        names.push("EVENT_BUS_TYPE");
    }
    (!names.is_empty()).then(|| {
        let found = format!("{} as in a test", names.join(", "));
        let advice = "events and dead letters are lost";
        let command = service.gcloud("update", &format!("--remove-env-vars={}", names.join(",")));
        Finding::failed("Cloud Run settings", found, advice).mend(command)
    })
}

/// Says what is wrong with the configuration the service is given.
pub(in super::super) fn unusable(service: &Service, error: &ConfigError) -> Vec<Finding> {
    let problems = error.0.iter();
    problems
        .map(|problem| {
            let found = format!("{} {}", problem.variable, problem.what);
            let advice = "the service does not start with it";
            Finding::failed("Cloud Run settings", found, advice)
                .of(service.short_name())
                .mend(service.set(problem.variable, "VALUE"))
        })
        .collect()
}

/// Says which variables this environment and the service's disagree about.
pub(in super::super) fn differences(
    service: &Service,
    here: &dyn Fn(&str) -> Option<String>,
) -> Option<Finding> {
    const COMPARED: &[&str] = &[
        "PUSH_AUTH_MODE",
        "PUSH_AUDIENCE",
        "PUSH_SERVICE_ACCOUNT",
        "ACK_DEADLINE_MS",
        "HANDLER_TIMEOUT_MS",
        "MAX_IN_FLIGHT",
        "EVENTS_TOPIC",
        "DEAD_LETTER_TOPIC",
        "HASURA_GRAPHQL_URL",
        "CHARGEBEE_URL",
        "CHARGEBEE_SITE",
        "CHARGEBEE_PRODUCT_CATALOG",
    ];
    let (plain, _) = service.environment();
    let differs = |name: &&&str| {
        let ours = here(name).filter(|value| !value.trim().is_empty());
        matches!((ours, plain.get(**name)), (Some(ours), Some(theirs)) if ours.trim() != *theirs)
    };
    let names: Vec<&str> = COMPARED.iter().filter(differs).copied().collect();
    (!names.is_empty()).then(|| {
        let advice = "the subscription is held against the service's, upstreams are asked with \
                      this environment's; unset them here to use the service's for all";
        let found = format!("differ from this environment's: {}", names.join(", "));
        Finding::warning("Cloud Run settings", found, advice)
            .of(service.short_name())
            .mend(format!("unset {}", names.join(" ")))
    })
}

/// Holds the push auth mode against the invoker check: exactly one of the two has to look at the
/// token's signature. With the check on, Cloud Run takes the signature out of the token:
/// <https://cloud.google.com/run/docs/troubleshooting#signature-removed>.
pub(super) async fn door(
    google: &Google,
    service: &Service,
    config: &Config,
    project: &Project<'_>,
) -> Vec<Finding> {
    const CHECK: &str = "invoker check";
    let of = service.short_name();
    let path = format!("/{}:getIamPolicy", service.name);
    let policy: Result<Policy, Unseen> = google.run.get(service.project(), &path).await;
    let open_to_all = policy
        .as_ref()
        .is_ok_and(|it| it.gives(&Member::Anybody, INVOKE));
    let mut findings = Vec::new();
    match (config.push_auth.mode, service.invoker_iam_disabled) {
        (PushAuthMode::Verify, true) => {
            findings.push(Finding::ok(
                CHECK,
                "is off, tokens are verified by the service",
            ));
        }
        (PushAuthMode::Verify, false) => {
            let advice = "Cloud Run takes the signature out of tokens, and the service, which \
                          verifies it (PUSH_AUTH_MODE=verify), answers every push with 401";
            let command = service.gcloud("update", "--no-invoker-iam-check");
            findings.push(Finding::failed(CHECK, "is on", advice).mend(command));
        }
        (PushAuthMode::Platform, true) => {
            let advice = "nobody checks signatures (PUSH_AUTH_MODE=platform leaves it to Cloud \
                          Run): whoever finds the address can send any event";
            let command = service.gcloud("update", "--invoker-iam-check");
            findings.push(Finding::failed(CHECK, "is off", advice).mend(command));
        }
        (PushAuthMode::Platform, false) if open_to_all => {
            let advice = "everybody may call, and nobody checks signatures \
                          (PUSH_AUTH_MODE=platform): whoever finds the address can send any event";
            let options = "--member=allUsers --role=roles/run.invoker";
            let command = service.gcloud("remove-iam-policy-binding", options);
            findings.push(Finding::failed(CHECK, "lets everybody in", advice).mend(command));
        }
        (PushAuthMode::Platform, false) => {
            findings.push(Finding::ok(CHECK, "is on, Cloud Run verifies tokens"));
            findings.extend(of_audiences(service, config));
        }
    }
    let mut findings: Vec<Finding> = findings.into_iter().map(|it| it.of(of)).collect();
    if config.push_auth.mode == PushAuthMode::Platform && !service.invoker_iam_disabled {
        for account in &config.push_auth.service_accounts {
            let right = Right {
                check: "push account's right to call",
                subject: of,
                who: &Member::Account(account.clone()),
                name: "the push account",
                roles: INVOKE,
                breaks: "Cloud Run answers every push with 403",
                grant: service.gcloud("add-iam-policy-binding", ""),
            };
            findings.push(right.judge(&policy, project).await);
        }
    }
    findings
}

/// Cloud Run accepts its own addresses and the custom audiences as audience of a token.
fn of_audiences(service: &Service, config: &Config) -> Vec<Finding> {
    const CHECK: &str = "custom audience";
    let urls = service.urls.iter().chain(&service.uri);
    let known: Vec<&String> = urls.chain(&service.custom_audiences).collect();
    let audiences = config.push_auth.audiences.iter();
    let missing: Vec<&String> = audiences.filter(|it| !known.contains(it)).collect();
    if missing.is_empty() {
        return vec![Finding::ok(CHECK, "Cloud Run takes PUSH_AUDIENCE")];
    }
    let missing = missing.into_iter();
    missing
        .map(|audience| {
            let advice = "the invoker check does not know PUSH_AUDIENCE and answers every push \
                          with 401";
            let option = format!("--add-custom-audiences={}", word(audience));
            let command = service.gcloud("update", &option);
            Finding::failed(CHECK, "is missing", advice).mend(command)
        })
        .collect()
}

/// Pub/Sub of another project does not count as internal.
pub(super) fn ingress(service: &Service, subscription_project: &str) -> Option<Finding> {
    let internal = service.ingress.as_deref() == Some("INGRESS_TRAFFIC_INTERNAL_ONLY");
    (internal && subscription_project != service.project()).then(|| {
        let advice = "Pub/Sub of another project is refused with 404, unless both are in one VPC \
                      Service Controls perimeter";
        let command = service.gcloud("update", "--ingress=all");
        let found = "internal, and the subscription is in another project";
        Finding::warning("ingress", found, advice)
            .of(service.short_name())
            .mend(command)
    })
}
