//! `POST /hasura/events`: the door for Hasura's own webhooks, which publishes what comes in.
//!
//! Hasura cannot publish to Pub/Sub by itself. It counts a 2xx as delivered, tries anything else
//! again as often as the trigger says, and with `Retry-After` (whole seconds) also beyond that:
//! <https://hasura.io/docs/2.0/event-triggers/retry-after-headers/>.

mod message;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use secrecy::ExposeSecret;
use serde_json::json;
use tracing::Instrument;

use self::refusal::Refusal;
use super::body::{read_body, refuse_encoding};
use super::gate::Gate;
use super::refusals::Refusals;
use crate::brokers::Publisher;
use crate::clock::{Deadline, SharedClock};
use crate::config::BridgeConfig;
use crate::event::{Delivery, Event, TraceContext};
use crate::telemetry::{Metrics, RequestId, SpanKind, TraceSpan, Tracer};

/// The header that carries the shared secret.
pub const SECRET_HEADER: &str = "x-hookyard-secret";

/// What the door needs.
pub struct WebhookDoor {
    /// Secrets, topic, keys and time budget.
    pub config: BridgeConfig,
    /// Where events go.
    pub publisher: Arc<dyn Publisher>,
    /// How many at once.
    pub gate: Gate,
    /// Largest body in bytes; the broker's own limit counts as well.
    pub max_body_bytes: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// Time.
    pub clock: SharedClock,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Records what happens to an event.
    pub tracer: Tracer,
    /// How spans call the broker.
    pub system: &'static str,
    /// What was refused lately.
    pub refusals: Refusals,
}

/// Receives one webhook request.
pub async fn receive_webhook(State(door): State<Arc<WebhookDoor>>, request: Request) -> Response {
    let request_id = RequestId::of(request.headers());
    let span = tracing::info_span!(
        "webhook",
        request_id = request_id.as_str(),
        trace_id = tracing::field::Empty,
        span_id = tracing::field::Empty,
        trace_sampled = tracing::field::Empty,
        event.id = tracing::field::Empty,
    );
    let answer = door.accept(request).instrument(span.clone()).await;
    let mut response = match answer {
        Ok(message_id) => Json(json!({"message_id": message_id})).into_response(),
        Err(refusal) => span.in_scope(|| door.refuse(&refusal, &request_id)),
    };
    request_id.put(response.headers_mut());
    response
}

impl WebhookDoor {
    /// Checks the secret, reads, looks at what came, and publishes it as it came. The secret is
    /// first: nothing is read for a caller that has not shown it.
    async fn accept(&self, request: Request) -> Result<String, Refusal> {
        let deadline = Deadline::after(&self.clock, self.config.timeout);
        let (head, body) = request.into_parts();
        self.admit(&head.headers)?;
        let _place = self.gate.enter().ok_or(Refusal::Full)?;
        refuse_encoding(&head.headers)?;
        let most = self.publisher.features().max_message_bytes;
        let wait = self.body_timeout.min(deadline.remaining());
        let body = read_body(body, self.max_body_bytes.min(most), wait).await?;
        let (event, trace) = self.follow(&head.headers, body)?;
        self.observe_age(&event);
        self.publish(&event, &trace, &deadline).await
    }

    /// Compares the one secret header with every accepted secret in constant time.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.config.secrets.is_empty() {
            return Err(Refusal::Closed);
        }
        let mut given = headers.get_all(SECRET_HEADER).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return Err(Refusal::NoSecret);
        };
        // Every secret is compared, so that the time does not tell which one was nearly right.
        let matches = self.config.secrets.iter().fold(false, |found, secret| {
            let secret = secret.expose_secret().as_bytes();
            verify_slices_are_equal(secret, given.as_bytes()).is_ok() | found
        });
        if matches {
            Ok(())
        } else {
            Err(Refusal::WrongSecret)
        }
    }

    async fn publish(
        &self,
        event: &Event,
        trace: &TraceContext,
        deadline: &Deadline,
    ) -> Result<String, Refusal> {
        let message = message::of(event, trace, &self.config.key_columns);
        let topic = &self.config.topic;
        let mut span = self.span(event, trace);
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
        let message_id = answer?;
        let elapsed = self.config.timeout.saturating_sub(deadline.remaining());
        tracing::info!(
            event.kind = event.event_type.as_str(),
            message.id = message_id,
            hasura.retry = event.hasura_retry,
            duration_ms = elapsed.as_secs_f64() * 1000.0,
            "event published"
        );
        Ok(message_id)
    }

    /// Decodes the event and enters its trace: this request becomes a span of it.
    fn follow(&self, headers: &HeaderMap, body: Bytes) -> Result<(Event, TraceContext), Refusal> {
        let delivery = Delivery {
            data: body,
            request_trace: message::request_trace(headers),
            ..Delivery::default()
        };
        let event =
            Event::decode(delivery).map_err(|undecodable| Refusal::NoEvent(undecodable.reason))?;
        let trace = self.tracer.enter(event.trace);
        let span = tracing::Span::current();
        if !span.is_disabled() {
            tracing::record_all!(
                span,
                trace_id = trace.trace_id(),
                span_id = trace.span_id(),
                trace_sampled = self.tracer.exports().then(|| trace.sampled()),
                event.id = event.id.as_str(),
            );
        }
        Ok((event, trace))
    }

    /// Names: <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>. The
    /// ordering key is left out: it holds values of rows.
    fn span(&self, event: &Event, trace: &TraceContext) -> TraceSpan {
        let topic = self.config.topic.rsplit('/').next().unwrap_or_default();
        let (kind, name) = (SpanKind::Producer, format_args!("send {topic}"));
        let mut span = self.tracer.span(kind, name, trace, event.trace.as_ref());
        span.set("messaging.system", self.system);
        span.set("messaging.operation.type", "send");
        span.set("messaging.operation.name", "send");
        span.set("messaging.destination.name", topic);
        span.set("event.id", event.id.as_str());
        span.set("event.type", event.event_type.as_str());
        span
    }

    fn observe_age(&self, event: &Event) {
        let age = event
            .created_at
            .and_then(|at| self.clock.now().duration_since(at).ok());
        if let Some(age) = age {
            self.metrics.event_age.observe(age.as_secs_f64());
        }
    }

    fn refuse(&self, refusal: &Refusal, request_id: &RequestId) -> Response {
        let response = refusal.answer(request_id);
        let reason = refusal.code();
        if let Some(count) = self.refusals.note(reason, &self.metrics, &self.clock) {
            tracing::warn!(
                reason,
                count,
                error.code = refusal.cause(),
                status = response.status().as_u16(),
                "webhook request refused"
            );
        }
        response
    }
}
