//! Erasure of what was kept about somebody.

use serde_json::json;

use super::check;
use super::{By, Desk, DeskError, DeskResult, Erase, Erased};
use crate::event::derived_id;
use crate::store::audit;
use crate::store::erasure::{self, Subject};

/// Shortest text that is looked for: shorter ones are found everywhere.
const SHORTEST: usize = 6;

impl Desk {
    /// Takes the content out of every row about an event or a subject: payloads, original bytes,
    /// attributes, keys. Ids, times and outcomes stay, so that nothing is run twice for it.
    ///
    /// What is only in backups, in what was published, and in the team's own tables is not
    /// touched.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn erase(&self, ask: &Erase, by: &By) -> DeskResult<Erased> {
        let author = check::author(by)?;
        let (subject, target) = match (&ask.event_id, &ask.subject) {
            (Some(id), None) => {
                let id = check::text_of("event_id", id)?;
                (Subject::Event(id), id.to_owned())
            }
            (None, Some(text)) => {
                let text = check::text_of("subject", text)?;
                if text.len() < SHORTEST {
                    return Err(DeskError::invalid("subject", "must have 6 bytes or more"));
                }
                // Whoever has the text can show that it was erased; the audit does not hold it.
                let hash = derived_id(&["erased", text]).to_string();
                (Subject::Mention(text), hash)
            }
            _ => {
                let what = "or `subject` has to be given, and not both";
                return Err(DeskError::invalid("event_id", what));
            }
        };
        let now = self.store.now();
        let mut tx = self.store.begin().await?;
        let mut erased = erasure::erase(&mut tx, subject, author.actor, now).await?;
        erased.dry_run = ask.dry_run;
        if ask.dry_run {
            return Ok(erased); // rolled back
        }
        let detail = json!(erased).to_string();
        audit::insert(&mut tx, "erase", &target, author, &detail, now).await?;
        tx.commit().await?;
        Ok(erased)
    }
}
