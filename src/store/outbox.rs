//! The `outbox` table: what is still to be published, in the order in which it was committed.

use std::borrow::Cow;

use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};
use xxhash_rust::xxh3::xxh3_64;

use super::{LANES, Micros, Pool, Store, Tx, failed};
use crate::error::Result;

/// First half of the advisory locks' names, so that they are nobody else's ("hkyd").
const LOCK_SPACE: i32 = 0x686b_7964;

/// A message that is to be published once its transaction is committed.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// Id of the emitted event, the same on every run; a second row of it is not kept.
    pub message_id: String,
    /// Where to.
    pub topic: String,
    /// Rows with one key are published in the order of their commits, each after the one before.
    pub ordering_key: Option<String>,
    /// Type of the emitted event.
    pub event_type: String,
    /// Id of the event whose handler emitted it.
    pub cause_id: String,
    /// That handler.
    pub handler: String,
    /// The correlation id it carries.
    pub correlation_id: Option<String>,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
    /// The message's bytes.
    pub data: Bytes,
    /// The message's attributes.
    pub attributes: Vec<(String, String)>,
}

/// A row that waits to be published.
#[derive(Debug, Clone)]
pub struct WaitingRow {
    /// Its place in the order.
    pub seq: i64,
    /// Its lane.
    pub lane: i16,
    /// How often it could not be published so far.
    pub attempts: i32,
    /// When it was written.
    pub created_at: Micros,
    /// Its attributes as they are kept: JSON, `[["name", "value"], …]`.
    pub attributes: String,
    /// Everything else; the attributes in it are empty.
    pub row: OutboxRow,
}

/// What became of rows that were tried.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// Confirmed, with the broker's message ids.
    pub published: Vec<(i64, String)>,
    /// Not taken this time: how often so far, and why.
    pub failed: Vec<(i64, i32, String)>,
}

/// How much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Rows.
    pub rows: i64,
    /// When the oldest of them was written.
    pub oldest: Option<Micros>,
}

const LOCK_LANES: &str =
    "SELECT COUNT(pg_advisory_xact_lock($1, lane)) FROM unnest($2::INTEGER[]) AS lane";

const INSERT_MANY: &str = "INSERT INTO outbox (lane, message_id, topic, ordering_key, event_type, \
     cause_id, handler, correlation_id, trace_id, data, attributes, created_at) \
     SELECT lane, message_id, topic, ordering_key, event_type, cause_id, handler, correlation_id, \
     trace_id, data, attributes, $12 \
     FROM unnest($1::SMALLINT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::TEXT[], \
     $7::TEXT[], $8::TEXT[], $9::TEXT[], $10::BYTEA[], $11::TEXT[]) WITH ORDINALITY AS new (lane, \
     message_id, topic, ordering_key, event_type, cause_id, handler, correlation_id, trace_id, \
     data, attributes, place) ORDER BY place ON CONFLICT (message_id) DO NOTHING";
const INSERT_ONE: &str = "INSERT INTO outbox (lane, message_id, topic, ordering_key, event_type, \
     cause_id, handler, correlation_id, trace_id, data, attributes, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
     ON CONFLICT (message_id) DO NOTHING";

macro_rules! waiting_columns {
    () => {
        "o.seq, o.lane, o.attempts, o.created_at, o.attributes, o.message_id, o.topic, \
         o.ordering_key, o.event_type, o.cause_id, o.handler, o.correlation_id, o.trace_id, o.data"
    };
}

/// The first rows of a lane behind a place, and no more of them than about so many bytes.
macro_rules! waiting_of {
    ($lane:literal, $after:literal, $rows:literal, $bytes:literal) => {
        concat!(
            "SELECT ",
            waiting_columns!(),
            " FROM (SELECT p.*, SUM(length(p.data)) OVER (ORDER BY p.seq) - length(p.data) \
             AS ahead FROM (SELECT * FROM outbox w WHERE w.lane = ",
            $lane,
            " AND w.state = 0 AND w.seq > ",
            $after,
            " ORDER BY w.seq LIMIT ",
            $rows,
            ") AS p) AS o WHERE o.ahead < ",
            $bytes
        )
    };
}

const WAITING_MANY: &str = concat!(
    "SELECT ",
    waiting_columns!(),
    " FROM unnest($1::SMALLINT[], $2::BIGINT[]) AS want (lane, after) CROSS JOIN LATERAL (",
    waiting_of!("want.lane", "want.after", "$3", "$4"),
    ") AS o ORDER BY o.seq"
);
const WAITING_ONE: &str = concat!(waiting_of!("$1", "$2", "$3", "$4"), " ORDER BY o.seq");

