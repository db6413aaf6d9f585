//! What is known about one event, table by table.

use sqlx::FromRow;
use uuid::Uuid;

use super::find::{Sql, words};
use super::{Micros, Store, micros_in};
use crate::error::Result;

/// A handler's run.
#[derive(Debug, Clone, FromRow)]
pub struct RunRow {
    /// The handler.
    pub handler: String,
    /// Which run.
    pub generation: i32,
    /// 0 given back, 1 running, 2 ended well, 3 ended as a dead letter.
    pub state: i16,
    /// Until when it is held.
    pub lease_until: Micros,
    /// How often it was tried.
    pub attempt: i32,
    /// How it ended.
    pub outcome: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The event's type.
    pub event_type: String,
    /// Hasura's id.
    pub hasura_id: Option<String>,
    /// The message it came with.
    pub message_id: Option<String>,
    /// Hasura's own retry counter.
    pub hasura_retry: Option<i32>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// Trace id.
    pub trace_id: Option<String>,
    /// Who has it, or had.
    pub instance: String,
    /// First claimed.
    pub created_at: Micros,
    /// Last claimed.
    pub started_at: Micros,
    /// Ended.
    pub ended_at: Option<Micros>,
}

/// A try that failed.
#[derive(Debug, Clone, FromRow)]
pub struct FailureRow {
    /// The handler.
    pub handler: String,
    /// Which run.
    pub generation: i32,
    /// Which try.
    pub attempt: i32,
    /// The error's class.
    pub error_class: String,
    /// The error's code.
    pub error_code: String,
    /// The error's message.
    pub error_message: String,
    /// When.
    pub failed_at: Micros,
}

/// An event that came again.
#[derive(Debug, Clone, FromRow)]
pub struct RepeatRow {
    /// The handler.
    pub handler: String,
    /// What kind of repeat.
    pub kind: String,
    /// The message it came with.
    pub message_id: Option<String>,
    /// Whether it ran again.
    pub ran_again: bool,
    /// When.
    pub came_at: Micros,
}

/// An emitted event.
#[derive(Debug, Clone, FromRow)]
pub struct EmittedRow {
    /// Its id.
    pub message_id: String,
    /// Its type.
    pub event_type: String,
    /// Who emitted it.
    pub handler: String,
    /// Where it goes.
    pub topic: String,
    /// Its ordering key.
    pub ordering_key: Option<String>,
    /// 0 waiting, 1 published, 2 parked.
    pub state: i16,
    /// Failed publications.
    pub attempts: i32,
    /// The last failure.
    pub last_error_code: Option<String>,
    /// When it was put there.
    pub created_at: Micros,
    /// When it was published.
    pub published_at: Option<Micros>,
    /// The broker's id.
    pub broker_message_id: Option<String>,
}

/// A row of `events`.
#[derive(Debug, Clone, FromRow)]
pub struct KeptRow {
    /// Its id.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// How it stands.
    pub status: String,
    /// Whether nothing more is to be done.
    pub processed: bool,
    /// Its aggregate.
    pub aggregate_id: Option<String>,
    /// Failed tries.
    pub attempts: i32,
    /// When it is tried again.
    pub next_attempt_at: Micros,
    /// The last failure.
    pub last_error_code: Option<String>,
    /// When it was made.
    pub created: Micros,
    /// When it ended.
    pub processed_at: Option<Micros>,
}

/// Most events an id may stand for.
const MOST: &str = " LIMIT 100";

/// Returns the events an id stands for, each with the kind of id it is for it.
///
/// # Errors
/// When the database is away.
pub async fn events_of(store: &Store, id: &str) -> Result<Vec<(String, String)>> {
    let mut sql = Sql::new("SELECT kind, event_id FROM (");
    sql.with(
        "SELECT 'event' AS kind, event_id FROM inbox WHERE event_id = ? \
         UNION SELECT 'correlation', event_id FROM inbox WHERE correlation_id = ? \
         UNION SELECT 'message', event_id FROM inbox WHERE message_id = ? \
         UNION SELECT 'message', event_id FROM repeats WHERE message_id = ? \
         UNION SELECT 'trace', event_id FROM inbox WHERE trace_id = ? \
         UNION SELECT 'emitted', cause_id FROM outbox WHERE message_id = ? \
         UNION SELECT 'event', cause_id FROM outbox WHERE cause_id = ? \
         UNION SELECT 'event', event_key FROM events WHERE event_key = ? \
         UNION SELECT kind, event_id FROM (SELECT CASE WHEN message_id = ? THEN 'message' \
            WHEN trace_id = ? THEN 'trace' ELSE 'correlation' END AS kind, \
            COALESCE(event_key, CAST(event_id AS TEXT)) AS event_id FROM event_dead_letters \
            WHERE message_id = ? OR trace_id = ? OR correlation_id = ?) AS given_up",
        words(id),
    );
    let uuid = Uuid::parse_str(id).map(|id| id.to_string());
    let column = words(&super::dead_letters::event_column(id));
    if store.is_postgres() {
        sql.with(
            " UNION SELECT 'event', COALESCE(event_key, CAST(event_id AS TEXT)) \
             FROM event_dead_letters WHERE event_id = CAST(? AS UUID)",
            column,
        );
        if let Ok(uuid) = &uuid {
            sql.with(
                " UNION SELECT 'event', COALESCE(event_key, CAST(id AS TEXT)) FROM events \
                 WHERE id = CAST(? AS UUID) UNION SELECT 'dead_letter', \
                 COALESCE(event_key, CAST(event_id AS TEXT)) FROM event_dead_letters \
                 WHERE id = CAST(? AS UUID)",
                words(uuid),
            );
        }
    } else {
        sql.with(
            " UNION SELECT 'event', COALESCE(event_key, event_id) FROM event_dead_letters \
             WHERE event_id = ?",
            column,
        );
        sql.with(
            " UNION SELECT 'event', COALESCE(event_key, id) FROM events WHERE id = ? \
             UNION SELECT 'dead_letter', COALESCE(event_key, event_id) FROM event_dead_letters \
             WHERE id = ?",
            words(uuid.as_deref().unwrap_or(id)),
        );
    }
    sql.push(") AS found ORDER BY kind, event_id");
    sql.push(MOST);
    sql.all(store).await
}

