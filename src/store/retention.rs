//! Deletes what has ended well and is old, and claims nobody came back for, in small batches;
//! failures are kept until somebody has decided about them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Micros, Store, Tx, failed, on};
use crate::config::DEDUPE_WINDOW;
use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// Time between two sweeps.
const EVERY: Duration = Duration::from_secs(3600);

/// Rows of one transaction. SQLite's writers wait for it, so its are smaller.
const BATCH_POSTGRES: i64 = 5_000;
const BATCH_SQLITE: i64 = 500;

/// Held for one batch, so that instances take turns.
const TURN: &str = "SELECT pg_try_advisory_xact_lock(1752133483, 1)";

/// What is deleted from one table.
struct Rule {
    table: &'static str,
    postgres: &'static str,
    sqlite: &'static str,
    /// Ids may come again for this long, whatever is configured.
    at_least: Duration,
}

/// What an open dead letter of the event `$event` belongs to is kept. A column's type would keep
/// SQLite from finding it by its index.
macro_rules! owed {
    ($event:literal) => {
        concat!(
            " AND NOT EXISTS (SELECT 1 FROM event_dead_letters AS d WHERE d.status = 'open' \
             AND COALESCE(d.event_key, CAST(d.event_id AS TEXT)) = COALESCE(",
            $event,
            ", ''))"
        )
    };
}

/// The tries of an event that still waits in `events` are counted here. `$id` is the claim's id as
/// rows of that table have theirs.
macro_rules! begun {
    ($condition:literal, $id:literal) => {
        concat!(
            $condition,
            " AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.event_key = t.event_id \
             AND e.processed IS NOT TRUE) AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.id = ",
            $id,
            " AND e.event_key IS NULL AND e.processed IS NOT TRUE)",
            owed!("t.event_id")
        )
    };
}

/// `$1` is the time before which rows are old, `$2` the size of the batch.
macro_rules! rule {
    (begun $condition:literal) => {
        rule!(
            "inbox",
            "event_id, handler, generation",
            begun!(
                $condition,
                "CASE WHEN t.event_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' \
                 THEN CAST(t.event_id AS UUID) END"
            ),
            begun!($condition, "t.event_id"),
            DEDUPE_WINDOW
        )
    };
    ($table:literal, $key:literal, $condition:expr, $at_least:expr) => {
        rule!($table, $key, $condition, $condition, $at_least)
    };
    ($table:literal, $key:literal, $postgres:expr, $sqlite:expr, $at_least:expr) => {
        Rule {
            table: $table,
            postgres: concat!(
                "DELETE FROM ",
                $table,
                " WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM ",
                $table,
                " AS t WHERE ",
                $postgres,
                " LIMIT $2))"
            ),
            sqlite: concat!(
                "DELETE FROM ",
                $table,
                " WHERE (",
                $key,
                ") IN (SELECT ",
                $key,
                " FROM ",
                $table,
                " AS t WHERE ",
                $sqlite,
                " LIMIT $2)"
            ),
            at_least: $at_least,
        }
    };
}

const RULES: [Rule; 12] = [
    rule!(
        "inbox",
        "event_id, handler, generation",
        concat!("t.state IN (2, 3) AND t.ended_at < $1", owed!("t.event_id")),
        DEDUPE_WINDOW
    ),
    // Given back, and never taken again.
    rule!(begun "t.state = 0 AND t.started_at < $1"),
    // Begun by a process that is gone, and never taken over.
    rule!(begun "t.state = 1 AND t.lease_until < $1"),
    rule!(
        "events",
        "seq",
        concat!(
            "t.processed AND t.processed_at < $1",
            owed!("t.event_key, CAST(t.id AS TEXT)")
        ),
        Duration::ZERO
    ),
    rule!(
        "failures",
        "rowid",
        concat!("t.failed_at < $1", owed!("t.event_id")),
        DEDUPE_WINDOW
    ),
    rule!("repeats", "rowid", "t.came_at < $1", Duration::ZERO),
    rule!(
        "outbox",
        "seq",
        "t.state = 1 AND t.published_at < $1",
        Duration::ZERO
    ),
    rule!(
        "outbox",
        "seq",
        concat!("t.state = 2 AND t.created_at < $1", owed!("t.message_id")),
        Duration::ZERO
    ),
    rule!(
        "event_dead_letters",
        "seq",
        "t.status <> 'open' AND t.decided_at < $1",
        Duration::ZERO
    ),
    rule!(
        "redrive_items",
        "redrive_id, n",
        "t.redrive_id IN (SELECT r.id FROM redrives AS r WHERE r.state <> 'running' \
         AND r.updated_at < $1 ORDER BY r.updated_at LIMIT 50)",
        Duration::ZERO
    ),
    rule!(
        "redrives",
        "id",
        "t.state <> 'running' AND t.updated_at < $1 AND NOT EXISTS \
         (SELECT 1 FROM redrive_items AS i WHERE i.redrive_id = t.id)",
        Duration::ZERO
    ),
    // A change that is older than this does not come any more.
    rule!(
        "subjects",
        "handler, subject",
        "t.seen_at < $1",
        DEDUPE_WINDOW
    ),
];

