//! Leaves an upstream alone once it has failed repeatedly, and asks again with one probe.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::retry::Policy;
use crate::clock::SharedClock;

/// What those are told who come while the probe is under way.
const WHILE_PROBING: Duration = Duration::from_secs(1);

/// The breaker of one upstream.
#[derive(Debug)]
pub(super) struct Breaker {
    service: &'static str,
    max_failures: u32,
    first_rest: Duration,
    max_rest: Duration,
    clock: SharedClock,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Counts changes of state: a try that began before the last change no longer has a say.
    era: u64,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, rest: Duration },
    Probing { rest: Duration },
}

impl Breaker {
    pub(super) fn new(service: &'static str, policy: &Policy, clock: SharedClock) -> Self {
        Self {
            service,
            max_failures: policy.breaker_failures,
            first_rest: policy.first_rest,
            max_rest: policy.max_rest,
            clock,
            inner: Mutex::new(Inner {
                state: State::Closed { failures: 0 },
                era: 0,
            }),
        }
    }

    /// Lets one try through, or says how long the upstream still rests.
    pub(super) fn admit(&self) -> Result<Permit<'_>, Duration> {
        let mut inner = self.lock();
        match inner.state {
            State::Closed { .. } => {}
            State::Probing { .. } => return Err(WHILE_PROBING),
            State::Open { until, rest } => {
                let left = until.saturating_duration_since(self.clock.monotonic());
                if !left.is_zero() {
                    return Err(left);
                }
                inner.change(State::Probing { rest });
            }
        }
        Ok(Permit {
            breaker: self,
            era: inner.era,
        })
    }

    /// Returns how long the upstream still rests; `None` when a try would be let through.
    pub(super) fn resting(&self) -> Option<Duration> {
        match self.lock().state {
            State::Closed { .. } => None,
            State::Probing { .. } => Some(WHILE_PROBING),
            State::Open { until, .. } => {
                let left = until.saturating_duration_since(self.clock.monotonic());
                (!left.is_zero()).then_some(left)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, inner: &mut Inner, rest: Duration) {
        let until = self.clock.monotonic() + rest;
        inner.change(State::Open { until, rest });
        tracing::warn!(
            upstream.name = self.service,
            rest_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX),
            "upstream has failed repeatedly and is left alone"
        );
    }
}

impl Inner {
    fn change(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }
}

/// The right to make one try; dropped without a word, it changes nothing.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    era: u64,
}

impl Permit<'_> {
    /// Says that the upstream is well, whether or not it liked the request.
    pub(super) fn succeeded(self) {
        let mut inner = self.breaker.lock();
        if inner.era != self.era {
            return;
        }
        match &mut inner.state {
            State::Closed { failures } => *failures = 0,
            State::Probing { .. } => {
                inner.change(State::Closed { failures: 0 });
                tracing::info!(
                    upstream.name = self.breaker.service,
                    "upstream answers again"
                );
            }
            State::Open { .. } => {}
        }
    }

    /// Says that the upstream is not well.
    pub(super) fn failed(self) {
        let breaker = self.breaker;
        let mut inner = breaker.lock();
        if inner.era != self.era {
            return;
        }
        match &mut inner.state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures >= breaker.max_failures {
                    breaker.open(&mut inner, breaker.first_rest);
                }
            }
            State::Probing { rest } => {
                let rest = (*rest * 2).min(breaker.max_rest);
                breaker.open(&mut inner, rest);
            }
            State::Open { .. } => {}
        }
    }
}

impl Drop for Permit<'_> {
    /// Hands the probe to the next caller when this one was cut off before it learnt anything.
    fn drop(&mut self) {
        let mut inner = self.breaker.lock();
        if let State::Probing { rest } = inner.state
            && inner.era == self.era
        {
            let until = self.breaker.clock.monotonic();
            inner.change(State::Open { until, rest });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> (Breaker, Arc<ManualClock>) {
        let clock = ManualClock::start();
        (
            Breaker::new("crm", &Policy::default(), clock.clone()),
            clock,
        )
    }

    fn open(breaker: &Breaker) {
        for _ in 0..5 {
            breaker.admit().unwrap().failed();
        }
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let (breaker, _clock) = breaker();

        for _ in 0..10 {
            for _ in 0..4 {
                breaker.admit().unwrap().failed();
            }
            breaker.admit().unwrap().succeeded();
        }

        assert_eq!(breaker.resting(), None);
    }

    #[test]
    fn the_rest_doubles_up_to_a_minute_and_starts_over_after_a_success() {
        let (breaker, clock) = breaker();

        open(&breaker);
        for seconds in [10, 20, 40, 60, 60] {
            assert_eq!(breaker.admit().unwrap_err(), SECOND * seconds);
            clock.advance(SECOND * seconds);
            breaker.admit().unwrap().failed();
        }
        clock.advance(SECOND * 60);
        breaker.admit().unwrap().succeeded();
        open(&breaker);

        assert_eq!(breaker.resting(), Some(SECOND * 10));
    }

    #[test]
    fn one_probe_is_let_through_at_a_time_even_when_it_is_dropped() {
        let (breaker, clock) = breaker();
        open(&breaker);
        clock.advance(SECOND * 10);

        let probe = breaker.admit().unwrap();
        assert!(breaker.admit().is_err());
        drop(probe);

        breaker.admit().unwrap().succeeded();
        assert_eq!(breaker.resting(), None);
    }

    #[test]
    fn a_try_from_before_the_rest_neither_ends_nor_prolongs_it() {
        let (breaker, clock) = breaker();
        let [early, late] = [breaker.admit().unwrap(), breaker.admit().unwrap()];
        open(&breaker);

        early.succeeded();
        assert_eq!(breaker.resting(), Some(SECOND * 10));

        clock.advance(SECOND * 10);
        let probe = breaker.admit().unwrap();
        late.failed();
        probe.succeeded();
        assert_eq!(breaker.resting(), None);
    }
}
