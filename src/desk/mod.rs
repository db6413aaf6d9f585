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

use std::time::Duration;

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
use crate::store::{Store, away};

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

    /// Waits for an answer of this desk's, but not for ever: a database that fell silent gives none.
    ///
    /// # Errors
    /// Those of the answer; without one it is not known whether anything was changed.
    pub async fn in_time<T>(
        &self,
        length: Length,
        answer: impl Future<Output = DeskResult<T>>,
    ) -> DeskResult<T> {
        let Some(limit) = length.limit() else {
            return self.store.in_time(async { Ok(answer.await) }).await?;
        };
        let waited = tokio::time::timeout(limit, answer).await;
        waited.unwrap_or_else(|_| Err(away("no_answer").into()))
    }
}

/// How long an answer of the desk's may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// As long as other work on the database.
    Usual,
    /// Many rows are chosen and written down.
    Choosing,
    /// Whole tables are read.
    Reading,
}

impl Length {
    /// Longer than the limits which these statements have in the database.
    fn limit(self) -> Option<Duration> {
        match self {
            Self::Usual => None,
            Self::Choosing => Some(Duration::from_secs(5 * 60)),
            Self::Reading => Some(Duration::from_secs(3600)),
        }
    }
}
