//! What can be asked of the desk.

use serde::{Deserialize, Serialize};

/// Who changes something, and why. Both go into the audit.
#[derive(Debug, Clone)]
pub struct By {
    /// Who.
    pub actor: String,
    /// Why; must not be blank.
    pub reason: String,
}

/// Which dead letters. Everything given has to hold; nothing given means all open ones.
///
/// All members are text, so that they can come out of a query string as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetterFilter {
    /// Ids of dead letters, at most 1,000.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// One group of failures, as [`Group::fingerprint`](super::Group) names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The event type, exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The handler that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// `push`, `events`, `subscription` or `outbox`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `transient` or `permanent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_class: Option<String>,
    /// The error's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Id of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Correlation id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// `open` (the default), `redriven`, `discarded` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Kept at or after this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Kept before this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Page {
    /// How many, 1 to 1,000; 50 when not given.
    pub limit: Option<i64>,
    /// Where the page before ended: its `next`.
    pub cursor: Option<String>,
}

/// Whether work that has ended well is done again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunMode {
    /// Only what has not ended well since.
    #[default]
    IfNotDone,
    /// Everything, once more.
    Force,
}

/// Begins a redrive of dead letters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartRedrive {
    /// Which; only open ones are taken. At least one condition must be given, or `all`.
    pub select: DeadLetterFilter,
    /// Takes every open dead letter.
    pub all: bool,
    /// Whether what was done meanwhile is done again.
    pub mode: RunMode,
    /// Events per second, 1 to 10,000; 20 when not given.
    pub per_second: Option<i64>,
    /// A name for this request: sent again it finds the redrive it began, and begins no second.
    pub request_id: Option<String>,
    /// How many the preview showed. When there are more now, nothing begins.
    pub expected: Option<i64>,
}

/// Gives up dead letters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discard {
    /// Which; only open ones are discarded. At least one condition must be given.
    pub select: DeadLetterFilter,
    /// How many the list showed. When there are more now, nothing is discarded.
    pub expected: Option<i64>,
}

/// Runs a corrected copy of a dead letter, under a new id.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The corrected message, as text: what stood in its data, or in the row's payload.
    pub payload: String,
    /// A name for this request: sent again it makes no second copy.
    #[serde(default)]
    pub request_id: Option<String>,
}

/// Which processed events. Everything given has to hold; at least one condition must be given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventFilter {
    /// Ids of events, at most 1,000.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// The event type, exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The aggregate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate_id: Option<String>,
    /// Made at or after this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Made before this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What a replay does with handlers that say `REPLAY = Skip`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SideEffects {
    /// They are left out.
    #[default]
    AsDeclared,
    /// They run as well.
    Run,
}

/// Begins a replay of processed events.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartReplay {
    /// Which events.
    pub select: EventFilter,
    /// Only this handler.
    pub handler: Option<String>,
    /// What to do with handlers that do not want to be replayed.
    pub side_effects: SideEffects,
    /// Events per second, 1 to 10,000; 20 when not given.
    pub per_second: Option<i64>,
    /// A name for this request: sent again it finds the replay it began, and begins no second.
    pub request_id: Option<String>,
    /// How many the dry run showed. When there are more now, nothing begins.
    pub expected: Option<i64>,
}

/// Takes out what was kept about an event or a subject.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Erase {
    /// The event's id.
    pub event_id: Option<String>,
    /// What identifies the subject wherever it is mentioned: a row's id, a mail address. At least
    /// 6 bytes.
    pub subject: Option<String>,
    /// Only count.
    pub dry_run: bool,
}
