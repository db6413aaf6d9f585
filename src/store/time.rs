//! The database's clock, kept here so that it need not be asked every time.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::write::timestamp;
use crate::clock::SharedClock;

/// Microseconds since 1970 by the database's clock; also the length of a time.
pub type Micros = i64;

/// A moment, as the database keeps it; written as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct At(pub Micros);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&timestamp(self.0))
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A clock that runs on the machine's monotonic time and is set by the database's.
///
/// Leases compare times of several machines. Their wall clocks may be hours apart or jump; this
/// one follows the database's within the time a question to it takes.
#[derive(Debug)]
pub struct StoreClock {
    clock: SharedClock,
    start: Instant,
    start_wall: Micros,
    /// What has to be added to the time that began with this process's own wall clock.
    offset: AtomicI64,
}

impl StoreClock {
    /// Begins with the machine's wall clock.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            start: clock.monotonic(),
            start_wall: micros_of(clock.now()),
            offset: AtomicI64::new(0),
            clock,
        }
    }

    /// Returns the present time.
    pub fn now(&self) -> Micros {
        self.own()
            .saturating_add(self.offset.load(Ordering::Relaxed))
    }

    /// Sets it to what the database's clock shows.
    pub(super) fn set(&self, now: Micros) {
        self.offset
            .store(now.saturating_sub(self.own()), Ordering::Relaxed);
    }

    fn own(&self) -> Micros {
        let passed = self.clock.monotonic().saturating_duration_since(self.start);
        let passed = Micros::try_from(passed.as_micros()).unwrap_or(Micros::MAX);
        self.start_wall.saturating_add(passed)
    }
}

/// Converts a time.
pub fn micros_of(time: SystemTime) -> Micros {
    let signed = |passed: std::time::Duration| Micros::try_from(passed.as_micros());
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => signed(after).unwrap_or(Micros::MAX),
        Err(before) => signed(before.duration()).map_or(Micros::MIN, |micros| -micros),
    }
}

/// Converts a time back.
pub fn time_of(micros: Micros) -> SystemTime {
    let passed = std::time::Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 {
        UNIX_EPOCH.checked_sub(passed)
    } else {
        UNIX_EPOCH.checked_add(passed)
    };
    time.unwrap_or(UNIX_EPOCH)
}
