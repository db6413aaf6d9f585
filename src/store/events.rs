//! `events`: the rows that are due, lane by lane, oldest first.
//!
//! No cursor is kept: a row whose transaction took its time and commits an older `created_at` than
//! those already worked off is simply the first that is due.

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};
use uuid::Uuid;

use super::{Micros, Pool, Store, failed, micros_in, read};
use crate::error::Result;

/// A row to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEvent {
    /// The row's id.
    pub id: String,
    /// Which lane it is in.
    pub lane: i16,
    /// Order of insertion.
    pub seq: i64,
    /// The event type.
    pub event_type: String,
    /// What it is about; events of one aggregate run one after the other.
    pub aggregate: Option<String>,
    /// The payload as JSON text; empty for a delivery that was kept.
    pub payload: Bytes,
    /// The metadata as JSON text.
    pub metadata: Option<String>,
    /// When it was made, as far as the row says so.
    pub created_at: Option<Micros>,
    /// The id it is claimed under, when that is not the row's own.
    pub event_key: Option<String>,
    /// Which run is due.
    pub generation: i32,
    /// Failed tries of this run.
    pub attempts: i32,
    /// When it became due; 0 at first.
    pub next_attempt_at: Micros,
    /// Whether the process ended in the middle of its last run, as far as is known.
    pub crashed: bool,
    /// The bytes of a delivery that was kept.
    pub original: Option<Bytes>,
    /// What came beside these bytes: a [`DeliveryNote`](super::DeliveryNote) as JSON.
    pub delivery: Option<String>,
    /// How much it takes of what a look may bring, in bytes.
    pub weight: i64,
}

impl DueEvent {
    /// Returns the id it is claimed under.
    pub fn key(&self) -> &str {
        self.event_key.as_deref().unwrap_or(&self.id)
    }

    /// Tells whether something else may wait for this row: it failed or was put off before.
    pub fn was_held(&self) -> bool {
        self.next_attempt_at > 0
    }
}

/// Which rows are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The lanes, which the caller holds.
    pub lanes: &'a [i16],
    /// So many of each lane at most.
    pub per_lane: usize,
    /// About so many bytes altogether; one row, however large it is.
    pub bytes: i64,
    /// Not these: the caller has them already (`seq`).
    pub without: &'a [i64],
    /// Nothing of these aggregates: the caller has an earlier event of theirs.
    pub without_aggregates: &'a [String],
}

/// Rows are weighed as they lie in the table, so that none is read before it is known to be wanted.
const FETCH_POSTGRES: &str = concat!(
    "SELECT CAST(f.id AS TEXT), f.lane, f.seq, f.event_type, CAST(f.aggregate_id AS TEXT),
        CASE WHEN f.original IS NULL THEN CAST(f.payload AS TEXT) END, CAST(f.metadata AS TEXT), ",
    micros_in!("f.created_at"),
    ", f.event_key, f.generation, f.attempts, f.next_attempt_at, f.original, f.delivery,
        COALESCE(f.last_error_code = 'worker_crashed', FALSE), CAST(f.weight AS BIGINT)
    FROM (SELECT due.*, SUM(due.weight) OVER (ROWS UNBOUNDED PRECEDING) - due.weight AS ahead
    FROM unnest($1::SMALLINT[]) AS wanted (lane) CROSS JOIN LATERAL (
        SELECT e.*,
            COALESCE(octet_length(e.original), pg_column_size(e.payload), 0) AS weight
        FROM events e
        WHERE e.lane = wanted.lane AND e.processed IS NOT TRUE AND e.next_attempt_at <= $2
            AND e.seq <> ALL ($4::BIGINT[])
            AND (e.aggregate_id IS NULL OR (e.aggregate_id <> ALL (CAST($5::TEXT[] AS UUID[]))
                AND NOT EXISTS (SELECT 1 FROM held_aggregates h
                    WHERE h.aggregate = e.aggregate_id AND h.until > $2)))
        ORDER BY e.created_at, e.seq LIMIT $3
    ) AS due) AS f WHERE f.ahead < $6"
);

const FETCH_SQLITE: &str = "\
    SELECT e.id, e.lane, e.seq, e.event_type, e.aggregate_id,
        CASE WHEN e.original IS NULL THEN e.payload END, e.metadata,
        CAST(strftime('%s', e.created_at) AS INTEGER) * 1000000
            + CAST(substr(strftime('%f', e.created_at), 4) AS INTEGER) * 1000,
        e.event_key, e.generation, e.attempts, e.next_attempt_at, e.original, e.delivery,
        COALESCE(e.last_error_code = 'worker_crashed', FALSE),
        COALESCE(length(e.original), length(e.payload), 0)
    FROM events e INDEXED BY events_due
    WHERE e.lane = $1 AND e.processed IS NOT TRUE AND e.next_attempt_at <= $2
        AND e.seq NOT IN (SELECT value FROM json_each($4))
        AND (e.aggregate_id IS NULL OR (e.aggregate_id NOT IN (SELECT value FROM json_each($5))
            AND NOT EXISTS (SELECT 1 FROM held_aggregates h
                WHERE h.aggregate = e.aggregate_id AND h.until > $2)))
    ORDER BY e.created_at, e.seq LIMIT $3";

