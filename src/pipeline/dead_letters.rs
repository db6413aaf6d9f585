//! Events that will not be tried again by themselves: kept with their bytes and the reason.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::{Deadline, SharedClock};
use crate::egress::Egress;
use crate::error::{Class, Code, Error};
use crate::event::{Delivery, Event, TraceContext};

/// Prefix of every attribute this service adds to a dead letter.
pub const ATTRIBUTE_PREFIX: &str = "hookyard-";

/// Most attributes of a Pub/Sub message (<https://cloud.google.com/pubsub/quotas>).
const MAX_ATTRIBUTES: usize = 100;

/// Tells which part of a dead letter a message holds: `1/2`.
const PART: &str = "hookyard-part";

/// Kept free in every message for the number of a part.
const PART_BYTES: usize = 64;

/// Why something became a dead letter. Holds words of this program only, no values.
#[derive(Debug, Clone)]
pub struct Cause {
    /// For people.
    pub reason: String,
    /// Whether trying again could have helped.
    pub class: Class,
    /// Machine-readable.
    pub code: Code,
    /// The handler that failed; `None` when no handler saw the event.
    pub handler: Option<&'static str>,
    /// The span that failed; `None` when there is none.
    pub trace: Option<TraceContext>,
}

/// Keeps dead letters.
pub struct DeadLetters {
    egress: Arc<Egress>,
    clock: SharedClock,
    revision: String,
}

impl DeadLetters {
    /// Makes the keeper; `revision` names the running version of the service.
    pub fn new(egress: Arc<Egress>, clock: SharedClock, revision: String) -> Self {
        Self {
            egress,
            clock,
            revision,
        }
    }

    /// Keeps an event that was decoded.
    ///
    /// # Errors
    /// When the broker did not confirm it; the event must not be acknowledged then.
    pub async fn keep_event(
        &self,
        event: &Event,
        cause: &Cause,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        let identity = [
            ("event-id", event.id.to_string()),
            ("event-type", clip(event.event_type.as_str())),
        ];
        self.keep(&event.delivery, identity, cause, deadline).await
    }

    /// Keeps a delivery that holds no event.
    ///
    /// # Errors
    /// As [`DeadLetters::keep_event`].
    pub async fn keep_delivery(
        &self,
        delivery: &Delivery,
        cause: &Cause,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        self.keep(delivery, [], cause, deadline).await
    }

    async fn keep<const N: usize>(
        &self,
        delivery: &Delivery,
        identity: [(&str, String); N],
        cause: &Cause,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let mut ours = vec![
            ("reason", clip(&cause.reason)),
            ("error-class", cause.class.as_str().to_owned()),
            ("error-code", cause.code.to_string()),
            ("first-time", rfc3339(delivery.publish_time.unwrap_or(now))),
            ("last-time", rfc3339(now)),
            ("service-revision", clip(&self.revision)),
        ];
        ours.extend(identity);
        ours.extend(cause.handler.map(|name| ("handler", name.to_owned())));
        ours.extend(
            delivery
                .message_id
                .as_deref()
                .map(|id| ("source-message-id", clip(id))),
        );
        ours.extend(
            delivery
                .attempt
                .map(|attempt| ("delivery-attempt", attempt.to_string())),
        );

        let mut attributes: Vec<(String, String)> = ours
            .into_iter()
            .map(|(name, value)| (format!("{ATTRIBUTE_PREFIX}{name}"), value))
            .collect();
        let room = MAX_ATTRIBUTES - attributes.len() - 1; // one for the number of a part
        // An event that was redriven and failed again carries the new reason only, and a part of
        // one still says which part it is.
        let original = delivery
            .attributes
            .iter()
            .filter(|(name, _)| !name.starts_with(ATTRIBUTE_PREFIX) || name == PART);
        attributes.extend(original.take(room).cloned());
        self.publish(&delivery.data, attributes, cause.trace.as_ref(), deadline)
            .await
    }

    /// Publishes the bytes as one message, or in parts numbered `1/2`, `2/2` when the broker
    /// would refuse the whole: handing it back instead would send it round for days.
    async fn publish(
        &self,
        data: &Bytes,
        attributes: Vec<(String, String)>,
        trace: Option<&TraceContext>,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        let labels: usize = attributes.iter().map(|(k, v)| k.len() + v.len()).sum();
        let most = self.egress.max_message_bytes();
        // Endless labels are cut by the broker's limits, so half of it is always there.
        let room = most.saturating_sub(labels + PART_BYTES).max(most / 2);
        if data.len() <= room {
            return self
                .egress
                .publish_dead_letter(data.clone(), attributes, trace, deadline)
                .await;
        }
        let count = data.len().div_ceil(room);
        for part in 0..count {
            let bytes = data.slice(part * room..data.len().min((part + 1) * room));
            let mut attributes = attributes.clone();
            let number = format!("{}/{count}", part + 1);
            attributes.push((PART.to_owned(), number));
            self.egress
                .publish_dead_letter(bytes, attributes, trace, deadline)
                .await?;
        }
        Ok(())
    }
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// Shortens to what fits in an attribute value (1,024 bytes).
fn clip(text: &str) -> String {
    let mut end = text.len().min(1000);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
