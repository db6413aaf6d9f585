//! A handler's run with a database: what it holds meanwhile, and how it ends in one transaction.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::dead_letters::Cause;
use super::inbox::{Earlier, Guard};
use super::later::Later;
use super::ledger::{Answer, Lease, failure, lease_lost};
use super::outcome::Before;
use super::repeats::{Repeat, claim_key, earlier, facts_of, marks_of};
use super::run::{Finished, Job, cause, retry};
use super::{Effects, Outcome, Pipeline, Repeated};
use crate::clients::{Admission, Gate};
use crate::clock::Elapsed;
use crate::error::{Class, Code, Error, Result};
use crate::event::TraceContext;
use crate::store::commit::{self, Begun, Bury, End, GiveBack, Kept, Right, Step};
use crate::store::inbox::{Ask, Ended, Mode, RunKey};

/// By what right a handler runs.
pub(super) enum Hold {
    /// Nobody else in this process does; there is no database.
    Memory,
    /// A claim in the database.
    Claimed(Lease),
    /// None: its effects are all in the transaction that ends it, and only one of them can end.
    Unclaimed(RunKey),
    /// None so far: it is claimed when the handler reaches out.
    Later(Arc<Later>),
}

/// By what right a handler has run.
pub(super) enum Held {
    /// By this one, which may have been lost.
    Still(Hold),
    /// By none, but it may run by this one.
    Anew(Hold),
}

/// A run that is over before it began.
pub(super) struct Over {
    pub(super) outcome: Outcome,
    pub(super) error: Option<Error>,
    /// What this process has to remember, so that it need not ask again.
    pub(super) remember: Option<(Earlier, Option<NonZeroU64>)>,
}

impl Over {
    pub(super) fn with(outcome: Outcome, error: Option<Error>) -> Self {
        Self {
            outcome,
            error,
            remember: None,
        }
    }

    pub(super) fn retry(error: Option<Error>) -> Self {
        let outcome = error.as_ref().map_or(Outcome::Retry(Outcome::SOON), retry);
        Self::with(outcome, error)
    }
}

impl Hold {
    /// Which try this is, from 1.
    pub(super) fn attempt(&self) -> u32 {
        match self {
            Self::Memory | Self::Unclaimed(_) | Self::Later(_) => 1,
            Self::Claimed(lease) => u32::try_from(lease.attempt()).unwrap_or(1),
        }
    }

    /// Which run this is; every run somebody asks for again has its own ids for what it does.
    pub(super) fn generation(&self) -> i32 {
        match self {
            Self::Memory => 0,
            Self::Claimed(lease) => lease.key().generation,
            Self::Unclaimed(key) => key.generation,
            Self::Later(later) => later.key().generation,
        }
    }

    /// Returns what the first request waits for.
    pub(super) fn gate(&self) -> Gate {
        match self {
            Self::Later(later) => Gate::of(Arc::clone(later) as Arc<dyn Admission>),
            Self::Memory | Self::Unclaimed(_) | Self::Claimed(_) => Gate::default(),
        }
    }

    /// Runs `work` unless the claim is refused or lost meanwhile.
    pub(super) async fn unless_lost<T>(
        &self,
        work: impl Future<Output = Result<T, Elapsed>>,
    ) -> Result<Result<T, Elapsed>> {
        match self {
            Self::Memory | Self::Unclaimed(_) => Ok(work.await),
            Self::Claimed(lease) => {
                let lost = lease.lost();
                tokio::select! {
                    biased;
                    result = work => Ok(result),
                    () = lost.cancelled() => Err(lease_lost()),
                }
            }
            Self::Later(later) => tokio::select! {
                biased;
                result = work => Ok(result),
                () = later.refused() => Err(lease_lost()),
            },
        }
    }
}

