//! The database, and the work that is kept in it.

use std::time::Duration;

use secrecy::SecretString;

use super::reader::{ConfigError, Reader, Variable};

const DATABASE_URL: Variable = Variable::optional(
    "DATABASE_URL",
    "–",
    "`postgres://…` or `sqlite://file.db`; unset = stateless",
);
const MIGRATE_ON_START: Variable = Variable::defaulted(
    "MIGRATE_ON_START",
    "true",
    "bring the tables up to date at start; `false`: `hookyard migrate` does it",
);
const DATABASE_MAX_CONNECTIONS: Variable = Variable::defaulted(
    "DATABASE_MAX_CONNECTIONS",
    "10",
    "connections of one instance to PostgreSQL at most; times instances below its `max_connections`",
);
const DATABASE_ACQUIRE_TIMEOUT_MS: Variable = Variable::defaulted(
    "DATABASE_ACQUIRE_TIMEOUT_MS",
    "5000",
    "how long work waits for a connection before it is handed back",
);
const DATABASE_STATEMENT_TIMEOUT_MS: Variable = Variable::defaulted(
    "DATABASE_STATEMENT_TIMEOUT_MS",
    "10000",
    "how long one statement may take",
);
const LEASE_MS: Variable = Variable::defaulted(
    "LEASE_MS",
    "30000",
    "how long a claim outlives its holder; it is renewed while the work runs",
);
const RETENTION_DAYS: Variable = Variable::defaulted(
    "RETENTION_DAYS",
    "30",
    "how long what has ended well is kept; ids never less than the 8 days in which they may come again",
);
const ENABLE_POLLING: Variable =
    Variable::defaulted("ENABLE_POLLING", "false", "work off the `events` table");
const POLL_INTERVAL_MS: Variable = Variable::defaulted(
    "POLL_INTERVAL_MS",
    "10000",
    "how often tables are looked at when nothing wakes the workers",
);
const BATCH_SIZE: Variable =
    Variable::defaulted("BATCH_SIZE", "20", "events of the table taken at once");
const WORKER_CONCURRENCY: Variable = Variable::defaulted(
    "WORKER_CONCURRENCY",
    "100",
    "events of the table worked on at once by one instance",
);
const MAX_RETRIES: Variable = Variable::defaulted(
    "MAX_RETRIES",
    "5",
    "tries of an event of the table before it becomes a dead letter",
);
const RETRY_OWNER: Variable = Variable::defaulted(
    "RETRY_OWNER",
    "pubsub",
    "`pubsub`: push answers 503 and Pub/Sub delivers again; `self`: push keeps the event, answers \
     200, and the worker runs and retries it (needs `ENABLE_POLLING=true` on some instance)",
);
const MAX_EVENT_DEPTH: Variable = Variable::defaulted(
    "MAX_EVENT_DEPTH",
    "8",
    "an event caused by a chain of more of our own writes than this is kept as a dead letter",
);
const DEAD_LETTER_SUBSCRIPTION: Variable = Variable::optional(
    "DEAD_LETTER_SUBSCRIPTION",
    "–",
    "pull subscription of Pub/Sub's own dead-letter topic, drained into the dead-letter table",
);

pub(super) const VARIABLES: &[&Variable] = &[
    &DATABASE_URL,
    &MIGRATE_ON_START,
    &DATABASE_MAX_CONNECTIONS,
    &DATABASE_ACQUIRE_TIMEOUT_MS,
    &DATABASE_STATEMENT_TIMEOUT_MS,
    &LEASE_MS,
    &RETENTION_DAYS,
    &ENABLE_POLLING,
    &POLL_INTERVAL_MS,
    &BATCH_SIZE,
    &WORKER_CONCURRENCY,
    &MAX_RETRIES,
    &RETRY_OWNER,
    &MAX_EVENT_DEPTH,
    &DEAD_LETTER_SUBSCRIPTION,
];

/// The shortest time for which ids of finished events are kept: Pub/Sub delivers again for seven
/// days, and one more for clocks and seeks.
pub const DEDUPE_WINDOW: Duration = Duration::from_secs(8 * 24 * 3600);

/// Who tries an event again that push has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOwner {
    /// Pub/Sub delivers it again.
    Pubsub,
    /// It is kept, and our own worker runs it.
    Ours,
}

/// The database. Its own section, because `hookyard migrate` and the desk need nothing else.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is (`DATABASE_URL`); holds a password.
    pub url: SecretString,
    /// Whether to migrate at start (`MIGRATE_ON_START`).
    pub migrate: bool,
    /// Connections at most (`DATABASE_MAX_CONNECTIONS`).
    pub max_connections: u32,
    /// How long to wait for one (`DATABASE_ACQUIRE_TIMEOUT_MS`).
    pub acquire_timeout: Duration,
    /// How long one statement may take (`DATABASE_STATEMENT_TIMEOUT_MS`).
    pub statement_timeout: Duration,
    /// How long a claim outlives its holder (`LEASE_MS`).
    pub lease: Duration,
    /// How long finished work is kept (`RETENTION_DAYS`).
    pub retention: Duration,
}

