//! `POST /push`: the door for Pub/Sub push, and its acknowledgement rule.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderName, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::Instrument;

use super::body::{BodyError, read_body, refuse_encoding};
use super::gate::Gate;
use super::oidc::{TokenError, TokenVerifier, bearer};
use super::refusals::Refusals;
use crate::clock::SharedClock;
use crate::event::{Event, TraceContext, unwrap_push};
use crate::pipeline::{Outcome, Pipeline};
use crate::store::keep::Keeper;
use crate::telemetry::{Metrics, RequestId, SpanKind, TraceSpan};

/// Says of a duplicate when it was done.
const DEDUPE: HeaderName = HeaderName::from_static("x-hookyard-dedupe");

/// What the door needs.
pub struct PushDoor {
    /// Where events go.
    pub pipeline: Arc<Pipeline>,
    /// Keeps events for our own worker instead of running them here; `None` when Pub/Sub's
    /// redelivery is what retries them.
    pub keeper: Option<Arc<Keeper>>,
    /// Who may push.
    pub verifier: Arc<dyn TokenVerifier>,
    /// How many at once.
    pub gate: Gate,
    /// Largest body in bytes.
    pub max_body_bytes: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// Time.
    pub clock: SharedClock,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What was refused lately.
    pub refusals: Refusals,
}

/// Why a push request was answered without looking at its event.
enum Refusal {
    Token(TokenError),
    Body(BodyError),
    Full,
}

/// Receives one push request.
pub async fn receive(State(door): State<Arc<PushDoor>>, request: Request) -> Response {
    let request_id = RequestId::of(request.headers());
    let span = tracing::info_span!(
        "push",
        request_id = request_id.as_str(),
        trace_id = tracing::field::Empty,
        span_id = tracing::field::Empty,
        trace_sampled = tracing::field::Empty,
        event.id = tracing::field::Empty,
    );
    let mut response = door.answer(request).instrument(span).await;
    request_id.put(response.headers_mut());
    response
}

impl PushDoor {
    async fn answer(&self, request: Request) -> Response {
        let started = self.clock.monotonic();
        tracing::debug!(target: "hookyard::step", step = "push received", detail = "POST /push");
        let (word, response) = match self.accept(request, started).await {
            Ok((outcome, span)) => (outcome.as_str(), settled(&outcome, span)),
            Err(refusal) => ("refused", self.refuse(refusal)),
        };
        let elapsed = self.clock.monotonic().saturating_duration_since(started);
        tracing::debug!(
            target: "hookyard::step",
            step = "answered",
            detail = %format_args!("{} {word}", response.status().as_u16()),
            ms = elapsed.as_secs_f64() * 1000.0,
        );
        response
    }

    /// Verifies, reads, decodes and runs. The token comes first: nothing is read, let alone
    /// stored, for a caller that has not shown one.
    async fn accept(
        &self,
        request: Request,
        started: Instant,
    ) -> Result<(Outcome, TraceSpan), Refusal> {
        // Pub/Sub's clock runs from here, so waiting for the issuer's keys is part of it.
        let budget = self.pipeline.budget();
        let (head, body) = request.into_parts();
        let token = bearer(&head.headers).map_err(Refusal::Token)?;
        let judged = match self.verifier.verify_now(token) {
            Some(judged) => judged,
            None => self.verifier.verify(token).await,
        };
        judged.map_err(Refusal::Token)?;
        let place = self.gate.enter().ok_or(Refusal::Full)?;
        refuse_encoding(&head.headers).map_err(Refusal::Body)?;
        let body = read_body(body, self.max_body_bytes, self.body_timeout)
            .await
            .map_err(Refusal::Body)?;
        let decoded = unwrap_push(&head.headers, body).and_then(Event::decode);
        Ok(match decoded {
            Ok(mut event) => {
                let span = self.follow(&mut event, started);
                let outcome = match &self.keeper {
                    Some(keeper) if self.pipeline.is_wanted(&event) => keep(keeper, &event).await,
                    _ => self.pipeline.process(event, budget, place).await,
                };
                (outcome, span)
            }
            Err(undecodable) => {
                tracing::debug!(
                    target: "hookyard::step",
                    step = "decoded",
                    detail = undecodable.reason.what,
                );
                let outcome = self.pipeline.bury_undecodable(undecodable, budget).await;
                (outcome, TraceSpan::none())
            }
        })
    }