impl Store {
    /// Returns the rows that are due in lanes the caller holds; those of one lane in order.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn due_events(&self, wanted: Wanted<'_>) -> Result<Vec<DueEvent>> {
        let now = self.now();
        let per_lane = i64::try_from(wanted.per_lane).unwrap_or(i64::MAX);
        match self.pool() {
            Pool::Postgres(pool) => {
                let rows = sqlx::query(FETCH_POSTGRES)
                    .bind(wanted.lanes)
                    .bind(now)
                    .bind(per_lane)
                    .bind(wanted.without)
                    .bind(wanted.without_aggregates)
                    .bind(wanted.bytes)
                    .fetch_all(pool)
                    .await
                    .map_err(failed)?;
                Ok(rows.iter().map(row_of_postgres).collect())
            }
            Pool::Sqlite { read, .. } => {
                let without = json(wanted.without);
                let aggregates = json(wanted.without_aggregates);
                let mut connection = read.acquire().await.map_err(failed)?;
                let mut due: Vec<DueEvent> = Vec::new();
                let mut left = wanted.bytes;
                for lane in wanted.lanes {
                    let mut rows = sqlx::query(FETCH_SQLITE)
                        .bind(lane)
                        .bind(now)
                        .bind(per_lane)
                        .bind(&without)
                        .bind(&aggregates)
                        .fetch(&mut *connection);
                    while left > 0
                        && let Some(row) = rows.try_next().await.map_err(failed)?
                    {
                        let row = row_of_sqlite(&row);
                        left = left.saturating_sub(row.weight);
                        due.push(row);
                    }
                }
                Ok(due)
            }
        }
    }

    /// Makes waiting rows due at once, and whatever waits behind them; one that waits behind another
    /// goes on doing so. `id` is a row's or an event's. Returns their lanes, none when there is no
    /// such row that is still to be run.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn make_due(&self, id: &str) -> Result<Vec<i16>> {
        const POSTGRES: &str = "\
            WITH due AS (
                UPDATE events SET next_attempt_at = LEAST(next_attempt_at, 1)
                WHERE (id = CAST($2 AS UUID) OR event_key = $1) AND processed IS NOT TRUE
                RETURNING lane, id
            ), freed AS (
                DELETE FROM held_aggregates h USING due WHERE h.event_id = due.id
            )
            SELECT DISTINCT lane FROM due";
        const SQLITE: &str = "UPDATE events SET next_attempt_at = MIN(next_attempt_at, 1) \
            WHERE (id IN ($1, $2) OR event_key = $1) AND processed IS NOT TRUE RETURNING lane";
        const SQLITE_FREE: &str = "DELETE FROM held_aggregates WHERE event_id IN \
            (SELECT id FROM events WHERE id IN ($1, $2) OR event_key = $1)";
        let row = uuid_of(id);
        match self.pool() {
            Pool::Postgres(pool) => sqlx::query_scalar(POSTGRES)
                .bind(id)
                .bind(row)
                .fetch_all(pool)
                .await
                .map_err(failed),
            Pool::Sqlite { write, .. } => {
                sqlx::query(SQLITE_FREE)
                    .bind(id)
                    .bind(&row)
                    .execute(write)
                    .await
                    .map_err(failed)?;
                sqlx::query_scalar(SQLITE)
                    .bind(id)
                    .bind(row)
                    .fetch_all(write)
                    .await
                    .map_err(failed)
            }
        }
    }

    /// Tells whether there is a row of this id, or of an event with this id.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn has_event(&self, id: &str) -> Result<bool> {
        const POSTGRES: &str =
            "SELECT EXISTS (SELECT 1 FROM events WHERE id = CAST($2 AS UUID) OR event_key = $1)";
        const SQLITE: &str =
            "SELECT EXISTS (SELECT 1 FROM events WHERE id IN ($1, $2) OR event_key = $1)";
        let sql = if self.is_postgres() { POSTGRES } else { SQLITE };
        read!(self, pool => sqlx::query_scalar(sql)
            .bind(id)
            .bind(uuid_of(id))
            .fetch_one(pool)
            .await)
        .map_err(failed)
    }

    /// Returns how many other instances hold lanes of `events` at this moment.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn other_workers(&self) -> Result<usize> {
        let sql = "SELECT COUNT(DISTINCT holder) FROM lanes \
                   WHERE kind = 0 AND lease_until > $1 AND holder <> $2";
        let others: i64 = read!(self, pool => sqlx::query_scalar(sql)
            .bind(self.now())
            .bind(self.instance())
            .fetch_one(pool)
            .await)
        .map_err(failed)?;
        Ok(usize::try_from(others).unwrap_or(0))
    }
}

/// The id as PostgreSQL writes it, when it can be a row's.
fn uuid_of(id: &str) -> Option<String> {
    Uuid::parse_str(id).ok().map(|id| id.to_string())
}

fn json<T: serde::Serialize>(values: &[T]) -> String {
    serde_json::to_string(values).unwrap_or_else(|_| "[]".to_owned())
}

fn row_of_postgres(row: &PgRow) -> DueEvent {
    let bytes = |index| row.get::<Option<Vec<u8>>, _>(index).map(Bytes::from);
    due_event(row, bytes(12))
}

fn row_of_sqlite(row: &SqliteRow) -> DueEvent {
    let bytes = |index| row.get::<Option<Vec<u8>>, _>(index).map(Bytes::from);
    due_event(row, bytes(12))
}

fn due_event<'r, R>(row: &'r R, original: Option<Bytes>) -> DueEvent
where
    R: Row,
    usize: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
    i16: Decode<'r, R::Database> + Type<R::Database>,
    i32: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    R::Database: Database,
{
    let payload: Option<String> = row.get(5);
    DueEvent {
        id: row.get(0),
        lane: row.get(1),
        seq: row.get(2),
        event_type: row.get(3),
        aggregate: row.get(4),
        payload: payload.map(Bytes::from).unwrap_or_default(),
        metadata: row.get(6),
        created_at: row.get(7),
        event_key: row.get(8),
        generation: row.get(9),
        attempts: row.get(10),
        next_attempt_at: row.get(11),
        original,
        delivery: row.get(13),
        crashed: row.get(14),
        weight: row.get(15),
    }
}
