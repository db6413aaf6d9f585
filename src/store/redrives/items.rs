//! The items of a redrive: taken a few at a time, run elsewhere, settled.

use sqlx::FromRow;
use uuid::Uuid;

use super::super::dead_letters::event_column;
use super::super::find::{Sql, number, words};
use super::super::{Micros, Store, Tx, outbox, timestamp};
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

/// Why an item need not run.
type Needless = &'static str;

/// Takes a dead letter in hand and chooses the run it gets.
async fn dead_letter(
    tx: &mut Tx,
    redrive: &RedriveRow,
    item: &Item,
    now: Micros,
) -> Result<Result<i32, Needless>> {
    let by_id = |sql: &mut Sql, is_postgres| {
        let text = if is_postgres {
            " WHERE id = CAST(? AS UUID)"
        } else {
            " WHERE id = ?"
        };
        sql.with(text, words(&item.item_id));
    };
    let is_postgres = tx.is_postgres();
    let mut sql = Sql::new("UPDATE event_dead_letters SET");
    sql.with(" redrive_id = ?", words(&redrive.id));
    by_id(&mut sql, is_postgres);
    sql.with(
        " AND status = 'open' AND (redrive_id IS NULL OR redrive_id = ?",
        words(&redrive.id),
    );
    sql.with(
        " OR NOT EXISTS (SELECT 1 FROM redrives AS r WHERE r.id = redrive_id \
         AND (r.state = 'running' OR r.lease_until > ?))) RETURNING generation",
        number(now),
    );
    let Some((failed,)) = sql.one_in::<(i32,)>(tx).await? else {
        return Ok(Err("decided meanwhile, or in hand of another redrive"));
    };
    if redrive.mode == "if_not_done" && done_since(tx, item, failed).await? {
        let note = "was done meanwhile";
        close(tx, redrive, item, note, now).await?;
        return Ok(Err(note));
    }
    if waits(tx, item).await? {
        let mut free = Sql::new("UPDATE event_dead_letters SET redrive_id = NULL");
        by_id(&mut free, is_postgres);
        free.run(tx).await?;
        return Ok(Err("waits in the events table already"));
    }
    let generation = latest(tx, item).await?.max(failed).saturating_add(1);
    let mut sql = Sql::new("UPDATE events SET");
    sql.with(
        " generation = CAST(? AS INTEGER)",
        number(i64::from(generation) + 1),
    );
    row_of_event(&mut sql, item, is_postgres);
    sql.with(" AND generation <= ?", number(generation));
    sql.run(tx).await?;
    Ok(Ok(generation))
}

/// Marks a processed event as replayed and chooses the run it gets.
async fn event(
    tx: &mut Tx,
    redrive: &RedriveRow,
    item: &Item,
    now: Micros,
) -> Result<Result<i32, Needless>> {
    let is_postgres = tx.is_postgres();
    let latest = latest(tx, item).await?;
    let mut sql = Sql::of(
        is_postgres,
        "UPDATE events SET metadata = CASE WHEN metadata IS NULL OR jsonb_typeof(metadata) = \
         'object' THEN COALESCE(metadata, '{}') || jsonb_build_object('replayed', \
         jsonb_build_object('times', 1 + CASE WHEN jsonb_typeof(metadata #> '{replayed,times}') = \
         'number' THEN CAST(metadata #>> '{replayed,times}' AS NUMERIC) ELSE 0 END",
        "UPDATE events SET metadata = CASE WHEN metadata IS NULL OR (json_valid(metadata) AND \
         json_type(metadata) = 'object') THEN json_set(COALESCE(metadata, '{}'), '$.replayed', \
         json_object('times', 1 + COALESCE(json_extract(metadata, '$.replayed.times'), 0)",
    );
    sql.with(", 'redrive', CAST(? AS TEXT)", words(&redrive.id));
    sql.with(
        ", 'at', CAST(? AS TEXT))) ELSE metadata END",
        words(&timestamp(now)),
    );
    sql.with(
        if is_postgres {
            ", generation = GREATEST(generation, CAST(? AS INTEGER)) + 1"
        } else {
            ", generation = MAX(generation, ?) + 1"
        },
        number(latest.saturating_add(1)),
    );
    sql.with(
        if is_postgres {
            " WHERE id = CAST(? AS UUID) AND processed RETURNING generation - 1"
        } else {
            " WHERE id = ? AND processed RETURNING generation - 1"
        },
        words(&item.item_id),
    );
    // PostgreSQL keeps the integer's type, SQLite only has one.
    let generation = sql.one_in::<(i32,)>(tx).await?;
    Ok(generation
        .map(|(generation,)| generation)
        .ok_or("waits in the events table already"))
}

