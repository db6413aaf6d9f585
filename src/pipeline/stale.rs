//! Recognises a change of a row that comes after a newer one was handled.
//!
//! Neither Hasura nor Pub/Sub keeps the order of changes. A handler that copies a row's state
//! elsewhere would write an old state over a new one, unless it looks at the present state first
//! or says [`Stale::Skip`].

use super::Pipeline;
use super::run::Job;
use crate::error::Result;
use crate::event::{Body, Event, derived_id};
use crate::store::inbox::Mode;
use crate::store::micros_of;
use crate::store::subjects::{self, Mark};

/// What to do with a change of a row when a newer one was handled before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It is run all the same.
    Run,
    /// It is skipped. Rows are told apart by their column `id`, changes by the time at which
    /// Hasura noted them. Only what has ended is known: two changes of one row that are handled
    /// at the same time are not kept apart. Needs a database.
    Skip,
}

/// Why such an event is skipped.
pub(super) const REASON: &str = "a newer change of this row was handled before";

/// Longest name of a row that is kept as it is.
const MAX_NAME: usize = 300;

impl Pipeline {
    /// Tells whether a newer change was handled. An operator who insists runs it all the same.
    pub(super) async fn is_stale(&self, job: &Job<'_>) -> Result<bool> {
        let (Some(ledger), Some(mark)) = (&self.parts.ledger, self.mark_of(job)) else {
            return Ok(false);
        };
        if job.mode == Mode::Force {
            return Ok(false);
        }
        let newest = subjects::newest(ledger.store(), mark.handler, &mark.subject).await?;
        Ok(newest.is_some_and(|(at, event)| at > mark.changed_at && event != mark.event_id))
    }

    /// Returns what to note when the event is completed; `None` when the handler does not ask for
    /// it or the event is about no row.
    pub(super) fn mark_of(&self, job: &Job<'_>) -> Option<Mark> {
        if self.parts.ledger.is_none() || job.registration.stale() == Stale::Run {
            return None;
        }
        Some(Mark {
            handler: job.handler(),
            subject: row_of(job.event)?,
            changed_at: job.event.created_at.map(micros_of)?,
            event_id: job.event.id.to_string(),
        })
    }
}

/// Names the row of a table event: `contracts 4711`.
fn row_of(event: &Event) -> Option<String> {
    let Body::Row(row) = &event.body else {
        return None;
    };
    let (table, _op) = event.event_type.as_str().rsplit_once('.')?;
    let id = row.key_part("id")?;
    // PostgreSQL's text does not take the one, and an index not everything.
    if id.contains('\0') || table.len() + id.len() > MAX_NAME {
        return Some(derived_id(&["row", table, &id]).to_string());
    }
    Some(format!("{table} {id}"))
}
