//! What an item of a redrive runs: the event as it was kept.

use sqlx::FromRow;

use super::super::find::{Sql, number, words};
use super::super::{Micros, Store, micros_in};
use super::Item;
use crate::error::Result;

/// An event as a table keeps it.
#[derive(Debug, Clone, FromRow)]
pub struct StoredEvent {
    /// The id it is claimed under.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// What it is about.
    pub subject: Option<String>,
    /// The payload column, as JSON.
    pub payload: String,
    /// The metadata column, as JSON.
    pub metadata: Option<String>,
    /// When it was made.
    pub created: Micros,
    /// The bytes as they came, when it came as a delivery.
    pub original: Option<Vec<u8>>,
    /// What came beside them.
    pub delivery: Option<String>,
    /// Where it was kept from: `push`, `events`, `subscription`, `outbox`.
    pub source: String,
}

const DEAD_POSTGRES: &str = concat!(
    "SELECT COALESCE(event_key, CAST(event_id AS TEXT)) AS event_id, event_type, \
    CAST(NULL AS TEXT) AS subject, CAST(payload AS TEXT) AS payload, \
    CAST(NULL AS TEXT) AS metadata, COALESCE(",
    micros_in!("original_created_at"),
    ", 0) AS created, original, delivery, source FROM event_dead_letters"
);

const DEAD_SQLITE: &str = "\
    SELECT COALESCE(event_key, event_id) AS event_id, event_type, NULL AS subject, payload, \
    NULL AS metadata, COALESCE(CAST(ROUND((julianday(original_created_at) - 2440587.5) \
    * 86400000) AS INTEGER) * 1000, 0) AS created, original, delivery, source \
    FROM event_dead_letters";

const EVENT_POSTGRES: &str = concat!(
    "SELECT COALESCE(event_key, CAST(id AS TEXT)) AS event_id, event_type, \
    CAST(aggregate_id AS TEXT) AS subject, CAST(payload AS TEXT) AS payload, \
    CAST(metadata AS TEXT) AS metadata, COALESCE(",
    micros_in!("created_at"),
    ", 0) AS created, original, \
    delivery, CASE WHEN original IS NULL THEN 'events' ELSE 'push' END AS source FROM events"
);

const EVENT_SQLITE: &str = "\
    SELECT COALESCE(event_key, id) AS event_id, event_type, aggregate_id AS subject, payload, \
    metadata, COALESCE(CAST(ROUND((julianday(created_at) - 2440587.5) * 86400000) AS INTEGER) \
    * 1000, 0) AS created, original, delivery, \
    CASE WHEN original IS NULL THEN 'events' ELSE 'push' END AS source FROM events";

async fn load(store: &Store, mut sql: Sql, id: &str) -> Result<Option<StoredEvent>> {
    let text = if store.is_postgres() {
        " WHERE id = CAST(? AS UUID)"
    } else {
        " WHERE id = ?"
    };
    sql.with(text, words(id));
    sql.one(store).await
}

/// Loads the event of a dead letter.
///
/// # Errors
/// When the database is away.
pub async fn of_dead_letter(store: &Store, id: &str) -> Result<Option<StoredEvent>> {
    let sql = Sql::of(store.is_postgres(), DEAD_POSTGRES, DEAD_SQLITE);
    load(store, sql, id).await
}

/// Loads the event of a row of `events`.
///
/// # Errors
/// When the database is away.
pub async fn of_row(store: &Store, id: &str) -> Result<Option<StoredEvent>> {
    let sql = Sql::of(store.is_postgres(), EVENT_POSTGRES, EVENT_SQLITE);
    load(store, sql, id).await
}

/// How an item's runs have ended since it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endings {
    /// None has.
    None,
    /// All that did ended well.
    Well,
    /// At least one ended as a dead letter.
    Badly,
}

/// Tells how an item's runs have ended since it was taken, whichever instance has run them.
///
/// # Errors
/// When the database is away.
pub async fn endings(store: &Store, item: &Item) -> Result<Endings> {
    let mut sql = Sql::new("SELECT state FROM inbox");
    sql.with(" WHERE event_id = ?", words(&item.event_id));
    sql.with(" AND state >= 2 AND ended_at >= ?", number(item.at));
    if let Some(handler) = &item.handler {
        sql.with(" AND handler = ?", words(handler));
    }
    let states: Vec<(i16,)> = sql.all(store).await?;
    Ok(match states.as_slice() {
        [] => Endings::None,
        states if states.iter().any(|(state,)| *state == 3) => Endings::Badly,
        _ => Endings::Well,
    })
}
