//! What is inside a delivery: a Hasura event, a scheduled trigger, or a domain event.
//!
//! Hasura's payloads: <https://hasura.io/docs/2.0/event-triggers/payload/>.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::change::{Row, RowChange};
use super::depth::{DEPTH_ATTRIBUTE, DEPTH_VARIABLE, depth_of};
use super::json::{Text, is_object, parse_json, string};
use super::push::is_transport;
use super::{Body, Delivery, Event, EventId, EventType, Reason, TraceContext};
use crate::error::Error;

/// Deepest accepted nesting of arrays and objects, serde_json's own limit.
const MAX_DEPTH: usize = 127;

/// Longest accepted name of a schema, table or trigger in bytes; Postgres' are 63, MSSQL's 128
/// characters. Names travel on as attributes, which Pub/Sub limits to 1,024 bytes.
const MAX_NAME_BYTES: usize = 256;

const NAME_TOO_LONG: Reason = reason(
    "name_too_long",
    "the event's schema, table, trigger or type has an endless name",
);

/// What happened to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A row was inserted.
    Insert,
    /// A row was changed.
    Update,
    /// A row was deleted.
    Delete,
    /// Somebody invoked the trigger on a row from the console or the API.
    Manual,
}

impl Op {
    /// Reads Hasura's spelling, which is upper case.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "INSERT" => Some(Self::Insert),
            "UPDATE" => Some(Self::Update),
            "DELETE" => Some(Self::Delete),
            "MANUAL" => Some(Self::Manual),
            _ => None,
        }
    }

    /// Returns the lower-case word used in event types.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Manual => "manual",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A cron or one-off trigger that fired, undecoded.
#[derive(Debug, Clone)]
pub struct ScheduledTrigger {
    scheduled_time: Option<SystemTime>,
    payload: Option<Row>,
}

impl ScheduledTrigger {
    pub(super) fn payload(&self) -> &[u8] {
        self.payload
            .as_ref()
            .map_or(b"null", |row| row.json().as_bytes())
    }

    /// Parses the payload into what a handler declared.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it does not fit.
    pub(crate) fn parse<T: DeserializeOwned>(&self, kind: &str) -> Result<Scheduled<T>, Error> {
        let json = self.payload.as_ref().map_or("null", Row::json);
        let payload = parse_json(json, kind, "payload")?;
        Ok(Scheduled {
            scheduled_time: self.scheduled_time,
            payload,
        })
    }
}

/// A cron or one-off trigger that fired, with the payload a handler asked for.
#[derive(Debug, Clone)]
pub struct Scheduled<T> {
    /// When it was meant to fire.
    pub scheduled_time: Option<SystemTime>,
    /// What the trigger was configured to carry.
    pub payload: T,
}

/// Everything but the delivery.
pub(super) struct Parts {
    id: EventId,
    event_type: EventType,
    trigger: Option<Arc<str>>,
    body: Body,
    created_at: Option<SystemTime>,
    trace: Option<TraceContext>,
    hasura_retry: Option<u64>,
    depth: u32,
}

impl Parts {
    pub(super) fn into_event(self, delivery: Delivery) -> Event {
        let Self {
            id,
            event_type,
            trigger,
            body,
            created_at,
            trace,
            hasura_retry,
            depth,
        } = self;
        Event {
            id,
            event_type,
            trigger,
            body,
            created_at,
            trace,
            hasura_retry,
            depth,
            from_table: false,
            kept: false,
            delivery,
        }
    }
}

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    delivery_info: Option<&'a RawValue>,
    #[serde(borrow)]
    trigger: Option<Named<'a>>,
    #[serde(borrow)]
    table: Option<Table<'a>>,
    #[serde(borrow)]
    event: Option<Inner<'a>>,
    // The rest belongs to scheduled triggers, and is nobody's business in a table event.
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    scheduled_time: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize)]
struct Table<'a> {
    #[serde(borrow)]
    schema: Option<Text<'a>>,
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    op: Text<'a>,
    #[serde(borrow)]
    data: Data<'a>,
    #[serde(borrow)]
    session_variables: Option<&'a RawValue>,
    #[serde(borrow)]
    trace_context: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    old: Option<&'a RawValue>,
    #[serde(borrow)]
    new: Option<&'a RawValue>,
}

