//! Time as a parameter: the system's clock, a clock that tests move, and deadlines.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Where the service gets its time from.
///
/// Everything that judges age (tokens, keys, remembered ids, breakers, deadlines) asks this
/// trait instead of the system, so that a test can move an hour in no time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Wall-clock time, for what is compared with times written by others (`exp`, `created_at`).
    fn now(&self) -> SystemTime;

    /// Time that never goes back, for durations and deadlines.
    fn monotonic(&self) -> Instant;

    /// Waits for `duration` of this clock's time.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A clock shared by all parts of one service.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl SystemClock {
    /// Returns the system clock ready to be shared.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the machine's clocks"
)]
impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that stands still until it is moved.
///
/// Sleeping on it moves it: a retry loop with seconds of backoff runs through at once, and
/// [`ManualClock::slept`] tells how long it would have waited.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    start_wall: SystemTime,
    offset_micros: AtomicU64,
    slept: Mutex<Vec<Duration>>,
}

impl ManualClock {
    /// Makes a clock that shows `start` until it is moved.
    #[expect(clippy::disallowed_methods, reason = "an Instant has no other source")]
    pub fn at(start: SystemTime) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            start_wall: start,
            offset_micros: AtomicU64::new(0),
            slept: Mutex::new(Vec::new()),
        })
    }

    /// Makes a clock that shows the present time until it is moved.
    pub fn start() -> Arc<Self> {
        Self::at(SystemClock.now())
    }

    /// Moves both the wall clock and the monotonic clock forward.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.offset_micros.fetch_add(micros, Ordering::SeqCst);
    }

    /// Returns every sleep that was asked for, in order.
    pub fn slept(&self) -> Vec<Duration> {
        self.slept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn offset(&self) -> Duration {
        Duration::from_micros(self.offset_micros.load(Ordering::SeqCst))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.start_wall + self.offset()
    }

    fn monotonic(&self) -> Instant {
        self.start + self.offset()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.slept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(duration);
        self.advance(duration);
        Box::pin(tokio::task::yield_now())
    }
}

/// The moment by which a piece of work has to be over.
///
/// One deadline is made when a delivery arrives and handed down, so that retries, waits and
/// calls together never outlive the Pub/Sub ack deadline.
#[derive(Debug, Clone)]
pub struct Deadline {
    at: Instant,
    clock: SharedClock,
}

/// The deadline passed before the work was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("out of time")]
pub struct Elapsed;

impl Deadline {
    /// Makes a deadline `budget` from now.
    pub fn after(clock: &SharedClock, budget: Duration) -> Self {
        Self {
            at: clock.monotonic() + budget,
            clock: Arc::clone(clock),
        }
    }

    /// Returns what is left, zero once the deadline has passed.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(self.clock.monotonic())
    }

    /// Tells whether the deadline has passed.
    pub fn passed(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Returns a deadline at most `cap` from now and never later than this one.
    pub fn at_most(&self, cap: Duration) -> Self {
        let at = self.at.min(self.clock.monotonic() + cap);
        Self {
            at,
            clock: Arc::clone(&self.clock),
        }
    }

    /// Returns the clock this deadline is measured on.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Runs `work` until it ends or the deadline passes.
    ///
    /// # Errors
    /// [`Elapsed`] when the deadline came first; `work` is dropped then.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(self.remaining(), work)
            .await
            .map_err(|_| Elapsed)
    }
}
