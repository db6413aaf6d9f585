//! Stops events that our own writes cause again and again.

use std::borrow::Cow;

use super::Pipeline;
use crate::error::Error;
use crate::event::Event;

/// So many of our own writes behind an event are worth a warning: most chains have one or two.
const WARNING_DEPTH: u32 = 3;

impl Pipeline {
    /// Refuses an event whose chain of causes is longer than allowed; it becomes a dead letter.
    ///
    /// One that an operator has published again runs all the same, and only what it causes is
    /// refused: whoever has mended the loop could not run it otherwise.
    ///
    /// # Errors
    /// [`Error::Never`] with code `event_loop`.
    pub(super) fn refuse_loop(&self, event: &Event) -> Result<(), Error> {
        if event.depth < WARNING_DEPTH {
            return Ok(());
        }
        let most = self.parts.max_event_depth;
        let asked_for = matches!(event.claim_id(), Cow::Owned(_));
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
