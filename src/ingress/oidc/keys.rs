//! Keeps the issuer's public keys fresh without ever making a good token wait.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http::header::{AGE, CACHE_CONTROL};
use http::{HeaderMap, StatusCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::key_set::{KeySet, Lifetime};
use crate::clock::SharedClock;
use crate::telemetry::Metrics;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What `Cache-Control` says is believed within these bounds.
const SHORTEST_LIFE: Duration = Duration::from_secs(5 * 60);
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long good keys are used although no newer ones could be had.
const MAX_STALE: Duration = LONGEST_LIFE;

/// Unknown key ids cause at most one fetch in this time.
const COOL_DOWN: Duration = Duration::from_secs(30);

pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 1024 * 1024;

/// Why somebody wants a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The keys are missing, too old, or their time has come.
    Due,
    /// A token names a key that is not in the set.
    UnknownKey,
}

#[derive(PartialEq, Eq)]
enum Kick {
    Started,
    Joined,
    Refused,
}

/// Why a fetch brought no keys; the words go into logs and `hookyard check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keys could not be fetched ({code})")]
pub struct FetchError {
    /// `timeout`, `connect`, `status`, `too_large`, `no_usable_key`, `client` or `broken`.
    pub code: &'static str,
}

#[derive(Default)]
struct Schedule {
    in_flight: bool,
    failures: u32,
    next_attempt: Option<Instant>,
    last_asked: Option<Instant>,
}

/// The issuer's keys, and the one fetch that may be under way for them.
pub(super) struct Keys {
    url: String,
    fetch_timeout: Duration,
    client: OnceLock<Option<reqwest::Client>>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    current: RwLock<Arc<KeySet>>,
    schedule: Mutex<Schedule>,
    /// Counts fetches that ended, well or not.
    ended: watch::Sender<u64>,
    tasks: TaskTracker,
}