    /// Enters the event's trace: this request becomes a span of it.
    fn follow(&self, event: &mut Event, started: Instant) -> TraceSpan {
        let tracer = self.pipeline.tracer();
        let parent = event.trace;
        let trace = tracer.enter(parent);
        event.trace = Some(trace);
        let span = tracing::Span::current();
        if !span.is_disabled() {
            tracing::record_all!(
                span,
                trace_id = trace.trace_id(),
                span_id = trace.span_number(),
                trace_sampled = tracer.exports().then(|| trace.sampled()),
                event.id = event.id.as_str(),
            );
        }
        tracing::debug!(
            target: "hookyard::step",
            step = "decoded",
            detail = %format_args!("{} {}", event.event_type, event.id),
        );
        if !(tracer.exports() && trace.sampled()) {
            return TraceSpan::none();
        }
        self.span(event, &trace, parent.as_ref(), started)
    }

    /// Names: <https://opentelemetry.io/docs/specs/semconv/messaging/gcp-pubsub/>. The ordering key
    /// and the attributes are left out: they may hold values of rows.
    fn span(
        &self,
        event: &Event,
        trace: &TraceContext,
        parent: Option<&TraceContext>,
        started: Instant,
    ) -> TraceSpan {
        let delivery = &event.delivery;
        let full_name = delivery.subscription.as_deref();
        let subscription = full_name.and_then(|name| name.rsplit('/').next());
        let name = format_args!("process {}", subscription.unwrap_or("push"));
        let tracer = self.pipeline.tracer();
        let mut span = tracer.span(SpanKind::Consumer, name, trace, parent);
        span.began_at(started);
        span.set("messaging.system", "gcp_pubsub");
        span.set("messaging.operation.type", "process");
        span.set("messaging.operation.name", "process");
        span.set_some("messaging.destination.subscription.name", subscription);
        span.set_some("messaging.message.id", delivery.message_id.as_deref());
        let attempt = "messaging.gcp_pubsub.message.delivery_attempt";
        span.set_some(attempt, delivery.attempt);
        span.set("event.id", event.id.as_str());
        span.set("event.type", event.event_type.as_str());
        // The request's own trace, when the message's was preferred to it.
        let request = delivery.request_trace.as_ref();
        if let Some(request) = request.filter(|request| Some(*request) != parent) {
            span.link(request);
        }
        span
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        let (reason, response) = match refusal {
            Refusal::Token(error) => (error.reason(), error.into_response()),
            Refusal::Body(error) => (error.reason(), error.into_response()),
            Refusal::Full => ("overloaded", Gate::full()),
        };
        if let Some(requests) = self.refusals.note(reason, &self.metrics, &self.clock) {
            tracing::warn!(
                reason,
                status = response.status().as_u16(),
                requests,
                "push request refused"
            );
        }
        response
    }
}

/// Leaves an event to the worker. Said to be kept only when it is.
async fn keep(keeper: &Arc<Keeper>, event: &Event) -> Outcome {
    let kept = keeper.keep(event).await;
    let outcome = match &kept {
        Ok(()) => Outcome::Kept,
        Err(_) => Outcome::Retry(Outcome::SOON),
    };
    let (event_type, event_id) = (event.event_type.as_str(), event.id.as_str());
    match kept {
        Ok(()) => tracing::debug!(
            event.r#type = event_type,
            event.id = event_id,
            "event left to the worker"
        ),
        Err(error) => tracing::warn!(
            event.r#type = event_type,
            event.id = event_id,
            error.code = error.code().as_str(),
            "event handed back: it could not be kept"
        ),
    }
    outcome
}

/// Answers, and ends the event's span with what the answer says.
fn settled(outcome: &Outcome, mut span: TraceSpan) -> Response {
    let response = settle(outcome);
    span.set("outcome", outcome.as_str());
    span.set("http.response.status_code", response.status().as_u16());
    match outcome {
        Outcome::DeadLettered(code) => span.fail(code.as_str()),
        Outcome::Retry(_) => span.fail(outcome.as_str()),
        Outcome::Done
        | Outcome::Skipped(_)
        | Outcome::Duplicate(_)
        | Outcome::Kept
        | Outcome::Unrouted => {}
    }
    span.end();
    response
}

/// The whole acknowledgement rule: only `Retry` asks Pub/Sub to deliver again.
fn settle(outcome: &Outcome) -> Response {
    match outcome {
        Outcome::Duplicate(Some(before)) => {
            let at = OffsetDateTime::from(before.at).format(&Rfc3339);
            let at = at.unwrap_or_default();
            let words = format!("done; at={at}; attempt={}", before.attempt);
            (StatusCode::OK, [(DEDUPE, words)]).into_response()
        }
        Outcome::Done
        | Outcome::Skipped(_)
        | Outcome::Duplicate(None)
        | Outcome::Kept
        | Outcome::Unrouted
        | Outcome::DeadLettered(_) => StatusCode::OK.into_response(),
        Outcome::Retry(after) => try_again(*after),
    }
}

fn try_again(after: Duration) -> Response {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(RETRY_AFTER, seconds.max(1).to_string())],
    )
        .into_response()
}
