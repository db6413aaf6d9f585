//! The audit: what was changed, by whom, and why.

use serde_json::Value;

use super::check;
use super::{AuditEntry, AuditPage, By, Desk, DeskResult, Page};
use crate::store::{At, audit};

impl Desk {
    /// Lists what was changed, newest first.
    ///
    /// # Errors
    /// [`DeskError`](super::DeskError).
    pub async fn audit(&self, page: &Page) -> DeskResult<AuditPage> {
        let (limit, before) = (check::limit(page)?, check::cursor(page)?);
        let mut rows = audit::page(&self.store, before, limit + 1).await?;
        let next = check::next(&mut rows, limit, |row| row.seq.to_string());
        let entries = rows.into_iter().map(|row| AuditEntry {
            seq: row.seq,
            at: At(row.at),
            actor: row.actor,
            action: row.action,
            target: row.target,
            reason: row.reason,
            detail: serde_json::from_str(&row.detail).unwrap_or(Value::Null),
        });
        Ok(AuditPage {
            entries: entries.collect(),
            next,
        })
    }

    /// Writes down a change that somebody else carries out, such as a run asked for by hand.
    ///
    /// # Errors
    /// [`DeskError`](super::DeskError).
    pub async fn note(&self, action: &str, target: &str, by: &By) -> DeskResult<()> {
        let author = check::author(by)?;
        let action = check::text_of("action", action)?;
        let target = check::text_of("target", target)?;
        let mut tx = self.store.begin().await?;
        let now = self.store.now();
        audit::insert(&mut tx, action, target, author, "{}", now).await?;
        tx.commit().await?;
        Ok(())
    }
}
