//! Rows of `events`, as another service would insert them, and what became of them.

use hookyard::store::{Pool, Store};
use sqlx::Row;
use uuid::Uuid;

/// A row to be inserted.
#[derive(Debug, Clone)]
pub(crate) struct EventRow {
    pub(crate) id: String,
    event_type: String,
    aggregate: Option<String>,
    payload: String,
    metadata: Option<String>,
    created_at: String,
}

/// What is in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowState {
    pub(crate) processed: bool,
    pub(crate) status: String,
    pub(crate) generation: i32,
    pub(crate) attempts: i32,
    pub(crate) next_attempt_at: i64,
    pub(crate) error_code: Option<String>,
    pub(crate) metadata: Option<String>,
}

pub(crate) fn uuid() -> String {
    Uuid::new_v4().to_string()
}

impl EventRow {
    pub(crate) fn new(event_type: &str) -> Self {
        Self {
            id: uuid(),
            event_type: event_type.to_owned(),
            aggregate: None,
            payload: "{}".to_owned(),
            metadata: None,
            created_at: "2026-01-05T10:00:00.000000Z".to_owned(),
        }
    }

    pub(crate) fn of(mut self, aggregate: &str) -> Self {
        self.aggregate = Some(aggregate.to_owned());
        self
    }

    pub(crate) fn payload(mut self, payload: &str) -> Self {
        payload.clone_into(&mut self.payload);
        self
    }

    pub(crate) fn metadata(mut self, metadata: &str) -> Self {
        self.metadata = Some(metadata.to_owned());
        self
    }

    /// Made so many milliseconds after ten o'clock.
    pub(crate) fn at(mut self, millis: i64) -> Self {
        let ten = 1_767_607_200_000_000;
        self.created_at = hookyard::store::timestamp(ten + millis * 1000);
        self
    }

    /// Inserts it; returns its id.
    pub(crate) async fn insert(self, store: &Store) -> String {
        insert_rows(store, std::slice::from_ref(&self)).await;
        self.id
    }
}

/// Inserts rows in one transaction, and wakes the workers as PostgreSQL's trigger does.
pub(crate) async fn insert_rows(store: &Store, rows: &[EventRow]) {
    match store.pool() {
        Pool::Postgres(pool) => {
            let sql = "INSERT INTO events (id, event_type, aggregate_id, payload, metadata, \
                created_at) SELECT CAST(r.id AS UUID), r.kind, CAST(r.aggregate AS UUID), \
                CAST(r.payload AS JSONB), CAST(r.metadata AS JSONB), CAST(r.at AS TIMESTAMPTZ) \
                FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[], \
                $6::TEXT[]) AS r (id, kind, aggregate, payload, metadata, at)";
            let all = || rows.iter();
            sqlx::query(sql)
                .bind(all().map(|r| r.id.as_str()).collect::<Vec<_>>())
                .bind(all().map(|r| r.event_type.as_str()).collect::<Vec<_>>())
                .bind(all().map(|r| r.aggregate.as_deref()).collect::<Vec<_>>())
                .bind(all().map(|r| r.payload.as_str()).collect::<Vec<_>>())
                .bind(all().map(|r| r.metadata.as_deref()).collect::<Vec<_>>())
                .bind(all().map(|r| r.created_at.as_str()).collect::<Vec<_>>())
                .execute(pool)
                .await
                .unwrap();
        }
        Pool::Sqlite { write, .. } => {
            let mut tx = write.begin().await.unwrap();
            for row in rows {
                let sql = "INSERT INTO events (id, event_type, aggregate_id, payload, metadata, \
                    created_at) VALUES ($1, $2, $3, $4, $5, $6)";
                sqlx::query(sql)
                    .bind(&row.id)
                    .bind(&row.event_type)
                    .bind(&row.aggregate)
                    .bind(&row.payload)
                    .bind(&row.metadata)
                    .bind(&row.created_at)
                    .execute(&mut *tx)
                    .await
                    .unwrap();
            }
            tx.commit().await.unwrap();
        }
    }
    store.wakeups().events.notify_one();
}

macro_rules! state_of {
    ($pool:expr, $id:expr, $cast:literal) => {
        sqlx::query(concat!(
            "SELECT COALESCE(processed, FALSE), status, generation, attempts, next_attempt_at, \
             last_error_code, CAST(metadata AS TEXT) FROM events WHERE id = ",
            $cast
        ))
        .bind($id)
        .fetch_one($pool)
        .await
        .map(|row| RowState {
            processed: row.get(0),
            status: row.get(1),
            generation: row.get(2),
            attempts: row.get(3),
            next_attempt_at: row.get(4),
            error_code: row.get(5),
            metadata: row.get(6),
        })
        .unwrap()
    };
}

pub(crate) async fn row_state(store: &Store, id: &str) -> RowState {
    match store.pool() {
        Pool::Postgres(pool) => state_of!(pool, id, "CAST($1 AS UUID)"),
        Pool::Sqlite { read, .. } => state_of!(read, id, "$1"),
    }
}

/// Counts what a query of both databases returns.
pub(crate) async fn count(store: &Store, sql: &'static str) -> i64 {
    match store.pool() {
        Pool::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
        Pool::Sqlite { read, .. } => sqlx::query_scalar(sql).fetch_one(read).await.unwrap(),
    }
}

/// Runs a statement of both databases.
pub(crate) async fn execute(store: &Store, sql: &'static str) {
    match store.pool() {
        Pool::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
        Pool::Sqlite { write, .. } => drop(sqlx::query(sql).execute(write).await.unwrap()),
    }
}
