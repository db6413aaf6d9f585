//! From an outcome to a mark: settled, put off, or given up.

use std::time::Duration;

use super::careful::tries;
use super::errand::micros;
use super::row::correlation_id;
use crate::error::{Class, Code};
use crate::pipeline::{Failed, Outcome, Settled};
use crate::store::crashes::WORKER_CRASHED;
use crate::store::dead_letters::NewDeadLetter;
use crate::store::events::DueEvent;
use crate::store::marks::{EventStatus, Mark, RowRun, TryFailure};
use crate::store::{DeliveryNote, Micros};

/// The wait after the first failed try, which doubles with each further one, and its cap.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(600);

/// What people are told of a row that ends the process.
const DEADLY: &str = "each time it ran the process ended (abort, stack overflow, out of memory): \
    mend the handler or the event before it is redriven";

/// What is to be done about a row.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is marked.
    Mark(Box<Mark>),
    /// The event is not at fault: its lane rests so long, and the row stays as it is.
    Rest(Duration),
}

impl Verdict {
    /// Tells whether the next event of the aggregate may run.
    pub(super) fn goes_on(&self) -> bool {
        match self {
            Self::Mark(mark) => !matches!(**mark, Mark::PutOff { .. } | Mark::NoTry(_)),
            Self::Rest(_) => false,
        }
    }
}

/// Judges a run. `counted`: its try was counted before it began.
pub(super) fn judge(
    row: &DueEvent,
    settled: &Settled,
    now: Micros,
    max_retries: u32,
    jitter: f64,
    counted: bool,
) -> Verdict {
    let run = || RowRun {
        id: row.id.clone(),
        generation: row.generation,
    };
    let end_for = |status, failure| {
        Verdict::Mark(Box::new(Mark::Settled {
            run: run(),
            status,
            failure,
            was_held: row.was_held() || counted,
        }))
    };
    let end = |status| end_for(status, None);
    let attempts = row.attempts.saturating_add(1);
    let failure = |failed: &Failed| TryFailure {
        attempts,
        class: failed.class.as_str().to_owned(),
        code: failed.code.to_string(),
        message: failed.message.clone(),
    };
    let after = match &settled.outcome {
        Outcome::Done | Outcome::Kept => return end(EventStatus::Done),
        Outcome::Duplicate(_) => return end(EventStatus::Repeated),
        Outcome::Skipped(_) => return end(EventStatus::Skipped),
        Outcome::Unrouted => return end(EventStatus::Unrouted),
        Outcome::DeadLettered(_) => {
            let why = settled.failure.as_ref().map(failure);
            return end_for(EventStatus::DeadLettered, why);
        }
        Outcome::Retry(after) => *after,
    };
    let put_off = |wait: Duration, failure| {
        Verdict::Mark(Box::new(Mark::PutOff {
            run: run(),
            until: now.saturating_add(micros(wait)),
            failure,
        }))
    };
    // Somebody else runs it: no try of ours.
    let Some(failed) = &settled.failure else {
        if counted {
            let until = now.saturating_add(micros(after));
            return Verdict::Mark(Box::new(Mark::NoTry(tries(row, until))));
        }
        return put_off(after, None);
    };
    if failed.no_try {
        return Verdict::Rest(after.mul_f64(1.0 + jitter / 4.0));
    }
    let hopeless = failed.class == Class::Permanent;
    if hopeless || u32::try_from(attempts).unwrap_or(0) >= max_retries {
        return Verdict::Mark(Box::new(Mark::GivenUp {
            run: run(),
            letter: Box::new(letter(row, failed, attempts, now)),
            outbox: Vec::new(),
        }));
    }
    put_off(wait(attempts, jitter).max(after), Some(failure(failed)))
}

/// Tells whether a row has used up its tries, the last of them with a process.
pub(super) fn is_deadly(row: &DueEvent, max_retries: u32) -> bool {
    row.crashed && u32::try_from(row.attempts).unwrap_or(0) >= max_retries
}

/// Says why a row is given up in the middle of whose runs the process ended.
pub(super) fn deadly() -> Failed {
    Failed {
        handler: "none",
        class: Class::Transient,
        code: Code::new(WORKER_CRASHED),
        message: DEADLY.to_owned(),
        no_try: false,
    }
}

