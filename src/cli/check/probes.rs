//! Asks each dependency one harmless question.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::database;
use super::google::{keep, short};
use super::report::{Finding, State, word};
use super::settings::Settings;
use crate::brokers::{Publisher, PubsubBroker};
use crate::clients::chargebee::Chargebee;
use crate::clients::hasura::Hasura;
use crate::clock::{Deadline, SharedClock};
use crate::config::{BusType, Config, PushAuthConfig, PushAuthMode};
use crate::error::{BoxError, Error};
use crate::ingress::OidcVerifier;
use crate::telemetry::Metrics;

/// Time for one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// A clock that is further off makes good tokens look expired or not yet valid.
const MAX_SKEW: Duration = Duration::from_secs(30);

/// Asks everything at once and returns the answers in a fixed order.
pub(super) async fn all(
    settings: &Settings,
    clock: &SharedClock,
    metrics: &Arc<Metrics>,
) -> Vec<Finding> {
    let config = &settings.config;
    let (keys, skew, hasura, chargebee, topics, database) = tokio::join!(
        keys(&config.push_auth, clock, metrics),
        skew(&config.push_auth.jwks_url, clock),
        async {
            match settings.skip("Hasura", "HASURA_ADMIN_SECRET") {
                Some(skipped) => skipped,
                None => hasura(config, clock, metrics).await,
            }
        },
        async {
            match settings.skip("Chargebee", "CHARGEBEE_API_KEY") {
                Some(skipped) => skipped,
                None => chargebee(config, clock, metrics).await,
            }
        },
        topics(settings, clock),
        async {
            match settings.skip("database", "DATABASE_URL") {
                Some(skipped) => Some(skipped),
                None => database::look(config, clock).await,
            }
        },
    );
    let mut findings = keys;
    findings.extend(skew);
    findings.extend([hasura, chargebee]);
    findings.extend(topics);
    findings.extend(database);
    findings
}

async fn keys(
    config: &PushAuthConfig,
    clock: &SharedClock,
    metrics: &Arc<Metrics>,
) -> Vec<Finding> {
    const CHECK: &str = "token keys";
    if config.mode == PushAuthMode::Platform {
        return Vec::new();
    }
    let verifier = OidcVerifier::new(config, Arc::clone(clock), Arc::clone(metrics));
    vec![match verifier.probe_keys().await {
        Ok(1) => Finding::ok(CHECK, "1 usable key"),
        Ok(count) => Finding::ok(CHECK, format!("{count} usable keys")),
        Err(error) => Finding::failed(
            CHECK,
            error.to_string(),
            "check OIDC_JWKS_URL, and that this machine may reach it",
        ),
    }]
}

/// Compares our clock with the issuer's. Its answer may be an error, as long as it has a date.
async fn skew(url: &str, clock: &SharedClock) -> Option<Finding> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build();
    let answer = client.ok()?.head(url).send().await.ok()?;
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    Some(judge_skew(
        clock.now(),
        httpdate::parse_http_date(date).ok()?,
    ))
}

fn judge_skew(ours: SystemTime, theirs: SystemTime) -> Finding {
    const CHECK: &str = "clock";
    let (off, way) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if off <= MAX_SKEW {
        return Finding::ok(CHECK, "agrees with the token issuer's");
    }
    Finding::failed(
        CHECK,
        format!("{} s {way} the token issuer's", off.as_secs()),
        "synchronise this machine's clock (NTP), or good tokens are refused",
    )
}

async fn hasura(config: &Config, clock: &SharedClock, metrics: &Arc<Metrics>) -> Finding {
    let client = Hasura::new(&config.hasura, Arc::clone(metrics), Arc::clone(clock));
    let asked = async {
        let client = client.map_err(BoxError::from)?;
        client.check().await.map_err(BoxError::from)
    };
    judge(
        "Hasura",
        asked.await,
        "HASURA_GRAPHQL_URL",
        "HASURA_ADMIN_SECRET",
    )
}

async fn chargebee(config: &Config, clock: &SharedClock, metrics: &Arc<Metrics>) -> Finding {
    let client = Chargebee::new(&config.chargebee, Arc::clone(metrics), Arc::clone(clock));
    let asked = async {
        let client = client.map_err(BoxError::from)?;
        client.check().await.map_err(BoxError::from)
    };
    judge(
        "Chargebee",
        asked.await,
        "CHARGEBEE_URL or CHARGEBEE_SITE",
        "CHARGEBEE_API_KEY",
    )
}