/// Returns a handler's runs for an event, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn runs(store: &Store, event_id: &str) -> Result<Vec<RunRow>> {
    let mut sql = Sql::new(
        "SELECT handler, generation, state, lease_until, attempt, outcome, reason, event_type, \
         hasura_id, message_id, hasura_retry, correlation_id, trace_id, instance, created_at, \
         started_at, ended_at FROM inbox",
    );
    sql.with(" WHERE event_id = ?", words(event_id));
    sql.push(" ORDER BY created_at, handler, generation");
    sql.push(MOST);
    sql.all(store).await
}

/// Returns failed tries of an event, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn failures(store: &Store, event_id: &str) -> Result<Vec<FailureRow>> {
    let mut sql = Sql::new(
        "SELECT handler, generation, attempt, error_class, error_code, error_message, failed_at \
         FROM failures",
    );
    sql.with(" WHERE event_id = ?", words(event_id));
    sql.push(" ORDER BY failed_at");
    sql.push(MOST);
    sql.all(store).await
}

/// Returns when an event came again, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn repeats(store: &Store, event_id: &str) -> Result<Vec<RepeatRow>> {
    let mut sql = Sql::new("SELECT handler, kind, message_id, ran_again, came_at FROM repeats");
    sql.with(" WHERE event_id = ?", words(event_id));
    sql.push(" ORDER BY came_at");
    sql.push(MOST);
    sql.all(store).await
}

/// Returns what was emitted because of an event.
///
/// # Errors
/// When the database is away.
pub async fn emitted(store: &Store, event_id: &str) -> Result<Vec<EmittedRow>> {
    let mut sql = Sql::new(
        "SELECT message_id, event_type, handler, topic, ordering_key, state, attempts, \
         last_error_code, created_at, published_at, broker_message_id FROM outbox",
    );
    sql.with(" WHERE cause_id = ?", words(event_id));
    sql.push(" ORDER BY seq");
    sql.push(MOST);
    sql.all(store).await
}

/// Returns an event's row in `events`.
///
/// # Errors
/// When the database is away.
pub async fn kept(store: &Store, event_id: &str) -> Result<Option<KeptRow>> {
    let mut sql = Sql::of(
        store.is_postgres(),
        concat!(
            "SELECT CAST(id AS TEXT) AS id, event_type, status, \
             COALESCE(processed, FALSE) AS processed, CAST(aggregate_id AS TEXT) AS aggregate_id, \
             attempts, next_attempt_at, last_error_code, COALESCE(",
            micros_in!("created_at"),
            ", 0) AS created, processed_at FROM events"
        ),
        "SELECT id, event_type, status, COALESCE(processed, FALSE) AS processed, aggregate_id, \
         attempts, next_attempt_at, last_error_code, COALESCE(CAST(ROUND((julianday(created_at) \
         - 2440587.5) * 86400000) AS INTEGER) * 1000, 0) AS created, processed_at FROM events",
    );
    sql.with(" WHERE (event_key = ?", words(event_id));
    match Uuid::parse_str(event_id) {
        Ok(id) if store.is_postgres() => {
            let text = " OR (event_key IS NULL AND id = CAST(? AS UUID)))";
            sql.with(text, words(&id.to_string()));
        }
        Err(_) if store.is_postgres() => sql.push(")"),
        Ok(_) | Err(_) => sql.with(" OR (event_key IS NULL AND id = ?))", words(event_id)),
    }
    sql.push(" ORDER BY seq DESC LIMIT 1");
    sql.one(store).await
}
