//! The loop: looks, starts, marks, and sees to the lanes, all at the same time.
//!
//! While rows run, the next are fetched and the last are marked. Marks that gather while the
//! database is busy go into the next transaction together.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::careful::{self, Careful};
use super::errand::{Brought, Errand, Found, Marks, Report, marked, micros, of};
use super::floor::{Floor, Look};
use super::judge::{Verdict, judge};
use super::{Alarms, Turn, Worker};
use crate::error::{Error, Result};
use crate::pipeline::Failed;
use crate::store::events::{DueEvent, Wanted};
use crate::store::marks::Mark;
use crate::store::{LANES, LaneKind, Lease, Micros, Store};

/// Most rows marked in one transaction.
const MOST_MARKS: usize = 2000;

/// Rows in hand that have not begun weigh about so much at most: some are as large as a request may be.
const MOST_BYTES: i64 = 16 * 1024 * 1024;

/// How often it is asked how many others work.
const CENSUS: Micros = 2_000_000;

/// Between two looks for free lanes: wakes come with every insert.
const PACE: Micros = 5_000;

/// When the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// When it is told to.
    Stopped,
    /// When what was due at first has run.
    Done,
}

/// One loop's state.
pub(super) struct Foreman {
    store: Store,
    pub(super) worker: Worker,
    stop: CancellationToken,
    pub(super) floor: Floor,
    alarms: Alarms,
    pub(super) runs: TaskTracker,
    reports: UnboundedReceiver<Report>,
    pub(super) reporter: UnboundedSender<Report>,
    pub(super) marks: Marks,
    rests: Vec<(i16, Micros)>,
    pub(super) careful: Careful,
    fetching: Errand<Found>,
    marking: Errand<(Marks, Result<()>)>,
    errand: Errand<Brought>,
    pub(super) waiting: Errand<()>,
    /// Whether there may be lanes with due rows that nobody holds.
    look: bool,
    /// Whether new work is taken on.
    pub(super) open: bool,
    looked_at: Option<Micros>,
    polled_at: Micros,
    others: usize,
    counted_at: Option<Micros>,
    pub(super) away: Option<Error>,
    turn: Turn,
}

impl Foreman {
    /// One that works until it is told to stop.
    pub(super) fn until(worker: &Worker, stop: CancellationToken) -> Self {
        Self::new(worker, Floor::shared(), stop)
    }

    /// One that works off what is there.
    pub(super) fn for_once(worker: &Worker) -> Self {
        Self::new(worker, Floor::for_once(), CancellationToken::new())
    }

    fn new(worker: &Worker, floor: Floor, stop: CancellationToken) -> Self {
        let (reporter, reports) = mpsc::unbounded_channel();
        Self {
            store: worker.store.clone(),
            worker: worker.clone(),
            stop,
            floor,
            alarms: Alarms::default(),
            runs: TaskTracker::new(),
            reports,
            reporter,
            marks: Vec::new(),
            rests: Vec::new(),
            careful: Careful::default(),
            fetching: None,
            marking: None,
            errand: None,
            waiting: None,
            look: true,
            open: true,
            looked_at: None,
            polled_at: worker.store.now(),
            others: 0,
            counted_at: None,
            away: None,
            turn: Turn::default(),
        }
    }

    /// Begins with these lanes instead of looking for some.
    pub(super) fn hold(&mut self, leases: Vec<Lease>) {
        self.floor.add_lanes(leases, self.store.now());
        self.look = false;
    }

    /// Returns what became of a turn.
    pub(super) fn result(self) -> Result<Turn> {
        match self.away {
            Some(error) => Err(error),
            None => Ok(self.turn),
        }
    }

    pub(super) async fn work(&mut self, until: Until) {
        loop {
            if until == Until::Done && self.away.is_some() {
                self.open = false;
            }
            self.start_rows();
            self.send_errands(until);
            if self.is_over(until) {
                return;
            }
            self.next_thing(until).await;
        }
    }

