//! One handler's run for one event: claim, handle, settle.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tracing::Instrument;

use super::dead_letters::Cause;
use super::durable::{Held, Hold, Over};
use super::inbox::{Claim, Ending, Guard};
use super::outcome::{Before, Ran};
use super::registry::Registration;
use super::repeats::{Repeat, marks_of};
use super::{Budget, Completion, Context, Outcome, Pipeline, stale};
use crate::clients::{Call, Steps};
use crate::egress::Emitted;
use crate::error::{Class, Error};
use crate::event::{Event, TraceContext};
use crate::failpoint;
use crate::store::Write;
use crate::store::inbox::Mode;
use crate::telemetry::SpanKind;

/// So many panics on one event and it becomes a dead letter.
const MAX_PANICS: u32 = 3;

/// What is to be run: an event for one handler, and on what terms.
pub(super) struct Job<'a> {
    pub(super) registration: &'a Registration,
    pub(super) event: &'a Arc<Event>,
    pub(super) budget: &'a Budget,
    pub(super) mode: Mode,
    /// Where the event came from, for its dead letter.
    pub(super) source: &'static str,
    /// What upstreams have confirmed in this run.
    pub(super) steps: Steps,
}

impl Job<'_> {
    pub(super) fn handler(&self) -> &'static str {
        self.registration.name
    }

    /// Tells whether somebody asked for this run although there was one before.
    pub(super) fn is_again(&self) -> bool {
        self.mode != Mode::Generation(0)
    }
}

/// What a handler that succeeded leaves behind.
pub(super) struct Finished {
    pub(super) completion: Completion,
    pub(super) emitted: Vec<Emitted>,
    pub(super) writes: Vec<Write>,
}

