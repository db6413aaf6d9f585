//! The door for rows of the `events` table: whatever is due is run, lane by lane.
//!
//! An instance takes leases of lanes ([`crate::store::lanes`]), so an aggregate is worked on by one
//! instance at a time, and within it one event after the other. Lanes are given back after a
//! second, and nobody takes them all: another instance finds some whenever it comes.

mod away;
mod careful;
mod errand;
mod floor;
mod foreman;
mod judge;
mod row;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use row::{PipelineRows, RunRow};

use crate::config::WorkerConfig;
use crate::error::Result;
use crate::store::{LaneKind, Store};
use foreman::{Foreman, Until};

/// How the worker works.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How often to look when nothing wakes it.
    pub poll_interval: Duration,
    /// Rows taken from a lane at once.
    pub batch_size: usize,
    /// Rows worked on at once.
    pub concurrency: usize,
    /// Failed tries before a row is given up.
    pub max_retries: u32,
}

impl From<&WorkerConfig> for WorkerSettings {
    fn from(config: &WorkerConfig) -> Self {
        Self {
            poll_interval: config.poll_interval,
            batch_size: config.batch_size,
            concurrency: config.concurrency,
            max_retries: config.max_retries,
        }
    }
}

/// What became of the rows of one turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// Rows that ended: done, skipped, unrouted, dead-lettered by their handler.
    pub settled: usize,
    /// Rows that are to be tried again.
    pub put_off: usize,
    /// Rows that were given up and are dead letters now.
    pub given_up: usize,
}

/// What became of the wish to have a row run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It runs, as soon as those of its aggregate that are before it have.
    Started,
    /// There is no such row.
    Unknown,
    /// It has been run to its end before; to run it again is a replay.
    Processed,
}

/// The worker of the `events` table. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    store: Store,
    rows: Arc<dyn RunRow>,
    settings: WorkerSettings,
    tasks: TaskTracker,
}

impl Worker {
    /// Makes a worker that hands rows to `rows`. It does nothing by itself before
    /// [`Worker::run`]; what is asked of it by hand runs on `tasks`.
    pub fn new(
        store: Store,
        rows: Arc<dyn RunRow>,
        settings: WorkerSettings,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            store,
            rows,
            settings,
            tasks,
        }
    }

    /// Works until `stop`; rows that run then are waited for, and their lanes given back.
    pub async fn run(self, stop: CancellationToken) {
        let concurrency = self.settings.concurrency;
        tracing::info!(concurrency, "working off the events table");
        Foreman::until(&self, stop).work(Until::Stopped).await;
    }

    /// Takes what is due at this moment, runs it to its end and returns.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn turn(&self) -> Result<Turn> {
        let mut foreman = Foreman::for_once(self);
        foreman.work(Until::Done).await;
        foreman.result()
    }

    /// Works on one lane, if nobody else does, until nothing in it is due.
    async fn work_off(&self, lane: i16) -> Result<Turn> {
        let lanes = [lane];
        let leases = self.store.claim_these_lanes(LaneKind::Events, &lanes);
        let leases = self.store.in_time(leases).await?;
        let mut foreman = Foreman::for_once(self);
        foreman.hold(leases);
        foreman.work(Until::Done).await;
        foreman.result()
    }

    /// Begins to run a row that may be waiting for its next try, by its id or its event's. Works
    /// without [`Worker::run`].
    ///
    /// # Errors
    /// When the database is away.
    pub async fn process_event(&self, id: &str) -> Result<Asked> {
        let mut lanes = self.store.in_time(self.store.make_due(id)).await?;
        if lanes.is_empty() {
            return Ok(match self.store.in_time(self.store.has_event(id)).await? {
                true => Asked::Processed,
                false => Asked::Unknown,
            });
        }
        lanes.sort_unstable();
        lanes.dedup();
        // Whoever holds a lane finds it by this; if nobody does, it is found by us.
        self.store.wakeups().events.notify_one();
        for lane in lanes {
            let worker = self.clone();
            self.tasks.spawn(async move { worker.work_off(lane).await });
        }
        Ok(Asked::Started)
    }

    /// Begins to run what is due. Works without [`Worker::run`].
    pub fn process_batch(&self) {
        self.store.wakeups().events.notify_one();
        let worker = self.clone();
        self.tasks.spawn(async move { worker.turn().await });
    }
}

/// Times at which something will be due that is not now.
#[derive(Debug, Default)]
struct Alarms(BTreeSet<i64>);

/// So many alarms are remembered; the tables are polled anyway.
const MOST_ALARMS: usize = 10_000;

impl Alarms {
    fn set(&mut self, at: i64) {
        self.0.insert(at);
        if self.0.len() > MOST_ALARMS {
            self.0.pop_last();
        }
    }

    fn next(&self) -> Option<i64> {
        self.0.first().copied()
    }

    /// Forgets those that have rung; tells whether there were any.
    fn ring(&mut self, now: i64) -> bool {
        let later = self.0.split_off(&now.saturating_add(1));
        !std::mem::replace(&mut self.0, later).is_empty()
    }
}
