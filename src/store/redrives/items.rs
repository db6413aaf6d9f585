//! The items of a redrive: taken a few at a time, run elsewhere, settled.

use sqlx::FromRow;

use super::super::dead_letters::{decided, event_column};
use super::super::find::{BY_ID, Sql, number, text, words};
use super::super::{Micros, Store, Tx, outbox};
use super::prepare::{dead_letter, event};
use super::{DEAD_LETTERS, Leased, RedriveRow, locked};
use crate::error::Result;

const WAITING: i16 = 0;
const RUNNING: i16 = 1;
const ENDED: i16 = 2;

/// One event of a redrive.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Item {
    /// Its place.
    pub n: i64,
    /// The dead letter, or the row of `events`.
    pub item_id: String,
    /// The id it is claimed under.
    pub event_id: String,
    /// What it has to run in order with.
    pub aggregate: String,
    /// The only handler that runs; all when there is none.
    pub handler: Option<String>,
    /// 0 waiting, 1 running, 2 ended.
    pub state: i16,
    /// The run it gets.
    pub generation: i32,
    /// How often it was tried.
    pub attempts: i32,
    /// How it ended.
    pub outcome: Option<String>,
    /// Why it ended so.
    pub reason: Option<String>,
    /// When it last moved.
    pub at: Micros,
}

impl Item {
    /// Tells whether it was taken before.
    pub fn is_resumed(&self) -> bool {
        self.state == RUNNING
    }
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// These are to be run, those of one aggregate in this order. May be empty when all that was
    /// looked at needs nothing.
    Items(Vec<Item>),
    /// Nothing: it is finished, was aborted, or another instance has it.
    Over,
}

/// How an item's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Done(&'static str),
    /// With nothing to do.
    Skipped(String),
    /// Badly, and a new dead letter says so.
    DeadLettered(String),
    /// Badly; the dead letter stays open.
    Failed(String),
    /// It is a message the broker refused, and is to be published again.
    Publish,
    /// Not yet; it is to be tried again. Counts as a try, or does not.
    Again(bool),
}

/// An item whose run is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub item: Item,
    /// How.
    pub ended: Ended,
}

const SELECT: &str = "SELECT n, item_id, event_id, aggregate, handler, state, generation, \
    attempts, outcome, reason, at FROM redrive_items";

/// Takes the next items, at most `limit`, and prolongs the lease to `until`.
///
/// # Errors
/// When the database is away.
pub async fn take(store: &Store, leased: &Leased, limit: i64, until: Micros) -> Result<Taken> {
    let now = store.now();
    let mut tx = store.begin().await?;
    let Some(redrive) = locked(&mut tx, leased).await? else {
        return Ok(Taken::Over);
    };
    let mut sql = Sql::new(SELECT);
    sql.with(" WHERE redrive_id = ? AND state < 2", words(&redrive.id));
    sql.with(" ORDER BY n LIMIT ?", number(limit));
    let items: Vec<Item> = sql.all_in(&mut tx).await?;
    if redrive.state != "running" || items.is_empty() {
        finish(&mut tx, &redrive, now).await?;
        tx.commit().await?;
        return Ok(Taken::Over);
    }
    if leased.left
        && let Some(first) = items.iter().find(|item| item.is_resumed())
    {
        // The instance may have died of it. Run alone it takes nobody along, and is counted before
        // it runs; whoever comes back with how it went says how many tries there were.
        let counted = Item {
            attempts: first.attempts + 1,
            ..first.clone()
        };
        mark(&mut tx, &redrive, &counted, RUNNING, None, now).await?;
        count(&mut tx, &redrive, (0, 0, 0), until, now).await?;
        tx.commit().await?;
        return Ok(Taken::Items(vec![first.clone()]));
    }
    let mut runnable = Vec::new();
    let mut skipped = 0;
    for mut item in items {
        if item.state == WAITING {
            let prepared = if redrive.kind == DEAD_LETTERS {
                dead_letter(&mut tx, &redrive, &item, now).await?
            } else {
                event(&mut tx, &redrive, &item, now).await?
            };
            match prepared {
                Ok(generation) => {
                    item.generation = generation;
                    item.at = now;
                    mark(&mut tx, &redrive, &item, RUNNING, None, now).await?;
                }
                Err(reason) => {
                    skipped += 1;
                    let outcome = Some(("skipped", reason));
                    mark(&mut tx, &redrive, &item, ENDED, outcome, now).await?;
                    continue;
                }
            }
        }
        runnable.push(item);
    }
    count(&mut tx, &redrive, (0, 0, skipped), until, now).await?;
    tx.commit().await?;
    Ok(Taken::Items(runnable))
}

