//! What the desk answers. Times are RFC 3339 in UTC, ages are seconds.

use serde::Serialize;
use serde_json::Value;

use super::{RunMode, SideEffects};

/// A failed event that will not be tried again by itself. Holds no value of the event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLetter {
    /// Its id.
    pub id: String,
    /// `open`, `redriven` or `discarded`.
    pub status: String,
    /// `push`, `events`, `subscription` or `outbox`.
    pub source: String,
    /// Id of the event.
    pub event_id: String,
    /// The event type, empty when the delivery could not be decoded.
    pub event_type: String,
    /// The handler that failed; none when it did not come so far.
    pub handler: Option<String>,
    /// Which run failed: 0 the first, more after redrives and replays.
    pub generation: i32,
    /// `transient` or `permanent`.
    pub error_class: String,
    /// Machine-readable.
    pub error_code: String,
    /// For people.
    pub error_message: String,
    /// How often it was tried.
    pub retry_count: i32,
    /// The group it belongs to.
    pub fingerprint: String,
    /// When the event was made or first seen.
    pub first_at: String,
    /// When it was given up.
    pub kept_at: String,
    /// Pub/Sub's id of the message.
    pub message_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// Trace id.
    pub trace_id: Option<String>,
    /// The redrive that has it in hand, or had.
    pub redrive_id: Option<String>,
    /// Who decided.
    pub decided_by: Option<String>,
    /// When it was decided.
    pub decided_at: Option<String>,
    /// What was noted with it.
    pub note: Option<String>,
    /// Length of the original in bytes.
    pub size_bytes: i64,
}

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

/// Dead letters that failed for one reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Names the group in a [`DeadLetterFilter`](super::DeadLetterFilter).
    pub fingerprint: String,
    /// The handler.
    pub handler: Option<String>,
    /// `transient` or `permanent`.
    pub error_class: String,
    /// Machine-readable.
    pub error_code: String,
    /// The newest one's message.
    pub error_message: String,
    /// The newest one's event type.
    pub event_type: String,
    /// How many.
    pub count: i64,
    /// When the oldest was kept.
    pub first_at: String,
    /// When the newest was kept.
    pub last_at: String,
    /// The newest one's id.
    pub newest_id: String,
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
    pub first_at: Option<String>,
    /// When the newest was kept.
    pub last_at: Option<String>,
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
    pub first_at: Option<String>,
    /// When the newest was made.
    pub last_at: Option<String>,
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

/// An event in a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayedEvent {
    /// Its id.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// Its aggregate.
    pub aggregate_id: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// How it ended.
    pub status: String,
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
    pub created_at: String,
    /// When it last moved.
    pub updated_at: String,
    /// Whether an instance is working on it now.
    pub in_hand: bool,
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
    pub at: String,
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

/// What an erasure took the content from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Rows of `events`; what waited there is not run any more.
    pub events: i64,
    /// Dead letters; those that were open are discarded.
    pub dead_letters: i64,
    /// Published events in the outbox.
    pub outbox: i64,
    /// Rows that events are compared with by age.
    pub subjects: i64,
    /// Events that still have to be published, and keep their content until then. Ask again.
    pub waiting: i64,
    /// Whether they were only counted.
    pub dry_run: bool,
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
    pub at: String,
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

/// One handler's run for an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The handler.
    pub handler: String,
    /// 0 the first, more after redrives and replays.
    pub generation: i32,
    /// `given_back`, `running`, `ended` or `dead_lettered`.
    pub state: String,
    /// `done`, `skipped`, … once it has ended.
    pub outcome: Option<String>,
    /// Why it was skipped.
    pub reason: Option<String>,
    /// How often it was tried.
    pub attempt: i32,
    /// When it was claimed for the first time.
    pub created_at: String,
    /// When the last try began.
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
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
    pub at: String,
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
    pub at: String,
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
    pub next_attempt_at: Option<String>,
    /// The last error's code.
    pub last_error_code: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it ended.
    pub processed_at: Option<String>,
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
    /// Its ordering key.
    pub ordering_key: Option<String>,
    /// `waiting`, `published` or `parked`.
    pub state: String,
    /// Failed publications so far.
    pub attempts: i32,
    /// The last failure's code.
    pub last_error_code: Option<String>,
    /// When it was put into the outbox.
    pub created_at: String,
    /// When the broker confirmed it.
    pub published_at: Option<String>,
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

/// How the durable half is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The database's time.
    pub now: String,
    /// `postgres` or `sqlite`.
    pub database: &'static str,
    /// The events table.
    pub events: EventsStatus,
    /// The outbox.
    pub outbox: OutboxStatus,
    /// The inbox.
    pub inbox: InboxStatus,
    /// The dead letters.
    pub dead_letters: DeadLettersStatus,
    /// Redrives and replays that run.
    pub redrives: Vec<Redrive>,
    /// Lanes that are worked on, paused, or have something due.
    pub lanes: Vec<LaneStatus>,
}

/// The events table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventsStatus {
    /// Not processed yet.
    pub pending: i64,
    /// Of these: due now.
    pub due: i64,
    /// Of these: have failed and wait for their next try.
    pub retrying: i64,
    /// How long the oldest due one has waited.
    pub oldest_age_seconds: Option<f64>,
}

/// The outbox.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutboxStatus {
    /// Not published yet.
    pub waiting: i64,
    /// How long the oldest has waited.
    pub oldest_age_seconds: Option<f64>,
    /// Refused by the broker for good; each is a dead letter.
    pub parked: i64,
}

/// The inbox.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InboxStatus {
    /// Being worked on.
    pub running: i64,
    /// Of these: their lease has run out, so their instance is gone or stuck.
    pub abandoned: i64,
    /// Claims in all, as far as the database knows without counting.
    pub entries: i64,
}

/// The dead letters.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLettersStatus {
    /// Undecided.
    pub open: i64,
    /// How long the oldest undecided one has waited.
    pub oldest_age_seconds: Option<f64>,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LaneStatus {
    /// `events` or `outbox`.
    pub kind: &'static str,
    /// Its number.
    pub lane: i16,
    /// The instance that works on it.
    pub holder: Option<String>,
    /// Until when.
    pub lease_until: Option<String>,
    /// Not to be worked on before.
    pub paused_until: Option<String>,
    /// Failures in a row.
    pub failures: i32,
    /// How much waits in it.
    pub waiting: i64,
    /// How long the oldest has waited.
    pub oldest_age_seconds: Option<f64>,
}
