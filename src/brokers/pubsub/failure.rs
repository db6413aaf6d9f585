//! Turns what the client library says into an [`Error`] of ours: later, never, or our own fault.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use google_cloud_gax::error::rpc::Code as Rpc;
use google_cloud_pubsub::error::PublishError;

use crate::clock::Deadline;
use crate::error::{Code, Error};

/// At most one alert in this time, or a wrong topic would be told once per event.
const ALERT_EVERY: Duration = Duration::from_secs(60);

/// When somebody was last told that our configuration is at fault.
#[derive(Default)]
pub(super) struct Alerts(Mutex<Option<Instant>>);

impl Alerts {
    fn due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= ALERT_EVERY);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nobody's for long: the broker may take the message later.
    Broker,
    /// Ours: topic, rights or key are wrong. Every message would fail, so none is given up.
    Ours,
    /// The message's.
    Message,
}

/// Returns the error of a publication, and alerts the operator when our configuration is at fault.
pub(super) fn of_publication(
    topic: &str,
    error: &PublishError,
    alerts: &Alerts,
    deadline: &Deadline,
) -> Error {
    let (code, fault) = match error {
        PublishError::Rpc(error) => of_rpc(error),
        PublishError::OrderingKeyPaused => ("ordering_key_paused", Fault::Broker),
        _ => ("shut_down", Fault::Broker),
    };
    if fault == Fault::Ours && alerts.due(deadline.clock().monotonic()) {
        tracing::error!(
            topic,
            error.code = code,
            "topic cannot be published to, check that it exists and that the service account has roles/pubsub.publisher on it"
        );
    }
    error_of(topic, code, fault)
}

/// Returns the error of a question about a topic.
pub(super) fn of_question(topic: &str, error: &google_cloud_gax::error::Error) -> Error {
    let (code, fault) = of_rpc(error);
    // A question never refuses a message, whatever the broker calls it.
    let fault = if fault == Fault::Message {
        Fault::Ours
    } else {
        fault
    };
    error_of(topic, code, fault)
}

/// Returns the error of a subscription's stream.
pub(super) fn of_subscription(error: &google_cloud_gax::error::Error) -> Error {
    let code = match of_rpc(error).0 {
        "topic_not_found" => "subscription_not_found",
        code => code,
    };
    Error::Unavailable {
        service: "pubsub",
        code: Code::new(code),
        retry_after: None,
        source: None,
    }
}

/// Returns the error for a client that could not be made.
pub(super) fn no_client() -> Error {
    Error::Credentials {
        service: "pubsub",
        code: Code::new("no_default_credentials"),
    }
}

fn error_of(topic: &str, code: &'static str, fault: Fault) -> Error {
    let topic = topic.to_owned();
    let code = Code::new(code);
    match fault {
        Fault::Broker | Fault::Ours => Error::Unpublished { topic, code },
        Fault::Message => Error::Unpublishable { topic, code },
    }
}

/// Status codes: <https://cloud.google.com/pubsub/docs/reference/error-codes>.
fn of_rpc(error: &google_cloud_gax::error::Error) -> (&'static str, Fault) {
    if error.is_authentication() {
        return ("unauthenticated", Fault::Ours);
    }
    if let Some(status) = error.status() {
        return match status.code {
            Rpc::InvalidArgument => ("invalid_argument", Fault::Message),
            Rpc::NotFound => ("topic_not_found", Fault::Ours),
            Rpc::PermissionDenied => ("permission_denied", Fault::Ours),
            Rpc::Unauthenticated => ("unauthenticated", Fault::Ours),
            Rpc::FailedPrecondition => ("failed_precondition", Fault::Ours),
            Rpc::Unimplemented => ("unimplemented", Fault::Ours),
            Rpc::ResourceExhausted => ("quota_exhausted", Fault::Broker),
            Rpc::DeadlineExceeded => ("deadline_exceeded", Fault::Broker),
            Rpc::Unavailable => ("unavailable", Fault::Broker),
            Rpc::Internal => ("internal", Fault::Broker),
            Rpc::Aborted => ("aborted", Fault::Broker),
            Rpc::Cancelled => ("cancelled", Fault::Broker),
            _ => ("unknown", Fault::Broker),
        };
    }
    let code = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connection_failed"
    } else if error.is_io() || error.is_transport() {
        "connection_lost"
    } else {
        "unknown"
    };
    (code, Fault::Broker)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use google_cloud_gax::error::rpc::Status;

    use super::*;
    use crate::clock::{Clock, ManualClock, SharedClock};
    use crate::error::Class;

    fn error_for(code: Rpc) -> Error {
        let clock: SharedClock = ManualClock::start();
        let status = Status::default().set_code(code).set_message("row 4711");
        let error = PublishError::Rpc(Arc::new(google_cloud_gax::error::Error::service(status)));
        of_publication(
            "events",
            &error,
            &Alerts::default(),
            &Deadline::after(&clock, ALERT_EVERY),
        )
    }

    #[test]
    fn only_a_bad_message_is_given_up() {
        for code in [
            Rpc::NotFound,
            Rpc::PermissionDenied,
            Rpc::Unavailable,
            Rpc::Unauthenticated,
        ] {
            assert_eq!(error_for(code).class(), Class::Transient, "{code:?}");
        }
        assert_eq!(error_for(Rpc::InvalidArgument).class(), Class::Permanent);
    }

    #[test]
    fn the_brokers_own_words_are_not_passed_on() {
        assert!(!error_for(Rpc::InvalidArgument).to_string().contains("4711"));
    }

    #[test]
    fn an_alert_is_given_once_a_minute() {
        let (alerts, clock) = (Alerts::default(), ManualClock::start());
        assert!(alerts.due(clock.monotonic()));
        assert!(!alerts.due(clock.monotonic()));
        clock.advance(ALERT_EVERY);
        assert!(alerts.due(clock.monotonic()));
    }
}
