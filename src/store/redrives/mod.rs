//! `redrives` and `redrive_items`: long work on many events, and how far it has come.

mod begin;
mod items;
mod load;
mod prepare;
mod select;

use sqlx::FromRow;

pub use begin::{Begun, Copied, NewRedrive, Refusal, What, begin, copy};
pub use items::{Ended, Item, Settled, Taken, problems, settle, take};
pub use load::{Endings, StoredEvent, endings, of_dead_letter, of_row};
pub use select::{EventsSummary, ReplayedEvent, WantedEvents, events_summary, first_events};

use super::find::{Sql, number, words};
use super::{Micros, Store, Tx};
use crate::error::Result;

/// A redrive of dead letters.
pub const DEAD_LETTERS: &str = "dead_letters";
/// A replay of processed events.
pub const REPLAY: &str = "replay";

/// A redrive or replay.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct RedriveRow {
    /// Its id.
    pub id: String,
    /// [`DEAD_LETTERS`] or [`REPLAY`].
    pub kind: String,
    /// What was asked for, as JSON.
    pub query: String,
    /// `if_not_done` or `force`.
    pub mode: String,
    /// Its pace.
    pub per_second: i32,
    /// How many items it has.
    pub total: i64,
    /// How many of them ended well.
    pub done: i64,
    /// How many failed.
    pub failed: i64,
    /// How many needed nothing.
    pub skipped: i64,
    /// `running`, `finished`, `aborted`.
    pub state: String,
    /// Who began it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Raised by every instance that takes it.
    pub fence: i64,
    /// Until when an instance works on it.
    pub lease_until: Micros,
    /// When it was begun.
    pub created_at: Micros,
    /// When it last moved.
    pub updated_at: Micros,
}

/// The right to work on a redrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// Which.
    pub redrive: RedriveRow,
    /// Proves the right.
    pub fence: i64,
    /// Whether the instance that had it before never gave it back: it may have died of an item.
    pub left: bool,
}

const SELECT: &str = "SELECT id, kind, query, mode, per_second, total, done, failed, skipped, \
    state, actor, reason, fence, lease_until, created_at, updated_at FROM redrives";

/// Finds one.
///
/// # Errors
/// When the database is away.
pub async fn by_id(store: &Store, id: &str) -> Result<Option<RedriveRow>> {
    let mut sql = Sql::new(SELECT);
    sql.with(" WHERE id = ?", words(id));
    sql.one(store).await
}

/// Lists redrives, newest first, after `(created_at, id)` of the last one seen.
///
/// # Errors
/// When the database is away.
pub async fn page(
    store: &Store,
    before: Option<(Micros, &str)>,
    limit: i64,
) -> Result<Vec<RedriveRow>> {
    let mut sql = Sql::new(SELECT);
    if let Some((at, id)) = before {
        sql.with(" WHERE (created_at, id) < (?", number(at));
        sql.with(", ?)", words(id));
    }
    sql.with(" ORDER BY created_at DESC, id DESC LIMIT ?", number(limit));
    sql.all(store).await
}

/// Lists those that run, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn running(store: &Store, limit: i64) -> Result<Vec<RedriveRow>> {
    let mut sql = Sql::new(SELECT);
    sql.with(
        " WHERE state = 'running' ORDER BY created_at LIMIT ?",
        number(limit),
    );
    sql.all(store).await
}

/// Takes the oldest redrive that runs and that no instance has in hand, until `until`.
///
/// # Errors
/// When the database is away.
pub async fn lease(store: &Store, until: Micros) -> Result<Option<Leased>> {
    let now = store.now();
    let mut tx = store.begin().await?;
    let mut free = Sql::new(SELECT);
    free.with(
        " WHERE state = 'running' AND lease_until < ? ORDER BY created_at LIMIT 1",
        number(now),
    );
    if tx.is_postgres() {
        free.push(" FOR UPDATE SKIP LOCKED");
    }
    let Some(mut redrive) = free.one_in::<RedriveRow>(&mut tx).await? else {
        return Ok(None);
    };
    let (fence, left) = (redrive.fence + 1, redrive.lease_until > 0);
    let mut sql = Sql::new("UPDATE redrives SET");
    sql.with(" fence = ?", number(fence));
    sql.with(", lease_until = ?", number(until));
    sql.with(" WHERE id = ?", words(&redrive.id));
    sql.run(&mut tx).await?;
    tx.commit().await?;
    redrive.fence = fence;
    redrive.lease_until = until;
    Ok(Some(Leased {
        redrive,
        fence,
        left,
    }))
}

/// Gives a redrive back, so that another instance need not wait for the lease to end.
///
/// # Errors
/// When the database is away.
pub async fn release(store: &Store, leased: &Leased) -> Result<()> {
    let mut tx = store.begin().await?;
    let mut sql = Sql::new("UPDATE redrives SET lease_until = 0");
    sql.with(" WHERE id = ?", words(&leased.redrive.id));
    sql.with(" AND fence = ?", number(leased.fence));
    sql.run(&mut tx).await?;
    tx.commit().await
}

/// Stops a redrive that runs; tells whether it did.
///
/// # Errors
/// When the database is away.
pub async fn abort(tx: &mut Tx, id: &str, now: Micros) -> Result<bool> {
    let mut sql = Sql::new("UPDATE redrives SET state = 'aborted'");
    sql.with(", updated_at = ?", number(now));
    sql.with(" WHERE id = ? AND state = 'running'", words(id));
    Ok(sql.run(tx).await? > 0)
}

/// Locks a redrive for this transaction; `None` when another instance has it now.
async fn locked(tx: &mut Tx, leased: &Leased) -> Result<Option<RedriveRow>> {
    let mut sql = Sql::new(SELECT);
    sql.with(" WHERE id = ?", words(&leased.redrive.id));
    sql.with(" AND fence = ?", number(leased.fence));
    if tx.is_postgres() {
        sql.push(" FOR UPDATE");
    }
    sql.one_in(tx).await
}
