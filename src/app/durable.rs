//! The durable half: the database, and what works beside the doors.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Asked, DeskApi};
use crate::brokers::Subscriber;
use crate::clock::SharedClock;
use crate::config::{Config, RetryOwner, StoreConfig};
use crate::desk::{Desk, Runner};
use crate::egress::{Egress, Relay, RelayOptions};
use crate::error::BoxError;
use crate::ingress::{self, DeadLetterDrain, PipelineRows, Worker, WorkerSettings};
use crate::pipeline::{Ledger, Pipeline};
use crate::store::keep::Keeper;
use crate::store::{Store, StoreWatch};
use crate::telemetry::Metrics;

/// The database and its workers.
pub(super) struct Durable {
    pub(super) watch: Arc<StoreWatch>,
    pub(super) ledger: Arc<Ledger>,
    /// Workers; they end when they are told to.
    workers: TaskTracker,
    stop: CancellationToken,
    /// The relay goes on until the workers have ended: what they leave is published still.
    relays: TaskTracker,
    relay: RelayOptions,
    last: CancellationToken,
}

impl Durable {
    /// Connects to the database and sees to its tables, if it is there. `own_clock` says that
    /// time is not the machine's, and not to be set by the database's.
    pub(super) async fn open(
        settings: &StoreConfig,
        clock: &SharedClock,
        own_clock: bool,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BoxError> {
        let store = Store::connect(settings, clock.clone())?;
        let watch = StoreWatch::new(store.clone(), settings.migrate, !own_clock, metrics.clone());
        watch
            .begin()
            .await
            .map_err(|error| format!("the database cannot be used: {error}; check DATABASE_URL"))?;
        // Ends with the ledger, after everything it was handed.
        let loops = TaskTracker::new();
        Ok(Self {
            watch,
            ledger: Ledger::start(store, &loops),
            workers: TaskTracker::new(),
            stop: CancellationToken::new(),
            relays: TaskTracker::new(),
            relay: RelayOptions::default(),
            last: CancellationToken::new(),
        })
    }

    /// Lets the relay work in another way.
    pub(super) fn relay(self, relay: RelayOptions) -> Self {
        Self { relay, ..self }
    }

    /// Makes the worker of the `events` table.
    pub(super) fn worker(&self, config: &Config, pipeline: &Arc<Pipeline>) -> Worker {
        let rows = Arc::new(PipelineRows::new(pipeline.clone()));
        let settings = WorkerSettings::from(&config.worker);
        Worker::new(
            self.watch.store().clone(),
            rows,
            settings,
            self.workers.clone(),
        )
    }

    /// Keeps pushed events for the worker, when it is to retry them.
    pub(super) fn keeper(&self, config: &Config) -> Option<Arc<Keeper>> {
        let ours = config.worker.retry_owner == RetryOwner::Ours;
        ours.then(|| Keeper::new(self.watch.store().clone(), self.workers.clone()))
    }

    /// Starts the workers. Those that begin something new end with `closing`, which comes before
    /// [`Durable::stop`].
    pub(super) fn work(
        &self,
        config: &Config,
        closing: &CancellationToken,
        pipeline: &Arc<Pipeline>,
        egress: &Arc<Egress>,
        clock: &SharedClock,
        subscriber: Option<Arc<dyn Subscriber>>,
    ) -> Result<(), BoxError> {
        let (workers, stop) = (&self.workers, &self.stop);
        let (store, metrics) = (self.watch.store(), self.watch.metrics());
        workers.spawn(self.watch.clone().run(stop.clone()));
        workers.spawn(store.clone().listen(stop.clone()));
        workers.spawn((store.clone()).keep_measured(metrics.clone(), stop.clone()));
        let relay = Relay::new(
            egress.clone(),
            store.clone(),
            clock.clone(),
            metrics.clone(),
        );
        let relay = relay.options(self.relay);
        self.relays.spawn(relay.run(self.last.clone()));
        self.relays.close();
        if config.worker.enabled {
            workers.spawn(self.worker(config, pipeline).run(closing.clone()));
        }
        if let Some(settings) = &config.store {
            let swept = store
                .clone()
                .keep_swept(settings.retention, metrics.clone(), stop.clone());
            workers.spawn(swept);
        }
        if let Some(subscription) = config.worker.dead_letter_subscription.clone() {
            let drain = DeadLetterDrain {
                subscriber: subscriber
                    .ok_or("DEAD_LETTER_SUBSCRIPTION needs a broker to read from")?,
                subscription,
                store: store.clone(),
                metrics: metrics.clone(),
            };
            workers.spawn(drain.run(stop.clone()));
        }
        Runner::new(store.clone(), pipeline.clone(), clock.clone()).start(workers, stop.clone());
        workers.close();
        Ok(())
    }

    /// Makes what the admin routes need.
    pub(super) fn api(&self, config: &Config, pipeline: &Arc<Pipeline>) -> DeskApi {
        let one = self.worker(config, pipeline);
        let batch = one.clone();
        DeskApi {
            desk: Desk::new(self.watch.store().clone(), pipeline.handlers()),
            process_event: Arc::new(move |id| {
                let worker = one.clone();
                Box::pin(async move {
                    Ok(match worker.process_event(&id).await? {
                        ingress::Asked::Started => Asked::Started,
                        ingress::Asked::Unknown => Asked::Unknown,
                        ingress::Asked::Processed => Asked::Processed,
                    })
                })
            }),
            process_batch: Arc::new(move || batch.process_batch()),
        }
    }

    /// Lets the workers end what they have begun, and keeps what is still to be kept.
    pub(super) async fn stop(&self) {
        self.ledger.flush().await;
        self.stop.cancel();
        self.workers.wait().await;
        self.ledger.flush().await;
        self.last.cancel();
        self.relays.wait().await;
    }
}
