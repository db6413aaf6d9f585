//! `subjects`: the newest change of a row that a handler has completed.

use sqlx::Row;

use super::{Micros, Store, Tx, failed, on, read};
use crate::error::Result;

/// A change that a handler has completed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The handler.
    pub handler: &'static str,
    /// The row.
    pub subject: String,
    /// When it was changed, by the publisher's clock.
    pub changed_at: Micros,
    /// The event that said so.
    pub event_id: String,
}

const MARK: &str = "\
    INSERT INTO subjects (handler, subject, changed_at, event_id, seen_at)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (handler, subject) DO UPDATE SET changed_at = excluded.changed_at,
        event_id = excluded.event_id, seen_at = excluded.seen_at
    WHERE subjects.changed_at <= excluded.changed_at";

/// Returns when the newest completed change was made, and by which event it was told.
///
/// # Errors
/// When the database is away.
pub async fn newest(
    store: &Store,
    handler: &str,
    subject: &str,
) -> Result<Option<(Micros, String)>> {
    let sql = "SELECT changed_at, event_id FROM subjects WHERE handler = $1 AND subject = $2";
    let asked = async {
        read!(store, pool => sqlx::query(sql)
            .bind(handler)
            .bind(subject)
            .fetch_optional(pool)
            .await
            .map(|row| row.map(|row| (row.get(0), row.get(1)))))
        .map_err(failed)
    };
    store.in_time(asked).await
}

/// Notes completed changes, in one order everywhere so that two instances do not wait for each
/// other. An older change than the one noted changes nothing.
///
/// # Errors
/// When the database is away.
pub(super) async fn mark(tx: &mut Tx, mut marks: Vec<&Mark>, now: Micros) -> Result<()> {
    marks.sort();
    for mark in marks {
        on!(tx, c => sqlx::query(MARK)
            .bind(mark.handler)
            .bind(mark.subject.as_str())
            .bind(mark.changed_at)
            .bind(mark.event_id.as_str())
            .bind(now)
            .execute(&mut *c)
            .await
            .map(|_| ()))
        .map_err(failed)?;
    }
    Ok(())
}