impl Pipeline {
    /// Gets the right to run from the database, when there is one.
    pub(super) async fn hold(&self, job: &Job<'_>, _guard: &Guard) -> Result<Hold, Over> {
        let Some(ledger) = &self.parts.ledger else {
            return Ok(Hold::Memory);
        };
        let mode = match job.mode {
            // A dead letter that was published again.
            Mode::Generation(0) if job.event.is_redriven() => Mode::IfNotDone,
            mode => mode,
        };
        let Mode::Generation(generation) = mode else {
            return self.claim_durably(job, mode).await;
        };
        let key = || RunKey {
            event_id: claim_key(job.event),
            handler: job.handler(),
            generation,
        };
        match job.registration.effects() {
            Effects::Anywhere => self.claim_durably(job, mode).await,
            Effects::Transaction => Ok(Hold::Unclaimed(key())),
            Effects::Calls => {
                let (ledger, ask) = (Arc::clone(ledger), ask_for(job, mode));
                Ok(Hold::Later(Later::new(
                    ledger,
                    ask,
                    key(),
                    job.budget.clone(),
                )))
            }
        }
    }

    /// Returns by what right a handler has run that has ended, or what else is to be done.
    pub(super) async fn held(&self, job: &Job<'_>, hold: Hold) -> Result<Held, Over> {
        let Hold::Later(later) = hold else {
            return Ok(Held::Still(hold));
        };
        match later.close() {
            None => Ok(Held::Still(Hold::Unclaimed(later.key().clone()))),
            Some(Ok(Answer::Ours(lease))) => Ok(Held::Still(Hold::Claimed(lease))),
            Some(answer) => self.answered(job, answer).await.map(Held::Anew),
        }
    }

    async fn claim_durably(&self, job: &Job<'_>, mode: Mode) -> Result<Hold, Over> {
        let Some(ledger) = &self.parts.ledger else {
            return Ok(Hold::Memory);
        };
        let answer = ledger.claim(ask_for(job, mode), job.budget).await;
        self.answered(job, answer).await
    }

    /// Turns the answer to a claim into a right to run.
    async fn answered(&self, job: &Job<'_>, answer: Result<Answer>) -> Result<Hold, Over> {
        match answer {
            Ok(Answer::Ours(lease)) => Ok(Hold::Claimed(lease)),
            Ok(Answer::Running) => Err(Over::retry(None)),
            Ok(Answer::Ended(ended)) => self.ended_before(job, &ended).await,
            Err(error) => Err(Over::retry(Some(error))),
        }
    }

    /// Decides what to do with an event that the database says was run before.
    async fn ended_before(&self, job: &Job<'_>, ended: &Ended) -> Result<Hold, Over> {
        let before = earlier(ended, job.event);
        let kind = Repeat::judge(&marks_of(job.event), &before, self.parts.clock.now());
        match kind {
            Repeat::IdReuse => return Err(self.bury_reuse(job).await),
            Repeat::OperatorRedelivery
                if !job.is_again() && job.registration.on_redelivery() == Repeated::Run =>
            {
                self.note_repeat(job, kind, true);
                return Box::pin(self.claim_durably(job, Mode::Force)).await;
            }
            kind => self.note_repeat(job, kind, false),
        }
        let content = ended
            .body_hash
            .and_then(|hash| NonZeroU64::new(hash.cast_unsigned()));
        Err(Over {
            outcome: Outcome::Duplicate(Some(Before {
                at: before.at,
                attempt: before.attempt,
            })),
            error: None,
            remember: Some((before, content)),
        })
    }

    /// Keeps an event that is not the one its id says: neither may be lost for the other.
    async fn bury_reuse(&self, job: &Job<'_>) -> Over {
        self.count(job.handler(), "id_reuse");
        self.note_repeat(job, Repeat::IdReuse, false);
        let code = Code::new("id_reuse");
        let cause = Cause {
            reason: "the event id was used before, by an event that says something else".to_owned(),
            class: Class::Permanent,
            code: code.clone(),
            handler: Some(job.handler()),
            trace: job.event.trace,
        };
        let bury = self.burial(job, &cause);
        let kept = match &self.parts.ledger {
            Some(ledger) => ledger.keep(bury, &job.budget.settle).await,
            None => Ok(Kept::Done),
        };
        match kept {
            Ok(Kept::Done) => Over::with(
                Outcome::DeadLettered(code.clone()),
                Some(Error::Never { code }),
            ),
            Ok(Kept::NotOurs) => Over::retry(None),
            Ok(Kept::Refused(error)) | Err(error) => Over::retry(Some(error)),
        }
    }