impl Keys {
    pub(super) fn new(
        url: String,
        fetch_timeout: Duration,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            url,
            fetch_timeout,
            client: OnceLock::new(),
            clock,
            metrics,
            current: RwLock::default(),
            schedule: Mutex::default(),
            ended: watch::Sender::new(0),
            tasks: TaskTracker::new(),
        })
    }

    pub(super) fn current(&self) -> Arc<KeySet> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    /// Fetches whenever it is time, until `stop`.
    pub(super) async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        let mut ended = self.ended.subscribe();
        loop {
            self.kick(Why::Due);
            // Real time on purpose, and never long: a machine that slept, or whose clock was
            // moved, notices within half a minute.
            let pause = self.until_next_attempt().min(MINUTE / 2);
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ended.changed() => {}
                () = tokio::time::sleep(pause.max(MINUTE / 1000)) => {}
            }
        }
    }

    /// Starts a fetch if its time has come; never waits.
    pub(super) fn refresh_if_due(self: &Arc<Self>) {
        self.kick(Why::Due);
    }

    /// Tells whether asking for a fetch may bring something new.
    pub(super) fn may_ask(&self, why: Why) -> bool {
        let schedule = self.schedule();
        schedule.in_flight || allowed(&schedule, why, self.clock.monotonic())
    }

    /// Waits for one fetch, started now or already under way.
    ///
    /// Returns false at once when none is due yet.
    pub(super) async fn ask(self: &Arc<Self>, why: Why) -> bool {
        let mut ended = self.ended.subscribe();
        if self.kick(why) == Kick::Refused {
            return false;
        }
        let wait = tokio::time::timeout(self.fetch_timeout * 2, ended.changed());
        matches!(wait.await, Ok(Ok(())))
    }

    fn kick(self: &Arc<Self>, why: Why) -> Kick {
        let mut schedule = self.schedule();
        if schedule.in_flight {
            return Kick::Joined;
        }
        let now = self.clock.monotonic();
        if !allowed(&schedule, why, now) || tokio::runtime::Handle::try_current().is_err() {
            return Kick::Refused;
        }
        if why == Why::UnknownKey {
            schedule.last_asked = Some(now);
        }
        schedule.in_flight = true;
        drop(schedule);
        let flight = Flight(Arc::clone(self));
        self.tasks.spawn(async move { flight.0.fly().await });
        Kick::Started
    }

    async fn fly(&self) {
        let started = self.clock.monotonic();
        let fetched = self.fetch().await;
        let word = if fetched.is_ok() { "ok" } else { "transient" };
        self.metrics
            .upstream_requests
            .with_label_values(&["jwks", word])
            .inc();
        let now = self.clock.monotonic();
        self.metrics
            .upstream_duration
            .with_label_values(&["jwks"])
            .observe(now.saturating_duration_since(started).as_secs_f64());
        match fetched {
            Ok((set, life)) => self.accept(set, life, now),
            Err(error) => self.put_off(error, now),
        }
    }

    fn accept(&self, set: KeySet, life: Duration, now: Instant) {
        let lifetime = Lifetime {
            due: now + life,
            usable_until: now + MAX_STALE,
        };
        let old = self.current();
        let set = Arc::new(set.succeed(&old, lifetime));
        if set.generation != old.generation {
            tracing::info!(keys.count = set.len(), "token keys changed");
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = set;
        let mut schedule = self.schedule();
        schedule.failures = 0;
        schedule.next_attempt = Some(now + life);
    }

    fn put_off(&self, error: FetchError, now: Instant) {
        let usable = self.current().usable(now);
        // Without keys every event waits for this, so it is tried often.
        let (first, longest) = if usable {
            (COOL_DOWN, 5 * MINUTE)
        } else {
            (Duration::from_secs(1), Duration::from_secs(15))
        };
        let mut schedule = self.schedule();
        let pause = first * 2_u32.saturating_pow(schedule.failures.min(8));
        schedule.failures = schedule.failures.saturating_add(1);
        schedule.next_attempt = Some(now + pause.min(longest));
        drop(schedule);
        tracing::warn!(
            error.code = error.code,
            keys.usable = usable,
            "token keys could not be fetched"
        );
    }

    /// Fetches the keys once, whatever the schedule says, and changes nothing.
    pub(super) async fn fetch(&self) -> Result<(KeySet, Duration), FetchError> {
        let client = self
            .client
            .get_or_init(|| build_client(self.fetch_timeout))
            .as_ref();
        let client = client.ok_or(FetchError { code: "client" })?;
        let mut response = client.get(&self.url).send().await.map_err(code_of)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError { code: "status" });
        }
        let life = lifetime(response.headers());
        let mut json = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(code_of)? {
            if json.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError { code: "too_large" });
            }
            json.extend_from_slice(&chunk);
        }
        let unusable = FetchError {
            code: "no_usable_key",
        };
        let set = KeySet::parse(&json).ok_or(unusable)?;
        Ok((set, life))
    }

    fn until_next_attempt(&self) -> Duration {
        let schedule = self.schedule();
        match schedule.next_attempt {
            Some(at) if !schedule.in_flight => at.saturating_duration_since(self.clock.monotonic()),
            _ => MINUTE,
        }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn allowed(schedule: &Schedule, why: Why, now: Instant) -> bool {
    match why {
        Why::Due => schedule.next_attempt.is_none_or(|at| now >= at),
        Why::UnknownKey => schedule
            .last_asked
            .is_none_or(|at| now.saturating_duration_since(at) >= COOL_DOWN),
    }
}

/// The one fetch under way. However it ends, even by a panic, the next one is possible.
struct Flight(Arc<Keys>);

impl Drop for Flight {
    fn drop(&mut self) {
        let mut schedule = self.0.schedule();
        schedule.in_flight = false;
        // Inside the lock: whoever saw `in_flight` will see this too.
        self.0.ended.send_modify(|count| *count += 1);
    }
}

/// A client of its own rather than the upstreams' one: no retry, no redirect, one try.
fn build_client(timeout: Duration) -> Option<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(concat!("hookyard/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        // Minutes lie between two fetches; a kept connection would be dead by then.
        .pool_max_idle_per_host(0)
        .build()
        .ok()
}

fn code_of(error: reqwest::Error) -> FetchError {
    let code = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connect"
    } else {
        "broken"
    };
    FetchError { code }
}

/// Reads how long the keys are fresh: `max-age` less `Age`, within bounds.
fn lifetime(headers: &HeaderMap) -> Duration {
    let directives = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let max_age = directives
        .filter_map(|directive| directive.trim().split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("max-age"))
        .map(|(_, seconds)| whole_seconds(seconds.trim_matches('"')));
    let age = headers.get(AGE).and_then(|age| age.to_str().ok());
    let age = age.map_or(Duration::ZERO, whole_seconds);
    let fresh = max_age.unwrap_or(HOUR).saturating_sub(age);
    // At the upper bound an hour early: a first failed try must not leave us without keys.
    fresh
        .clamp(SHORTEST_LIFE, LONGEST_LIFE)
        .min(LONGEST_LIFE - HOUR)
}

/// More digits than fit are simply very long; no number at all counts as already stale.
fn whole_seconds(text: &str) -> Duration {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if digits {
        text.parse().unwrap_or(u64::MAX)
    } else {
        0
    };
    Duration::from_secs(seconds)
}