    fn is_over(&self, until: Until) -> bool {
        let at_rest = self.floor.is_clear()
            && self.marks.is_empty()
            && self.marking.is_none()
            && self.fetching.is_none()
            && self.errand.is_none();
        match until {
            // The leases of what could not be given back end by themselves.
            Until::Stopped => !self.open && at_rest && self.floor.lanes() == 0,
            Until::Done if self.away.is_some() => self.floor.running() == 0,
            Until::Done => at_rest && self.floor.lanes() == 0 && !self.look,
        }
    }

    fn start_rows(&mut self) {
        // Seen here first: what ends now would be followed by rows that nobody waits for.
        self.open &= !self.stop.is_cancelled();
        if !self.open {
            self.floor.stop();
            self.put_back_uncounted();
            return;
        }
        let now = self.store.now();
        while self.floor.running() < self.worker.settings.concurrency {
            let Some(row) = self.floor.start(now) else {
                break;
            };
            self.begin(row, now);
        }
        // Not beside marks: both may touch the same `held_aggregates`, in different orders.
        if self.waiting.is_none() && self.marking.is_none() {
            self.careful.count(&self.store);
        }
    }

    fn send_errands(&mut self, until: Until) {
        let now = self.store.now();
        let writes = self.marking.is_some() || self.careful.counting.is_some();
        if !writes && !self.marks.is_empty() && self.waiting.is_none() {
            let rest = self.marks.len().min(MOST_MARKS);
            let batch: Vec<_> = self.marks.drain(..rest).collect();
            self.marking = Some(marked(self.store.clone(), batch));
        }
        if self.fetching.is_none() && self.open && self.waiting.is_none() {
            self.fetch(now, until);
        }
        if self.errand.is_none() && self.waiting.is_none() {
            self.errand = self.lane_errand(now, until);
        }
    }

    /// So many rows are kept at hand, so that those that run are followed at once.
    fn store_of_rows(&self) -> usize {
        let settings = &self.worker.settings;
        settings.concurrency.max(settings.batch_size)
    }

    fn fetch(&mut self, now: Micros, until: Until) {
        let ready = self.floor.ready();
        if ready > self.store_of_rows() / 2 || self.floor.loaded() > self.store_of_rows() * 4 {
            return;
        }
        let bytes = MOST_BYTES.saturating_sub(self.floor.weight());
        if bytes <= 0 && ready > 0 {
            return;
        }
        let wanted = self.store_of_rows() - ready;
        let Some(look) =
            self.floor
                .look(wanted, self.worker.settings.batch_size, bytes.max(1), now)
        else {
            return;
        };
        if until == Until::Done {
            self.look = false;
        }
        let store = self.store.clone();
        self.fetching = Some(
            async move {
                let wanted = Wanted {
                    lanes: &look.lanes,
                    per_lane: look.per_lane,
                    bytes: look.bytes,
                    without: &look.without,
                    without_aggregates: &look.without_aggregates,
                };
                let found = store.in_time(store.due_events(wanted)).await;
                (look, found)
            }
            .boxed(),
        );
    }

