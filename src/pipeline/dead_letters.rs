//! Events that will not be tried again by themselves: kept with their bytes and the reason.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::{Deadline, SharedClock};
use crate::egress::Egress;
use crate::error::{Class, Code, Error};
use crate::event::{Delivery, Event, TraceContext, derived_id};
use crate::store::dead_letters::NewDeadLetter;
use crate::store::outbox::OutboxRow;
use crate::store::{DeliveryNote, micros_of};

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
        self.keep(&event.delivery, identity(event), cause, deadline)
            .await
    }

    /// Makes the row that keeps an event in the database.
    pub fn row_of_event(
        &self,
        event: &Event,
        cause: &Cause,
        source: &'static str,
        generation: i32,
        tries: u32,
    ) -> NewDeadLetter {
        let trace = cause.trace.or(event.trace);
        NewDeadLetter {
            event_key: event.id.to_string(),
            event_type: event.event_type.to_string(),
            generation,
            correlation_id: Some(event.correlation_id().to_owned()),
            trace_id: trace.map(|trace| trace.trace_id()),
            retry_count: i32::try_from(tries).unwrap_or(i32::MAX),
            first_at: micros_of(
                event
                    .created_at
                    .or(event.delivery.publish_time)
                    .unwrap_or_else(|| self.clock.now()),
            ),
            ..self.row_of_delivery(&event.delivery, cause, source)
        }
    }

    /// Makes the row that keeps a delivery in the database.
    pub fn row_of_delivery(
        &self,
        delivery: &Delivery,
        cause: &Cause,
        source: &'static str,
    ) -> NewDeadLetter {
        let first = delivery.publish_time.unwrap_or_else(|| self.clock.now());
        // Without an id of the message its bytes are all that tells it from others.
        let key = delivery.message_id.clone().unwrap_or_else(|| {
            let hash = xxhash_rust::xxh3::xxh3_128(&delivery.data);
            format!("bytes-{hash:032x}")
        });
        NewDeadLetter {
            event_key: key,
            event_type: "undecodable".to_owned(),
            source,
            handler: cause.handler.map(str::to_owned),
            generation: 0,
            error_class: cause.class.as_str().to_owned(),
            error_code: cause.code.to_string(),
            error_message: cause.reason.clone(),
            retry_count: i32::try_from(delivery.attempt.unwrap_or(1)).unwrap_or(i32::MAX),
            message_id: delivery.message_id.clone(),
            correlation_id: None,
            trace_id: cause.trace.map(|trace| trace.trace_id()),
            original: delivery.data.to_vec(),
            delivery: DeliveryNote::of(delivery).to_json(),
            first_at: micros_of(first),
        }
    }

    /// Makes the outbox rows of the copy for the dead-letter topic, if there is one.
    pub fn outbox_of_event(&self, event: &Event, cause: &Cause) -> Vec<OutboxRow> {
        let key = event.id.as_str();
        self.outbox(&event.delivery, identity(event), key, cause)
    }

    /// As [`DeadLetters::outbox_of_event`], for a delivery that holds no event.
    pub fn outbox_of_delivery(&self, delivery: &Delivery, cause: &Cause) -> Vec<OutboxRow> {
        let key = delivery.message_id.as_deref().unwrap_or_default();
        self.outbox(delivery, [], key, cause)
    }

    fn outbox<const N: usize>(
        &self,
        delivery: &Delivery,
        identity: [(&str, String); N],
        key: &str,
        cause: &Cause,
    ) -> Vec<OutboxRow> {
        let Some(topic) = self.egress.dead_letter_topic() else {
            return Vec::new();
        };
        let attributes = self.attributes(delivery, identity, cause);
        let handler = cause.handler.unwrap_or("none");
        let time = rfc3339(self.clock.now());
        self.parts(&delivery.data, attributes)
            .into_iter()
            .map(|(data, attributes)| {
                let part = data.len().to_string();
                let number = attributes.iter().find(|(name, _)| name == PART);
                let number = number.map_or("1/1", |(_, number)| number.as_str());
                let parts = ["dead_letter_copy", key, handler, &time, number, &part];
                OutboxRow {
                    message_id: derived_id(&parts).to_string(),
                    topic: topic.to_owned(),
                    ordering_key: None,
                    event_type: "dead_letter".to_owned(),
                    cause_id: key.to_owned(),
                    handler: handler.to_owned(),
                    correlation_id: None,
                    trace_id: cause.trace.map(|trace| trace.trace_id()),
                    data,
                    attributes,
                }
            })
            .collect()
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
        let attributes = self.attributes(delivery, identity, cause);
        for (data, attributes) in self.parts(&delivery.data, attributes) {
            self.egress
                .publish_dead_letter(data, attributes, cause.trace.as_ref(), deadline)
                .await?;
        }
        Ok(())
    }

    fn attributes<const N: usize>(
        &self,
        delivery: &Delivery,
        identity: [(&str, String); N],
        cause: &Cause,
    ) -> Vec<(String, String)> {
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
        attributes
    }

    /// Makes one message of the bytes, or parts numbered `1/2`, `2/2` when the broker would
    /// refuse the whole: handing it back instead would send it round for days.
    fn parts(
        &self,
        data: &Bytes,
        attributes: Vec<(String, String)>,
    ) -> Vec<(Bytes, Vec<(String, String)>)> {
        let labels: usize = attributes.iter().map(|(k, v)| k.len() + v.len()).sum();
        let most = self.egress.max_message_bytes();
        // Endless labels are cut by the broker's limits, so half of it is always there.
        let room = most.saturating_sub(labels + PART_BYTES).max(most / 2);
        if data.len() <= room {
            return vec![(data.clone(), attributes)];
        }
        let count = data.len().div_ceil(room);
        (0..count)
            .map(|part| {
                let bytes = data.slice(part * room..data.len().min((part + 1) * room));
                let mut attributes = attributes.clone();
                let number = format!("{}/{count}", part + 1);
                attributes.push((PART.to_owned(), number));
                (bytes, attributes)
            })
            .collect()
    }
}

fn identity(event: &Event) -> [(&'static str, String); 2] {
    [
        ("event-id", event.id.to_string()),
        ("event-type", clip(event.event_type.as_str())),
    ]
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
