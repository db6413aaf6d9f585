//! What chaos asks the database: a database of its own, rows to work on, and what is left over.
//! Compiled with the feature `sandbox` only.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Row};
use url::Url;

use super::inbox::{RUNNING, RunKey};
use super::{Micros, Store, failed, on, read};
use crate::error::{BoxError, Result};

/// A row that another service inserts into `events`.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// Its id.
    pub id: String,
    /// What happened.
    pub event_type: &'static str,
    /// To what.
    pub aggregate_id: String,
    /// JSON.
    pub payload: String,
    /// When it says it happened.
    pub created_at: Micros,
}

/// What is left over when everything should have come to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owed {
    /// Rows of the outbox that are not published.
    pub outbox: i64,
    /// Rows of `events` that are not processed.
    pub events: i64,
    /// Runs that have not ended.
    pub runs: i64,
}

impl Owed {
    /// Tells whether nothing is left over.
    pub fn nothing(&self) -> bool {
        self.sum() == 0
    }

    /// Returns how much it is.
    pub fn sum(&self) -> i64 {
        self.outbox + self.events + self.runs
    }
}

/// A dead letter as it is kept.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The event's id.
    pub event_key: String,
    /// Why.
    pub error_code: String,
    /// What failed.
    pub original: Vec<u8>,
    /// All texts about it that this program wrote.
    pub message: String,
}

/// A run that may have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    state: i16,
    /// How often it was claimed.
    pub fence: i64,
    /// Whether its lease has ended.
    pub is_over: bool,
}

impl Run {
    /// Tells whether somebody runs it, or did and gave it back.
    pub fn is_open(&self) -> bool {
        self.state <= RUNNING
    }

    /// Tells whether somebody runs it.
    pub fn is_running(&self) -> bool {
        self.state == RUNNING
    }
}

/// Looks at a run; `None` when nobody has begun it.
///
/// # Errors
/// When the database is away.
pub async fn run(store: &Store, key: &RunKey) -> Result<Option<Run>> {
    let sql = "SELECT state, fence, lease_until < $4 FROM inbox WHERE event_id = $1 \
               AND handler = $2 AND generation = $3";
    read!(store, pool => sqlx::query(sql)
        .bind(key.event_id.as_str())
        .bind(key.handler)
        .bind(key.generation)
        .bind(store.now())
        .fetch_optional(pool)
        .await
        .map(|row| row.map(|row| Run { state: row.get(0), fence: row.get(1), is_over: row.get(2) })))
    .map_err(failed)
}

/// Makes a database of this name in the PostgreSQL that `url` leads to; returns its own URL.
///
/// # Errors
/// When PostgreSQL is away or refuses.
pub async fn create_database(url: &Url, name: &str) -> Result<Url, BoxError> {
    command(url, format!("CREATE DATABASE {}", quoted(name))).await?;
    let mut own = url.clone();
    own.set_path(name);
    Ok(own)
}

