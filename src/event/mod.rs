//! What an event is: data and decoding, no IO.

mod change;
mod depth;
mod hasura;
mod json;
mod push;
mod trace_context;

pub mod contracts;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use uuid::Uuid;

pub use change::{Change, Row, RowChange};
pub use depth::{CAUSE_VARIABLE, DEPTH_ATTRIBUTE, DEPTH_VARIABLE, depth_of};
pub use hasura::{Op, Scheduled, ScheduledTrigger};
pub(crate) use json::{parse_json, with_id};
pub use push::{Delivery, unwrap_push};
pub use trace_context::TraceContext;

/// Longest accepted event id in bytes; Hasura's are 36.
pub const MAX_ID_BYTES: usize = 256;

/// Longest id of what an event belongs to, in bytes: what Pub/Sub takes as an attribute. A longer
/// one is none.
pub const MAX_CORRELATION_BYTES: usize = 1024;

/// The namespace of all ids derived from events, itself UUID v5 of the DNS name `hookyard.dev`.
const NAMESPACE: Uuid = Uuid::from_u128(0x63b5_ee9e_8937_547b_82e8_bc01_91f0_65a3);

/// Derives a UUID v5 from parts; no two lists of parts give the same text.
pub fn derived_id(parts: &[&str]) -> Uuid {
    let mut name = String::new();
    for part in parts {
        name.push_str(&format!("{}:{part}", part.len()));
    }
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// The id of an event: an opaque string, compared byte by byte.
///
/// Hasura's ids are usually UUIDs, but the column is text and other publishers use other ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventId(Arc<str>);

impl EventId {
    /// Takes an id of 1 to [`MAX_ID_BYTES`] bytes that is not blank.
    pub fn new(id: &str) -> Option<Self> {
        (id.len() <= MAX_ID_BYTES && !id.trim().is_empty()).then(|| Self(id.into()))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of event: `contracts.update`, `cron.nightly`, `contract.activated`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventType(Arc<str>);

impl EventType {
    /// Takes the name of an event type as it is.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the type of a table event: `table.op` in lower case, with the schema in front
    /// unless it is `public`.
    pub fn of_table(schema: &str, table: &str, op: Op) -> Self {
        let mut name = String::with_capacity(schema.len() + table.len() + 8);
        if !schema.is_empty() && schema != "public" {
            name.push_str(schema);
            name.push('.');
        }
        name.push_str(table);
        name.make_ascii_lowercase();
        name.push('.');
        name.push_str(op.as_str());
        Self(name.into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an event carries.
#[derive(Debug, Clone)]
pub enum Body {
    /// A row changed in Hasura's database.
    Row(RowChange),
    /// A Hasura cron or one-off trigger fired.
    Scheduled(ScheduledTrigger),
    /// A domain event: the message's bytes, as they came.
    Message(Bytes),
}

/// What a row of the `events` table says.
#[derive(Debug, Clone, Default)]
pub struct TableRow {
    /// The event's id.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// What it is about.
    pub subject: Option<String>,
    /// Its payload, as JSON.
    pub payload: String,
    /// When it happened.
    pub created_at: Option<SystemTime>,
    /// The story it belongs to.
    pub correlation_id: Option<String>,
    /// The event it follows from.
    pub causation_id: Option<String>,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
    /// How many of our own writes lie behind it.
    pub depth: u32,
}

impl TableRow {
    /// Takes what the row's `metadata` says, as JSON; other members are nobody's business here.
    #[must_use]
    pub fn noted(mut self, metadata: &serde_json::Map<String, serde_json::Value>) -> Self {
        let text = |name: &str| Some(metadata.get(name)?.as_str()?.to_owned());
        self.correlation_id = text("correlation_id");
        self.causation_id = text("causation_id");
        self.traceparent = text("traceparent");
        let depth = metadata.get("event_depth").and_then(|depth| depth.as_u64());
        self.depth = depth.map_or(0, |depth| u32::try_from(depth).unwrap_or(u32::MAX));
        self
    }
}

/// Something that happened. Immutable; cheap to clone.
#[derive(Debug, Clone)]
pub struct Event {
    /// The publisher's id, the same for every delivery of this event.
    pub id: EventId,
    /// What kind of event.
    pub event_type: EventType,
    /// Name of the Hasura trigger; `None` for domain events.
    pub trigger: Option<Arc<str>>,
    /// What it carries.
    pub body: Body,
    /// When it happened, as far as the publisher says so.
    pub created_at: Option<SystemTime>,
    /// The trace this event belongs to.
    pub trace: Option<TraceContext>,
    /// Hasura's own retry counter, 0 on its first try.
    pub hasura_retry: Option<u64>,
    /// How many of our own writes and emitted events lie behind this one, 0 for an event whose
    /// cause is outside. A chain that does not end is a loop.
    pub depth: u32,
    /// Whether it was read from a table, where it is not kept as its sender wrote it.
    pub from_table: bool,
    /// Whether it is run from what was kept of its delivery: that is a try of ours, and no delivery.
    pub kept: bool,
    /// How it arrived, with the original bytes.
    pub delivery: Delivery,
}

impl Event {
    /// Decodes what a delivery says.
    ///
    /// # Errors
    /// [`Undecodable`] with the delivery, whose bytes are then kept as a dead letter.
    pub fn decode(delivery: Delivery) -> Result<Self, Box<Undecodable>> {
        match hasura::decode(&delivery) {
            Ok(parts) => Ok(parts.into_event(delivery)),
            Err(reason) => Err(Undecodable::new(reason, delivery)),
        }
    }

    /// Decodes what was kept of a delivery.
    ///
    /// # Errors
    /// As [`Event::decode`].
    pub fn of_kept(delivery: Delivery) -> Result<Self, Box<Undecodable>> {
        let event = Self::decode(delivery)?;
        Ok(Self {
            kept: true,
            ..event
        })
    }

    /// Returns a hash of what the event says, leaving out what changes with every delivery.
    ///
    /// Two events under one id whose fingerprints differ are not the same event.
    pub fn fingerprint(&self) -> u64 {
        use xxhash_rust::xxh3::xxh3_64_with_seed;
        let seed = xxh3_64_with_seed(self.event_type.as_str().as_bytes(), 0);
        match &self.body {
            Body::Row(row) => {
                let old = row.old_json().unwrap_or_default();
                let new = row.new_json().unwrap_or_default();
                xxh3_64_with_seed(new.as_bytes(), xxh3_64_with_seed(old.as_bytes(), seed))
            }
            Body::Scheduled(scheduled) => xxh3_64_with_seed(scheduled.payload(), seed),
            Body::Message(bytes) => xxh3_64_with_seed(bytes, seed),
        }
    }

    /// Makes the event that a row of the `events` table says; `None` when its id is none.
    pub fn of_row(row: TableRow) -> Option<Self> {
        let mut attributes = vec![("ce-id".to_owned(), row.id.clone())];
        let mut note = |name: &str, value: Option<String>| {
            attributes.extend(value.map(|value| (name.to_owned(), value)));
        };
        note("ce-type", Some(row.event_type.clone()));
        note("ce-subject", row.subject);
        note("ce-correlationid", row.correlation_id);
        note("ce-causationid", row.causation_id);
        let payload = Bytes::from(row.payload);
        Some(Self {
            id: EventId::new(&row.id)?,
            event_type: EventType::new(&row.event_type),
            trigger: None,
            body: Body::Message(payload.clone()),
            created_at: row.created_at,
            trace: row.traceparent.as_deref().and_then(TraceContext::parse),
            hasura_retry: None,
            depth: row.depth,
            from_table: true,
            kept: true,
            delivery: Delivery {
                data: payload,
                attributes,
                ..Delivery::default()
            },
        })
    }

    /// Returns what the event belongs to: a longer story, or itself.
    pub fn correlation_id(&self) -> &str {
        self.delivery
            .attribute("ce-correlationid")
            .filter(|id| id.len() <= MAX_CORRELATION_BYTES)
            .unwrap_or(self.id.as_str())
    }

    /// Tells whether this is a dead letter that was published again, to be run once more.
    pub fn is_redriven(&self) -> bool {
        let marks = ["hookyard-redrive", "hookyard-last-time"];
        marks
            .iter()
            .any(|mark| self.delivery.attribute(mark).is_some())
    }

    /// Returns the id under which this event is claimed.
    ///
    /// A dead letter that is published again carries the attributes it was kept with (or an
    /// explicit `hookyard-redrive`): it is the same event, but meant to be run again, once.
    pub fn claim_id(&self) -> Cow<'_, str> {
        let redrive = self.delivery.attribute("hookyard-redrive");
        match redrive.or_else(|| self.delivery.attribute("hookyard-last-time")) {
            Some(generation) => Cow::Owned(format!("{}\n{generation}", self.id)),
            None => Cow::Borrowed(self.id.as_str()),
        }
    }

    /// Returns the id of the event whose handler caused this one, when one did.
    pub fn cause(&self) -> Option<Cow<'_, str>> {
        match &self.body {
            Body::Row(row) => row.session_variable(CAUSE_VARIABLE),
            Body::Scheduled(_) => None,
            Body::Message(_) => self.delivery.attribute("ce-causationid").map(Cow::Borrowed),
        }
    }

    /// Returns the Hasura role that made the change, when the session had one.
    pub fn role(&self) -> Option<String> {
        match &self.body {
            Body::Row(row) => row.role(),
            Body::Scheduled(_) | Body::Message(_) => None,
        }
    }
}

/// Why a delivery holds no event. The words are codes: they never quote the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Machine-readable.
    pub code: &'static str,
    /// For people.
    pub what: &'static str,
}

/// A delivery that holds no event.
#[derive(Debug, thiserror::Error)]
#[error("undecodable delivery: {}", reason.what)]
pub struct Undecodable {
    /// Why.
    pub reason: Reason,
    /// What arrived.
    pub delivery: Delivery,
}

impl Undecodable {
    pub(crate) fn new(reason: Reason, delivery: Delivery) -> Box<Self> {
        Box::new(Self { reason, delivery })
    }
}
