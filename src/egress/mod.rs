//! How events leave: what handlers emit, and what is kept as a dead letter.

mod emitter;
mod relay;

use std::sync::Arc;

use bytes::Bytes;

pub use emitter::{Emitted, Emitter};
pub use relay::{Relay, RelayOptions};

use crate::brokers::{Message, Publisher};
use crate::clock::Deadline;
use crate::error::Error;
use crate::event::{Event, TraceContext};
use crate::store::outbox::OutboxRow;
use crate::telemetry::{Metrics, SpanKind, TraceSpan, Tracer};

/// The way out: two topics of one broker.
pub struct Egress {
    publisher: Arc<dyn Publisher>,
    events_topic: String,
    dead_letter_topic: String,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    system: &'static str,
}

impl Egress {
    /// Makes the way out to these topics.
    pub fn new(
        publisher: Arc<dyn Publisher>,
        events_topic: String,
        dead_letter_topic: String,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            publisher,
            events_topic,
            dead_letter_topic,
            metrics,
            tracer: Tracer::off(),
            system: "",
        }
    }

    /// Records publications; `system` is the broker's name in OpenTelemetry's conventions.
    #[must_use]
    pub fn traced(self, tracer: Tracer, system: &'static str) -> Self {
        Self {
            tracer,
            system,
            ..self
        }
    }

    /// Publishes what a handler emitted, one after the other, each confirmed.
    ///
    /// # Errors
    /// The first failure; what was confirmed before it is published again next time under the
    /// same ids.
    pub async fn publish_emitted(
        &self,
        emitted: Vec<Emitted>,
        cause: &Event,
        trace: &TraceContext,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        for event in emitted {
            let event_type = event.event_type;
            let topic = &self.events_topic;
            let context = trace.child();
            let mut span = self.span(topic, &context, trace);
            span.set("cloudevents.event_type", event_type);
            let message = event.into_message(cause, &context);
            let message_id = self.publish(topic, message, deadline, span).await?;
            tracing::debug!(
                target: "hookyard::step",
                step = "published",
                detail = %format_args!("{event_type} as message {message_id}"),
            );
        }
        Ok(())
    }

    /// Makes outbox rows of what a handler emitted: the relay publishes exactly what
    /// [`Egress::publish_emitted`] would.
    pub fn outbox_rows(
        &self,
        emitted: Vec<Emitted>,
        cause: &Event,
        trace: &TraceContext,
    ) -> Vec<OutboxRow> {
        let row = |event: Emitted| {
            let (id, event_type, handler) = (event.id, event.event_type, event.handler());
            // The relay's own span will be a child of the same.
            let message = event.into_message(cause, trace);
            OutboxRow {
                message_id: id.to_string(),
                topic: self.events_topic.clone(),
                ordering_key: message.ordering_key,
                event_type: event_type.to_owned(),
                cause_id: cause.id.to_string(),
                handler: handler.to_owned(),
                correlation_id: Some(cause.correlation_id().to_owned()),
                trace_id: Some(trace.trace_id()),
                data: message.data,
                attributes: message.attributes,
            }
        };
        emitted.into_iter().map(row).collect()
    }

    /// Returns the topic for dead letters, when there is one.
    pub fn dead_letter_topic(&self) -> Option<&str> {
        Some(self.dead_letter_topic.as_str()).filter(|topic| !topic.is_empty())
    }

    /// Publishes a dead letter and waits until it is kept. `trace` is the span that does so; the
    /// message keeps the trace it came with.
    ///
    /// # Errors
    /// When the broker did not confirm it; the event must not be acknowledged then.
    pub async fn publish_dead_letter(
        &self,
        data: Bytes,
        attributes: Vec<(String, String)>,
        trace: Option<&TraceContext>,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        let topic = &self.dead_letter_topic;
        let span = trace.map_or_else(TraceSpan::none, |trace| {
            self.span(topic, &trace.child(), trace)
        });
        let message = Message {
            data,
            attributes,
            ordering_key: None,
        };
        let message_id = self.publish(topic, message, deadline, span).await?;
        tracing::debug!(
            target: "hookyard::step",
            step = "published",
            detail = %format_args!("dead letter as message {message_id}"),
        );
        Ok(())
    }

    /// Returns how large a message may be in bytes, attributes included.
    pub fn max_message_bytes(&self) -> usize {
        self.publisher.features().max_message_bytes
    }

    /// Waits until everything handed to the broker is confirmed or has failed.
    pub async fn flush(&self) {
        self.publisher.flush().await;
    }

    /// Names: <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>. The
    /// ordering key is left out: it is the id of a row.
    fn span(&self, topic: &str, context: &TraceContext, parent: &TraceContext) -> TraceSpan {
        let topic = last_segment(topic);
        let name = format_args!("send {topic}");
        let tracer = &self.tracer;
        let mut span = tracer.span(SpanKind::Producer, name, context, Some(parent));
        span.set("messaging.system", self.system);
        span.set("messaging.operation.type", "send");
        span.set("messaging.operation.name", "send");
        span.set("messaging.destination.name", topic);
        span
    }

    async fn publish(
        &self,
        topic: &str,
        message: Message,
        deadline: &Deadline,
        mut span: TraceSpan,
    ) -> Result<String, Error> {
        let answer = self.publisher.publish(topic, message, deadline).await;
        let outcome = match &answer {
            Ok(message_id) => {
                span.set("messaging.message.id", message_id.as_str());
                "ok"
            }
            Err(error) => {
                span.fail(error.code().as_str());
                error.class().as_str()
            }
        };
        span.end();
        self.metrics
            .published
            .with_label_values(&[topic, outcome])
            .inc();
        answer
    }
}

/// Returns `events` of `projects/acme/topics/events`.
fn last_segment(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}
