//! What became of an event, and the one log line that says so.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::dead_letters::Cause;
use super::{Budget, Completion, Failed, Pipeline, Settled, Terms};
use crate::error::{Class, Code, Error};
use crate::event::{Delivery, Event, Undecodable};
use crate::store::commit::{Bury, Kept, Step};
use crate::store::outbox::OutboxRow;

/// When and how a duplicate was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// When.
    pub at: SystemTime,
    /// On which try, from 1.
    pub attempt: u32,
}

/// What became of an event. Each door turns it into its own answer in one `match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// At least one handler did its work.
    Done,
    /// There was nothing to do, and why.
    Skipped(&'static str),
    /// Every handler had done it before; the last of them then, as far as that is known.
    Duplicate(Option<Before>),
    /// It is kept and will be run later.
    Kept,
    /// Nobody takes this event type.
    Unrouted,
    /// It cannot be processed and is kept as a dead letter, with this code.
    DeadLettered(Code),
    /// It has to come again, not before this time.
    Retry(Duration),
}

impl Outcome {
    /// When to come again if nobody said anything else.
    pub const SOON: Duration = Duration::from_secs(1);

    /// Returns the word used in metrics and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Skipped(_) => "skipped",
            Self::Duplicate(_) => "duplicate",
            Self::Kept => "kept",
            Self::Unrouted => "unrouted",
            Self::DeadLettered(_) => "dead_lettered",
            Self::Retry(_) => "retry",
        }
    }

    /// How much this outcome says about the whole event when its handlers ended differently.
    fn weight(&self) -> u8 {
        match self {
            Self::Unrouted => 0,
            Self::Skipped(_) => 1,
            Self::Duplicate(_) => 2,
            Self::Done | Self::Kept => 3,
            Self::DeadLettered(_) => 4,
            Self::Retry(_) => 5, // or a handler that failed for the moment would be forgotten
        }
    }
}

impl From<Completion> for Outcome {
    fn from(completion: Completion) -> Self {
        match completion {
            Completion::Done => Self::Done,
            Completion::Skipped(why) => Self::Skipped(why),
        }
    }
}

impl Settled {
    /// Of a run that ended without saying how, by a panic: it counts as a try, or an event that
    /// always ends so would come again for ever.
    pub fn cut_off() -> Self {
        Self {
            outcome: Outcome::Retry(Outcome::SOON),
            failure: Some(Failed {
                handler: "pipeline",
                class: Class::Transient,
                code: Code::new("cut_off"),
                message: "the run was cut off".to_owned(),
                no_try: false,
            }),
        }
    }
}

/// What became of one handler's run.
pub(super) struct Ran {
    pub(super) handler: &'static str,
    pub(super) outcome: Outcome,
    pub(super) error: Option<Error>,
}

impl Ran {
    pub(super) fn skipped(why: &'static str) -> Self {
        Self {
            handler: "none",
            outcome: Outcome::Skipped(why),
            error: None,
        }
    }
}

impl Pipeline {
    /// Joins the outcomes of all handlers and writes the event's line. The only place that logs
    /// how an event ended.
    pub(super) fn report(&self, event: &Event, runs: &[Ran], started: Instant) -> Settled {
        let Some(first) = runs.iter().max_by_key(|ran| ran.outcome.weight()) else {
            return Settled {
                outcome: Outcome::Retry(Outcome::SOON),
                failure: None,
            };
        };
        let elapsed = self
            .parts
            .clock
            .monotonic()
            .saturating_duration_since(started);
        let duration_ms = elapsed.as_secs_f64() * 1000.0;
        let event_type = event.event_type.as_str();
        let handler = first.handler;
        let outcome = first.outcome.as_str();
        macro_rules! line {
            ($level:ident, $message:literal $(, $($field:tt)*)?) => {
                tracing::$level!(
                    event.r#type = event_type,
                    event.id = event.id.as_str(),
                    message.id = event.delivery.message_id.as_deref(),
                    delivery.attempt = event.delivery.attempt,
                    handler.name = handler,
                    outcome,
                    duration_ms,
                    $($($field)*,)?
                    $message
                )
            };
        }
        match (&first.outcome, &first.error) {
            (Outcome::Skipped(why), _) => line!(info, "event skipped", reason = *why),
            (Outcome::Duplicate(_), _) => line!(info, "event was processed before"),
            (Outcome::DeadLettered(code), Some(error)) => {
                line!(error, "event dead-lettered", error.code = code.as_str(), error.message = %error);
            }
            (Outcome::Retry(_), Some(error)) if error.needs_operator() => {
                let code = error.code();
                line!(error, "event handed back", alert = "upstream_auth", error.code = code.as_str(), error.message = %error);
            }
            (Outcome::Retry(_), Some(error)) => {
                let code = error.code();
                line!(warn, "event handed back", error.code = code.as_str(), error.message = %error);
            }
            (Outcome::Retry(_), None) => {
                line!(warn, "event handed back: still in flight elsewhere")
            }
            _ => line!(info, "event processed"),
        }
        let outcome = runs
            .iter()
            .filter_map(|ran| match ran.outcome {
                Outcome::Retry(after) => Some(after),
                _ => None,
            })
            .max()
            .map_or_else(|| first.outcome.clone(), Outcome::Retry);
        let failure = first.error.as_ref().map(|error| Failed {
            handler,
            class: error.class(),
            code: error.code(),
            message: error.to_string(),
            no_try: error.is_no_try(),
        });
        Settled { outcome, failure }
    }

