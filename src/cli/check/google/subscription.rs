//! A push subscription: does it deliver what the service accepts, when the service can take it?

use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::super::report::{Finding, word};
use super::service::Service;
use crate::config::Config;

/// What Pub/Sub says of a subscription:
/// <https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions>.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subscription {
    pub(super) name: String,
    pub(super) topic: String,
    #[serde(default)]
    pub(super) push_config: PushConfig,
    #[serde(default)]
    ack_deadline_seconds: u64,
    message_retention_duration: Option<String>,
    /// Absent is 31 days, present without `ttl` is never.
    expiration_policy: Option<ExpirationPolicy>,
    pub(super) dead_letter_policy: Option<DeadLetterPolicy>,
    retry_policy: Option<RetryPolicy>,
    state: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PushConfig {
    #[serde(default)]
    push_endpoint: String,
    oidc_token: Option<OidcToken>,
    no_wrapper: Option<NoWrapper>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OidcToken {
    #[serde(default)]
    service_account_email: String,
    #[serde(default)]
    audience: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NoWrapper {
    #[serde(default)]
    write_metadata: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct ExpirationPolicy {
    ttl: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetterPolicy {
    #[serde(default)]
    pub(super) dead_letter_topic: String,
    #[serde(default)]
    max_delivery_attempts: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetryPolicy {
    minimum_backoff: Option<String>,
    maximum_backoff: Option<String>,
}

/// What Pub/Sub calls the topic of a subscription after the topic was deleted.
const DELETED_TOPIC: &str = "_deleted-topic_";

/// An outage this long should not turn events into dead letters.
const OUTAGE: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(24 * 3600);

impl PushConfig {
    /// The endpoint without a query, which may hold a secret.
    pub(super) fn endpoint(&self) -> Option<Url> {
        let mut url = Url::parse(&self.push_endpoint).ok()?;
        url.set_query(None);
        url.set_fragment(None);
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        Some(url)
    }

    /// The audience of the tokens: the endpoint itself, unless one is set.
    pub(super) fn audience(&self) -> Option<&str> {
        let token = self.oidc_token.as_ref()?;
        Some(if token.audience.is_empty() {
            &self.push_endpoint
        } else {
            &token.audience
        })
    }

    pub(super) fn account(&self) -> Option<&str> {
        Some(&self.oidc_token.as_ref()?.service_account_email)
    }
}

/// What a subscription is held against.
pub(super) struct Wanted<'a> {
    pub(super) config: &'a Config,
    pub(super) service: Option<&'a Service>,
    /// Project of the dead-letter topic when that is given by its short name.
    pub(super) project: &'a str,
}

/// Looks at everything the subscription itself says.
pub(super) fn judge(subscription: &Subscription, wanted: &Wanted<'_>) -> Vec<Finding> {
    let name = short(&subscription.name);
    let mut findings = vec![of_topic(subscription), of_endpoint(subscription, wanted)];
    findings.extend(of_token(subscription, wanted));
    findings.extend([
        of_ack_deadline(subscription, wanted.config),
        of_retries(subscription),
        of_expiration(subscription),
        of_dead_letters(subscription, wanted),
    ]);
    findings.extend(of_retention(subscription));
    findings.extend(of_wrapper(subscription));
    findings.into_iter().map(|it| it.of(name)).collect()
}

/// Returns `x` of `projects/p/topics/x`.
pub(in super::super) fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Returns `p` of `projects/p/topics/x`.
pub(super) fn project_of(name: &str) -> Option<&str> {
    name.strip_prefix("projects/")?.split('/').next()
}

impl Subscription {
    /// Tells whether Pub/Sub deletes it when nobody uses it for a while.
    pub(super) fn expires(&self) -> bool {
        !matches!(self.expiration_policy, Some(ExpirationPolicy { ttl: None }))
    }

    fn update(&self, options: &str) -> String {
        let project = project_of(&self.name).unwrap_or_default();
        let name = short(&self.name);
        format!("gcloud pubsub subscriptions update {name} --project={project} {options}")
    }

    /// The command that sets everything about the push: setting a part of it unsets the rest.
    fn update_push(&self, wanted: &Wanted<'_>) -> String {
        let auth = &wanted.config.push_auth;
        let given = self.push_config.endpoint();
        let home = wanted.service.and_then(|it| it.uri.as_deref());
        let elsewhere =
            |url: &Url| home.is_some() && !wanted.service.is_some_and(|it| it.serves(url));
        let endpoint = match given.filter(|url| !elsewhere(url)) {
            Some(mut url) => {
                url.set_path("/push");
                url.to_string()
            }
            None => format!("{}/push", home.unwrap_or("https://SERVICE")),
        };
        let keep = |given: Option<&str>, known: &[String]| {
            let kept = known.iter().find(|known| given == Some(known.as_str()));
            kept.or(known.first()).cloned().unwrap_or_default()
        };
        let account = keep(self.push_config.account(), &auth.service_accounts);
        let audience = keep(self.push_config.audience(), &auth.audiences);
        format!(
            "gcloud pubsub subscriptions modify-push-config {} --project={} --push-endpoint={} \
             --push-auth-service-account={} --push-auth-token-audience={}",
            short(&self.name),
            project_of(&self.name).unwrap_or_default(),
            word(&endpoint),
            word(&account),
            word(&audience)
        )
    }
}

fn of_topic(subscription: &Subscription) -> Finding {
    const CHECK: &str = "subscription";
    if subscription.topic == DELETED_TOPIC {
        let name = short(&subscription.name);
        let project = project_of(&subscription.name).unwrap_or_default();
        let advice = "nothing reaches it any more, and it cannot be moved to another topic: \
                      create the topic and the subscription anew (terraform apply)";
        return Finding::failed(CHECK, "its topic was deleted", advice).mend(format!(
            "gcloud pubsub subscriptions delete {name} --project={project}"
        ));
    }
    if subscription.state.as_deref() == Some("RESOURCE_ERROR") {
        let advice = "Pub/Sub has stopped delivering; look for the reason";
        let command = format!("gcloud pubsub subscriptions describe {}", subscription.name);
        return Finding::failed(CHECK, "is in an error state", advice).mend(command);
    }
    let found = format!("takes from `{}`", short(&subscription.topic));
    Finding::ok(CHECK, found)
}

fn of_endpoint(subscription: &Subscription, wanted: &Wanted<'_>) -> Finding {
    const CHECK: &str = "push endpoint";
    let mend = || subscription.update_push(wanted);
    let Some(endpoint) = subscription.push_config.endpoint() else {
        let advice = "it waits to be pulled, and the service does not pull: no event is handled";
        return Finding::failed(CHECK, "is not set", advice).mend(mend());
    };
    if endpoint.path() != "/push" {
        let found = format!("its path is `{}`", endpoint.path());
        let advice = "the service takes pushes on /push and answers 404 anywhere else, so that \
                      every event ends as a dead letter";
        return Finding::failed(CHECK, found, advice).mend(mend());
    }
    let tagged = endpoint.host_str().is_some_and(|host| host.contains("---"));
    match wanted.service {
        Some(_) if tagged => Finding::warning(
            CHECK,
            "goes to the tag of a revision",
            "events stay with that revision whatever gets the traffic",
        )
        .mend(mend()),
        Some(service) if !service.serves(&endpoint) => Finding::warning(
            CHECK,
            "is not an address of the Cloud Run service",
            "unless it is a domain or load balancer in front of it, the service gets nothing",
        )
        .mend(mend()),
        Some(_) => Finding::ok(CHECK, "is the service's /push"),
        None => Finding::ok(CHECK, "its path is /push"),
    }
}

fn of_token(subscription: &Subscription, wanted: &Wanted<'_>) -> Vec<Finding> {
    let push = &subscription.push_config;
    let auth = &wanted.config.push_auth;
    let mend = || subscription.update_push(wanted);
    if push.endpoint().is_none() {
        return Vec::new(); // said already
    }
    let (Some(audience), Some(account)) = (push.audience(), push.account()) else {
        let advice = "every push is answered 401 and comes again until it is a dead letter";
        return vec![Finding::failed("push token", "none is sent", advice).mend(mend())];
    };
    let refused = |status: &str| {
        format!("every push is answered {status} and comes again until it is a dead letter")
    };
    let judged = |check: &'static str, given: &str, known: &[String], variable: &str, status| {
        if known.iter().any(|known| known == given) {
            Finding::ok(check, format!("is one of {variable}"))
        } else {
            let found = format!("is not one of {variable}");
            Finding::failed(check, found, refused(status)).mend(mend())
        }
    };
    vec![
        judged(
            "push audience",
            audience,
            &auth.audiences,
            "PUSH_AUDIENCE",
            "401",
        ),
        judged(
            "push account",
            account,
            &auth.service_accounts,
            "PUSH_SERVICE_ACCOUNT",
            "403",
        ),
    ]
}

fn of_ack_deadline(subscription: &Subscription, config: &Config) -> Finding {
    const CHECK: &str = "ack deadline";
    let given = Duration::from_secs(subscription.ack_deadline_seconds);
    let believed = config.work.ack_deadline;
    let seconds = believed.as_millis().div_ceil(1000).clamp(10, 600);
    let command = subscription.update(&format!("--ack-deadline={seconds}"));
    let found = format!("{} s", given.as_secs());
    if given == Duration::from_secs(u64::try_from(seconds).unwrap_or(600)) {
        return Finding::ok(CHECK, found);
    }
    let finding = if given <= config.work.handler_timeout {
        Finding::failed(
            CHECK,
            found,
            format!(
                "HANDLER_TIMEOUT_MS is {} ms: Pub/Sub gives up and delivers again while a handler \
                 still runs",
                config.work.handler_timeout.as_millis()
            ),
        )
    } else if given < believed {
        Finding::failed(
            CHECK,
            found,
            format!(
                "ACK_DEADLINE_MS is {} ms: the service may answer after Pub/Sub has given up",
                believed.as_millis()
            ),
        )
    } else {
        Finding::warning(
            CHECK,
            found,
            format!(
                "ACK_DEADLINE_MS is {} ms: the service does not use the time it has",
                believed.as_millis()
            ),
        )
    };
    finding.mend(command)
}

fn of_retries(subscription: &Subscription) -> Finding {
    const CHECK: &str = "retry policy";
    let command = subscription.update("--min-retry-delay=10s --max-retry-delay=600s");
    let Some(policy) = &subscription.retry_policy else {
        let advice = "what fails is delivered again at once: a short outage uses up all attempts \
                      and turns events into dead letters";
        return Finding::failed(CHECK, "none", advice).mend(command);
    };
    let or = |text: &Option<String>, otherwise| {
        text.as_deref()
            .and_then(duration)
            .unwrap_or(Duration::from_secs(otherwise))
    };
    let (least, most) = (
        or(&policy.minimum_backoff, 10),
        or(&policy.maximum_backoff, 600),
    );
    let found = format!("{} to {} s", least.as_secs(), most.as_secs());
    let Some(dead_letters) = &subscription.dead_letter_policy else {
        return Finding::ok(CHECK, found);
    };
    let attempts = match dead_letters.max_delivery_attempts {
        0 => 5, // Pub/Sub's own default
        attempts => attempts,
    };
    let lasts = lasting(least, most, attempts);
    if lasts >= OUTAGE {
        let found = format!(
            "{found}, {attempts} attempts last {} min",
            lasts.as_secs() / 60
        );
        return Finding::ok(CHECK, found);
    }

    Finding::warning(
        CHECK,
        format!("{found}, {attempts} attempts last {} s", lasts.as_secs()),
        "an outage longer than that turns every event into a dead letter",
    )
    .mend(subscription.update(&format!(
        "--min-retry-delay=10s --max-retry-delay=600s --max-delivery-attempts=100 \
             --dead-letter-topic={}",
        word(&dead_letters.dead_letter_topic)
    )))
}

/// How long `attempts` deliveries last that fail at once: waits double up to the longest.
fn lasting(least: Duration, most: Duration, attempts: u32) -> Duration {
    let mut wait = least.min(most);
    let mut all = Duration::ZERO;
    for _ in 1..attempts {
        all += wait;
        wait = (wait * 2).min(most);
    }
    all
}

fn of_expiration(subscription: &Subscription) -> Finding {
    const CHECK: &str = "expiration";
    let found = match &subscription.expiration_policy {
        Some(ExpirationPolicy { ttl: None }) => return Finding::ok(CHECK, "never"),
        Some(ExpirationPolicy { ttl: Some(ttl) }) => match duration(ttl) {
            Some(ttl) => format!("after {} idle days", ttl.as_secs() / DAY.as_secs()),
            None => "after a while without use".to_owned(),
        },
        None => "after 31 idle days".to_owned(),
    };
    let advice = "Pub/Sub deletes it then without a word, with everything in it";
    let command = subscription.update("--expiration-period=never");
    Finding::failed(CHECK, found, advice).mend(command)
}

fn of_dead_letters(subscription: &Subscription, wanted: &Wanted<'_>) -> Finding {
    const CHECK: &str = "dead-letter policy";
    let topic = full_topic(&wanted.config.bus.dead_letter_topic, wanted.project);
    let command = subscription.update(&format!(
        "--dead-letter-topic={} --max-delivery-attempts=100",
        word(&topic)
    ));
    match &subscription.dead_letter_policy {
        None => {
            let advice = "an event that never succeeds comes again until the retention is over, \
                          and is gone then without a trace";
            Finding::failed(CHECK, "none", advice).mend(command)
        }
        Some(policy) if policy.dead_letter_topic == subscription.topic => {
            let advice = "a dead letter comes back as a new message, for ever";
            Finding::failed(CHECK, "goes to its own topic", advice).mend(command)
        }
        Some(policy) if policy.dead_letter_topic == DELETED_TOPIC => {
            let advice = "an event that uses up its attempts cannot be put away";
            Finding::failed(CHECK, "its topic was deleted", advice).mend(command)
        }
        Some(policy) => Finding::ok(CHECK, format!("to `{}`", short(&policy.dead_letter_topic))),
    }
}

fn of_retention(subscription: &Subscription) -> Option<Finding> {
    let kept = duration(subscription.message_retention_duration.as_deref()?)?;
    let command = subscription.update("--message-retention-duration=7d");
    (kept < DAY).then(|| {
        let found = format!("{} min", kept.as_secs() / 60);
        let advice = "events that wait longer, for an outage of a night, are dropped";
        Finding::warning("message retention", found, advice).mend(command)
    })
}

fn of_wrapper(subscription: &Subscription) -> Option<Finding> {
    let unwrapped = subscription.push_config.no_wrapper.as_ref()?;
    let command = subscription.update("--push-no-wrapper --push-no-wrapper-write-metadata");
    (!unwrapped.write_metadata).then(|| {
        let found = "unwrapped, without metadata";
        let advice = "message id, attributes and attempt are lost on the way";
        Finding::warning("push wrapper", found, advice).mend(command)
    })
}

/// Returns the full name of a topic given short or in full.
pub(super) fn full_topic(name: &str, project: &str) -> String {
    if name.starts_with("projects/") {
        name.to_owned()
    } else {
        format!("projects/{project}/topics/{name}")
    }
}

/// Reads a duration as Google's APIs write it: `600s`, `1.5s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let seconds = text.strip_suffix('s')?.parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let seconds = Duration::from_secs;

        assert_eq!(lasting(seconds(10), seconds(600), 5), seconds(150));
        assert_eq!(lasting(seconds(10), seconds(15), 4), seconds(40));
        assert_eq!(lasting(seconds(0), seconds(600), 100), seconds(0));
        assert!(lasting(seconds(10), seconds(600), 100) > seconds(15 * 3600));
    }

    #[test]
    fn durations_are_seconds_with_a_fraction() {
        assert_eq!(duration("600s"), Some(Duration::from_secs(600)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("600"), None);
        assert_eq!(duration("-1s"), None);
    }

    #[test]
    fn the_query_of_an_endpoint_is_never_shown() {
        let push = PushConfig {
            push_endpoint: "https://u:canary@hooks.example/push?token=canary".to_owned(),
            ..PushConfig::default()
        };

        assert_eq!(
            push.endpoint().unwrap().as_str(),
            "https://hooks.example/push"
        );
    }
}
