//! The durable half: the database, and what works beside the doors.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::brokers::Subscriber;
use crate::clock::SharedClock;
use crate::config::{Config, StoreConfig};
use crate::egress::{Egress, Relay};
use crate::error::BoxError;
use crate::ingress::DeadLetterDrain;
use crate::pipeline::{Ledger, Pipeline};
use crate::store::{Store, StoreWatch};
use crate::telemetry::Metrics;

/// The database and its workers.
pub(super) struct Durable {
    pub(super) store: Store,
    pub(super) ledger: Arc<Ledger>,
    pub(super) watch: Arc<StoreWatch>,
    /// Workers; they end when they are told to.
    workers: TaskTracker,
    stop: CancellationToken,
}

impl Durable {
    /// Connects to the database and sees to its tables, if it is there. `own_clock` is that of
    /// somebody else than the machine's, and is left as it is.
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
            ledger: Ledger::start(store.clone(), &loops),
            store,
            watch,
            workers: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Starts the workers.
    pub(super) fn work(
        &self,
        config: &Config,
        _pipeline: &Arc<Pipeline>,
        egress: &Arc<Egress>,
        metrics: &Arc<Metrics>,
        clock: &SharedClock,
        subscriber: Option<Arc<dyn Subscriber>>,
    ) {
        let (workers, stop) = (&self.workers, &self.stop);
        workers.spawn(self.store.clone().listen(stop.clone()));
        let relay = Relay::new(
            egress.clone(),
            self.store.clone(),
            clock.clone(),
            metrics.clone(),
        );
        workers.spawn(relay.run(stop.clone()));
        workers.spawn(self.watch.clone().run(stop.clone()));
        if let Some(settings) = &config.store {
            let (store, retention) = (self.store.clone(), settings.retention);
            workers.spawn(store.keep_swept(retention, metrics.clone(), stop.clone()));
        }
        let subscription = config.worker.dead_letter_subscription.clone();
        if let Some((subscriber, subscription)) = subscriber.zip(subscription) {
            let drain = DeadLetterDrain {
                subscriber,
                subscription,
                store: self.store.clone(),
                metrics: metrics.clone(),
            };
            workers.spawn(drain.run(stop.clone()));
        }
        workers.close();
    }

    /// Lets the workers end what they have begun, and keeps what is still to be kept.
    pub(super) async fn stop(&self) {
        self.ledger.flush().await;
        self.stop.cancel();
        self.workers.wait().await;
        self.ledger.flush().await;
    }
}