fn judge(check: &str, asked: Result<(), BoxError>, url: &str, secret: &str) -> Finding {
    let Err(error) = asked else {
        return Finding::ok(check, "answers, and takes our credentials");
    };
    let found = error.to_string();
    let advice = match error.downcast_ref::<Error>() {
        Some(Error::Credentials { .. }) => {
            format!("check {secret}, and the rights that go with it")
        }
        Some(Error::Unavailable { .. } | Error::OutOfTime { .. }) => {
            format!("check {url}, and that this machine may reach it")
        }
        _ => format!("check that {url} is the address of {check}'s API"),
    };
    Finding::failed(check, found, advice)
}

async fn topics(settings: &Settings, clock: &SharedClock) -> Vec<Finding> {
    let bus = &settings.config.bus;
    if bus.bus_type == BusType::Memory {
        return Vec::new();
    }
    let deadline = Deadline::after(clock, PATIENCE);
    let broker = match PubsubBroker::connect(bus).await {
        Ok(broker) => broker,
        Err(error) => return vec![judge_topic("Pub/Sub", &error, settings)],
    };
    let look = |variable, topic| look(&broker, variable, topic, &deadline, settings);
    let kept = async {
        let finding = look("DEAD_LETTER_TOPIC", &bus.dead_letter_topic).await;
        if finding.state != State::Ok
            || broker.is_unread(&bus.dead_letter_topic, &deadline).await != Some(true)
        {
            return finding;
        }
        let topic = short(&bus.dead_letter_topic);
        let project = bus.project.as_deref().unwrap_or_default();
        Finding::failed(
            "DEAD_LETTER_TOPIC",
            format!("`{topic}` has no subscription, so dead letters vanish"),
            "create a subscription on it that never expires",
        )
        .mend(keep(topic, project))
    };
    if bus.dead_letter_topic.is_empty() {
        // Dead letters are kept in the database.
        return vec![look("EVENTS_TOPIC", &bus.events_topic).await];
    }
    let (events, kept) = tokio::join!(look("EVENTS_TOPIC", &bus.events_topic), kept);
    vec![events, kept]
}

async fn look(
    broker: &PubsubBroker,
    variable: &str,
    name: &str,
    deadline: &Deadline,
    settings: &Settings,
) -> Finding {
    match broker.check(name, deadline).await {
        Ok(()) => Finding::ok(variable, format!("`{name}` takes messages")),
        Err(error) => judge_topic(variable, &error, settings),
    }
}

fn judge_topic(check: &str, error: &Error, settings: &Settings) -> Finding {
    let code = error.code();
    let project = settings.config.bus.project.as_deref().unwrap_or_default();
    let topic = match error {
        Error::Unpublished { topic, .. } => word(topic),
        _ => "TOPIC".to_owned(),
    };
    let advice = match code.as_str() {
        "topic_not_found" => {
            let advice = "create the topic, or correct its name and GOOGLE_CLOUD_PROJECT";
            let command = format!("gcloud pubsub topics create {topic} --project={project}");
            let found = format!("cannot be published to ({code})");
            return Finding::failed(check, found, advice).mend(command);
        }
        "publish_not_allowed" if settings.is_remote => {
            let found = "exists; we may not publish, which only the service has to";
            return Finding::ok(check, found);
        }
        "publish_not_allowed" => "grant the service account roles/pubsub.publisher on the topic",
        "permission_denied" => {
            return Finding::warning(
                check,
                "we may not ask whether we may publish (permission_denied)",
                "check that the topic exists and the account has roles/pubsub.publisher on it",
            );
        }
        "no_default_credentials" => {
            let found = "no Google credentials on this machine";
            let command = "gcloud auth application-default login";
            return Finding::skipped(check, found).mend(command);
        }
        "unauthenticated" => "run on Google Cloud, or `gcloud auth application-default login`",
        "invalid_topic_name" => "use a short topic name or projects/…/topics/…",
        _ => "check that this machine may reach Pub/Sub",
    };
    Finding::failed(check, format!("cannot be published to ({code})"), advice)
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_clock_that_is_off_by_a_minute_fails() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let minute = Duration::from_secs(60);

        assert_eq!(
            judge_skew(now, now - Duration::from_secs(2)).state,
            State::Ok
        );
        assert_eq!(
            judge_skew(now, now - minute).found,
            "60 s ahead of the token issuer's"
        );
        assert_eq!(judge_skew(now, now + minute).state, State::Failed);
    }

    #[test]
    fn not_being_allowed_to_look_is_no_failure() {
        let error = |code| Error::Unpublished {
            topic: "events".to_owned(),
            code: Code::new(code),
        };
        let settings = settings();
        let state = |code| judge_topic("EVENTS_TOPIC", &error(code), &settings).state;

        assert_eq!(state("permission_denied"), State::Warning);
        assert_eq!(state("publish_not_allowed"), State::Failed);
        assert_eq!(state("topic_not_found"), State::Failed);
        assert_eq!(state("no_default_credentials"), State::Skipped);
    }
}
