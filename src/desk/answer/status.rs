//! How much waits.

use serde::Serialize;

use super::Redrive;
use crate::store::At;

/// How the durable half is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The database's time.
    pub now: At,
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
    pub lease_until: Option<At>,
    /// Not to be worked on before.
    pub paused_until: Option<At>,
    /// Holders in a row that never gave it back: they died, or lost the database.
    pub failures: i32,
    /// How much waits in it.
    pub waiting: i64,
    /// How long the oldest has waited.
    pub oldest_age_seconds: Option<f64>,
}
