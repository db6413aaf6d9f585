//! One handler's run for one event: claim, handle, settle.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tracing::Instrument;

use super::dead_letters::Cause;
use super::inbox::{Claim, Ending, Guard};
use super::outcome::Ran;
use super::registry::Registration;
use super::{Budget, Completion, Context, Outcome, Pipeline};
use crate::clients::Call;
use crate::error::{Class, Error};
use crate::event::{Event, TraceContext};
use crate::telemetry::SpanKind;

/// So many panics on one event and it becomes a dead letter.
const MAX_PANICS: u32 = 3;

impl Pipeline {
    pub(super) async fn run_handler(
        &self,
        registration: &Registration,
        event: &Arc<Event>,
        budget: &Budget,
    ) -> Ran {
        let handler = registration.name;
        let started = self.parts.clock.monotonic();
        let guard = match self.claim(handler, event, budget).await {
            Ok(guard) => guard,
            Err(outcome) => {
                self.count(handler, outcome.as_str());
                return Ran {
                    handler,
                    outcome,
                    error: None,
                };
            }
        };
        let parent = event.trace.as_ref();
        let trace = parent.map_or_else(TraceContext::new_root, TraceContext::child);
        let mut span = self.parts.tracer.span(
            SpanKind::Internal,
            format_args!("handle {handler}"),
            &trace,
            parent,
        );
        span.set("handler.name", handler);
        let lines = tracing::info_span!(
            "handler",
            handler.name = handler,
            span_id = trace.span_number()
        );
        let result = self
            .handle(registration, event, &trace, budget)
            .instrument(lines)
            .await;
        let (outcome, error) = self.settle(handler, event, &trace, result, budget).await;
        span.set("outcome", outcome.as_str());
        if let Some(error) = &error {
            span.fail(error.code().as_str());
        }
        span.end();
        // Retry drops the guard instead, which gives the claim back.
        if !matches!(outcome, Outcome::Retry(_)) {
            guard.complete();
        }
        let elapsed = self
            .parts
            .clock
            .monotonic()
            .saturating_duration_since(started);
        self.parts
            .metrics
            .handler_duration
            .with_label_values(&[handler])
            .observe(elapsed.as_secs_f64());
        self.count(handler, outcome.as_str());
        tracing::debug!(
            target: "hookyard::step",
            step = "handler",
            detail = %format_args!("{handler}: {}", describe(&outcome)),
            ms = elapsed.as_secs_f64() * 1000.0,
        );
        Ran {
            handler,
            outcome,
            error,
        }
    }

    /// Takes the right to run, or says what has become of the event already.
    async fn claim(
        &self,
        handler: &'static str,
        event: &Event,
        budget: &Budget,
    ) -> Result<Guard, Outcome> {
        let id = event.claim_id();
        match self.parts.inbox.claim(handler, &id, event.fingerprint()) {
            Claim::Ours(guard) => {
                tracing::debug!(target: "hookyard::step", step = "claimed", detail = handler);
                Ok(guard)
            }
            Claim::Done { same_content } => {
                if !same_content {
                    self.count(handler, "id_reuse");
                    tracing::warn!(
                        event.id = event.id.as_str(),
                        event.r#type = event.event_type.as_str(),
                        handler.name = handler,
                        "an event id came again with other content; taken as a duplicate"
                    );
                }
                Err(Outcome::Duplicate)
            }
            Claim::InFlight(waiter) => match waiter.ending(&budget.work).await {
                Some(Ending::Completed) => Err(Outcome::Duplicate),
                // Never "done" while the first run may still fail.
                Some(Ending::Released) | None => Err(Outcome::Retry(Outcome::SOON)),
            },
        }
    }

    /// Runs the handler and publishes what it emitted.
    async fn handle(
        &self,
        registration: &Registration,
        event: &Arc<Event>,
        trace: &TraceContext,
        budget: &Budget,
    ) -> Result<Completion, Error> {
        self.refuse_loop(event)?;
        let call = Call {
            event_id: event.id.clone(),
            handler: registration.name,
            depth: event.depth,
            deadline: budget.work.clone(),
            trace: *trace,
            tracer: self.parts.tracer.clone(),
        };
        let cx = Context::new(Arc::clone(&self.parts.services), Arc::clone(event), call);
        let work = AssertUnwindSafe(registration.run(&cx)).catch_unwind();
        let result = match budget.work.run(work).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(Error::Panicked {
                handler: registration.name,
            }),
            Err(_elapsed) => Err(Error::OutOfTime {
                during: "the handler",
            }),
        };
        let completion = result?;
        let (call, emitted) = cx.into_parts();
        let egress = &self.parts.egress;
        egress
            .publish_emitted(emitted, event, &call.trace, &budget.settle)
            .await?;
        Ok(completion)
    }

    /// Turns a handler's result into an outcome; a permanent failure is kept first.
    async fn settle(
        &self,
        handler: &'static str,
        event: &Event,
        trace: &TraceContext,
        result: Result<Completion, Error>,
        budget: &Budget,
    ) -> (Outcome, Option<Error>) {
        let error = match result {
            Ok(completion) => return (completion.into(), None),
            Err(error) => error,
        };
        let hopeless = match &error {
            Error::Panicked { .. } => self.count_panic(handler, event) >= MAX_PANICS,
            other => other.class() == Class::Permanent,
        };
        if !hopeless {
            return (
                Outcome::Retry(error.retry_after().unwrap_or(Outcome::SOON)),
                Some(error),
            );
        }
        let cause = Cause {
            reason: error.to_string(),
            class: error.class(),
            code: error.code(),
            handler: Some(handler),
            trace: Some(*trace),
        };
        match self
            .parts
            .dead_letters
            .keep_event(event, &cause, &budget.settle)
            .await
        {
            Ok(()) => (Outcome::DeadLettered(cause.code), Some(error)),
            Err(unkept) => (Outcome::Retry(Outcome::SOON), Some(unkept)),
        }
    }
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Skipped(why) => format!("skipped, {why}"),
        Outcome::DeadLettered(code) => format!("dead letter, {code}"),
        Outcome::Retry(after) => format!("to be tried again after {after:?}"),
        Outcome::Done => "done".to_owned(),
        Outcome::Duplicate | Outcome::Unrouted => outcome.as_str().to_owned(),
    }
}
