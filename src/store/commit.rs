//! The group commit: what many runs leave behind, in one transaction.

use super::dead_letters::{self, NewDeadLetter};
use super::inbox::{Facts, RunKey};
use super::outbox::{self, OutboxRow};
use super::subjects::{self, Mark};
use super::write::{self, Write};
use super::{Pool, Store, Tx, ends};
use crate::error::{Error, Result};
use crate::failpoint;

/// One thing to be kept. Things of one batch are kept together or not at all, but one that cannot
/// be kept does not stop the others.
#[derive(Debug, Clone)]
pub enum Step {
    /// A run ends, with everything that follows from it.
    End(Box<End>),
    /// A run is given up for now.
    GiveBack(Box<GiveBack>),
    /// Something that no handler saw becomes a dead letter.
    Bury(Box<Bury>),
    /// An event came again.
    Repeat(Box<Repeat>),
}

/// A run ends.
#[derive(Debug, Clone)]
pub struct End {
    /// Which.
    pub key: RunKey,
    /// By what right.
    pub right: Right,
    /// `done`, `skipped`, `dead_lettered`.
    pub outcome: &'static str,
    /// Why it was skipped, or the code of its failure.
    pub reason: Option<String>,
    /// The handler's own statements.
    pub writes: Vec<Write>,
    /// What is to be published.
    pub outbox: Vec<OutboxRow>,
    /// Which change of a row is handled now, when the handler wants older ones skipped.
    pub mark: Option<Mark>,
    /// What is left of it, when it failed for good.
    pub dead_letter: Option<NewDeadLetter>,
}

impl End {
    /// Tells whether nothing follows from it.
    fn is_bare(&self) -> bool {
        self.writes.is_empty()
            && self.outbox.is_empty()
            && self.mark.is_none()
            && self.dead_letter.is_none()
    }
}

/// The right to end a run.
#[derive(Debug, Clone)]
pub enum Right {
    /// It was claimed, with this fence.
    Claimed(i64),
    /// It was not: whoever ends it first has run it. For handlers whose every effect is in the
    /// transaction, which undoes the second one's.
    First(Box<Begun>),
}

/// What a claim would have noted.
#[derive(Debug, Clone)]
pub struct Begun {
    /// What is known of the event.
    pub facts: Facts,
}

/// A run is given up for now.
#[derive(Debug, Clone)]
pub struct GiveBack {
    /// Which.
    pub key: RunKey,
    /// The claim's fence, if there was a claim.
    pub fence: Option<i64>,
    /// Why.
    pub failure: Option<Failure>,
}

/// Why a try failed. Holds words of this program only, no values.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which try, from 1.
    pub attempt: i32,
    /// `transient` or `permanent`.
    pub class: &'static str,
    /// Machine-readable.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A dead letter of something that has no run.
#[derive(Debug, Clone)]
pub struct Bury {
    /// The dead letter.
    pub dead_letter: NewDeadLetter,
    /// Its copy for the dead-letter topic.
    pub outbox: Vec<OutboxRow>,
}

/// An event came again after it had ended.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// The event.
    pub event_id: String,
    /// The handler that had it before.
    pub handler: &'static str,
    /// What kind of repeat.
    pub kind: &'static str,
    /// Under which message it came now.
    pub message_id: Option<String>,
    /// Hasura's retry counter now.
    pub hasura_retry: Option<i32>,
    /// Whether it is run again.
    pub ran_again: bool,
}

/// What became of a [`Step`].
#[derive(Debug)]
pub enum Kept {
    /// It is kept.
    Done,
    /// The claim had been taken over, or somebody else ended the run first: nothing of it is kept.
    NotOurs,
    /// The database will never take it: nothing of it is kept.
    Refused(Error),
}

/// How often a batch that the database asks to repeat is repeated.
pub(super) const MAX_REPETITIONS: usize = 5;

