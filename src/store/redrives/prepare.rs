//! Items looked at before they run: whether they need to, and which run they get.

use super::super::find::{BY_ID, Sql, Text, number, words};
use super::super::{Micros, Tx, timestamp};
use super::RedriveRow;
use super::items::{Item, close, reopen};
use crate::error::Result;

/// Why an item need not run.
pub(super) type Needless = &'static str;

/// Takes a dead letter in hand and chooses the run it gets.
pub(super) async fn dead_letter(
    tx: &mut Tx,
    redrive: &RedriveRow,
    item: &Item,
    now: Micros,
) -> Result<Result<i32, Needless>> {
    let mut sql = Sql::new("UPDATE event_dead_letters SET");
    sql.with(" redrive_id = ?", words(&redrive.id));
    sql.with(BY_ID, words(&item.item_id));
    sql.with(
        " AND status = 'open' AND (redrive_id IS NULL OR redrive_id = ?",
        words(&redrive.id),
    );
    sql.with(
        " OR NOT EXISTS (SELECT 1 FROM redrives AS r WHERE r.id = redrive_id \
         AND (r.state = 'running' OR r.lease_until > ?))) RETURNING generation, error_code",
        number(now),
    );
    let Some((failed, code)) = sql.one_in::<(i32, String)>(tx).await? else {
        return Ok(Err("decided meanwhile, or in hand of another redrive"));
    };
    let resumes = redrive.mode == "if_not_done";
    if resumes && code == "id_reuse" {
        reopen(tx, redrive, item).await?;
        return Ok(Err(
            "another event has used its id; run it under a new id, or force it",
        ));
    }
    if resumes && done_since(tx, item, failed).await? {
        let note = "was done meanwhile";
        close(tx, redrive, item, note, now).await?;
        return Ok(Err(note));
    }
    if waits(tx, item).await? {
        reopen(tx, redrive, item).await?;
        return Ok(Err("waits in the events table already"));
    }
    if resumes {
        // The run that failed goes on, with the same ids for what it does.
        return Ok(Ok(failed));
    }
    let generation = latest(tx, item).await?.max(failed).saturating_add(1);
    let mut sql = Sql::new("UPDATE events SET");
    sql.with(
        " generation = CAST(? AS INTEGER)",
        number(i64::from(generation) + 1),
    );
    sql.row_of_event(&item.event_id);
    sql.with(" AND generation <= ?", number(generation));
    sql.run(tx).await?;
    Ok(Ok(generation))
}

/// Marks a processed event as replayed and chooses the run it gets.
pub(super) async fn event(
    tx: &mut Tx,
    redrive: &RedriveRow,
    item: &Item,
    now: Micros,
) -> Result<Result<i32, Needless>> {
    let latest = latest(tx, item).await?;
    let mut sql = Sql::new(Text::each(
        "UPDATE events SET metadata = CASE WHEN metadata IS NULL OR jsonb_typeof(metadata) = \
         'object' THEN COALESCE(metadata, '{}') || jsonb_build_object('replayed', \
         jsonb_build_object('times', 1 + CASE WHEN jsonb_typeof(metadata #> '{replayed,times}') = \
         'number' THEN CAST(metadata #>> '{replayed,times}' AS NUMERIC) ELSE 0 END",
        "UPDATE events SET metadata = CASE WHEN metadata IS NULL OR (json_valid(metadata) AND \
         json_type(metadata) = 'object') THEN json_set(COALESCE(metadata, '{}'), '$.replayed', \
         json_object('times', 1 + COALESCE(json_extract(metadata, '$.replayed.times'), 0)",
    ));
    sql.with(", 'redrive', CAST(? AS TEXT)", words(&redrive.id));
    sql.with(
        ", 'at', CAST(? AS TEXT))) ELSE metadata END",
        words(&timestamp(now)),
    );
    let raised = Text::each(
        ", generation = GREATEST(generation, CAST(? AS INTEGER)) + 1",
        ", generation = MAX(generation, ?) + 1",
    );
    sql.with(raised, number(latest.saturating_add(1)));
    sql.with(BY_ID, words(&item.item_id));
    sql.push(" AND processed RETURNING generation - 1");
    // PostgreSQL keeps the integer's type, SQLite only has one.
    let generation = sql.one_in::<(i32,)>(tx).await?;
    Ok(generation
        .map(|(generation,)| generation)
        .ok_or("waits in the events table already"))
}

async fn waits(tx: &mut Tx, item: &Item) -> Result<bool> {
    let mut sql = Sql::new("SELECT 1 FROM events");
    sql.row_of_event(&item.event_id);
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