impl StoreConfig {
    /// Reads the section alone from the process environment: the desk needs nothing else.
    ///
    /// # Errors
    /// [`ConfigError`]; also when there is no `DATABASE_URL`.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_env_or(None)
    }

    /// As [`StoreConfig::from_env`], with a database to take when the environment names none.
    ///
    /// # Errors
    /// As [`StoreConfig::from_env`].
    pub fn from_env_or(url: Option<&str>) -> Result<Self, ConfigError> {
        let lookup = |name: &str| {
            let given = super::environment(name).filter(|value| !value.trim().is_empty());
            let other = url.filter(|_| name == DATABASE_URL.name);
            given.or_else(|| other.map(str::to_owned))
        };
        let mut reader = Reader::new(&lookup);
        let config = Self::read(&mut reader);
        if config.is_none() {
            reader.problem(
                DATABASE_URL.name,
                "is not set (postgres://… or sqlite://file.db)",
            );
        }
        reader.finish()?;
        // Nothing was found wrong, so it is there.
        config.ok_or_else(|| ConfigError(Vec::new()))
    }

    /// Reads the section; `None` without `DATABASE_URL`.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let url = reader.text(&DATABASE_URL)?;
        let known = ["postgres://", "postgresql://", "sqlite:"];
        if !known.iter().any(|scheme| url.starts_with(scheme)) {
            reader.problem(
                DATABASE_URL.name,
                "must begin with postgres:// or sqlite://",
            );
        }
        let migrate = reader.parsed(&MIGRATE_ON_START, "true or false");
        let connections = reader.positive(&DATABASE_MAX_CONNECTIONS, "connections");
        let days = reader.positive(&RETENTION_DAYS, "days").min(36_500);
        let lease = reader.millis(&LEASE_MS);
        if lease < Duration::from_millis(500) {
            reader.problem(LEASE_MS.name, "must be at least 500");
        }
        Some(Self {
            url: url.into(),
            migrate,
            max_connections: u32::try_from(connections).unwrap_or(u32::MAX).max(3),
            acquire_timeout: reader.millis(&DATABASE_ACQUIRE_TIMEOUT_MS),
            statement_timeout: reader.millis(&DATABASE_STATEMENT_TIMEOUT_MS),
            lease,
            retention: Duration::from_secs(days * 24 * 3600),
        })
    }
}

/// The worker of the `events` table.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Whether this instance works (`ENABLE_POLLING`).
    pub enabled: bool,
    /// How often to look (`POLL_INTERVAL_MS`).
    pub poll_interval: Duration,
    /// Events taken at once (`BATCH_SIZE`).
    pub batch_size: usize,
    /// Events worked on at once (`WORKER_CONCURRENCY`).
    pub concurrency: usize,
    /// Tries before an event becomes a dead letter (`MAX_RETRIES`).
    pub max_retries: u32,
    /// Who retries what push brought (`RETRY_OWNER`).
    pub retry_owner: RetryOwner,
    /// Longest chain of events caused by our own writes (`MAX_EVENT_DEPTH`).
    pub max_event_depth: u32,
    /// Subscription to drain into the desk (`DEAD_LETTER_SUBSCRIPTION`).
    pub dead_letter_subscription: Option<String>,
}

impl WorkerConfig {
    pub(super) fn read(reader: &mut Reader<'_>, durable: bool) -> Self {
        let enabled = reader.parsed(&ENABLE_POLLING, "true or false");
        let retry_owner = match reader.required(&RETRY_OWNER).as_str() {
            "pubsub" => RetryOwner::Pubsub,
            "self" => RetryOwner::Ours,
            _ => {
                reader.problem(RETRY_OWNER.name, "must be pubsub or self");
                RetryOwner::Pubsub
            }
        };
        let dead_letter_subscription = reader.text(&DEAD_LETTER_SUBSCRIPTION);
        let needs_database = [
            (enabled, ENABLE_POLLING.name),
            (retry_owner == RetryOwner::Ours, RETRY_OWNER.name),
            (
                dead_letter_subscription.is_some(),
                DEAD_LETTER_SUBSCRIPTION.name,
            ),
        ];
        for (set, name) in needs_database {
            if set && !durable {
                reader.problem(name, "needs DATABASE_URL, where the events are kept");
            }
        }
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).min(100_000);
        Self {
            enabled,
            poll_interval: reader.millis(&POLL_INTERVAL_MS),
            batch_size: size(reader.positive(&BATCH_SIZE, "events")),
            concurrency: size(reader.positive(&WORKER_CONCURRENCY, "events")),
            max_retries: u32::try_from(reader.positive(&MAX_RETRIES, "tries")).unwrap_or(u32::MAX),
            retry_owner,
            max_event_depth: u32::try_from(reader.positive(&MAX_EVENT_DEPTH, "events"))
                .unwrap_or(u32::MAX),
            dead_letter_subscription,
        }
    }
}