/// Drops a database with everything in it.
///
/// # Errors
/// When PostgreSQL is away or refuses.
pub async fn drop_database(url: &Url, name: &str) -> Result<(), BoxError> {
    let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
    command(url, sql).await
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn command(url: &Url, sql: String) -> Result<(), BoxError> {
    let options = PgConnectOptions::from_str(url.as_str())
        .map_err(|_| "the database's URL cannot be used")?;
    let mut connection = options.connect().await.map_err(failed)?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .map_err(failed)?;
    Ok(())
}

const WITNESS_SQLITE: &str = "\
    CREATE TABLE ended_again (event_id TEXT NOT NULL, handler TEXT NOT NULL);
    CREATE TRIGGER ended_again AFTER UPDATE ON inbox WHEN old.state IN (2, 3) BEGIN
        INSERT INTO ended_again VALUES (old.event_id, old.handler);
    END;";

const WITNESS_POSTGRES: &str = "\
    CREATE TABLE ended_again (event_id TEXT NOT NULL, handler TEXT NOT NULL);
    CREATE FUNCTION ended_again() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO ended_again VALUES (old.event_id, old.handler); RETURN NULL;
    END $$;
    CREATE TRIGGER ended_again AFTER UPDATE ON inbox FOR EACH ROW WHEN (old.state IN (2, 3))
        EXECUTE FUNCTION ended_again();";

/// Lets the database itself note when a run that has ended changes once more: what is idempotent
/// hides that two processes have ended it.
///
/// # Errors
/// When the database is away.
pub async fn watch_ends(store: &Store) -> Result<()> {
    let witness = if store.is_postgres() {
        WITNESS_POSTGRES
    } else {
        WITNESS_SQLITE
    };
    let mut tx = store.begin().await?;
    on!(&mut tx, c => sqlx::raw_sql(witness).execute(&mut *c).await.map(|_| ())).map_err(failed)?;
    tx.commit().await
}

/// Returns event and handler of the runs that changed after they had ended.
///
/// # Errors
/// When the database is away.
pub async fn ended_again(store: &Store) -> Result<Vec<(String, String)>> {
    read!(store, pool => sqlx::query("SELECT event_id, handler FROM ended_again")
        .fetch_all(pool)
        .await
        .map(|rows| rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
    .map_err(failed)
}

/// Inserts a row as other services do, and lets time pass before it can be seen.
///
/// # Errors
/// When the database is away.
pub async fn insert_row(
    store: &Store,
    row: &NewRow,
    before_commit: std::time::Duration,
) -> Result<()> {
    let sql = if store.is_postgres() {
        "INSERT INTO events (id, event_type, aggregate_id, aggregate_type, payload, created_at) \
         VALUES (CAST($1 AS UUID), $2, CAST($3 AS UUID), 'user', CAST($4 AS JSONB), \
         to_timestamp($5 / 1000000.0))"
    } else {
        "INSERT INTO events (id, event_type, aggregate_id, aggregate_type, payload, created_at) \
         VALUES ($1, $2, $3, 'user', $4, \
         strftime('%Y-%m-%dT%H:%M:%fZ', $5 / 1000000.0, 'unixepoch'))"
    };
    let mut tx = store.begin().await?;
    on!(&mut tx, c => sqlx::query(sql)
        .bind(row.id.as_str())
        .bind(row.event_type)
        .bind(row.aggregate_id.as_str())
        .bind(row.payload.as_str())
        .bind(row.created_at)
        .execute(&mut *c)
        .await
        .map(|_| ()))
    .map_err(failed)?;
    if !before_commit.is_zero() {
        tokio::time::sleep(before_commit).await;
    }
    tx.commit().await
}

/// Counts what is left over.
///
/// # Errors
/// When the database is away.
pub async fn owed(store: &Store) -> Result<Owed> {
    let sql = "SELECT (SELECT COUNT(*) FROM outbox WHERE state = 0), \
               (SELECT COUNT(*) FROM events WHERE processed IS NOT TRUE), \
               (SELECT COUNT(*) FROM inbox WHERE state IN (0, 1))";
    read!(store, pool => sqlx::query(sql)
        .fetch_one(pool)
        .await
        .map(|row| Owed { outbox: row.get(0), events: row.get(1), runs: row.get(2) }))
    .map_err(failed)
}

/// Returns ordering keys and message ids of everything that was to be published, in the order of
/// the commits.
///
/// # Errors
/// When the database is away.
pub async fn outbox_order(store: &Store) -> Result<Vec<(Option<String>, String)>> {
    let sql = "SELECT ordering_key, message_id FROM outbox ORDER BY seq";
    read!(store, pool => sqlx::query(sql)
        .fetch_all(pool)
        .await
        .map(|rows| rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
    .map_err(failed)
}

/// Returns how many runs ended in each way, by handler and outcome.
///
/// # Errors
/// When the database is away.
pub async fn ended(store: &Store) -> Result<Vec<(String, String, i64)>> {
    let sql = "SELECT handler, outcome, COUNT(*) FROM inbox WHERE state IN (2, 3) \
               GROUP BY handler, outcome";
    read!(store, pool => sqlx::query(sql)
        .fetch_all(pool)
        .await
        .map(|rows| rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()))
    .map_err(failed)
}

/// Returns how many rows of the outbox are published, by topic.
///
/// # Errors
/// When the database is away.
pub async fn published(store: &Store) -> Result<Vec<(String, i64)>> {
    let sql = "SELECT topic, COUNT(*) FROM outbox WHERE state = 1 GROUP BY topic";
    read!(store, pool => sqlx::query(sql)
        .fetch_all(pool)
        .await
        .map(|rows| rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
    .map_err(failed)
}

/// Returns all dead letters.
///
/// # Errors
/// When the database is away.
pub async fn letters(store: &Store) -> Result<Vec<Letter>> {
    let sql = "SELECT COALESCE(event_key, CAST(event_id AS TEXT)), error_code, original, \
               error_message FROM event_dead_letters";
    read!(store, pool => sqlx::query(sql)
        .fetch_all(pool)
        .await
        .map(|rows| rows.iter().map(|row| Letter {
            event_key: row.get(0),
            error_code: row.get(1),
            original: row.get::<Option<Vec<u8>>, _>(2).unwrap_or_default(),
            message: row.get(3),
        }).collect()))
    .map_err(failed)
}

/// Returns the amounts that were credited, by introduction.
///
/// # Errors
/// When the database is away.
pub async fn credits(store: &Store) -> Result<Vec<(String, i64)>> {
    let sql = "SELECT CAST(intro_id AS TEXT), amount FROM credits";
    read!(store, pool => sqlx::query(sql)
        .fetch_all(pool)
        .await
        .map(|rows| rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
    .map_err(failed)
}
