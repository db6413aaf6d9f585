//! Time budgets, and what is remembered about finished events.

use std::time::Duration;

use super::reader::{Reader, Variable};
use super::store::DEDUPE_WINDOW;

const ACK_DEADLINE_MS: Variable = Variable::defaulted(
    "ACK_DEADLINE_MS",
    "60000",
    "ack deadline of the push subscription; must match it",
);
const HANDLER_TIMEOUT_MS: Variable = Variable::defaulted(
    "HANDLER_TIMEOUT_MS",
    "50000",
    "time for all handlers of one delivery, retries included; below `ACK_DEADLINE_MS`",
);
const DEDUPE_TTL_SECONDS: Variable = Variable::optional(
    "DEDUPE_TTL_SECONDS",
    "`86400` (with a database `691200`, 8 days)",
    "how long a finished event's id is remembered; with a database only by the cache before it",
);
const DEDUPE_CAPACITY: Variable = Variable::defaulted(
    "DEDUPE_CAPACITY",
    "1000000",
    "how many finished ids are remembered at most",
);

pub(super) const VARIABLES: &[&Variable] = &[
    &ACK_DEADLINE_MS,
    &HANDLER_TIMEOUT_MS,
    &DEDUPE_TTL_SECONDS,
    &DEDUPE_CAPACITY,
];

/// The cache below takes times of a thousand years at most, and nobody means more than this.
const MAX_TTL_SECONDS: u64 = 365 * 24 * 3600;

/// Time budgets of one delivery.
#[derive(Debug, Clone)]
pub struct WorkConfig {
    /// Ack deadline of the subscription (`ACK_DEADLINE_MS`).
    pub ack_deadline: Duration,
    /// Time for the handlers (`HANDLER_TIMEOUT_MS`).
    pub handler_timeout: Duration,
}

impl WorkConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let ack_deadline = reader.millis(&ACK_DEADLINE_MS);
        let handler_timeout = reader.millis(&HANDLER_TIMEOUT_MS);
        if handler_timeout >= ack_deadline {
            reader.problem(
                HANDLER_TIMEOUT_MS.name,
                "must be below ACK_DEADLINE_MS, or Pub/Sub delivers again while a handler runs",
            );
        }
        if ack_deadline > Duration::from_secs(600) {
            reader.problem(
                ACK_DEADLINE_MS.name,
                "must be at most 600000, Pub/Sub's own limit",
            );
        }
        Self {
            ack_deadline,
            handler_timeout,
        }
    }
}

/// What is remembered about finished events.
#[derive(Debug, Clone)]
pub struct DedupeConfig {
    /// How long (`DEDUPE_TTL_SECONDS`).
    pub ttl: Duration,
    /// How many (`DEDUPE_CAPACITY`).
    pub capacity: u64,
}

impl DedupeConfig {
    pub(super) fn read(reader: &mut Reader<'_>, durable: bool) -> Self {
        let mut ttl = match reader.text(&DEDUPE_TTL_SECONDS) {
            Some(_) => reader.positive(&DEDUPE_TTL_SECONDS, "seconds"),
            None if durable => DEDUPE_WINDOW.as_secs(),
            None => 24 * 3600,
        };
        if ttl > MAX_TTL_SECONDS {
            reader.problem(
                DEDUPE_TTL_SECONDS.name,
                "must be at most 31536000, which is a year",
            );
            ttl = MAX_TTL_SECONDS;
        }
        Self {
            ttl: Duration::from_secs(ttl),
            capacity: reader.positive(&DEDUPE_CAPACITY, "ids"),
        }
    }
}