/// Keeps all steps in one transaction; when the database refuses one of them, or one gets in
/// somebody's way or waits for somebody too long, each in its own.
///
/// # Errors
/// When the database did not confirm; whether the steps are kept is not known then. Of steps that
/// were tried each in its own, each has its own answer.
pub async fn commit(store: &Store, steps: &[Step]) -> Result<Vec<Result<Kept>>> {
    let error = match together(store, steps).await {
        Ok(kept) => return Ok(kept.into_iter().map(Ok).collect()),
        Err(error) => error,
    };
    if let [_] = steps {
        return Ok(vec![refused(error)]);
    }
    if !(is_refusal(&error) || asks_to_repeat(&error) || is_held_up(&error)) {
        return Err(error);
    }
    let mut kept: Vec<Option<Result<Kept>>> = steps.iter().map(|_| None).collect();
    // Handlers' own statements lock rows in an order nobody knows and wait for whoever has them.
    // Those steps come last: the others need not wait with them.
    let waits = |index: &usize| has_writes(&steps[*index]);
    let (last, first): (Vec<usize>, Vec<usize>) = (0..steps.len()).partition(waits);
    for index in first.into_iter().chain(last) {
        let one = together(store, std::slice::from_ref(&steps[index])).await;
        kept[index] = Some(match one {
            Ok(mut one) => Ok(one.pop().unwrap_or(Kept::NotOurs)),
            Err(error) => refused(error),
        });
    }
    Ok(kept.into_iter().flatten().collect())
}

/// Tells what can never be kept from what can later.
fn refused(error: Error) -> Result<Kept> {
    match is_refusal(&error) {
        true => Ok(Kept::Refused(error)),
        false => Err(error),
    }
}

fn has_writes(step: &Step) -> bool {
    matches!(step, Step::End(end) if !end.writes.is_empty())
}

async fn together(store: &Store, steps: &[Step]) -> Result<Vec<Kept>> {
    let most = match steps {
        [_] => MAX_REPETITIONS,
        _ => 1,
    };
    let mut repetitions = 0;
    loop {
        match store.in_time(once(store, steps)).await {
            Err(error) if repetitions < most && asks_to_repeat(&error) => {
                repetitions += 1;
            }
            other => return other,
        }
    }
}

/// Keeps steps that are nothing but ends of runs nobody claimed: one statement, which is its own
/// transaction. `None` when there is more to them.
async fn ends_alone(store: &Store, steps: &[Step]) -> Result<Option<Vec<Kept>>> {
    let Pool::Postgres(pool) = store.pool() else {
        return Ok(None);
    };
    let mut ends = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::End(end) if end.is_bare() => match &end.right {
                Right::First(begun) => ends.push((index, end.as_ref(), begun.as_ref())),
                Right::Claimed(_) => return Ok(None),
            },
            _ => return Ok(None),
        }
    }
    in_order(&mut ends);
    let mut kept = vec![false; steps.len()];
    let mut connection = store.steady(pool).await?;
    ends::end_unclaimed_together(store, &mut connection, &ends, store.now(), &mut kept).await?;
    store.keep(pool, connection);
    Ok(Some(answers(kept)))
}

/// In one order everywhere, so that two instances do not wait for each other. The same run twice:
/// whoever began it gave up waiting, and it has come again.
fn in_order(first: &mut Vec<(usize, &End, &Begun)>) {
    first.sort_by(|(_, a, _), (_, b, _)| a.key.cmp(&b.key));
    first.dedup_by(|(_, later, _), (_, one, _)| later.key == one.key);
}

fn answers(kept: Vec<bool>) -> Vec<Kept> {
    let answer = |kept| if kept { Kept::Done } else { Kept::NotOurs };
    kept.into_iter().map(answer).collect()
}

