//! One span: from its start to its end, in the form in which it is sent.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind as Kind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, Status};

use super::Recorder;
use crate::event::TraceContext;

/// Longest text in bytes; what is longer is cut. Ids, codes and templates are far below.
const MAX_TEXT_BYTES: usize = 256;

/// A span that is over.
pub(super) type Finished = Box<Span>;

/// What part a span plays (<https://opentelemetry.io/docs/specs/otel/trace/api/#spankind>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Works on a message that somebody sent earlier.
    Consumer,
    /// Works on something inside this service.
    Internal,
    /// Asks another service and waits for the answer.
    Client,
    /// Sends a message that somebody works on later.
    Producer,
}

/// The value of an attribute. Never a row's value, a token or an address of a person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attribute<'a> {
    /// Text, cut after 256 bytes.
    Text(&'a str),
    /// A whole number.
    Int(i64),
}

impl<'a> From<&'a str> for Attribute<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<u16> for Attribute<'_> {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl From<u32> for Attribute<'_> {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

/// A span that is being recorded, or nothing at all, which costs nothing.
///
/// Ends when it is dropped. One that was not told how it [ended](TraceSpan::end) was cut off: a
/// deadline passed, a client hung up.
#[must_use = "a span ends when it is dropped"]
pub struct TraceSpan(Option<Box<Open>>);

struct Open {
    recorder: Arc<Recorder>,
    span: Span,
    started: Instant,
    started_wall: SystemTime,
    ended: bool,
}

impl TraceSpan {
    /// Makes a span that records nothing.
    pub fn none() -> Self {
        Self(None)
    }

    pub(super) fn open(
        recorder: Arc<Recorder>,
        kind: SpanKind,
        name: fmt::Arguments<'_>,
        context: &TraceContext,
        parent: Option<&TraceContext>,
    ) -> Self {
        let mut flags = SpanFlags::ContextHasIsRemoteMask as u32 | u32::from(context.sampled());
        if kind == SpanKind::Consumer && parent.is_some() {
            flags |= SpanFlags::ContextIsRemoteMask as u32;
        }
        let kind = match kind {
            SpanKind::Consumer => Kind::Consumer,
            SpanKind::Internal => Kind::Internal,
            SpanKind::Client => Kind::Client,
            SpanKind::Producer => Kind::Producer,
        };
        let mut name = name.to_string();
        name.truncate(name.floor_char_boundary(MAX_TEXT_BYTES));
        let span = Span {
            trace_id: context.trace_id_bytes().to_vec(),
            span_id: context.span_id_bytes().to_vec(),
            parent_span_id: parent
                .map(|parent| parent.span_id_bytes().to_vec())
                .unwrap_or_default(),
            flags,
            name,
            kind: kind.into(),
            attributes: Vec::with_capacity(12),
            ..Span::default()
        };
        Self(Some(Box::new(Open {
            started: recorder.clock.monotonic(),
            started_wall: recorder.clock.now(),
            recorder,
            span,
            ended: false,
        })))
    }

    /// Says that the work had begun before the span could be opened.
    pub fn began_at(&mut self, started: Instant) {
        if let Some(open) = &mut self.0 {
            let earlier = open.started.saturating_duration_since(started);
            open.started_wall = open.started_wall.checked_sub(earlier).unwrap_or(UNIX_EPOCH);
            open.started = open.started.min(started);
        }
    }

    /// Sets an attribute; what was set before under this name is replaced.
    pub fn set<'a>(&mut self, name: &'static str, value: impl Into<Attribute<'a>>) {
        if let Some(open) = &mut self.0 {
            open.set(name, value.into());
        }
    }

    /// Sets an attribute if there is a value.
    pub fn set_some<'a>(&mut self, name: &'static str, value: Option<impl Into<Attribute<'a>>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Points to a span of another trace that has to do with this one.
    pub fn link(&mut self, other: &TraceContext) {
        if let Some(open) = &mut self.0 {
            open.span.links.push(Link {
                trace_id: other.trace_id_bytes().to_vec(),
                span_id: other.span_id_bytes().to_vec(),
                flags: u32::from(other.sampled()),
                ..Link::default()
            });
        }
    }

    /// Says that it failed, with a word of a bounded set: a code, never a text.
    pub fn fail(&mut self, code: &str) {
        if let Some(open) = &mut self.0 {
            open.fail(code);
        }
    }

    /// Ends the span.
    pub fn end(mut self) {
        if let Some(open) = &mut self.0 {
            open.ended = true;
        }
    }
}

impl Open {
    fn set(&mut self, name: &'static str, value: Attribute<'_>) {
        let value = match value {
            Attribute::Text(text) => {
                Value::StringValue(text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned())
            }
            Attribute::Int(number) => Value::IntValue(number),
        };
        let attributes = &mut self.span.attributes;
        attributes.retain(|attribute| attribute.key != name);
        attributes.push(key_value(name, value));
    }

    fn fail(&mut self, code: &str) {
        self.set("error.type", Attribute::Text(code));
        self.span.status = Some(Status {
            message: String::new(),
            code: StatusCode::Error.into(),
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.ended {
            self.fail("cancelled");
        }
        let clock = &self.recorder.clock;
        let took = clock.monotonic().saturating_duration_since(self.started);
        let nanos = |at: SystemTime| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        };
        self.span.start_time_unix_nano = nanos(self.started_wall);
        self.span.end_time_unix_nano = nanos(self.started_wall + took);
        let span = Box::new(std::mem::take(&mut self.span));
        if self.recorder.queue.try_send(span).is_err() {
            self.recorder
                .metrics
                .spans
                .with_label_values(&["dropped"])
                .inc();
        }
    }
}

/// Makes an attribute in the form in which it is sent.
pub(super) fn key_value(name: impl Into<String>, value: Value) -> KeyValue {
    KeyValue {
        key: name.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