const fn reason(code: &'static str, what: &'static str) -> Reason {
    Reason { code, what }
}

/// Reads what a delivery says.
pub(super) fn decode(delivery: &Delivery) -> Result<Parts, Reason> {
    if let Some(kind) = delivery.attribute("ce-type")
        && !is_transport(kind)
    {
        return domain_event(kind, delivery);
    }
    let bytes = &delivery.data;
    if bytes.is_empty() {
        return Err(reason(
            "no_data",
            "the message carries attributes but no data",
        ));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(reason("not_utf8", "the data is not UTF-8 text"));
    };
    if too_deep(bytes) {
        return Err(reason("too_deep", "the data nests deeper than 127 levels"));
    }
    let not_an_event = reason(
        "not_an_event",
        "the data is JSON, but not in the shape of a Hasura event",
    );
    match serde_json::from_str(text) {
        Ok(incoming) if is_object(text) => parts(incoming, delivery, bytes),
        Err(error) if !error.is_data() => {
            Err(reason("not_json", "the data is not one JSON document"))
        }
        Ok(_) | Err(_) => Err(not_an_event),
    }
}

fn parts(incoming: Incoming<'_>, delivery: &Delivery, bytes: &Bytes) -> Result<Parts, Reason> {
    let id = event_id(incoming.id.as_ref().map(|id| &*id.0))?;
    let created_at = incoming.created_at.and_then(time_of);
    let message_trace = delivery
        .attribute("traceparent")
        .and_then(TraceContext::parse);

    if let Some(event) = incoming.event {
        let missing = reason("not_an_event", "the event has no table or no trigger");
        let (table, trigger) = incoming.table.zip(incoming.trigger).ok_or(missing)?;
        let op = Op::parse(&event.op.0).ok_or(reason(
            "unknown_op",
            "the event's op is not one that Hasura has",
        ))?;
        let schema = table.schema.as_ref().map_or("public", |schema| &schema.0);
        let names = [schema, &table.name.0, &trigger.name.0];
        if names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(NAME_TOO_LONG);
        }
        let row = |raw: Option<&RawValue>| raw.map(|raw| Row::new(bytes, raw));
        let retry = incoming.delivery_info.and_then(|raw| {
            #[derive(Deserialize)]
            struct DeliveryInfo {
                current_retry: u64,
            }
            let info: DeliveryInfo = serde_json::from_str(raw.get()).ok()?;
            Some(info.current_retry)
        });
        let change = RowChange {
            op,
            old: row(event.data.old),
            new: row(event.data.new),
            session: row(event.session_variables),
        };
        return Ok(Parts {
            id,
            event_type: EventType::of_table(schema, &table.name.0, op),
            trigger: Some(trigger.name.0.into()),
            created_at,
            trace: message_trace
                .or_else(|| event.trace_context.and_then(hasura_trace))
                .or(delivery.request_trace),
            hasura_retry: retry,
            depth: change
                .session_variable(DEPTH_VARIABLE)
                .map_or(0, |depth| depth_of(&depth)),
            body: Body::Row(change),
        });
    }

    let Some(scheduled_time) = incoming.scheduled_time.and_then(time_of) else {
        return Err(reason(
            "not_an_event",
            "the data is neither a table event nor a schedule",
        ));
    };
    let name = incoming.name.and_then(|raw| string(raw.get()));
    if name
        .as_ref()
        .is_some_and(|name| name.len() > MAX_NAME_BYTES)
    {
        return Err(NAME_TOO_LONG);
    }
    // Only one-off events say when they were made; cron events always have a name.
    let event_type = match &name {
        Some(name) if incoming.created_at.is_none() => format!("cron.{name}"),
        Some(name) => format!("scheduled.{name}"),
        None => "scheduled.one_off".to_owned(),
    };
    Ok(Parts {
        id,
        event_type: EventType::new(&event_type),
        trigger: name.map(Into::into),
        created_at: created_at.or(Some(scheduled_time)),
        trace: message_trace.or(delivery.request_trace),
        hasura_retry: None,
        depth: 0,
        body: Body::Scheduled(ScheduledTrigger {
            scheduled_time: Some(scheduled_time),
            payload: incoming.payload.map(|raw| Row::new(bytes, raw)),
        }),
    })
}

