//! The relay: publishes what the outbox holds, per ordering key in the order of the commits.
//!
//! Instances share the work by lane. The next row of a key leaves when the broker has confirmed
//! the one before; keys go side by side. What is confirmed is marked in batches, under the fence
//! of the lane: a relay that is cut off in between leaves rows that are published once more, under
//! the same ids.

mod window;
mod work;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::egress::Egress;
use crate::error::{Class, Error, Result};
use crate::store::outbox::{Backlog, WaitingRow};
use crate::store::{Lease, Micros, Store, time_of};
use crate::telemetry::Metrics;
use window::{Place, Window};
use work::{Answer, Made, Mark, Seen, Tools};

/// Between two looks at the table while signals keep coming.
const PACE: Duration = Duration::from_millis(3);
/// Between two counts of what waits.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// How long a relay goes on publishing after it was told to stop.
const LAST_MOMENT: Duration = Duration::from_secs(3);
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

/// How a relay works.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// How often the table is looked at when nothing wakes the relay.
    pub poll: Duration,
    /// Lanes worked on at once; further ones are left to other instances.
    pub lanes: usize,
    /// Messages on their way to the broker at once.
    pub in_flight: usize,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            lanes: 16,
            in_flight: 256,
        }
    }
}

/// Publishes the rows of the outbox.
pub struct Relay {
    tools: Arc<Tools>,
    metrics: Arc<Metrics>,
    options: RelayOptions,
}

impl Relay {
    /// Makes a relay that publishes through `egress`.
    pub fn new(
        egress: Arc<Egress>,
        store: Store,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            tools: Arc::new(Tools {
                egress,
                store,
                clock,
            }),
            metrics,
            options: RelayOptions::default(),
        }
    }

    /// Takes other options.
    #[must_use]
    pub fn options(self, options: RelayOptions) -> Self {
        Self { options, ..self }
    }

    /// Publishes until `stop`, and then for a moment what the last events left; at the end what is
    /// on its way is marked, and the lanes are given back.
    pub async fn run(self, stop: CancellationToken) {
        let mut run = Run::new(&self, true);
        let mut polls = tokio::time::interval(self.options.poll.max(PACE));
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut counts = tokio::time::interval(COUNT_EVERY);
        counts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(run.stopping && run.is_over()) {
            run.start();
            let wait = run.wait().min(self.options.poll);
            tokio::select! {
                Some(answer) = run.steps.next() => run.take(answer),
                () = stop.cancelled(), if !run.stopping => run.stopping = true,
                () = self.tools.store.wakeups().outbox.notified(), if !run.stopping => {
                    run.look = true;
                }
                _ = polls.tick(), if !run.stopping => run.look = true,
                _ = counts.tick(), if !run.stopping => {
                    run.window.start_over();
                    run.begin(|tools| tools.count());
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
        run.release_all().await;
        // What cannot be published waits for another instance, or this one's next start.
        self.publish_due(Some(LAST_MOMENT)).await.ok();
    }

    /// Publishes what can be published now, and returns.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn drain(&self) -> Result<()> {
        self.publish_due(None).await
    }

    async fn publish_due(&self, limit: Option<Duration>) -> Result<()> {
        let mut run = Run::new(self, false);
        let limit = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(limit);
        while !(run.stopping && run.is_over()) {
            run.start();
            tokio::select! {
                () = &mut limit, if !run.stopping => run.stopping = true,
                answer = run.steps.next() => match answer {
                    Some(answer) => run.take(answer),
                    None => break,
                },
            }
        }
        run.release_all().await;
        run.away.map_or(Ok(()), Err)
    }

    /// Counts what waits, for the metrics.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn refresh_metrics(&self) -> Result<()> {
        let backlog = self.tools.store.outbox_backlog().await?;
        show(&self.metrics, &backlog, self.tools.store.now());
        Ok(())
    }
}

fn show(metrics: &Metrics, backlog: &Backlog, now: Micros) {
    metrics.outbox_pending.set(backlog.rows);
    let age = backlog
        .oldest
        .map(|oldest| time_of(now).duration_since(time_of(oldest)));
    let age = age.and_then(std::result::Result::ok).unwrap_or_default();
    metrics.outbox_oldest_age.set(age.as_secs_f64());
}

type Step = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One run of a relay: what it holds, and what it waits for.
struct Run<'a> {
    relay: &'a Relay,
    /// Whether it goes on after a failure of the database.
    patient: bool,
    window: Window,
    steps: FuturesUnordered<Step>,
    in_flight: usize,
    marks: Vec<Mark>,
    /// There may be something new in the table.
    look: bool,
    looking: bool,
    pacing: bool,
    marking: bool,
    renewing: bool,
    releasing: bool,
    stopping: bool,
    /// The database is not asked before.
    asks_from: Micros,
    /// Why it is not.
    away: Option<Error>,
    /// Failures of the broker since its last success.
    failures: u32,
    rests: i32,
    rests_until: Option<Micros>,
}

impl<'a> Run<'a> {
    fn new(relay: &'a Relay, patient: bool) -> Self {
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

    fn begin<F>(&mut self, step: impl FnOnce(Arc<Tools>) -> F)
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        self.steps.push(Box::pin(step(self.relay.tools.clone())));
    }

    fn is_over(&self) -> bool {
        let asking = self.marking || self.looking || self.renewing || self.releasing;
        self.in_flight == 0 && !asking && (self.marks.is_empty() || self.away.is_some())
    }

    /// Begins every step that may begin.
    fn start(&mut self) {
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

    fn take(&mut self, answer: Answer) {
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
    fn wait(&self) -> Duration {
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

    async fn release_all(&mut self) {
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
