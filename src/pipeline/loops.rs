//! Stops events that our own writes cause again and again.

use super::Pipeline;
use super::run::Job;
use crate::error::Error;

/// So many of our own writes behind an event are worth a warning: most chains have one or two.
const WARNING_DEPTH: u32 = 3;

impl Pipeline {
    /// Refuses an event whose chain of causes is longer than allowed; it becomes a dead letter.
    ///
    /// One that an operator has run again runs all the same, and only what it causes is
    /// refused: whoever has mended the loop could not run it otherwise.
    ///
    /// # Errors
    /// [`Error::Never`] with code `event_loop`.
    pub(super) fn refuse_loop(&self, job: &Job<'_>) -> Result<(), Error> {
        let event = job.event;
        if event.depth < WARNING_DEPTH {
            return Ok(());
        }
        let most = self.parts.max_event_depth;
        let asked_for = job.is_again() || event.is_redriven();
        if event.depth > most && !asked_for {
            return Err(Error::permanent("event_loop"));
        }
        tracing::warn!(
            event.id = event.id.as_str(),
            event.r#type = event.event_type.as_str(),
            depth = event.depth,
            max_depth = most,
            "event is caused by a chain of our own writes; it may be a loop"
        );
        Ok(())
    }
}
