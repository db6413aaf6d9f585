//! Runs redrives and replays in the background of every durable instance.
//!
//! A redrive belongs to one instance at a time, by a lease. Its items are taken a few at a time,
//! run, and settled; an instance that dies in between leaves them to the next one, which runs
//! them under the same generation, so that what had ended is not run again.

mod event;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SharedClock;
use crate::error::Result;
use crate::pipeline::Pipeline;
use crate::store::redrives::{self, Ended, Item, Leased, Settled, Taken};
use crate::store::{Micros, Store};

/// How often to look for redrives.
const LOOK: Duration = Duration::from_secs(1);
/// Most redrives one instance works on at once.
const AT_ONCE: usize = 4;
/// Most items of one redrive that are run at once.
const CONCURRENCY: usize = 16;
/// Most items taken at once.
const PAGE: i64 = 64;
/// So often an item is tried before it counts as failed.
const TRIES: i32 = 5;
/// Longest pause after items that failed for the moment.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs redrives and replays.
#[derive(Clone)]
pub struct Runner {
    store: Store,
    pipeline: Arc<Pipeline>,
    clock: SharedClock,
}

/// How a page of items went.
struct Page {
    settled: Vec<Settled>,
    /// How long to leave the upstreams alone.
    pause: Duration,
}

impl Runner {
    /// Makes a runner on a service's database and pipeline.
    pub fn new(store: Store, pipeline: Arc<Pipeline>, clock: SharedClock) -> Self {
        Self {
            store,
            pipeline,
            clock,
        }
    }

    /// Runs until `stop`; what is in hand then is finished and settled.
    pub fn start(self, tasks: &TaskTracker, stop: CancellationToken) {
        tasks.spawn(async move { self.watch(stop).await });
    }

    async fn watch(self, stop: CancellationToken) {
        let mut works: JoinSet<()> = JoinSet::new();
        while !stop.is_cancelled() {
            while works.try_join_next().is_some() {}
            while works.len() < AT_ONCE {
                match self.lease().await {
                    Ok(Some(leased)) => {
                        let (runner, stop) = (self.clone(), stop.clone());
                        works.spawn(async move { runner.work_on(&leased, &stop).await });
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(error.code = %error.code(), "no redrive could be looked for");
                        break;
                    }
                }
            }
            // The machine's time, not the service's clock: a clock that tests move would spin.
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => {}
            }
        }
        while works.join_next().await.is_some() {}
    }

    /// Runs the redrives there are to their end, one after the other, and returns how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn run_pending(&self) -> Result<usize> {
        let mut count = 0;
        while let Some(leased) = self.lease().await? {
            while self.page(&leased).await?.is_some() {}
            count += 1;
        }
        Ok(count)
    }

    async fn lease(&self) -> Result<Option<Leased>> {
        let lease = redrives::lease(&self.store, self.until(Duration::ZERO));
        self.store.in_time(lease).await
    }

    /// Until when a page may take, so that the lease need not be renewed meanwhile.
    fn until(&self, pause: Duration) -> Micros {
        let page = self.pipeline.budget().settle.remaining() + pause + Duration::from_secs(5);
        let micros = Micros::try_from(page.as_micros()).unwrap_or(Micros::MAX);
        self.store
            .now()
            .saturating_add(micros.max(self.store.lease()))
    }

    async fn work_on(&self, leased: &Leased, stop: &CancellationToken) {
        let id = leased.redrive.id.as_str();
        tracing::info!(
            redrive.id = id,
            redrive.kind = leased.redrive.kind.as_str(),
            "redrive taken"
        );
        while !stop.is_cancelled() {
            let pause = match self.page(leased).await {
                Ok(Some(pause)) => pause,
                Ok(None) => {
                    tracing::info!(
                        redrive.id = id,
                        "redrive is over, or another instance has it"
                    );
                    return;
                }
                Err(error) => {
                    tracing::warn!(redrive.id = id, error.code = %error.code(), "redrive held up");
                    LOOK
                }
            };
            tokio::select! {
                () = self.clock.sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        // Best effort: the lease ends by itself.
        let release = redrives::release(&self.store, leased);
        self.store.in_time(release).await.ok();
    }

    /// Runs the next few items; returns how long to wait before the next ones, or `None` when
    /// there are none.
    async fn page(&self, leased: &Leased) -> Result<Option<Duration>> {
        let started = self.clock.monotonic();
        let per_second = i64::from(leased.redrive.per_second.max(1));
        let limit = (per_second / 4).clamp(1, PAGE);
        let until = self.until(Duration::ZERO);
        let take = redrives::take(&self.store, leased, limit, until);
        let items = match self.store.in_time(take).await? {
            Taken::Items(items) => items,
            Taken::Over => return Ok(None),
        };
        let count = items.len();
        let Page { settled, pause } = self.run(leased, items).await;
        let until = self.until(pause);
        let settle = redrives::settle(&self.store, leased, &settled, until);
        if !self.store.in_time(settle).await? {
            return Ok(None);
        }
        let took = self.clock.monotonic().saturating_duration_since(started);
        let due = u32::try_from(count).map_or(f64::MAX, f64::from)
            / i32::try_from(per_second).map_or(f64::MAX, f64::from);
        let due = Duration::try_from_secs_f64(due).unwrap_or(LOOK);
        Ok(Some(pause.max(due.saturating_sub(took))))
    }

    /// Runs items: those of one aggregate in order, others beside each other.
    async fn run(&self, leased: &Leased, items: Vec<Item>) -> Page {
        let mut lanes: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        for item in items {
            lanes.entry(item.aggregate.clone()).or_default().push(item);
        }
        let pages: Vec<Page> = stream::iter(lanes.into_values())
            .map(|lane| self.run_lane(leased, lane))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let pause = pages.iter().map(|page| page.pause).max();
        Page {
            settled: pages.into_iter().flat_map(|page| page.settled).collect(),
            pause: pause.unwrap_or_default().min(LONGEST_PAUSE),
        }
    }

    async fn run_lane(&self, leased: &Leased, items: Vec<Item>) -> Page {
        let mut settled = Vec::with_capacity(items.len());
        let mut pause = Duration::ZERO;
        for item in items {
            let (ended, after) = if pause > Duration::ZERO {
                // The one before has to come first.
                (Ended::Again(false), pause)
            } else {
                self.run_item(leased, &item).await
            };
            pause = pause.max(after);
            settled.push(Settled { item, ended });
        }
        Page { settled, pause }
    }
}