/// Adds the condition for the row of `events` that an item is about.
fn row_of_event(sql: &mut Sql, item: &Item, is_postgres: bool) {
    sql.with(" WHERE (event_key = ?", words(&item.event_id));
    match Uuid::parse_str(&item.event_id) {
        Ok(id) if is_postgres => {
            let text = " OR (event_key IS NULL AND id = CAST(? AS UUID)))";
            sql.with(text, words(&id.to_string()));
        }
        Err(_) if is_postgres => sql.push(")"),
        Ok(_) | Err(_) => {
            sql.with(" OR (event_key IS NULL AND id = ?))", words(&item.event_id));
        }
    }
}

async fn waits(tx: &mut Tx, item: &Item) -> Result<bool> {
    let mut sql = Sql::new("SELECT 1 FROM events");
    row_of_event(&mut sql, item, tx.is_postgres());
    sql.push(" AND processed IS NOT TRUE LIMIT 1");
    Ok(sql.one_in::<(i32,)>(tx).await?.is_some())
}

async fn done_since(tx: &mut Tx, item: &Item, failed: i32) -> Result<bool> {
    let Some(handler) = &item.handler else {
        return Ok(false);
    };
    let mut sql = Sql::new("SELECT 1 FROM inbox");
    sql.with(" WHERE event_id = ?", words(&item.event_id));
    sql.with(" AND handler = ?", words(handler));
    sql.with(" AND generation >= ? AND state = 2 LIMIT 1", number(failed));
    Ok(sql.one_in::<(i32,)>(tx).await?.is_some())
}

/// Returns the latest generation there was, -1 when there was none.
async fn latest(tx: &mut Tx, item: &Item) -> Result<i32> {
    let mut sql = Sql::new("SELECT COALESCE(MAX(generation), -1) FROM inbox");
    sql.with(" WHERE event_id = ?", words(&item.event_id));
    if let Some(handler) = &item.handler {
        sql.with(" AND handler = ?", words(handler));
    }
    Ok(sql
        .one_in::<(i32,)>(tx)
        .await?
        .map_or(-1, |(latest,)| latest))
}

/// Closes a dead letter that a redrive has dealt with.
async fn close(
    tx: &mut Tx,
    redrive: &RedriveRow,
    item: &Item,
    note: &str,
    now: Micros,
) -> Result<()> {
    let mut sql = Sql::new("UPDATE event_dead_letters SET status = 'redriven'");
    sql.with(", decided_by = ?", words(&redrive.actor));
    sql.with(", decided_at = ?", number(now));
    sql.with(", note = ?", words(note));
    sql.with(" WHERE redrive_id = ?", words(&redrive.id));
    let text = if tx.is_postgres() {
        " AND id = CAST(? AS UUID) AND status = 'open'"
    } else {
        " AND id = ? AND status = 'open'"
    };
    sql.with(text, words(&item.item_id));
    sql.run(tx).await.map(|_| ())
}

/// Leaves a dead letter open for the next decision.
async fn reopen(tx: &mut Tx, redrive: &RedriveRow, item: &Item) -> Result<()> {
    let mut sql = Sql::new("UPDATE event_dead_letters SET redrive_id = NULL");
    sql.with(" WHERE redrive_id = ?", words(&redrive.id));
    let text = if tx.is_postgres() {
        " AND id = CAST(? AS UUID) AND status = 'open'"
    } else {
        " AND id = ? AND status = 'open'"
    };
    sql.with(text, words(&item.item_id));
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
                "dead_lettered" => close(&mut tx, &redrive, item, "failed again", now).await?,
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

/// Says in the `events` table too that an event has ended well in the end.
async fn mend_event(tx: &mut Tx, item: &Item) -> Result<()> {
    let is_postgres = tx.is_postgres();
    let mut sql = Sql::new("UPDATE events SET status = 'done'");
    row_of_event(&mut sql, item, is_postgres);
    let text = if is_postgres {
        " AND status = 'dead_lettered' AND NOT EXISTS (SELECT 1 FROM event_dead_letters AS d \
         WHERE d.event_id = CAST(? AS UUID) AND d.status = 'open')"
    } else {
        " AND status = 'dead_lettered' AND NOT EXISTS (SELECT 1 FROM event_dead_letters AS d \
         WHERE d.event_id = ? AND d.status = 'open')"
    };
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
