//! Limits that have to fit each other; nobody is asked for that.

use std::time::Duration;

use super::google::Service;
use super::report::Finding;
use super::settings::set;
use crate::config::Config;

/// Time the service should have to publish and answer after its handlers have ended.
const MARGIN: Duration = Duration::from_secs(5);

/// A message of 10 MB, Pub/Sub's limit, in base64 with its envelope and attributes.
const LARGEST_PUSH: usize = 13_500_000;

/// Looks at what the configuration alone says.
pub(super) fn judge(config: &Config, service: Option<&Service>) -> Vec<Finding> {
    vec![of_time(config, service), of_size(config, service)]
}

fn of_time(config: &Config, service: Option<&Service>) -> Finding {
    const CHECK: &str = "time budget";
    let work = &config.work;
    let left = work.ack_deadline.saturating_sub(work.handler_timeout);
    let found = format!("{} ms after the handlers' timeout", left.as_millis());
    if left >= MARGIN {
        return Finding::ok(CHECK, found);
    }
    let timeout = work.ack_deadline.saturating_sub(MARGIN).as_millis();
    let command = set(service, "HANDLER_TIMEOUT_MS", &timeout.to_string());
    let advice = "an answer that comes after the ack deadline is none: the event comes again";
    Finding::warning(CHECK, found, advice).mend(command)
}

fn of_size(config: &Config, service: Option<&Service>) -> Finding {
    const CHECK: &str = "payload size";
    let most = config.server.max_body_bytes;
    if most >= LARGEST_PUSH {
        return Finding::ok(CHECK, "the largest message fits");
    }
    let advice = "Pub/Sub takes messages of 10 MB, 13.5 MB as a push: larger bodies are answered \
                  413 until they are dead letters";
    Finding::warning(CHECK, format!("bodies up to {most} bytes"), advice).mend(set(
        service,
        "MAX_BODY_BYTES",
        "14680064",
    ))
}
