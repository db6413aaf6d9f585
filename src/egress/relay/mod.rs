//! The relay: publishes what the outbox holds, per ordering key in the order of the commits.
//!
//! Instances share the work by lane. The next row of a key leaves when the broker has confirmed
//! the one before; keys go side by side. What is confirmed is marked in batches, under the fence
//! of the lane: a relay that is cut off in between leaves rows that are published once more, under
//! the same ids.

mod run;
mod window;
mod work;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::egress::Egress;
use crate::error::Result;
use crate::store::outbox::Backlog;
use crate::store::{Micros, Store, time_of};
use crate::telemetry::Metrics;
use run::{PACE, Run};
use work::Tools;

/// How long a relay goes on publishing after it was told to stop.
const LAST_MOMENT: Duration = Duration::from_secs(3);

/// How long a relay that panicked waits.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// How a relay works.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// How often the table is looked at when nothing wakes the relay.
    pub poll: Duration,
    /// Lanes worked on at once; further ones are left to other instances.
    pub lanes: usize,
    /// Messages on their way to the broker at once.
    pub in_flight: usize,
    /// Between two counts of what waits, for the metrics.
    pub count_every: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            lanes: 16,
            in_flight: 256,
            count_every: Duration::from_secs(10),
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
        loop {
            let published = AssertUnwindSafe(self.publish_until(&stop)).catch_unwind();
            if published.await.is_ok() {
                break;
            }
            tracing::error!("the relay panicked and starts again");
            tokio::time::sleep(AFTER_PANIC).await;
        }
        // What cannot be published waits for another instance, or this one's next start.
        self.publish_due(Some(LAST_MOMENT)).await.ok();
    }

    async fn publish_until(&self, stop: &CancellationToken) {
        let mut run = Run::new(self, true);
        let mut polls = tokio::time::interval(self.options.poll.max(PACE));
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut counts = tokio::time::interval(self.options.count_every.max(PACE));
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