    /// Chooses what is most urgent about the lanes.
    fn lane_errand(&mut self, now: Micros, until: Until) -> Errand<Brought> {
        let store = self.store.clone();
        if let Some((lane, rest_until)) = self.rests.pop() {
            let lease = self.floor.give_up(lane)?;
            self.alarms.set(rest_until);
            let rests = async move {
                let pause = store.pause_lane(LaneKind::Events, &lease, rest_until);
                Brought::Done(store.in_time(pause).await.map(drop))
            };
            return Some(rests.boxed());
        }
        let soon = now.saturating_add(store.lease() / 3 * 2);
        if self.floor.first_end().is_some_and(|end| end < soon) {
            let held = self.floor.leases();
            let renew = async move {
                let renew = store.renew_lanes(LaneKind::Events, &held);
                let renewed = store.in_time(renew).await;
                Brought::Renewed(held, renewed)
            };
            return Some(renew.boxed());
        }
        let back = self.floor.give_back(now, !self.open);
        if !back.is_empty() {
            // Rows that came while the lanes were ours may have been left to us.
            self.look |= self.open && until == Until::Stopped;
            let release = async move {
                let release = store.release_lanes(LaneKind::Events, &back);
                Brought::Done(store.in_time(release).await)
            };
            return Some(release.boxed());
        }
        if !self.open {
            return None;
        }
        let counted = self.counted_at.is_some_and(|at| now - at < CENSUS);
        if !counted && self.floor.lanes() > 0 && until == Until::Stopped {
            self.counted_at = Some(now);
            let others = async move { Brought::Others(store.in_time(store.other_workers()).await) };
            return Some(others.boxed());
        }
        let most = match until {
            Until::Stopped => self.most_lanes(),
            Until::Done => usize::try_from(LANES).unwrap_or(64),
        };
        let room = most.saturating_sub(self.floor.lanes());
        if !self.look || room == 0 || self.floor.ready() > self.store_of_rows() / 2 {
            return None;
        }
        if self.looked_at.is_some_and(|at| now - at < PACE) && until == Until::Stopped {
            return None;
        }
        self.look = false;
        self.looked_at = Some(now);
        let claim = async move {
            let leases = store.claim_lanes(LaneKind::Events, room);
            Brought::Lanes(store.in_time(leases).await, room)
        };
        Some(claim.boxed())
    }

    /// Enough lanes to fill the hands, and not all of them: one that comes finds some free.
    fn most_lanes(&self) -> usize {
        let settings = &self.worker.settings;
        let rows = self.store_of_rows() + settings.concurrency;
        // Lanes whose few rows all run, and take long, leave hands free for those of others.
        let idle = self.floor.ready() == 0 && self.floor.running() < settings.concurrency;
        let all = usize::try_from(LANES).unwrap_or(64);
        let needed = match idle {
            true => all,
            false => rows.div_ceil(settings.batch_size).max(8),
        };
        needed.min(all * 7 / 8 / (self.others + 1)).max(1)
    }

    async fn next_thing(&mut self, until: Until) {
        let pause = self.pause(until);
        tokio::select! {
            biased;
            Some(report) = self.reports.recv() => {
                self.take_report(report);
                while let Ok(report) = self.reports.try_recv() {
                    self.take_report(report);
                }
            }
            counted = of(&mut self.careful.counting) => self.take_counted(counted),
            (batch, marked) = of(&mut self.marking) => self.take_marked(batch, marked),
            (look, found) = of(&mut self.fetching) => self.take_found(&look, found),
            brought = of(&mut self.errand) => self.take_brought(brought),
            () = of(&mut self.waiting) => {
                self.look |= self.open;
                self.floor.look_everywhere();
            }
            () = self.stop.cancelled(), if self.open => self.open = false,
            () = self.store.wakeups().events.notified(), if self.open && until == Until::Stopped => {
                self.look = true;
                self.floor.look_everywhere();
            }
            () = tokio::time::sleep(pause), if until == Until::Stopped => {
                let now = self.store.now();
                let poll = self.worker.settings.poll_interval;
                let rung = self.alarms.ring(now);
                if rung || pause >= poll || now - self.polled_at >= micros(poll) {
                    self.polled_at = now;
                    self.look = true;
                    self.floor.look_everywhere();
                }
            }
        }
    }

    /// Returns how long nothing has to be done, if nothing happens.
    ///
    /// Waited for on the machine's time: a clock that tests move would spin here.
    fn pause(&self, until: Until) -> Duration {
        if until == Until::Done {
            return Duration::ZERO;
        }
        let poll = self.worker.settings.poll_interval;
        // What it brings back goes on from here.
        if self.errand.is_some() || self.waiting.is_some() {
            return poll;
        }
        let now = self.store.now();
        let paced = self.looked_at.map(|at| at + PACE);
        let next_look = paced.filter(|at| self.look && *at > now);
        let next_poll = self.polled_at.saturating_add(micros(poll));
        let renew = self
            .floor
            .first_end()
            .map(|end| end - self.store.lease() / 3 * 2);
        let times = [
            self.alarms.next(),
            self.floor.next_give_back(),
            renew,
            next_look,
            Some(next_poll),
        ];
        let first = times.into_iter().flatten().min();
        let left = first.map(|at| Duration::from_micros(u64::try_from(at - now).unwrap_or(0)));
        left.map_or(poll, |left| left.max(Duration::from_millis(1)).min(poll))
    }

