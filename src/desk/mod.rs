//! The desk: finding, understanding, retrying and discarding what failed; running again what was
//! processed; telling what happened to an event.
//!
//! HTTP and the command line ask it the same questions and get the same answers. It only needs
//! the database, so it works while the service is down; redrives and replays are written down
//! here and run by whichever instance takes them ([`Runner`]).

mod answer;
mod ask;
mod audit;
mod check;
mod dead_letters;
mod edit;
mod erase;
mod error;
mod explain;
mod redrives;
mod runner;
mod status;

pub use answer::{
    AuditEntry, AuditPage, DeadLetter, DeadLetterDetail, DeadLetterPage, DeadLettersStatus,
    Discarded, Edited, Emission, Erased, EventStory, EventsStatus, Explanation, Failure, Group,
    InboxStatus, Kept, LaneStatus, OutboxStatus, Payload, Redrive, RedriveDetail, RedriveItem,
    RedrivePage, RedrivePreview, Repeat, ReplayPreview, ReplayedEvent, ReplayedHandler, Run, Share,
    Status,
};
pub use ask::{
    By, DeadLetterFilter, Discard, Edit, Erase, EventFilter, Page, RunMode, SideEffects,
    StartRedrive, StartReplay,
};
pub use check::MAX_REASON;
pub use error::{DeskError, DeskResult};
pub use runner::Runner;

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
}