    fn burial(&self, job: &Job<'_>, cause: &Cause) -> Step {
        let letters = &self.parts.dead_letters;
        Step::Bury(Box::new(Bury {
            dead_letter: letters.row_of_event(job.event, cause, job.source, 0, 1),
            outbox: letters.outbox_of_event(job.event, cause),
        }))
    }

    /// Notes that an event came again, for those who ask later why nothing happened.
    pub(super) fn note_repeat(&self, job: &Job<'_>, kind: Repeat, ran_again: bool) {
        let Some(ledger) = &self.parts.ledger else {
            return;
        };
        // A row of the table does not come again by itself, and a try of ours is no delivery.
        if job.event.from_table || (job.event.kept && kind == Repeat::PubsubRedelivery) {
            return;
        }
        let facts = facts_of(job.event);
        ledger.note(Step::Repeat(Box::new(commit::Repeat {
            event_id: claim_key(job.event),
            handler: job.handler(),
            kind: kind.as_str(),
            message_id: facts.message_id,
            hasura_retry: facts.hasura_retry,
            ran_again,
        })));
        tracing::debug!(
            target: "hookyard::step",
            step = "repeat",
            detail = %format_args!("{}: {}", job.handler(), kind.as_str()),
        );
    }

    /// Ends a run: completion, writes, outbox and dead letter together, if the claim still holds.
    pub(super) async fn settle_durably(
        &self,
        job: &Job<'_>,
        hold: Hold,
        trace: &TraceContext,
        result: Result<Finished, Error>,
    ) -> Result<Over, Hold> {
        let error = match result {
            Ok(finished) => {
                let outcome = Outcome::from(finished.completion);
                let end = self.end_well(job, &hold, finished, trace);
                let (writes, events) = (end.writes.len(), end.outbox.len());
                match self.end(job, &hold, end).await {
                    Ok(Kept::Done) => {
                        tracing::debug!(
                            target: "hookyard::step",
                            step = "committed",
                            detail = %format_args!(
                                "{}: completion, {writes} writes, {events} events to publish",
                                job.handler()
                            ),
                        );
                        close(hold);
                        return Ok(Over::with(outcome, None));
                    }
                    Ok(Kept::NotOurs) => return self.overtaken(job, hold).await,
                    // A statement of its own that can never succeed is the handler's failure.
                    Ok(Kept::Refused(error)) => error,
                    Err(error) => return Ok(Over::retry(Some(error))),
                }
            }
            Err(error) => error,
        };
        if !self.is_hopeless(job, &error, hold.attempt()) {
            self.give_back(job, hold, &error).await;
            return Ok(Over::retry(Some(error)));
        }
        let cause = cause(job, &error, trace);
        let end = self.end_badly(job, &hold, &cause);
        match self.end(job, &hold, end).await {
            Ok(Kept::Done) => {
                close(hold);
                Ok(Over::with(Outcome::DeadLettered(cause.code), Some(error)))
            }
            Ok(Kept::NotOurs) => self.overtaken(job, hold).await,
            Ok(Kept::Refused(error)) | Err(error) => {
                Ok(Over::with(Outcome::Retry(Outcome::SOON), Some(error)))
            }
        }
    }

    async fn end(&self, job: &Job<'_>, hold: &Hold, end: End) -> Result<Kept> {
        debug_assert!(!matches!(hold, Hold::Memory), "there is a database");
        match &self.parts.ledger {
            Some(ledger) => {
                let step = Step::End(Box::new(end));
                ledger.keep(step, &job.budget.settle).await
            }
            None => Ok(Kept::Done),
        }
    }