/// Closes a dead letter that a redrive has dealt with.
pub(super) async fn close(
    tx: &mut Tx,
    redrive: &RedriveRow,
    item: &Item,
    note: &str,
    now: Micros,
) -> Result<()> {
    let mut sql = Sql::new("UPDATE event_dead_letters SET status = 'redriven'");
    decided(&mut sql, &redrive.actor, note, now);
    open_letter(sql, tx, redrive, item).await
}

/// Leaves a dead letter open for the next decision.
pub(super) async fn reopen(tx: &mut Tx, redrive: &RedriveRow, item: &Item) -> Result<()> {
    let sql = Sql::new("UPDATE event_dead_letters SET redrive_id = NULL");
    open_letter(sql, tx, redrive, item).await
}

/// Runs an update on the item's dead letter, if it is open and in this redrive's hand.
async fn open_letter(mut sql: Sql, tx: &mut Tx, redrive: &RedriveRow, item: &Item) -> Result<()> {
    sql.with(BY_ID, words(&item.item_id));
    sql.with(
        " AND redrive_id = ? AND status = 'open'",
        words(&redrive.id),
    );
    sql.run(tx).await.map(|_| ())
}

async fn mark(
    tx: &mut Tx,
    redrive: &RedriveRow,
    item: &Item,
    state: i16,
    outcome: Option<(&str, &str)>,
    now: Micros,
) -> Result<()> {
    let mut sql = Sql::new("UPDATE redrive_items SET");
    sql.with(" state = ?", number(state));
    sql.with(", generation = ?", number(item.generation));
    sql.with(", attempts = ?", number(item.attempts));
    sql.with(", at = ?", number(now));
    if let Some((outcome, reason)) = outcome {
        sql.with(", outcome = ?", words(outcome));
        sql.with(", reason = ?", words(reason));
    }
    sql.with(" WHERE redrive_id = ?", words(&redrive.id));
    sql.with(" AND n = ?", number(item.n));
    sql.run(tx).await.map(|_| ())
}

async fn count(
    tx: &mut Tx,
    redrive: &RedriveRow,
    (done, failed, skipped): (i64, i64, i64),
    until: Micros,
    now: Micros,
) -> Result<()> {
    let mut sql = Sql::new("UPDATE redrives SET");
    sql.with(" done = done + ?", number(done));
    sql.with(", failed = failed + ?", number(failed));
    sql.with(", skipped = skipped + ?", number(skipped));
    sql.with(", next_seq = next_seq + ?", number(done + failed + skipped));
    sql.with(", lease_until = ?", number(until));
    sql.with(", updated_at = ?", number(now));
    sql.with(" WHERE id = ?", words(&redrive.id));
    sql.run(tx).await.map(|_| ())
}

/// Ends a redrive that has no items left, or gives an aborted one back.
async fn finish(tx: &mut Tx, redrive: &RedriveRow, now: Micros) -> Result<()> {
    let mut sql = Sql::new(
        "UPDATE redrives SET lease_until = 0, \
         state = CASE WHEN state = 'running' THEN 'finished' ELSE state END",
    );
    sql.with(", updated_at = ?", number(now));
    sql.with(" WHERE id = ?", words(&redrive.id));
    sql.run(tx).await?;
    // What an aborted redrive had in hand when its instance died is free again.
    let mut sql = Sql::new("UPDATE event_dead_letters SET redrive_id = NULL");
    sql.with(
        " WHERE redrive_id = ? AND status = 'open'",
        words(&redrive.id),
    );
    if redrive.kind == DEAD_LETTERS && redrive.state == "aborted" {
        sql.run(tx).await?;
    }
    Ok(())
}

