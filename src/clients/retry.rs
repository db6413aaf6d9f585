//! How patient a client is: timeouts, tries, waits between them. The only file on `backoff`.

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// How long a client waits, how often it tries again and when it stops asking.
///
/// All of it is bounded by the deadline of the [`Call`](super::Call) besides.
#[derive(Debug, Clone)]
pub struct Policy {
    retries: u32,
    first_wait: Duration,
    max_wait: Duration,
    pub(super) try_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) max_answer_bytes: usize,
    pub(super) breaker_failures: u32,
    pub(super) first_rest: Duration,
    pub(super) max_rest: Duration,
}

impl Default for Policy {
    /// One try and 3 retries after about 1, 2 and 4 s; 10 s a try, 3 s to connect, answers up to
    /// 1 MiB; a rest of 10 s, then up to 60 s, after 5 failed tries in a row.
    fn default() -> Self {
        Self {
            retries: 3,
            first_wait: Duration::from_secs(1),
            max_wait: Duration::from_secs(10),
            try_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            max_answer_bytes: 1024 * 1024,
            breaker_failures: 5,
            first_rest: Duration::from_secs(10),
            max_rest: Duration::from_secs(60),
        }
    }
}

impl Policy {
    /// Changes how many tries may follow the first one.
    #[must_use]
    pub fn with_retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// Changes the wait before the second try, which doubles with each further one, and its cap.
    #[must_use]
    pub fn with_waits(self, first_wait: Duration, max_wait: Duration) -> Self {
        Self {
            first_wait,
            max_wait,
            ..self
        }
    }

    /// Changes how long one try may take: connecting, headers and body together.
    #[must_use]
    pub fn with_try_timeout(self, try_timeout: Duration) -> Self {
        Self {
            try_timeout,
            ..self
        }
    }

    /// Changes how long connecting may take.
    #[must_use]
    pub fn with_connect_timeout(self, connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            ..self
        }
    }

    /// Changes how large an answer may be.
    #[must_use]
    pub fn with_max_answer_bytes(self, max_answer_bytes: usize) -> Self {
        Self {
            max_answer_bytes,
            ..self
        }
    }

    /// Changes after how many failed tries in a row the upstream is left alone, for how long at
    /// first, and for how long at most.
    #[must_use]
    pub fn with_breaker(self, failures: u32, first_rest: Duration, max_rest: Duration) -> Self {
        Self {
            breaker_failures: failures.max(1),
            first_rest,
            max_rest,
            ..self
        }
    }

    /// Starts counting the waits of one call.
    pub(super) fn waits(&self) -> Waits {
        Waits {
            left: self.retries,
            max_wait: self.max_wait,
            // No time limit here: it would be measured on the machine's clock, and ours is the
            // deadline of the call.
            growth: ExponentialBackoffBuilder::new()
                .with_initial_interval(self.first_wait)
                .with_multiplier(2.0)
                .with_randomization_factor(0.5)
                .with_max_interval(self.max_wait)
                .with_max_elapsed_time(None)
                .build(),
        }
    }
}

/// The waits between the tries of one call.
pub(super) struct Waits {
    left: u32,
    max_wait: Duration,
    growth: ExponentialBackoff,
}

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        // The jitter comes after the crate's own cap.
        Some(self.growth.next_backoff()?.min(self.max_wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_their_jitter_and_end() {
        for _ in 0..50 {
            let waits: Vec<_> = Policy::default().waits().collect();

            assert_eq!(waits.len(), 3);
            for (wait, middle) in waits.iter().zip([1.0, 2.0, 4.0]) {
                let wait = wait.as_secs_f64();
                assert!((middle * 0.499..=middle * 1.501).contains(&wait), "{wait}");
            }
        }
    }

    #[test]
    fn no_wait_is_longer_than_the_cap() {
        let policy = Policy::default().with_retries(20);

        assert!(policy.waits().all(|wait| wait <= Duration::from_secs(10)));
    }
}
