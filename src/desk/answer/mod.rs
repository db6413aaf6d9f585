//! What the desk answers. Times are RFC 3339 in UTC, ages are seconds.

mod status;
mod story;

use serde::Serialize;
use serde_json::Value;

pub use status::{DeadLettersStatus, EventsStatus, InboxStatus, LaneStatus, OutboxStatus, Status};
pub use story::{Emission, EventStory, Explanation, Failure, Kept, Repeat, Run};

pub use crate::store::dead_letters::{DeadLetter, Group};
pub use crate::store::erasure::Erased;
pub use crate::store::redrives::ReplayedEvent;

use super::{RunMode, SideEffects};
use crate::store::At;

/// A page of dead letters, newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLetterPage {
    /// The dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// How many there are in all, counted up to 10,000.
    pub total: i64,
    /// Whether there are more than were counted.
    pub total_is_more: bool,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// One dead letter with everything around it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLetterDetail {
    /// The dead letter.
    #[serde(flatten)]
    pub dead_letter: DeadLetter,
    /// What its handler's runs came to.
    pub runs: Vec<Run>,
    /// How it arrived, without values of attributes unless the payload was asked for.
    pub delivery: Option<Value>,
    /// The original, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
}

/// The original bytes of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Payload {
    /// As text, when it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// In base64, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// A count of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Which kind.
    pub name: String,
    /// How many.
    pub count: i64,
}

/// What a redrive would do, were it begun now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RedrivePreview {
    /// How many open dead letters it would take.
    pub count: i64,
    /// How many of them it would skip because the work was done since.
    pub done_since: i64,
    /// What it would release, by handler; `(none)` is what never came to a handler.
    pub handlers: Vec<Share>,
    /// The same by event type.
    pub event_types: Vec<Share>,
    /// When the oldest was kept.
    pub first_at: Option<At>,
    /// When the newest was kept.
    pub last_at: Option<At>,
    /// How long it would take at the pace asked for.
    pub seconds: f64,
    /// The first few, in the order they would run.
    pub sample: Vec<DeadLetter>,
}

/// What a replay would do, were it begun now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayPreview {
    /// How many processed events it would run again.
    pub count: i64,
    /// By event type.
    pub event_types: Vec<Share>,
    /// What each handler would do; empty where the handlers are not known.
    pub handlers: Vec<ReplayedHandler>,
    /// When the oldest was made.
    pub first_at: Option<At>,
    /// When the newest was made.
    pub last_at: Option<At>,
    /// How long it would take at the pace asked for.
    pub seconds: f64,
    /// The first few, in the order they would run.
    pub sample: Vec<ReplayedEvent>,
}

/// A handler in a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayedHandler {
    /// Its name.
    pub handler: String,
    /// `run` or `skip`.
    pub replay: String,
    /// How many events it would get.
    pub count: i64,
}

/// Long work on many events: a redrive or a replay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Redrive {
    /// Its id.
    pub id: String,
    /// `dead_letters` or `replay`.
    pub kind: String,
    /// `running`, `finished` or `aborted`.
    pub state: String,
    /// What was asked for.
    pub query: Value,
    /// Whether what was done is done again.
    pub mode: RunMode,
    /// What becomes of handlers that do not want to be replayed.
    pub side_effects: SideEffects,
    /// The only handler that runs.
    pub handler: Option<String>,
    /// Events per second.
    pub per_second: i32,
    /// How many there were at the start.
    pub total: i64,
    /// How many ended well.
    pub done: i64,
    /// How many failed again.
    pub failed: i64,
    /// How many needed nothing.
    pub skipped: i64,
    /// Who began it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When it was begun.
    pub created_at: At,
    /// When it last moved.
    pub updated_at: At,
    /// Whether an instance is working on it now.
    pub in_hand: bool,
}

impl Redrive {
    /// How many events are over.
    pub fn ended(&self) -> i64 {
        self.done + self.failed + self.skipped
    }
}

/// A page of redrives and replays, newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RedrivePage {
    /// The redrives.
    pub redrives: Vec<Redrive>,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// One event of a redrive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RedriveItem {
    /// The dead letter's id, or the event's in a replay.
    pub id: String,
    /// `running`, or how it ended: `done`, `skipped`, `duplicate`, `dead_lettered`, `failed`, …
    pub outcome: String,
    /// Why it was skipped or failed.
    pub reason: Option<String>,
    /// The generation it ran under.
    pub generation: i32,
    /// When it last moved.
    pub at: At,
}

/// One redrive with what came of its events.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RedriveDetail {
    /// The redrive.
    #[serde(flatten)]
    pub redrive: Redrive,
    /// Those that did not end well, at most 100, newest first.
    pub problems: Vec<RedriveItem>,
}

/// What a discard did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Discarded {
    /// How many.
    pub count: i64,
}

/// The copy an edit made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edited {
    /// Id of the new event.
    pub event_id: String,
    /// The redrive that runs it.
    pub redrive_id: String,
}

/// One entry of the audit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEntry {
    /// Its number.
    pub seq: i64,
    /// When.
    pub at: At,
    /// Who.
    pub actor: String,
    /// What was done: `redrive.start`, `redrive.abort`, `dead_letter.discard`, ….
    pub action: String,
    /// To what.
    pub target: String,
    /// Why.
    pub reason: String,
    /// The rest.
    pub detail: Value,
}

/// A page of the audit, newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// Cursor of the next page.
    pub next: Option<String>,
}
