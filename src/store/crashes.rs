//! Tries that are counted before they begin, because the process may end in the middle of them.
//!
//! A counted row waits as one that failed does: should nobody come back with how it went, it is
//! due again later, and what comes after it in its aggregate waits for it.

use std::collections::HashSet;

use super::marks::{RowRun, hold_behind};
use super::{Micros, Store, Tx, failed, on};
use crate::error::{Class, Result};

/// The code of a try in the middle of which the process ended.
pub const WORKER_CRASHED: &str = "worker_crashed";

/// A row whose tries are to be changed.
#[derive(Debug, Clone)]
pub struct Tries {
    /// Which.
    pub run: RowRun,
    /// How many tries of it have failed, without the one it is about.
    pub attempts: i32,
    /// When it is due.
    pub until: Micros,
}

/// `$1` ids, `$2` generations, `$3` tries, `$4` when they are due, `$5` code, `$6` class.
macro_rules! change_many {
    ($set:literal, $if:literal) => {
        concat!(
            "WITH changed AS (UPDATE events e SET next_attempt_at = m.until, \
             last_error_code = $5, last_error_class = $6, attempts = ",
            $set,
            " FROM unnest($1::TEXT[], $2::INTEGER[], $3::INTEGER[], $4::BIGINT[]) \
             AS m (id, generation, attempts, until) \
             WHERE e.id = CAST(m.id AS UUID) AND e.generation = m.generation \
             AND e.processed IS DISTINCT FROM TRUE AND ",
            $if,
            " RETURNING e.id, e.aggregate_id, e.next_attempt_at), \
             held AS (INSERT INTO held_aggregates (aggregate, event_id, until) \
             SELECT DISTINCT ON (aggregate_id) aggregate_id, id, next_attempt_at FROM changed \
             WHERE aggregate_id IS NOT NULL ORDER BY aggregate_id, next_attempt_at DESC \
             ON CONFLICT (aggregate) DO UPDATE SET event_id = excluded.event_id, \
             until = excluded.until) \
             SELECT CAST(id AS TEXT) FROM changed"
        )
    };
}

macro_rules! change_one {
    ($set:literal, $if:literal) => {
        concat!(
            "UPDATE events SET next_attempt_at = $4, last_error_code = $5, \
             last_error_class = $6, attempts = ",
            $set,
            " WHERE id = $1 AND generation = $2 AND processed IS NOT TRUE AND ",
            $if
        )
    };
}

// What somebody else has counted meanwhile is left as it is.
const COUNT_MANY: &str = change_many!("m.attempts + 1", "e.attempts = m.attempts");
const COUNT_ONE: &str = change_one!("$3 + 1", "attempts = $3");
const UNCOUNT_MANY: &str = change_many!(
    "m.attempts",
    "e.attempts = m.attempts + 1 AND e.last_error_code = $5"
);
const UNCOUNT_ONE: &str = change_one!("$3", "attempts = $3 + 1 AND last_error_code = $5");

impl Store {
    /// Counts a try of each of these rows that has not begun; returns the ids of those it was
    /// counted for. The others are not as they were found any more.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn count_ahead(&self, rows: &[Tries]) -> Result<HashSet<String>> {
        let mut tx = self.begin().await?;
        let counted = change(&mut tx, COUNT_MANY, COUNT_ONE, rows).await?;
        tx.commit().await?;
        Ok(counted)
    }
}

/// Takes back what was counted ahead for runs that say nothing about their rows.
pub(super) async fn uncount(tx: &mut Tx, rows: &[Tries]) -> Result<()> {
    change(tx, UNCOUNT_MANY, UNCOUNT_ONE, rows).await.map(drop)
}

async fn change(
    tx: &mut Tx,
    many: &'static str,
    one: &'static str,
    rows: &[Tries],
) -> Result<HashSet<String>> {
    let class = Class::Transient.as_str();
    match tx {
        _ if rows.is_empty() => Ok(HashSet::new()),
        Tx::Postgres(tx) => {
            let changed: Vec<String> = sqlx::query_scalar(many)
                .bind(rows.iter().map(|r| r.run.id.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|r| r.run.generation).collect::<Vec<_>>())
                .bind(rows.iter().map(|r| r.attempts).collect::<Vec<_>>())
                .bind(rows.iter().map(|r| r.until).collect::<Vec<_>>())
                .bind(WORKER_CRASHED)
                .bind(class)
                .fetch_all(&mut **tx)
                .await
                .map_err(failed)?;
            Ok(changed.into_iter().collect())
        }
        Tx::Sqlite(tx) => {
            let mut changed = HashSet::new();
            for row in rows {
                let done = sqlx::query(one)
                    .bind(row.run.id.as_str())
                    .bind(row.run.generation)
                    .bind(row.attempts)
                    .bind(row.until)
                    .bind(WORKER_CRASHED)
                    .bind(class)
                    .execute(&mut **tx)
                    .await
                    .map_err(failed)?;
                if done.rows_affected() > 0 {
                    hold_behind(tx, &row.run.id).await?;
                    changed.insert(row.run.id.clone());
                }
            }
            Ok(changed)
        }
    }
}

/// Ends the claims that a process left behind when it ended.
pub(super) async fn end_claims(
    tx: &mut Tx,
    event: &str,
    generation: i32,
    now: Micros,
) -> Result<()> {
    let sql = "UPDATE inbox SET state = 3, outcome = 'dead_lettered', ended_at = $3, \
        lease_until = 0 WHERE event_id = $1 AND generation = $2 AND state = 1 AND lease_until < $3";
    on!(tx, c => sqlx::query(sql)
        .bind(event)
        .bind(generation)
        .bind(now)
        .execute(&mut *c)
        .await
        .map(|_| ()))
    .map_err(failed)
}
