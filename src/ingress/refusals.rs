//! Counts refused requests, so that a flood of them does not become a flood of log lines.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::SharedClock;
use crate::telemetry::Metrics;

/// Log lines for one reason are at least this far apart.
const QUIET: Duration = Duration::from_secs(1);

/// Counts refusals by reason.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<&'static str, Lately>>);

#[derive(Debug)]
struct Lately {
    said: Instant,
    since: u64,
}

impl Refusals {
    /// Counts one refusal, also in the metrics. Returns how many there were since the last line when
    /// it is time for another: anybody can send what is refused, and must not fill the log with it.
    pub(super) fn note(
        &self,
        reason: &'static str,
        metrics: &Metrics,
        clock: &SharedClock,
    ) -> Option<u64> {
        metrics.push_rejected.with_label_values(&[reason]).inc();
        self.count(reason, clock.monotonic())
    }

    fn count(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lately) = reasons.get_mut(reason) else {
            reasons.insert(
                reason,
                Lately {
                    said: now,
                    since: 0,
                },
            );
            return Some(1);
        };
        lately.since += 1;
        if now.saturating_duration_since(lately.said) < QUIET {
            return None;
        }
        lately.said = now;
        Some(std::mem::take(&mut lately.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[test]
    fn a_flood_is_one_line_a_second_with_the_number() {
        let clock = ManualClock::start();
        let refusals = Refusals::default();

        assert_eq!(refusals.count("bad_signature", clock.monotonic()), Some(1));
        for _ in 0..1000 {
            assert_eq!(refusals.count("bad_signature", clock.monotonic()), None);
        }
        assert_eq!(refusals.count("overloaded", clock.monotonic()), Some(1));
        clock.advance(QUIET);
        assert_eq!(
            refusals.count("bad_signature", clock.monotonic()),
            Some(1001)
        );
    }
}
