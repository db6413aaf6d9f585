//! How much waits, and for how long.

use sqlx::FromRow;

use super::find::{Sql, Text, number, text};
use super::{Micros, Store};
use crate::error::Result;

/// What waits in one lane.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct Waiting {
    /// Which lane.
    pub lane: i16,
    /// How much.
    pub waiting: i64,
    /// Of these: due.
    pub due: i64,
    /// Of these: failed before.
    pub retrying: i64,
    /// When the oldest due one was made.
    pub oldest: Option<Micros>,
}

/// A lane.
#[derive(Debug, Clone, FromRow)]
pub struct LaneRow {
    /// 0 events, 1 outbox.
    pub kind: i16,
    /// Its number.
    pub lane: i16,
    /// Until when it is held.
    pub lease_until: Micros,
    /// Not to be worked on before.
    pub paused_until: Micros,
    /// Holders in a row that never gave it back.
    pub failures: i32,
    /// Who has it.
    pub holder: Option<String>,
}

/// Claims that are held.
#[derive(Debug, Clone, Copy, Default, FromRow)]
pub struct Running {
    /// How many.
    pub running: i64,
    /// Of these: held longer than their lease.
    pub abandoned: i64,
}

/// Dead letters nobody has decided on.
#[derive(Debug, Clone, Copy, Default, FromRow)]
pub struct Open {
    /// How many.
    pub open: i64,
    /// Of these: messages the broker refused.
    pub parked: i64,
    /// When the oldest was kept.
    pub oldest: Option<Micros>,
}

/// Returns what waits in `events`, lane by lane.
///
/// # Errors
/// When the database is away.
pub async fn events(store: &Store) -> Result<Vec<Waiting>> {
    let mut sql = Sql::new("SELECT lane, COUNT(*) AS waiting");
    let now = number(store.now());
    sql.with(
        ", COUNT(CASE WHEN next_attempt_at <= ? THEN 1 END) AS due, \
         COUNT(CASE WHEN attempts > 0 THEN 1 END) AS retrying",
        now.clone(),
    );
    sql.with(
        text!(
            ", MIN(CASE WHEN next_attempt_at <= ? THEN " ["created_at"] " END) AS oldest"
        ),
        now,
    );
    sql.push(" FROM events WHERE processed IS NOT TRUE GROUP BY lane");
    sql.all(store).await
}

/// Returns what waits in `outbox`, lane by lane.
///
/// # Errors
/// When the database is away.
pub async fn outbox(store: &Store) -> Result<Vec<Waiting>> {
    let sql = Sql::new(
        "SELECT lane, COUNT(*) AS waiting, COUNT(*) AS due, \
         COUNT(CASE WHEN attempts > 0 THEN 1 END) AS retrying, MIN(created_at) AS oldest \
         FROM outbox WHERE state = 0 GROUP BY lane",
    );
    sql.all(store).await
}

/// Returns all lanes.
///
/// # Errors
/// When the database is away.
pub async fn lanes(store: &Store) -> Result<Vec<LaneRow>> {
    let sql = Sql::new(
        "SELECT kind, lane, lease_until, paused_until, failures, holder FROM lanes \
         ORDER BY kind, lane",
    );
    sql.all(store).await
}

/// Counts the claims that are held.
///
/// # Errors
/// When the database is away.
pub async fn running(store: &Store) -> Result<Running> {
    let mut sql = Sql::new("SELECT COUNT(*) AS running");
    sql.with(
        ", COUNT(CASE WHEN lease_until < ? THEN 1 END) AS abandoned",
        number(store.now()),
    );
    sql.push(" FROM inbox WHERE state = 1");
    Ok(sql.one(store).await?.unwrap_or_default())
}

/// Returns how many claims the inbox remembers, as far as the database knows without counting.
///
/// # Errors
/// When the database is away.
pub async fn remembered(store: &Store) -> Result<i64> {
    let sql = Sql::new(Text::each(
        "SELECT CASE WHEN reltuples >= 0 THEN reltuples::BIGINT ELSE \
         (SELECT COUNT(*) FROM (SELECT 1 FROM inbox LIMIT 100000) AS counted) END \
         FROM pg_class WHERE oid = 'inbox'::regclass",
        "SELECT COUNT(*) FROM inbox",
    ));
    let count: Option<(i64,)> = sql.one(store).await?;
    Ok(count.map_or(0, |(count,)| count))
}

/// Counts the dead letters nobody has decided on.
///
/// # Errors
/// When the database is away.
pub async fn open(store: &Store) -> Result<Open> {
    let sql = Sql::new(text!(
        "SELECT COUNT(*) AS open, COUNT(CASE WHEN source = 'outbox' THEN 1 END) AS parked, \
         MIN(CASE WHEN kept_at > 0 THEN kept_at ELSE " ["created_at"] " END) AS oldest \
         FROM event_dead_letters WHERE status = 'open'"
    ));
    Ok(sql.one(store).await?.unwrap_or_default())
}
