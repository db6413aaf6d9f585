//! Collects the events one run of a handler emits; they leave only when it succeeds.

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::brokers::Message;
use crate::error::{Code, Error};
use crate::event::contracts::DomainEvent;
use crate::event::{DEPTH_ATTRIBUTE, Event, EventId, TraceContext, derived_id};

/// An event that waits for its handler to succeed.
#[derive(Debug, Clone)]
pub struct Emitted {
    /// The same on every run of the same handler for the same event, so that consumers can drop
    /// a second copy.
    pub id: Uuid,
    /// The event type.
    pub event_type: &'static str,
    /// What it is about; also the ordering key.
    pub subject: String,
    handler: &'static str,
    data: Bytes,
}

/// Collects the events of one run of one handler.
#[derive(Debug)]
pub struct Emitter {
    cause: EventId,
    generation: i32,
    handler: &'static str,
    emitted: Vec<Emitted>,
}

impl Emitter {
    /// Starts collecting for `handler`, which runs because of `cause`; `generation` is 0 unless
    /// an operator asked for another run, whose events are new ones.
    pub fn new(cause: EventId, handler: &'static str, generation: i32) -> Self {
        Self {
            cause,
            generation,
            handler,
            emitted: Vec::new(),
        }
    }

    /// Takes an event.
    ///
    /// # Errors
    /// [`Error::Never`] when it cannot be written as JSON.
    pub fn emit<E: DomainEvent>(&mut self, event: &E) -> Result<(), Error> {
        let data = serde_json::to_vec(event).map_err(|_| Error::Never {
            code: Code::new("event_not_serialisable"),
        })?;
        let index = self
            .emitted
            .iter()
            .filter(|other| other.event_type == E::TYPE)
            .count();
        let (index, later) = (index.to_string(), self.generation.to_string());
        let mut parts = vec![self.cause.as_str(), self.handler, E::TYPE, &index];
        if self.generation > 0 {
            parts.push(&later);
        }
        let id = derived_id(&parts);
        self.emitted.push(Emitted {
            id,
            event_type: E::TYPE,
            subject: event.subject(),
            handler: self.handler,
            data: data.into(),
        });
        Ok(())
    }

    /// Ends collecting.
    pub fn into_emitted(self) -> Vec<Emitted> {
        self.emitted
    }
}

impl Emitted {
    /// Returns the handler that emitted it.
    pub fn handler(&self) -> &'static str {
        self.handler
    }

    /// Makes the message, with the attributes of CloudEvents' Pub/Sub binding.
    ///
    /// Source: <https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md>.
    /// Everything but the trace is the same on every run, so a second copy is the same message.
    pub(super) fn into_message(self, cause: &Event, trace: &TraceContext) -> Message {
        let depth = cause.depth.saturating_add(1);
        let correlation = cause.correlation_id();
        let mut attributes = vec![
            ("ce-specversion".to_owned(), "1.0".to_owned()),
            ("ce-id".to_owned(), self.id.to_string()),
            ("ce-type".to_owned(), self.event_type.to_owned()),
            (
                "ce-source".to_owned(),
                format!("/hookyard/{}", self.handler),
            ),
            ("ce-subject".to_owned(), self.subject.clone()),
            ("ce-causationid".to_owned(), cause.id.to_string()),
            ("ce-correlationid".to_owned(), correlation.to_owned()),
            (DEPTH_ATTRIBUTE.to_owned(), depth.to_string()),
            ("traceparent".to_owned(), trace.to_string()),
            ("Content-Type".to_owned(), "application/json".to_owned()),
        ];
        let created = cause.created_at.or(cause.delivery.publish_time);
        if let Some(time) = created.and_then(|at| OffsetDateTime::from(at).format(&Rfc3339).ok()) {
            attributes.push(("ce-time".to_owned(), time));
        }
        Message {
            data: self.data,
            attributes,
            ordering_key: Some(self.subject),
        }
    }
}
