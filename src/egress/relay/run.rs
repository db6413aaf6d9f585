//! One run of a relay: which step may begin, and what its end means.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;

use super::window::{Place, Window};
use super::work::{Answer, Made, Mark, Seen, Tools};
use super::{Relay, show};
use crate::error::{Class, Error, Result};
use crate::store::outbox::WaitingRow;
use crate::store::{Lease, Micros};

/// Between two looks at the table while signals keep coming.
pub(super) const PACE: Duration = Duration::from_millis(3);
/// How long a lane is kept while others wait for their turn.
const TURN: Micros = 2_000_000;
/// Failures in a row after which the broker is left alone for a while.
const REST_AFTER: u32 = 8;
/// Wait after the first failure; it doubles with every further one.
const FIRST_WAIT: Micros = 500_000;
/// Longest wait.
const LONGEST_WAIT: Micros = 30_000_000;
/// Wait after the database has not answered.
const DATABASE_WAIT: Micros = 1_000_000;

type Step = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One run of a relay: what it holds, and what it waits for.
pub(super) struct Run<'a> {
    relay: &'a Relay,
    /// Whether it goes on after a failure of the database.
    patient: bool,
    pub(super) window: Window,
    pub(super) steps: FuturesUnordered<Step>,
    in_flight: usize,
    marks: Vec<Mark>,
    /// There may be something new in the table.
    pub(super) look: bool,
    looking: bool,
    pacing: bool,
    marking: bool,
    renewing: bool,
    releasing: bool,
    pub(super) stopping: bool,
    /// The database is not asked before.
    asks_from: Micros,
    /// Why it is not.
    pub(super) away: Option<Error>,
    /// Failures of the broker since its last success.
    failures: u32,
    rests: i32,
    rests_until: Option<Micros>,
}

impl<'a> Run<'a> {
    pub(super) fn new(relay: &'a Relay, patient: bool) -> Self {
        Self {
            relay,
            patient,
            window: Window::default(),
            steps: FuturesUnordered::new(),
            in_flight: 0,
            marks: Vec::new(),
            look: true,
            looking: false,
            pacing: false,
            marking: false,
            renewing: false,
            releasing: false,
            stopping: false,
            asks_from: Micros::MIN,
            away: None,
            failures: 0,
            rests: 0,
            rests_until: None,
        }
    }

    fn now(&self) -> Micros {
        self.relay.tools.store.now()
    }