    /// Says that nobody takes an event, and keeps it where there is a database: whoever adds the
    /// handler later finds it there.
    pub(super) async fn keep_unrouted(
        &self,
        event: &Event,
        terms: &Terms,
        budget: &Budget,
    ) -> Settled {
        let outcome = self.unrouted(event);
        if self.parts.ledger.is_none() {
            return Settled {
                outcome,
                failure: None,
            };
        }
        let cause = Cause {
            reason: "no handler takes this event type".to_owned(),
            class: Class::Permanent,
            code: Code::new("unrouted"),
            handler: None,
            trace: event.trace,
        };
        let letters = &self.parts.dead_letters;
        let bury = Bury {
            dead_letter: letters.row_of_event(event, &cause, terms.source, 0, 1),
            outbox: Vec::new(),
        };
        match self.bury(bury, budget).await {
            Ok(()) => Settled {
                outcome,
                failure: None,
            },
            Err(error) => Settled {
                outcome: Outcome::Retry(Outcome::SOON),
                failure: Some(Failed {
                    handler: "unrouted",
                    class: error.class(),
                    code: error.code(),
                    message: error.to_string(),
                    no_try: error.is_no_try(),
                }),
            },
        }
    }

    /// Says that an event is given up after its last try, as one that a handler refuses: it is
    /// counted, and what the dead-letter topic gets is returned.
    pub fn given_up(
        &self,
        event: Option<&Event>,
        delivery: &Delivery,
        failed: &Failed,
    ) -> Vec<OutboxRow> {
        self.count(failed.handler, "dead_lettered");
        let cause = Cause {
            reason: failed.message.clone(),
            class: failed.class,
            code: failed.code.clone(),
            handler: Some(failed.handler),
            trace: event.and_then(|event| event.trace),
        };
        let letters = &self.parts.dead_letters;
        match event {
            Some(event) => letters.outbox_of_event(event, &cause),
            None => letters.outbox_of_delivery(delivery, &cause),
        }
    }

    /// Keeps a dead letter of something that no handler has run.
    pub(super) async fn bury(&self, bury: Bury, budget: &Budget) -> Result<(), Error> {
        let Some(ledger) = &self.parts.ledger else {
            return Ok(());
        };
        let step = Step::Bury(Box::new(bury));
        match ledger.keep(step, &budget.settle).await? {
            Kept::Refused(error) => Err(error),
            Kept::Done | Kept::NotOurs => Ok(()),
        }
    }

    pub(super) fn unrouted(&self, event: &Event) -> Outcome {
        self.count("unrouted", "unrouted");
        if self.unrouted.count(event, self.parts.clock.monotonic()) {
            tracing::warn!(
                event.r#type = event.event_type.as_str(),
                event.id = event.id.as_str(),
                trigger = event.trigger.as_deref(),
                outcome = "unrouted",
                "no handler takes this event type; it is acknowledged (said once a minute)"
            );
        } else {
            tracing::debug!(event.r#type = event.event_type.as_str(), "event unrouted");
        }
        Outcome::Unrouted
    }

    pub(super) fn settle_undecodable(
        &self,
        undecodable: &Undecodable,
        cause: Cause,
        kept: Result<(), Error>,
    ) -> Outcome {
        let message_id = undecodable.delivery.message_id.as_deref();
        let outcome = match &kept {
            Ok(()) => Outcome::DeadLettered(cause.code),
            Err(_) => Outcome::Retry(Outcome::SOON),
        };
        self.count("undecodable", outcome.as_str());
        let unkept = kept.err().map(|error| error.to_string());
        tracing::error!(
            message.id = message_id,
            error.code = undecodable.reason.code,
            error.message = undecodable.reason.what,
            dead_letter.error = unkept,
            outcome = outcome.as_str(),
            "delivery holds no event"
        );
        outcome
    }

    /// Counts a panic and returns how many there were for this event.
    pub(super) fn count_panic(&self, handler: &'static str, event: &Event) -> u32 {
        let id: Arc<str> = event.id.as_str().into();
        let count = self.panics.get(&(handler, Arc::clone(&id))).unwrap_or(0) + 1;
        self.panics.insert((handler, id), count);
        count
    }
}