    fn end_well(
        &self,
        job: &Job<'_>,
        hold: &Hold,
        finished: Finished,
        trace: &TraceContext,
    ) -> End {
        let outcome = Outcome::from(finished.completion);
        let reason = match &outcome {
            Outcome::Skipped(why) => Some((*why).to_owned()),
            _ => None,
        };
        let egress = &self.parts.egress;
        End {
            key: key_of(job, hold),
            right: right_of(job, hold),
            outcome: outcome.as_str(),
            reason,
            writes: finished.writes,
            outbox: egress.outbox_rows(finished.emitted, job.event, trace),
            mark: self.mark_of(job),
            dead_letter: None,
        }
    }

    fn end_badly(&self, job: &Job<'_>, hold: &Hold, cause: &Cause) -> End {
        let letters = &self.parts.dead_letters;
        let (generation, tries) = (hold.generation(), hold.attempt());
        let row = letters.row_of_event(job.event, cause, job.source, generation, tries);
        End {
            key: key_of(job, hold),
            right: right_of(job, hold),
            outcome: "dead_lettered",
            reason: Some(cause.code.to_string()),
            writes: Vec::new(),
            outbox: letters.outbox_of_event(job.event, cause),
            mark: None,
            dead_letter: Some(row),
        }
    }

    /// Gives a claim back with the reason; the event comes again in any case.
    async fn give_back(&self, job: &Job<'_>, hold: Hold, error: &Error) {
        let Some(ledger) = &self.parts.ledger else {
            return;
        };
        let fence = match &hold {
            Hold::Claimed(lease) => Some(lease.fence()),
            Hold::Memory | Hold::Unclaimed(_) | Hold::Later(_) => None,
        };
        let attempt = i32::try_from(hold.attempt()).unwrap_or(i32::MAX);
        let step = Step::GiveBack(Box::new(GiveBack {
            key: key_of(job, &hold),
            fence,
            failure: Some(failure(attempt, error)),
        }));
        // When this fails the lease is given back by its own end.
        if let Ok(Kept::Done) = ledger.keep(step, &job.budget.settle).await {
            close(hold);
        }
    }

    /// Somebody else has ended the run or holds it now; nothing of ours was kept. `Err` with the
    /// right to run once more, when nothing was done that would last.
    async fn overtaken(&self, job: &Job<'_>, hold: Hold) -> Result<Over, Hold> {
        let (generation, claimed) = (hold.generation(), matches!(hold, Hold::Claimed(_)));
        close(hold);
        match self.claim_durably(job, Mode::Generation(generation)).await {
            Err(over) => Ok(over),
            // Free again: whoever held it has given it back.
            Ok(_) if claimed => Ok(Over::with(
                Outcome::Retry(Outcome::SOON),
                Some(lease_lost()),
            )),
            Ok(anew) => Err(anew),
        }
    }
}

fn ask_for(job: &Job<'_>, mode: Mode) -> Ask {
    Ask {
        event_id: claim_key(job.event),
        handler: job.handler(),
        mode,
        facts: facts_of(job.event),
    }
}

fn close(hold: Hold) {
    if let Hold::Claimed(lease) = hold {
        lease.close();
    }
}

fn key_of(job: &Job<'_>, hold: &Hold) -> RunKey {
    match hold {
        Hold::Claimed(lease) => lease.key().clone(),
        Hold::Unclaimed(key) => key.clone(),
        Hold::Later(later) => later.key().clone(),
        Hold::Memory => RunKey {
            event_id: claim_key(job.event),
            handler: job.handler(),
            generation: 0,
        },
    }
}

fn right_of(job: &Job<'_>, hold: &Hold) -> Right {
    match hold {
        Hold::Claimed(lease) => Right::Claimed(lease.fence()),
        Hold::Memory | Hold::Unclaimed(_) | Hold::Later(_) => Right::First(Box::new(Begun {
            facts: facts_of(job.event),
        })),
    }
}