    pub(super) fn begin<F>(&mut self, step: impl FnOnce(Arc<Tools>) -> F)
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        self.steps.push(Box::pin(step(self.relay.tools.clone())));
    }

    pub(super) fn is_over(&self) -> bool {
        let asking = self.marking || self.looking || self.renewing || self.releasing;
        self.in_flight == 0 && !asking && (self.marks.is_empty() || self.away.is_some())
    }

    /// Begins every step that may begin.
    pub(super) fn start(&mut self) {
        let now = self.now();
        self.rests_until = self.rests_until.filter(|until| *until > now);
        if !self.stopping && self.rests_until.is_none() {
            self.window.unblock(now);
            self.publish(now);
        }
        if now < self.asks_from || (self.away.is_some() && !self.patient) {
            return;
        }
        if !self.marking && !self.marks.is_empty() {
            self.marking = true;
            let marks = std::mem::take(&mut self.marks);
            self.begin(|tools| tools.mark(marks));
        }
        if self.stopping {
            return;
        }
        let leases = self.window.leases();
        let due = |lease: &Lease| lease.until.saturating_sub(now) < self.lease() / 3 * 2;
        if !self.renewing && leases.iter().any(due) {
            self.renewing = true;
            self.begin(|tools| tools.renew(leases));
        }
        if self.window.is_late(now) {
            return; // or its lanes could be taken a second time
        }
        if self.rests_until.is_some() {
            // Others may have more luck with the broker.
            if self.in_flight == 0 && !self.marking && self.marks.is_empty() {
                let all = self.window.take_all();
                self.release(all);
            }
            return;
        }
        let may_claim = self.look && !self.pacing;
        if !self.looking && (may_claim || self.window.is_wanting()) {
            let most = if self.failures < REST_AFTER {
                self.relay.options.lanes
            } else {
                1
            };
            let mut claim = 0;
            if may_claim {
                self.look = false;
                self.window.look_again();
                claim = most.saturating_sub(self.window.busy_lanes());
                if claim == 0 {
                    self.window.close_older(now.saturating_sub(TURN));
                }
                if self.patient {
                    self.pacing = true;
                    self.begin(|_| async {
                        tokio::time::sleep(PACE).await;
                        Answer::Paced
                    });
                }
            }
            let wants = self.window.wants();
            self.looking = true;
            self.begin(|tools| tools.look(claim, wants));
        } else if !self.looking && !self.releasing {
            let empty = self.window.take_empty(!self.look);
            self.release(empty);
        }
    }

    fn release(&mut self, leases: Vec<Lease>) {
        if !leases.is_empty() {
            self.releasing = true;
            self.begin(|tools| tools.release(leases));
        }
    }

    fn lease(&self) -> Micros {
        self.relay.tools.store.lease()
    }

    fn publish(&mut self, now: Micros) {
        // One try shows whether the broker is back.
        let most = if self.failures < REST_AFTER {
            self.relay.options.in_flight
        } else {
            1
        };
        while self.in_flight < most {
            let Some((place, row)) = self.window.next(now, self.lease() / 10) else {
                break;
            };
            self.in_flight += 1;
            self.begin(|tools| tools.publish(place, row));
        }
    }

    pub(super) fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Seen(seen) => {
                self.looking = false;
                match self.asked(seen) {
                    Some(Seen {
                        claimed,
                        wants,
                        rows,
                    }) => {
                        let now = self.now();
                        self.window.add(claimed.clone(), now);
                        self.window.read(&wants, &claimed, rows);
                    }
                    None => self.look = self.patient,
                }
            }
            Answer::Paced => self.pacing = false,
            Answer::Published(place, row, result) => self.published(place, row, result),
            Answer::Parked(place, row, result) => {
                self.in_flight -= 1;
                match self.asked(result) {
                    Some(true) => {
                        self.window.done(&place, true);
                    }
                    Some(false) => self.window.lose(&place.lease),
                    None => self.block(&place, None),
                }
                drop(row);
            }
            Answer::Marked(marks, result) => {
                self.marking = false;
                match self.asked(result) {
                    Some(ours) => {
                        for mark in marks {
                            if !ours.contains(&mark.lease.lane) {
                                self.window.lose(&mark.lease);
                            } else if matches!(mark.made, Made::Published(_)) {
                                self.window.settle(&mark.lease, mark.seq);
                            }
                        }
                    }
                    None => self.marks.extend(marks),
                }
            }
            Answer::Renewed(asked, renewed) => {
                self.renewing = false;
                if let Some(renewed) = self.asked(renewed) {
                    self.window.renewed(&asked, &renewed);
                }
            }
            // Whoever wrote into a lane meanwhile may have found it taken.
            Answer::Released => {
                self.releasing = false;
                self.look = !self.stopping;
            }
            Answer::Counted(backlog) => {
                if let Some(backlog) = self.asked(backlog) {
                    show(&self.relay.metrics, &backlog, self.now());
                }
            }
        }
    }

    fn published(&mut self, place: Place, row: Box<WaitingRow>, result: Result<String>) {
        let error = match result {
            Ok(id) => {
                self.in_flight -= 1;
                self.look |= self.failures >= REST_AFTER;
                (self.failures, self.rests) = (0, 0);
                // A lane that was lost meanwhile is marked by whoever has it now.
                if self.window.done(&place, false) {
                    self.marks.push(Mark {
                        lease: place.lease,
                        seq: row.seq,
                        made: Made::Published(id),
                    });
                }
                return;
            }
            Err(error) => error,
        };
        if error.class() == Class::Permanent {
            self.begin(|tools| tools.park(place, row, error));
            return;
        }
        self.in_flight -= 1;
        self.failures = self.failures.saturating_add(1);
        let (tries, code) = (row.attempts.saturating_add(1), error.code());
        tracing::warn!(
            event.id = row.row.message_id.as_str(),
            event.r#type = row.row.event_type.as_str(),
            error.code = code.as_str(),
            attempt = tries,
            "an event could not be published and waits in the outbox"
        );
        self.block(&place, error.retry_after());
        self.marks.push(Mark {
            lease: place.lease,
            seq: row.seq,
            made: Made::Failed(tries, code),
        });
        if self.failures >= REST_AFTER && self.rests_until.is_none() {
            self.rests = self.rests.saturating_add(1);
            self.rests_until = Some(self.now().saturating_add(wait_after(self.rests)));
        }
    }

    fn block(&mut self, place: &Place, asked: Option<Duration>) {
        let now = self.now();
        let asked = asked.map_or(0, |wait| Micros::try_from(wait.as_micros()).unwrap_or(0));
        let wait = |tries| now.saturating_add(wait_after(tries).max(asked.min(LONGEST_WAIT)));
        self.window.block(place, wait);
    }

    /// Takes note of whether the database answers.
    fn asked<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                if self.patient {
                    self.away = None;
                }
                Some(value)
            }
            Err(error) => {
                if self.away.is_none() {
                    tracing::warn!(
                        error.code = error.code().as_str(),
                        "the database does not answer the relay; rows wait in the outbox"
                    );
                }
                self.asks_from = self.now().saturating_add(DATABASE_WAIT);
                self.away = Some(error);
                None
            }
        }
    }

    /// Returns how long to wait at most when nothing happens.
    pub(super) fn wait(&self) -> Duration {
        let now = self.now();
        let times = [
            self.rests_until,
            self.window
                .next_unblock()
                .filter(|_| self.rests_until.is_none()),
            (self.asks_from > now).then_some(self.asks_from),
        ];
        let next = times.into_iter().flatten().min().unwrap_or(Micros::MAX);
        let renewal = self.lease() / 6;
        let wait = next.saturating_sub(now).clamp(1_000, renewal.max(1_000));
        Duration::from_micros(wait.unsigned_abs())
    }

    pub(super) async fn release_all(&mut self) {
        let all = self.window.take_all();
        self.relay.tools.clone().release(all).await;
    }
}

/// Doubles with every failure, and differs between instances.
fn wait_after(tries: i32) -> Micros {
    let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(0).min(10);
    let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
    wait / 2 + rand::random_range(0..=wait / 2)
}
