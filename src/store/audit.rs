//! `audit`: what was changed, by whom, and why.

use sqlx::FromRow;

use super::find::{Conditions, Sql, number, words};
use super::{Micros, Store, Tx};
use crate::error::Result;

/// A change.
#[derive(Debug, Clone, FromRow)]
pub struct AuditRow {
    /// Its number.
    pub seq: i64,
    /// When.
    pub at: Micros,
    /// Who.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// Why.
    pub reason: String,
    /// The rest, as JSON.
    pub detail: String,
}

/// Who changes something, and why.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// Who.
    pub actor: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// Writes a change down, in the transaction that makes it.
///
/// # Errors
/// When the database is away.
pub async fn insert(
    tx: &mut Tx,
    action: &str,
    target: &str,
    by: Author<'_>,
    detail: &str,
    now: Micros,
) -> Result<()> {
    let mut sql =
        Sql::new("INSERT INTO audit (at, actor, action, target, reason, detail) VALUES (");
    sql.with("?, ", number(now));
    for text in [by.actor, action, target, by.reason] {
        sql.with("?, ", words(text));
    }
    sql.with("?)", words(detail));
    sql.run(tx).await.map(|_| ())
}

/// Lists changes, newest first, from before the number `before`.
///
/// # Errors
/// When the database is away.
pub async fn page(store: &Store, before: Option<i64>, limit: i64) -> Result<Vec<AuditRow>> {
    let mut sql = Sql::new("SELECT seq, at, actor, action, target, reason, detail FROM audit");
    let mut conditions = Conditions::default();
    conditions.and_number("seq < ?", before);
    sql.part(&conditions);
    sql.with(" ORDER BY seq DESC LIMIT ?", number(limit));
    sql.all(store).await
}