    fn take_report(&mut self, (row, settled): Report) {
        let now = self.store.now();
        let max_retries = self.worker.settings.max_retries;
        let counted = self.careful.end(&row);
        let verdict = judge(&row, &settled, now, max_retries, rand::random(), counted);
        self.floor.ended(&row, verdict.goes_on());
        match verdict {
            Verdict::Mark(mut mark) => {
                if let Some(failed) = &settled.failure {
                    self.describe(&row, failed, &mut mark);
                }
                self.count(&row, &mark);
                self.marks.push((row, *mark));
            }
            Verdict::Rest(wait) => {
                let until = now.saturating_add(micros(wait));
                self.rests.retain(|(lane, _)| *lane != row.lane);
                self.rests.push((row.lane, until));
                if counted {
                    let tries = careful::tries(&row, row.next_attempt_at.max(1));
                    self.marks.push((row, Mark::NoTry(tries)));
                } else {
                    self.floor.let_go(&row);
                }
            }
        }
    }

    /// Fills in what only the pipeline knows of a row that is given up.
    pub(super) fn describe(&self, row: &DueEvent, failed: &Failed, mark: &mut Mark) {
        if let Mark::GivenUp { outbox, letter, .. } = mark {
            *outbox = self.worker.rows.given_up(row, failed, letter);
        }
    }

    pub(super) fn count(&mut self, row: &DueEvent, mark: &Mark) {
        match mark {
            Mark::Settled { .. } => self.turn.settled += 1,
            Mark::PutOff { until, .. } => {
                self.turn.put_off += 1;
                self.alarms.set(*until);
            }
            Mark::NoTry(tries) => {
                self.turn.put_off += 1;
                self.alarms.set(tries.until);
            }
            Mark::GivenUp { letter, .. } => {
                self.turn.given_up += 1;
                tracing::error!(
                    event.id = row.key(),
                    event.r#type = row.event_type,
                    handler.name = letter.handler.as_deref(),
                    error.code = letter.error_code,
                    error.message = letter.error_message,
                    attempts = letter.retry_count,
                    outcome = "dead_lettered",
                    "event given up and kept as a dead letter"
                );
            }
        }
    }

    fn take_marked(&mut self, batch: Marks, marked: Result<()>) {
        match marked {
            Ok(()) => {
                self.is_back();
                for (row, _) in &batch {
                    self.careful.marked(row);
                    self.floor.let_go(row);
                }
            }
            Err(error) => {
                // What has run is not forgotten; should another instance run it, it is a duplicate.
                self.marks.extend(batch);
                self.is_away(error);
            }
        }
    }

    fn take_found(&mut self, look: &Look, found: Result<Vec<DueEvent>>) {
        match found {
            Ok(rows) => {
                self.is_back();
                self.floor.take_in(look, rows);
            }
            Err(error) => {
                self.floor.look_again(look);
                self.is_away(error);
            }
        }
    }

    fn take_brought(&mut self, brought: Brought) {
        let failed = match brought {
            Brought::Lanes(Ok(leases), asked) => {
                self.look |= leases.len() >= asked;
                careful::tell_of_left(&leases);
                self.floor.add_lanes(leases, self.store.now());
                None
            }
            Brought::Renewed(asked, Ok(renewed)) => {
                self.floor.renewed(&asked, &renewed);
                None
            }
            Brought::Others(Ok(others)) => {
                self.others = others;
                None
            }
            Brought::Done(Ok(())) => None,
            Brought::Lanes(Err(error), _)
            | Brought::Renewed(_, Err(error))
            | Brought::Others(Err(error))
            | Brought::Done(Err(error)) => Some(error),
        };
        match failed {
            Some(error) => self.is_away(error),
            None => self.is_back(),
        }
    }
}