/// The range keeps PostgreSQL on the rows' own pages however large the table is.
const PUBLISHED_MANY: &str = "UPDATE outbox SET state = 1, published_at = $1, \
     broker_message_id = done.id, last_error_code = NULL \
     FROM unnest($2::BIGINT[], $3::TEXT[]) AS done (seq, id) \
     WHERE outbox.seq = done.seq AND outbox.seq BETWEEN $4 AND $5 AND outbox.state = 0";
const PUBLISHED_ONE: &str = "UPDATE outbox SET state = 1, published_at = $1, \
     broker_message_id = $3, last_error_code = NULL WHERE seq = $2 AND state = 0";
const FAILED_ONE: &str = "UPDATE outbox SET attempts = $2, last_error_code = $3 \
     WHERE seq = $1 AND state = 0";
const PARKED_ONE: &str = "UPDATE outbox SET state = 2, attempts = $2, last_error_code = $3 \
     WHERE seq = $1 AND state = 0";
const WAIT_AGAIN: &str = "UPDATE outbox SET state = 0 WHERE message_id = $1 AND state = 2";

const COUNT: &str = "SELECT COUNT(*) FROM outbox WHERE state = 0";
const OLDEST: &str = "SELECT MIN((SELECT o.created_at FROM outbox o WHERE o.lane = l.lane \
     AND o.state = 0 ORDER BY o.seq LIMIT 1)) FROM lanes l WHERE l.kind = 1";

/// Returns the lane of a row: that of its ordering key, or any when it has none.
pub fn lane_of(row: &OutboxRow) -> i16 {
    let key = row.ordering_key.as_deref().filter(|key| !key.is_empty());
    let hash = xxh3_64(key.unwrap_or(&row.message_id).as_bytes());
    (hash % LANES.unsigned_abs() as u64) as i16
}