/// What a sweep deleted: tables and numbers of rows.
pub type Swept = Vec<(&'static str, u64)>;

impl Store {
    /// Deletes everything that is old, batch by batch, until nothing is left, `stop`, or another
    /// instance turns out to be at it.
    ///
    /// # Errors
    /// When the database is away; what was deleted before stays deleted.
    pub async fn sweep(&self, retention: Duration, stop: &CancellationToken) -> Result<Swept> {
        let mut swept = Swept::new();
        for rule in &RULES {
            let age = retention.max(rule.at_least);
            let age = Micros::try_from(age.as_micros()).unwrap_or(Micros::MAX);
            let before = self.now().saturating_sub(age);
            let mut deleted = 0;
            while !stop.is_cancelled() {
                let started = tokio::time::Instant::now();
                match self.in_time(self.sweep_batch(rule, before)).await? {
                    Some(0) | None => break,
                    Some(rows) => deleted += rows,
                }
                // Half of the time is left to those who wait for the disk.
                tokio::time::sleep(started.elapsed()).await;
            }
            swept.push((rule.table, deleted));
        }
        Ok(swept)
    }

    /// Returns the statements of a sweep, for tests of their plans: `$1` is the time before which
    /// rows are old, in microseconds, `$2` how many are deleted at once.
    pub fn sweeping_statements(&self) -> Vec<(&'static str, &'static str)> {
        let of = |rule: &Rule| {
            let sql = if self.is_postgres() {
                rule.postgres
            } else {
                rule.sqlite
            };
            (rule.table, sql)
        };
        RULES.iter().map(of).collect()
    }

    /// Deletes one batch; `None` when it is another instance's turn.
    async fn sweep_batch(&self, rule: &Rule, before: Micros) -> Result<Option<u64>> {
        let mut tx = self.begin().await?;
        let (sql, batch) = match &mut tx {
            Tx::Postgres(tx) => {
                let turn: bool = sqlx::query_scalar(TURN)
                    .fetch_one(&mut **tx)
                    .await
                    .map_err(failed)?;
                if !turn {
                    return Ok(None);
                }
                (rule.postgres, BATCH_POSTGRES)
            }
            Tx::Sqlite(_) => (rule.sqlite, BATCH_SQLITE),
        };
        let rows = on!(&mut tx, c => sqlx::query(sql)
            .bind(before)
            .bind(batch)
            .execute(&mut *c)
            .await
            .map(|done| done.rows_affected()))
        .map_err(failed)?;
        tx.commit().await?;
        Ok(Some(rows))
    }

    /// Sweeps every hour until `stop`. One such task for each instance; they take turns.
    pub async fn keep_swept(
        self,
        retention: Duration,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        // Instances that start together do not sweep together.
        let mut pause = Duration::from_secs(60).mul_f64(rand::random::<f64>() + 0.5);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = EVERY.mul_f64(rand::random::<f64>() * 0.2 + 0.9);
            tell(self.sweep(retention, &stop).await, &metrics);
        }
    }
}

fn tell(swept: Result<Swept, Error>, metrics: &Metrics) {
    match swept {
        Ok(swept) => {
            for (table, rows) in swept.into_iter().filter(|(_, rows)| *rows > 0) {
                let counter = metrics.database.swept.with_label_values(&[table]);
                counter.inc_by(rows);
                tracing::info!(table, rows, "old rows deleted");
            }
        }
        Err(error) => tracing::warn!(
            error.code = error.code().as_str(),
            error.message = %error,
            "old rows could not be deleted; tried again in an hour"
        ),
    }
}