/// Gives up a row in the middle of whose runs the process ended.
pub(super) fn give_up_deadly(row: &DueEvent, failed: &Failed, now: Micros) -> Mark {
    Mark::GivenUp {
        run: RowRun {
            id: row.id.clone(),
            generation: row.generation,
        },
        letter: Box::new(NewDeadLetter {
            // Those of its handlers that were not reached are to run, too.
            handler: None,
            ..letter(row, failed, row.attempts, now)
        }),
        outbox: Vec::new(),
    }
}

/// Returns the wait after so many failed tries: between half of the full wait and all of it.
pub(super) fn wait(attempts: i32, jitter: f64) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(20);
    let full = FIRST_WAIT.saturating_mul(1 << doublings).min(LAST_WAIT);
    full.mul_f64(0.5 + jitter / 2.0)
}

fn letter(row: &DueEvent, failed: &Failed, attempts: i32, now: Micros) -> NewDeadLetter {
    let pushed = row.original.is_some();
    let note = row.delivery.as_deref().map(DeliveryNote::parse);
    let original = row.original.as_ref().unwrap_or(&row.payload);
    NewDeadLetter {
        event_key: row.key().to_owned(),
        event_type: row.event_type.clone(),
        source: if pushed { "push" } else { "events" },
        handler: Some(failed.handler.to_owned()),
        generation: row.generation,
        error_class: failed.class.as_str().to_owned(),
        error_code: failed.code.to_string(),
        error_message: failed.message.clone(),
        retry_count: attempts,
        message_id: note.and_then(|note| note.message_id),
        correlation_id: correlation_id(row),
        trace_id: None,
        original: original.to_vec(),
        delivery: row.delivery.clone().unwrap_or_default(),
        first_at: row.created_at.unwrap_or(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(attempts: i32) -> DueEvent {
        DueEvent {
            id: "e".to_owned(),
            lane: 0,
            seq: 1,
            event_type: "a".to_owned(),
            aggregate: None,
            payload: bytes::Bytes::new(),
            metadata: None,
            created_at: None,
            event_key: None,
            generation: 0,
            attempts,
            next_attempt_at: 0,
            crashed: false,
            original: None,
            delivery: None,
            weight: 2,
        }
    }

    fn failed(class: Class, no_try: bool) -> Settled {
        Settled {
            outcome: Outcome::Retry(Duration::from_secs(3)),
            failure: Some(Failed {
                handler: "h",
                class,
                code: Code::new("c"),
                message: "m".to_owned(),
                no_try,
            }),
        }
    }

    #[test]
    fn waits_double_up_to_ten_minutes_and_are_never_shorter_than_asked() {
        assert_eq!(wait(1, 1.0), Duration::from_secs(1));
        assert_eq!(wait(4, 1.0), Duration::from_secs(8));
        assert_eq!(wait(4, 0.0), Duration::from_secs(4));
        assert_eq!(wait(i32::MAX, 1.0), LAST_WAIT);
        let verdict = judge(&row(0), &failed(Class::Transient, false), 0, 5, 0.0, false);
        let Verdict::Mark(mark) = verdict else {
            panic!("it rests")
        };
        assert!(
            matches!(
                *mark,
                Mark::PutOff {
                    until: 3_000_000,
                    ..
                }
            ),
            "{mark:?}"
        );
    }

    #[test]
    fn what_says_nothing_about_the_event_is_no_try_however_often() {
        let verdict = judge(&row(99), &failed(Class::Transient, true), 0, 5, 0.0, false);
        assert!(matches!(verdict, Verdict::Rest(_)), "{verdict:?}");
        assert!(!verdict.goes_on());
    }

    #[test]
    fn what_can_never_succeed_is_given_up_at_once() {
        let verdict = judge(&row(0), &failed(Class::Permanent, false), 0, 5, 0.0, false);
        assert!(verdict.goes_on());
        let Verdict::Mark(mark) = verdict else {
            panic!("it rests")
        };
        assert!(matches!(*mark, Mark::GivenUp { .. }), "{mark:?}");
    }
}