/// Writes down how items ended; `false` when another instance has the redrive now.
///
/// # Errors
/// When the database is away: the items are run again, under the same generation, which then
/// finds that they have ended.
pub async fn settle(
    store: &Store,
    leased: &Leased,
    settled: &[Settled],
    until: Micros,
) -> Result<bool> {
    let now = store.now();
    let mut tx = store.begin().await?;
    let Some(redrive) = locked(&mut tx, leased).await? else {
        return Ok(false);
    };
    let (mut done, mut failed, mut skipped) = (0, 0, 0);
    for Settled { item, ended } in settled {
        let (counter, outcome, reason) = match ended {
            Ended::Done(outcome) => (&mut done, *outcome, ""),
            Ended::Skipped(why) => (&mut skipped, "skipped", why.as_str()),
            Ended::DeadLettered(why) => (&mut failed, "dead_lettered", why.as_str()),
            Ended::Failed(why) => (&mut failed, "failed", why.as_str()),
            Ended::Publish if outbox::wait_again(&mut tx, &item.event_id).await? => {
                (&mut done, "published", "")
            }
            Ended::Publish => (&mut failed, "failed", "its row in the outbox is gone"),
            Ended::Again(counts) => {
                let item = Item {
                    attempts: item.attempts + i32::from(*counts),
                    ..item.clone()
                };
                mark(&mut tx, &redrive, &item, RUNNING, None, now).await?;
                continue;
            }
        };
        *counter += 1;
        mark(&mut tx, &redrive, item, ENDED, Some((outcome, reason)), now).await?;
        if redrive.kind == DEAD_LETTERS {
            match outcome {
                "failed" => reopen(&mut tx, &redrive, item).await?,
                "dead_lettered" => {
                    if is_followed(&mut tx, item).await? {
                        close(&mut tx, &redrive, item, "failed again", now).await?;
                    } else {
                        // It failed in the same way, so there is no second dead letter.
                        reopen(&mut tx, &redrive, item).await?;
                    }
                }
                _ => {
                    close(&mut tx, &redrive, item, reason, now).await?;
                    mend_event(&mut tx, item).await?;
                }
            }
        }
    }
    count(&mut tx, &redrive, (done, failed, skipped), until, now).await?;
    tx.commit().await?;
    Ok(true)
}

/// Tells whether another dead letter says how the event failed since.
async fn is_followed(tx: &mut Tx, item: &Item) -> Result<bool> {
    let mut sql = Sql::new(
        "SELECT 1 FROM event_dead_letters AS other JOIN event_dead_letters AS mine \
         ON mine.event_id = other.event_id AND other.id <> mine.id \
         AND (mine.handler IS NULL OR mine.handler = other.handler)",
    );
    sql.with(text!(" WHERE mine.id = " uuid), words(&item.item_id));
    sql.with(
        " AND other.status = 'open' AND other.kept_at >= ? LIMIT 1",
        number(item.at),
    );
    Ok(sql.one_in::<(i32,)>(tx).await?.is_some())
}

/// Says in the `events` table too that an event has ended well in the end.
async fn mend_event(tx: &mut Tx, item: &Item) -> Result<()> {
    let mut sql = Sql::new("UPDATE events SET status = 'done'");
    sql.row_of_event(&item.event_id);
    let text = text!(
        " AND status = 'dead_lettered' AND NOT EXISTS (SELECT 1 FROM event_dead_letters AS d \
         WHERE d.event_id = " uuid " AND d.status = 'open')"
    );
    sql.with(text, words(&event_column(&item.event_id)));
    sql.run(tx).await.map(|_| ())
}

/// Returns items that did not end well, newest first.
///
/// # Errors
/// When the database is away.
pub async fn problems(store: &Store, redrive_id: &str, limit: i64) -> Result<Vec<Item>> {
    let mut sql = Sql::new(SELECT);
    sql.with(
        " WHERE redrive_id = ? AND state = 2 AND outcome IN ('failed', 'dead_lettered', 'skipped')",
        words(redrive_id),
    );
    sql.with(" ORDER BY n DESC LIMIT ?", number(limit));
    sql.all(store).await
}
