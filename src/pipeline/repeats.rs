//! What kind of repeat an event is that was completed before.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

use super::inbox::{Earlier, Marks};
use crate::event::{Event, MAX_CORRELATION_BYTES};
use crate::store::inbox::{Ended, Facts};
use crate::store::time_of;

/// A delivery of Hasura's this long after the completion, with its retry counter set back, was
/// asked for by an operator: Hasura's own retries and Pub/Sub's redeliveries are over by then or
/// bear other marks.
const OPERATORS_LATER: Duration = Duration::from_secs(30 * 60);

/// Why an event came again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Pub/Sub delivered the same message again.
    PubsubRedelivery,
    /// Hasura sent it again, because it did not learn that it had arrived.
    HasuraRetry,
    /// Whoever publishes it did so twice.
    DoublePublish,
    /// Somebody had Hasura deliver it again.
    OperatorRedelivery,
    /// It is another event under the same id.
    IdReuse,
}

impl Repeat {
    /// Returns the word used in tables, logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::PubsubRedelivery => "pubsub_redelivery",
            Self::HasuraRetry => "hasura_retry",
            Self::DoublePublish => "double_publish",
            Self::OperatorRedelivery => "operator_redelivery",
            Self::IdReuse => "id_reuse",
        }
    }

    /// Judges an event by what is known of its completed run.
    pub(super) fn judge(marks: &Marks, earlier: &Earlier, now: SystemTime) -> Self {
        let later = now.duration_since(earlier.at).unwrap_or_default();
        let set_back = marks.hasura_retry <= earlier.hasura_retry;
        if !earlier.same_content {
            Self::IdReuse
        } else if marks.message.is_some() && marks.message == earlier.message {
            Self::PubsubRedelivery
        } else if marks.hasura_retry > earlier.hasura_retry {
            Self::HasuraRetry
        } else if marks.hasura_retry == Some(0) && set_back && later > OPERATORS_LATER {
            Self::OperatorRedelivery
        } else {
            Self::DoublePublish
        }
    }
}

/// Returns what tells this delivery from others of the same event.
pub(super) fn marks_of(event: &Event) -> Marks {
    let message = event.delivery.message_id.as_deref();
    Marks {
        content: (!event.from_table).then(|| hash(event.fingerprint())),
        message: message.map(|id| hash(xxh3_64(id.as_bytes()))),
        hasura_retry: event.hasura_retry.and_then(|n| u32::try_from(n).ok()),
    }
}

/// Returns what is kept with a claim for the event.
pub(super) fn facts_of(event: &Event) -> Facts {
    let marks = marks_of(event);
    let correlation = event.correlation_id();
    let message_id = event.delivery.message_id.as_deref();
    let message_id = message_id.filter(|id| id.len() <= MAX_CORRELATION_BYTES);
    Facts {
        event_type: clean(event.event_type.as_str()),
        body_hash: marks.content.map(|hash| hash.get().cast_signed()),
        hasura_id: event
            .hasura_retry
            .is_some()
            .then(|| clean(event.id.as_str())),
        message_id: message_id.map(clean),
        hasura_retry: marks.hasura_retry.and_then(|n| i32::try_from(n).ok()),
        correlation_id: (correlation != event.id.as_str()).then(|| clean(correlation)),
        trace_id: event.trace.as_ref().map(|trace| trace.trace_id()),
    }
}

/// Returns the key of an event's claims in the database.
pub(super) fn claim_key(event: &Event) -> String {
    clean(event.id.as_str())
}

/// PostgreSQL's text takes every character but this one.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{2400}")
}

/// Says of a run in the database what is remembered of those of this process.
pub(super) fn earlier(ended: &Ended, event: &Event) -> Earlier {
    let content = ended
        .body_hash
        .and_then(|hash| NonZeroU64::new(hash.cast_unsigned()));
    let message = ended.message_id.as_deref();
    Earlier {
        at: time_of(ended.at),
        attempt: u32::try_from(ended.attempt).unwrap_or(1),
        same_content: marks_of(event).same_content(content),
        message: message.map(|id| hash(xxh3_64(id.as_bytes()))),
        hasura_retry: ended.hasura_retry.and_then(|n| u32::try_from(n).ok()),
    }
}

fn hash(hash: u64) -> NonZeroU64 {
    NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Delivery;

    fn event(message: &str, retry: u64) -> Event {
        let data = format!(
            r#"{{"id":"e","table":{{"schema":"public","name":"t"}},"trigger":{{"name":"n"}},
            "event":{{"op":"INSERT","data":{{"old":null,"new":{{"id":1}}}}}},
            "delivery_info":{{"current_retry":{retry},"max_retries":5}}}}"#
        );
        Event::decode(Delivery {
            data: data.into(),
            message_id: Some(message.to_owned()),
            ..Delivery::default()
        })
        .unwrap()
    }

    fn completed(event: &Event, at: SystemTime) -> Earlier {
        let marks = marks_of(event);
        Earlier {
            at,
            attempt: 1,
            same_content: true,
            message: marks.message,
            hasura_retry: marks.hasura_retry,
        }
    }

    #[test]
    fn repeats_are_told_apart_by_message_retry_counter_and_time() {
        let then = SystemTime::UNIX_EPOCH;
        let soon = then + Duration::from_secs(60);
        let late = then + Duration::from_secs(31 * 60);
        let first = completed(&event("m1", 0), then);
        let judge =
            |message, retry, now| Repeat::judge(&marks_of(&event(message, retry)), &first, now);
        assert_eq!(judge("m1", 0, late), Repeat::PubsubRedelivery);
        assert_eq!(judge("m2", 1, late), Repeat::HasuraRetry);
        assert_eq!(judge("m2", 0, soon), Repeat::DoublePublish);
        assert_eq!(judge("m2", 0, late), Repeat::OperatorRedelivery);
    }
}