impl Pipeline {
    pub(super) async fn run_handler(&self, job: &Job<'_>) -> Ran {
        let handler = job.handler();
        let started = self.parts.clock.monotonic();
        let (guard, hold) = match self.claim(job).await {
            Ok(held) => held,
            Err((outcome, error)) => {
                self.count(handler, outcome.as_str());
                return Ran {
                    handler,
                    outcome,
                    error,
                };
            }
        };
        let parent = job.event.trace.as_ref();
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
        let (over, attempt) = self.run_held(job, hold, &trace).instrument(lines).await;
        let Over {
            outcome,
            error,
            remember,
        } = over;
        span.set("outcome", outcome.as_str());
        if let Some(error) = &error {
            span.fail(error.code().as_str());
        }
        span.end();
        // Dropped, it gives the claim back.
        match (&outcome, remember) {
            (Outcome::Retry(_), _) => drop(guard),
            _ if job.event.from_table => guard.forget(),
            (_, Some((earlier, content))) => guard.was_completed(&earlier, content),
            (_, None) => guard.complete(attempt),
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

    /// Runs the handler and ends the run; once more, when it turns out only then that it may run by
    /// another right. Also returns which try it was.
    async fn run_held(&self, job: &Job<'_>, mut hold: Hold, trace: &TraceContext) -> (Over, u32) {
        loop {
            let result = self.handle(job, &hold, trace).await;
            hold = match self.held(job, hold).await {
                Ok(Held::Still(hold)) => hold,
                Ok(Held::Anew(anew)) => {
                    hold = anew;
                    continue;
                }
                Err(over) => return (over, 1),
            };
            let attempt = hold.attempt();
            hold = match hold {
                Hold::Memory => return (self.settle(job, trace, result).await, attempt),
                hold => match self.settle_durably(job, hold, trace, result).await {
                    Ok(over) => return (over, attempt),
                    Err(anew) => anew,
                },
            };
        }
    }

    /// Takes the right to run, or says what has become of the event already.
    ///
    /// This process's own memory comes first: what it has completed or is running needs no
    /// question to the database.
    async fn claim(&self, job: &Job<'_>) -> Result<(Guard, Hold), (Outcome, Option<Error>)> {
        let durable = self.parts.ledger.is_some();
        let event = job.event;
        let id = if durable {
            event.id.as_str().into()
        } else {
            event.claim_id()
        };
        let again = durable && (job.is_again() || event.is_redriven() || event.from_table);
        let marks = marks_of(event);
        let claim = |again| {
            let inbox = &self.parts.inbox;
            inbox.claim(job.handler(), &id, marks, again)
        };
        let mut claimed = claim(again);
        if let Claim::Done(earlier) = &claimed {
            let now = self.parts.clock.now();
            match Repeat::judge(&marks, earlier, now) {
                Repeat::IdReuse if !durable => self.warn_of_reuse(job),
                // The database has to be asked again, or told more than can be told in passing.
                Repeat::IdReuse | Repeat::OperatorRedelivery if durable => claimed = claim(true),
                kind => self.note_repeat(job, kind, false),
            }
        }
        match claimed {
            Claim::Ours(guard) => {
                let hold = self.hold(job, &guard).await;
                match hold {
                    Ok(hold) => {
                        tracing::debug!(
                            target: "hookyard::step",
                            step = "claimed",
                            detail = job.handler()
                        );
                        Ok((guard, hold))
                    }
                    Err(over) => {
                        if let Some((earlier, content)) = over.remember {
                            guard.was_completed(&earlier, content);
                        }
                        Err((over.outcome, over.error))
                    }
                }
            }
            Claim::Done(earlier) => Err((
                Outcome::Duplicate(Some(Before {
                    at: earlier.at,
                    attempt: earlier.attempt,
                })),
                None,
            )),
            Claim::InFlight(waiter) => match waiter.ending(&job.budget.claim).await {
                Some(Ending::Completed) => Err((Outcome::Duplicate(None), None)),
                // Never "done" while the first run may still fail.
                Some(Ending::Released) | None => Err((Outcome::Retry(Outcome::SOON), None)),
            },
        }
    }

    fn warn_of_reuse(&self, job: &Job<'_>) {
        self.count(job.handler(), "id_reuse");
        tracing::warn!(
            event.id = job.event.id.as_str(),
            event.r#type = job.event.event_type.as_str(),
            handler.name = job.handler(),
            "an event id came again with other content; taken as a duplicate"
        );
    }

    /// Runs the handler; without a database also publishes what it emitted.
    async fn handle(
        &self,
        job: &Job<'_>,
        hold: &Hold,
        trace: &TraceContext,
    ) -> Result<Finished, Error> {
        let Job {
            registration,
            event,
            budget,
            ..
        } = job;
        self.refuse_loop(job)?;
        if self.is_stale(job).await? {
            return Ok(Finished {
                completion: Completion::Skipped(stale::REASON),
                emitted: Vec::new(),
                writes: Vec::new(),
            });
        }
        let call = Call {
            event_id: event.id.clone(),
            generation: hold.generation(),
            handler: registration.name,
            depth: event.depth,
            deadline: budget.work.clone(),
            trace: *trace,
            tracer: self.parts.tracer.clone(),
            steps: job.steps.clone(),
            gate: hold.gate(),
        };
        let durable = self.parts.ledger.is_some();
        let services = Arc::clone(&self.parts.services);
        let cx = Context::new(services, Arc::clone(event), call, durable);
        failpoint::reach_with("handler", event.event_type.as_str());
        let work = AssertUnwindSafe(registration.run(&cx)).catch_unwind();
        let result = match hold.unless_lost(budget.work.run(work)).await? {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(Error::Panicked {
                handler: registration.name,
            }),
            Err(_elapsed) => Err(Error::OutOfTime {
                during: "the handler",
            }),
        };
        let completion = result?;
        let (mut emitted, writes) = cx.into_parts();
        if !durable {
            let emitted = std::mem::take(&mut emitted);
            let egress = &self.parts.egress;
            egress
                .publish_emitted(emitted, event, trace, &budget.settle)
                .await?;
        }
        Ok(Finished {
            completion,
            emitted,
            writes,
        })
    }

    /// Turns a handler's result into an outcome; a permanent failure is kept first.
    async fn settle(
        &self,
        job: &Job<'_>,
        trace: &TraceContext,
        result: Result<Finished, Error>,
    ) -> Over {
        let error = match result {
            Ok(finished) => return Over::with(finished.completion.into(), None),
            Err(error) => error,
        };
        if !self.is_hopeless(job, &error, 0) {
            return Over::retry(Some(error));
        }
        let cause = cause(job, &error, trace);
        match self
            .parts
            .dead_letters
            .keep_event(job.event, &cause, &job.budget.settle)
            .await
        {
            Ok(()) => Over::with(Outcome::DeadLettered(cause.code), Some(error)),
            Err(unkept) => Over::with(Outcome::Retry(Outcome::SOON), Some(unkept)),
        }
    }

    /// Tells whether trying again is given up. `attempt` counts the tries, where that is known.
    pub(super) fn is_hopeless(&self, job: &Job<'_>, error: &Error, attempt: u32) -> bool {
        match error {
            Error::Panicked { .. } => {
                let panics = self.count_panic(job.handler(), job.event);
                panics.max(attempt) >= MAX_PANICS
            }
            other => other.class() == Class::Permanent,
        }
    }
}

/// Hands an event back for a later try.
pub(super) fn retry(error: &Error) -> Outcome {
    Outcome::Retry(error.retry_after().unwrap_or(Outcome::SOON))
}

/// Says why a handler gave up.
pub(super) fn cause(job: &Job<'_>, error: &Error, trace: &TraceContext) -> Cause {
    let steps = job.steps.before(error);
    let mut reason = error.to_string();
    if !steps.is_empty() {
        reason = format!("{reason}; done before: {}", steps.join(", "));
    }
    Cause {
        reason,
        class: error.class(),
        code: error.code(),
        handler: Some(job.handler()),
        trace: Some(*trace),
    }
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Skipped(why) => format!("skipped, {why}"),
        Outcome::DeadLettered(code) => format!("dead letter, {code}"),
        Outcome::Retry(after) => format!("to be tried again after {after:?}"),
        Outcome::Done => "done".to_owned(),
        Outcome::Duplicate(_) | Outcome::Kept | Outcome::Unrouted => outcome.as_str().to_owned(),
    }
}
