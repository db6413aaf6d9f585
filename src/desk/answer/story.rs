//! What happened to an event.

use serde::Serialize;

use super::DeadLetter;
use crate::store::At;

/// One handler's run for an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The handler.
    pub handler: String,
    /// 0 the first, more after redrives and replays.
    pub generation: i32,
    /// `given_back`, `given_up` after that, `running`, `ended` or `dead_lettered`.
    pub state: String,
    /// `done`, `skipped`, … once it has ended.
    pub outcome: Option<String>,
    /// Why it was skipped.
    pub reason: Option<String>,
    /// How often it was tried.
    pub attempt: i32,
    /// When it was claimed for the first time.
    pub created_at: At,
    /// When the last try began.
    pub started_at: At,
    /// When it ended.
    pub ended_at: Option<At>,
    /// How long the last try took.
    pub duration_ms: Option<f64>,
    /// Which instance has it, or had.
    pub instance: String,
    /// The message it came with.
    pub message_id: Option<String>,
    /// Hasura's own retry counter.
    pub hasura_retry: Option<i32>,
    /// Tries that failed before.
    pub failures: Vec<Failure>,
}

/// A try that failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// Which try, from 1.
    pub attempt: i32,
    /// `transient` or `permanent`.
    pub error_class: String,
    /// Machine-readable.
    pub error_code: String,
    /// For people.
    pub error_message: String,
    /// When.
    pub at: At,
}

/// An event that came again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Repeat {
    /// The handler that would have run.
    pub handler: String,
    /// `pubsub_redelivery`, `hasura_retry`, `double_publish`, `operator_redelivery`, `id_reuse`.
    pub kind: String,
    /// The message it came with.
    pub message_id: Option<String>,
    /// Whether it ran again.
    pub ran_again: bool,
    /// When it came.
    pub at: At,
}

/// A row of the `events` table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kept {
    /// The row's id.
    pub id: String,
    /// `pending`, `done`, `skipped`, `unrouted`, `dead_lettered`.
    pub status: String,
    /// Its aggregate.
    pub aggregate_id: Option<String>,
    /// How often it was tried in the present generation.
    pub attempts: i32,
    /// When it is tried again.
    pub next_attempt_at: Option<At>,
    /// The last error's code.
    pub last_error_code: Option<String>,
    /// When it was made.
    pub created_at: At,
    /// When it ended.
    pub processed_at: Option<At>,
}

/// An event a handler emitted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Emission {
    /// Its id.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// The handler that emitted it.
    pub handler: String,
    /// Where it goes.
    pub topic: String,
    /// Its ordering key, where it was asked for.
    pub ordering_key: Option<String>,
    /// `waiting`, `published` or `parked`.
    pub state: String,
    /// Failed publications so far.
    pub attempts: i32,
    /// The last failure's code.
    pub last_error_code: Option<String>,
    /// When it was put into the outbox.
    pub created_at: At,
    /// When the broker confirmed it.
    pub published_at: Option<At>,
    /// The broker's id of the message.
    pub broker_message_id: Option<String>,
    /// What became of it here, when it came back in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<Box<EventStory>>,
}

/// Everything known about one event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventStory {
    /// Its id.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// Hasura's id.
    pub hasura_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// Trace id.
    pub trace_id: Option<String>,
    /// Its row in the `events` table.
    pub kept: Option<Kept>,
    /// What each handler did, oldest first.
    pub runs: Vec<Run>,
    /// When it came again.
    pub repeats: Vec<Repeat>,
    /// What went out.
    pub emitted: Vec<Emission>,
    /// What was given up.
    pub dead_letters: Vec<DeadLetter>,
    /// In words: why something was skipped, waits, or did not happen.
    pub remarks: Vec<String>,
}

/// The answer to "what happened to this id?".
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// What was asked for.
    pub id: String,
    /// What kind of id it turned out to be: `event`, `message`, `hasura`, `correlation`, `trace`,
    /// `dead_letter`.
    pub found_as: Vec<&'static str>,
    /// The events, each with what followed from it; at most 100.
    pub events: Vec<EventStory>,
}
