//! The desk: finding, understanding, retrying and discarding what failed; running again what was
//! processed; telling what happened to an event.
//!
//! HTTP and the command line ask it the same questions and get the same answers. It only needs
//! the database, so it works while the service is down; redrives and replays are written down
//! here and run by whichever instance takes them.

mod answer;
mod ask;
mod error;

pub use answer::{
    AuditEntry, AuditPage, DeadLetter, DeadLetterDetail, DeadLetterPage, DeadLettersStatus,
    Discarded, Edited, Emission, EventStory, EventsStatus, Explanation, Failure, Group,
    InboxStatus, Kept, LaneStatus, OutboxStatus, Payload, Redrive, RedriveDetail, RedriveItem,
    RedrivePreview, Repeat, ReplayPreview, ReplayedEvent, ReplayedHandler, Run, Share, Status,
};
pub use ask::{
    By, DeadLetterFilter, Discard, Edit, EventFilter, Page, RunMode, SideEffects, StartRedrive,
    StartReplay,
};
pub use error::{DeskError, DeskResult};

use crate::error::Error;
use crate::pipeline::HandlerInfo;
use crate::store::Store;

/// Answers operators' questions and takes their decisions. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    store: Store,
    handlers: Vec<HandlerInfo>,
}

impl Desk {
    /// Makes a desk. `handlers` are those of the service, for previews of replays; may be empty.
    pub fn new(store: Store, handlers: Vec<HandlerInfo>) -> Self {
        Self { store, handlers }
    }

    /// Lists dead letters, newest first.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn dead_letters(
        &self,
        _filter: &DeadLetterFilter,
        _page: &Page,
    ) -> DeskResult<DeadLetterPage> {
        self.not_yet()
    }

    /// Shows one dead letter; its original only `with_payload`.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn dead_letter(
        &self,
        _id: &str,
        _with_payload: bool,
    ) -> DeskResult<DeadLetterDetail> {
        self.not_yet()
    }

    /// Groups dead letters by the reason of their failure, largest first, at most 1,000 groups.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn groups(&self, _filter: &DeadLetterFilter) -> DeskResult<Vec<Group>> {
        self.not_yet()
    }

    /// Tells what a redrive would do.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn preview_redrive(&self, _ask: &StartRedrive) -> DeskResult<RedrivePreview> {
        self.not_yet()
    }

    /// Begins a redrive; an instance of the service runs it.
    ///
    /// # Errors
    /// [`DeskError`]; `Conflict` when there are more dead letters than were expected.
    pub async fn redrive(&self, _ask: &StartRedrive, _by: &By) -> DeskResult<Redrive> {
        self.not_yet()
    }

    /// Gives up dead letters; the note is the reason in `by`.
    ///
    /// # Errors
    /// [`DeskError`]; `Conflict` when there are more than were expected.
    pub async fn discard(&self, _ask: &Discard, _by: &By) -> DeskResult<Discarded> {
        self.not_yet()
    }

    /// Makes a corrected copy of a dead letter under a new id, has it run, and closes the old one.
    ///
    /// # Errors
    /// [`DeskError`]; `Conflict` when it was decided already.
    pub async fn edit(&self, _id: &str, _ask: &Edit, _by: &By) -> DeskResult<Edited> {
        self.not_yet()
    }

    /// Lists redrives and replays, newest first.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn redrives(&self, _page: &Page) -> DeskResult<Vec<Redrive>> {
        self.not_yet()
    }

    /// Shows one redrive or replay.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn redrive_detail(&self, _id: &str) -> DeskResult<RedriveDetail> {
        self.not_yet()
    }

    /// Stops a redrive or replay; what is in hand at the moment is finished.
    ///
    /// # Errors
    /// [`DeskError`]; `Conflict` when it is over.
    pub async fn abort(&self, _id: &str, _by: &By) -> DeskResult<Redrive> {
        self.not_yet()
    }

    /// Tells what a replay would do: the dry run.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn preview_replay(&self, _ask: &StartReplay) -> DeskResult<ReplayPreview> {
        self.not_yet()
    }

    /// Begins a replay; an instance of the service runs it.
    ///
    /// # Errors
    /// [`DeskError`]; `Conflict` when there are more events than were expected.
    pub async fn replay(&self, _ask: &StartReplay, _by: &By) -> DeskResult<Redrive> {
        self.not_yet()
    }

    /// Tells what happened to an id of any kind.
    ///
    /// # Errors
    /// [`DeskError`]; `NotFound` when nothing is known under it.
    pub async fn explain(&self, _id: &str) -> DeskResult<Explanation> {
        self.not_yet()
    }

    /// Tells how the durable half is doing.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn status(&self) -> DeskResult<Status> {
        self.not_yet()
    }

    /// Lists what was changed, by whom, and why; newest first.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn audit(&self, _page: &Page) -> DeskResult<AuditPage> {
        self.not_yet()
    }

    /// Writes down a change that somebody else carries out, such as a run asked for by hand.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn note(&self, _action: &str, _target: &str, _by: &By) -> DeskResult<()> {
        self.not_yet()
    }

    fn not_yet<T>(&self) -> DeskResult<T> {
        let _ = (&self.store, &self.handlers);
        Err(DeskError::Failed(Error::transient("not_built_yet")))
    }
}