async fn once(store: &Store, steps: &[Step]) -> Result<Vec<Kept>> {
    if let Some(kept) = ends_alone(store, steps).await? {
        return Ok(kept);
    }
    // Nobody knows what handlers' own statements look for.
    let mut tx = match steps.iter().any(has_writes) {
        true => store.begin().await?,
        false => store.begin_keyed().await?,
    };
    let now = store.now();
    // First the fences: whose claim is lost must not leave anything behind.
    let mut kept = vec![true; steps.len()];
    let (mut claimed, mut first) = (Vec::new(), Vec::new());
    for (index, step) in steps.iter().enumerate() {
        if let Step::End(end) = step {
            kept[index] = false;
            match &end.right {
                Right::Claimed(fence) => claimed.push((index, end.as_ref(), *fence)),
                Right::First(begun) => first.push((index, end.as_ref(), begun.as_ref())),
            }
        }
    }
    // In one order everywhere, so that two instances do not wait for each other.
    claimed.sort_by(|(_, a, _), (_, b, _)| a.key.cmp(&b.key));
    in_order(&mut first);
    let held = claimed.iter().map(|(_, end, _)| &end.key);
    let back = steps.iter().filter_map(|step| match step {
        Step::GiveBack(back) => back.fence.map(|_| &back.key),
        Step::End(_) | Step::Bury(_) | Step::Repeat(_) => None,
    });
    let held: Vec<&RunKey> = held.chain(back).collect();
    ends::lock(&mut tx, &held).await?;
    if !claimed.is_empty() {
        ends::end_claimed(&mut tx, &claimed, now, &mut kept).await?;
    }
    if !first.is_empty() {
        ends::end_unclaimed(store, &mut tx, &first, now, &mut kept).await?;
    }
    let (mut outbox, mut letters) = (Vec::new(), Vec::new());
    for (step, _) in steps.iter().zip(&kept).filter(|(_, kept)| **kept) {
        rest(&mut tx, step, now, &mut outbox, &mut letters).await?;
    }
    // In one order everywhere, these as well.
    letters.sort_by_cached_key(|letter| letter.id());
    for letter in letters {
        dead_letters::insert(&mut tx, letter, now).await?;
    }
    let marks: Vec<&Mark> = steps
        .iter()
        .zip(&kept)
        .filter_map(|(step, kept)| match step {
            Step::End(end) if *kept => end.mark.as_ref(),
            _ => None,
        })
        .collect();
    subjects::mark(&mut tx, marks, now).await?;
    // Last, because it takes the locks that keep rows of one lane in the order of their commits.
    if !outbox.is_empty() {
        outbox::insert(&mut tx, &outbox, now).await?;
    }
    if !claimed.is_empty() {
        failpoint::reach("before_commit");
    }
    tx.commit().await?;
    if !claimed.is_empty() {
        failpoint::reach("after_commit");
    }
    if !outbox.is_empty() {
        store.wakeups().outbox.notify_one();
    }
    Ok(answers(kept))
}

async fn rest<'a>(
    tx: &mut Tx,
    step: &'a Step,
    now: i64,
    outbox: &mut Vec<OutboxRow>,
    letters: &mut Vec<&'a NewDeadLetter>,
) -> Result<()> {
    match step {
        Step::End(end) => {
            write::apply(tx, &end.writes).await?;
            letters.extend(end.dead_letter.as_ref());
            outbox.extend(end.outbox.iter().cloned());
            Ok(())
        }
        Step::GiveBack(back) => ends::give_back(tx, back, now).await,
        Step::Bury(bury) => {
            outbox.extend(bury.outbox.iter().cloned());
            letters.push(&bury.dead_letter);
            Ok(())
        }
        Step::Repeat(again) => ends::repeat(tx, again, now).await,
    }
}

fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Rejected { .. } | Error::NotFound { .. })
}

/// Tells whether a lock was waited for too long, or a statement took too long.
fn is_held_up(error: &Error) -> bool {
    matches!(error.code().as_str(), "lock_timeout" | "statement_timeout")
}

pub(super) fn asks_to_repeat(error: &Error) -> bool {
    matches!(error.code().as_str(), "serialization_failure" | "deadlock")
}