/// Adds rows; the last step of a transaction, and once in it.
///
/// Ids are drawn in the order of commits: whoever writes into a lane keeps the others off it
/// until the end of its transaction, before it draws the first. What relays have read of a lane
/// is therefore complete up to the last id they saw.
///
/// # Errors
/// When the database is away.
pub async fn insert(tx: &mut Tx, rows: &[OutboxRow], now: Micros) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    match tx {
        Tx::Postgres(tx) => {
            let mut locks: Vec<i32> = rows.iter().map(|row| lane_of(row).into()).collect();
            // In one order, so that two transactions never wait for each other.
            locks.sort_unstable();
            locks.dedup();
            sqlx::query(LOCK_LANES)
                .bind(LOCK_SPACE)
                .bind(locks)
                .execute(&mut **tx)
                .await
                .map_err(failed)?;
            let texts = |of: fn(&OutboxRow) -> &str| -> Vec<Cow<'_, str>> {
                rows.iter().map(of).map(plain).collect()
            };
            let options = |of: fn(&OutboxRow) -> Option<&str>| -> Vec<Option<Cow<'_, str>>> {
                rows.iter().map(of).map(|text| text.map(plain)).collect()
            };
            sqlx::query(INSERT_MANY)
                .bind(rows.iter().map(lane_of).collect::<Vec<_>>())
                .bind(texts(|row| &row.message_id))
                .bind(texts(|row| &row.topic))
                .bind(options(|row| row.ordering_key.as_deref()))
                .bind(texts(|row| &row.event_type))
                .bind(texts(|row| &row.cause_id))
                .bind(texts(|row| &row.handler))
                .bind(options(|row| row.correlation_id.as_deref()))
                .bind(options(|row| row.trace_id.as_deref()))
                .bind(rows.iter().map(|row| &row.data[..]).collect::<Vec<_>>())
                .bind(rows.iter().map(written).collect::<Vec<_>>())
                .bind(now)
                .execute(&mut **tx)
                .await
                .map_err(failed)?;
        }
        Tx::Sqlite(tx) => {
            for row in rows {
                sqlx::query(INSERT_ONE)
                    .bind(lane_of(row))
                    .bind(&row.message_id)
                    .bind(&row.topic)
                    .bind(&row.ordering_key)
                    .bind(&row.event_type)
                    .bind(&row.cause_id)
                    .bind(&row.handler)
                    .bind(&row.correlation_id)
                    .bind(&row.trace_id)
                    .bind(&row.data[..])
                    .bind(written(row))
                    .bind(now)
                    .execute(&mut **tx)
                    .await
                    .map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Marks rows of lanes which the caller holds. Rows that are not waiting any more stay as they
/// are.
///
/// # Errors
/// When the database is away.
pub async fn mark(tx: &mut Tx, marks: &Marks, now: Micros) -> Result<()> {
    match tx {
        Tx::Postgres(tx) => {
            let (seqs, ids): (Vec<i64>, Vec<&str>) = marks
                .published
                .iter()
                .map(|(seq, id)| (*seq, id.as_str()))
                .unzip();
            if let (Some(first), Some(last)) = (seqs.iter().min(), seqs.iter().max()) {
                sqlx::query(PUBLISHED_MANY)
                    .bind(now)
                    .bind(&seqs)
                    .bind(ids)
                    .bind(first)
                    .bind(last)
                    .execute(&mut **tx)
                    .await
                    .map_err(failed)?;
            }
        }
        Tx::Sqlite(tx) => {
            for (seq, id) in &marks.published {
                sqlx::query(PUBLISHED_ONE)
                    .bind(now)
                    .bind(seq)
                    .bind(id)
                    .execute(&mut **tx)
                    .await
                    .map_err(failed)?;
            }
        }
    }
    for (seq, attempts, code) in &marks.failed {
        super::on!(&mut *tx, c => sqlx::query(FAILED_ONE)
            .bind(*seq)
            .bind(*attempts)
            .bind(code)
            .execute(&mut *c)
            .await
            .map(drop))
        .map_err(failed)?;
    }
    Ok(())
}

/// Takes a row out of the queue for good; its dead letter is written in the same transaction.
///
/// # Errors
/// When the database is away.
pub async fn park(tx: &mut Tx, seq: i64, attempts: i32, code: &str) -> Result<bool> {
    super::on!(tx, c => sqlx::query(PARKED_ONE)
        .bind(seq)
        .bind(attempts)
        .bind(code)
        .execute(&mut *c)
        .await
        .map(|done| done.rows_affected() == 1))
    .map_err(failed)
}

/// Puts a parked row back into the queue, at its old place; returns whether there is one.
///
/// # Errors
/// When the database is away.
pub async fn wait_again(tx: &mut Tx, message_id: &str) -> Result<bool> {
    super::on!(tx, c => sqlx::query(WAIT_AGAIN)
        .bind(message_id)
        .execute(&mut *c)
        .await
        .map(|done| done.rows_affected() == 1))
    .map_err(failed)
}

impl Store {
    /// Reads the first waiting rows of lanes, each behind a place: at most `rows` of each, and
    /// about `bytes`.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn waiting_rows(
        &self,
        lanes: &[(i16, i64)],
        rows: i64,
        bytes: i64,
    ) -> Result<Vec<WaitingRow>> {
        match self.pool() {
            Pool::Postgres(pool) => {
                let (lanes, after): (Vec<i16>, Vec<i64>) = lanes.iter().copied().unzip();
                sqlx::query_as(WAITING_MANY)
                    .bind(lanes)
                    .bind(after)
                    .bind(rows)
                    .bind(bytes)
                    .fetch_all(pool)
                    .await
                    .map_err(failed)
            }
            Pool::Sqlite { read, .. } => {
                let mut all = Vec::new();
                for (lane, after) in lanes {
                    let some: Vec<WaitingRow> = sqlx::query_as(WAITING_ONE)
                        .bind(lane)
                        .bind(after)
                        .bind(rows)
                        .bind(bytes)
                        .fetch_all(read)
                        .await
                        .map_err(failed)?;
                    all.extend(some);
                }
                Ok(all)
            }
        }
    }

    /// Counts what waits; takes as long as there are rows that wait.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn outbox_backlog(&self) -> Result<Backlog> {
        let rows = super::read!(self, pool => sqlx::query_scalar(COUNT).fetch_one(pool).await)
            .map_err(failed)?;
        let oldest = super::read!(self, pool => sqlx::query_scalar(OLDEST).fetch_one(pool).await)
            .map_err(failed)?;
        Ok(Backlog { rows, oldest })
    }
}

/// PostgreSQL's text holds no NUL; keys are made of others' values, which may.
fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

fn written(row: &OutboxRow) -> String {
    // Pairs of strings can always be written as JSON.
    serde_json::to_string(&row.attributes).unwrap_or_default()
}

macro_rules! waiting_from {
    ($row:ty) => {
        impl FromRow<'_, $row> for WaitingRow {
            fn from_row(row: &$row) -> sqlx::Result<Self> {
                Ok(Self {
                    seq: row.try_get(0)?,
                    lane: row.try_get(1)?,
                    attempts: row.try_get(2)?,
                    created_at: row.try_get(3)?,
                    attributes: row.try_get(4)?,
                    row: OutboxRow {
                        message_id: row.try_get(5)?,
                        topic: row.try_get(6)?,
                        ordering_key: row.try_get(7)?,
                        event_type: row.try_get(8)?,
                        cause_id: row.try_get(9)?,
                        handler: row.try_get(10)?,
                        correlation_id: row.try_get(11)?,
                        trace_id: row.try_get(12)?,
                        data: Bytes::from(row.try_get::<Vec<u8>, _>(13)?),
                        attributes: Vec::new(),
                    },
                })
            }
        }
    };
}

waiting_from!(PgRow);
waiting_from!(SqliteRow);