/// Takes a message whose attributes are those of a CloudEvent, such as our own emitted events.
fn domain_event(kind: &str, delivery: &Delivery) -> Result<Parts, Reason> {
    let id = event_id(delivery.attribute("ce-id"))?;
    if kind.len() > MAX_NAME_BYTES {
        return Err(NAME_TOO_LONG);
    }
    Ok(Parts {
        id,
        event_type: EventType::new(kind),
        trigger: None,
        created_at: delivery.attribute("ce-time").and_then(timestamp),
        trace: delivery
            .attribute("traceparent")
            .or_else(|| delivery.attribute("ce-traceparent"))
            .and_then(TraceContext::parse)
            .or(delivery.request_trace),
        hasura_retry: None,
        depth: delivery.attribute(DEPTH_ATTRIBUTE).map_or(0, depth_of),
        body: Body::Message(delivery.data.clone()),
    })
}

fn event_id(id: Option<&str>) -> Result<EventId, Reason> {
    id.and_then(EventId::new).ok_or(reason(
        "no_event_id",
        "the event's id is missing, blank or too long",
    ))
}

fn time_of(raw: &RawValue) -> Option<SystemTime> {
    string(raw.get()).as_deref().and_then(timestamp)
}

/// Reads a time with a zone, or without one, which newer Hasura versions send and mean as UTC.
pub(super) fn timestamp(text: &str) -> Option<SystemTime> {
    use time::{OffsetDateTime, PrimitiveDateTime};
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(time.into());
    }
    let plain = format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second][optional [.[subsecond]]]"
    );
    PrimitiveDateTime::parse(text, &plain)
        .ok()
        .map(|time| time.assume_utc().into())
}

fn hasura_trace(raw: &RawValue) -> Option<TraceContext> {
    #[derive(Deserialize)]
    struct Ids<'a> {
        #[serde(borrow)]
        trace_id: &'a RawValue,
        #[serde(borrow)]
        span_id: Option<&'a RawValue>,
        #[serde(borrow)]
        sampling_state: Option<&'a RawValue>,
    }
    let ids: Ids<'_> = serde_json::from_str(raw.get()).ok()?;
    let id = |raw: &RawValue| match string(raw.get()) {
        Some(text) => TraceContext::hasura_id(&text),
        None => raw.get().parse().ok(),
    };
    let span_id = ids.span_id.and_then(id);
    let sampling = ids.sampling_state.and_then(|raw| string(raw.get()));
    TraceContext::from_hasura(id(ids.trace_id)?, span_id, sampling.as_deref())
}

/// Tells whether arrays and objects nest deeper than [`MAX_DEPTH`].
///
/// serde_json skips unknown members without recursion, so depth alone does no harm here; but
/// whoever reads the event later may recurse, and depth costs an attacker nothing.
fn too_deep(json: &[u8]) -> bool {
    // Both brackets differ in one bit; counted in bytes, the loop runs many at a time.
    let brackets = |part: &[u8]| part.iter().map(|b| u8::from(b | 0x20 == b'{')).sum::<u8>();
    let opening: usize = json
        .chunks(255)
        .map(|part| usize::from(brackets(part)))
        .sum();
    if opening <= MAX_DEPTH {
        return false; // the usual case, at memory speed
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}
