//! The durable half: the database, and what works beside the doors.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::DeskApi;
use crate::clock::SharedClock;
use crate::config::{Config, StoreConfig};
use crate::desk::{Desk, Runner};
use crate::egress::{Egress, Relay};
use crate::error::BoxError;
use crate::pipeline::{Ledger, Pipeline};
use crate::store::Store;
use crate::telemetry::Metrics;

/// The database and its workers.
pub(super) struct Durable {
    pub(super) store: Store,
    pub(super) ledger: Arc<Ledger>,
    /// Workers; they end when they are told to.
    workers: TaskTracker,
    stop: CancellationToken,
}

impl Durable {
    /// Connects to the database and sees to its tables.
    pub(super) async fn open(
        settings: &StoreConfig,
        clock: &SharedClock,
    ) -> Result<Self, BoxError> {
        let store = Store::connect(settings, clock.clone())?;
        if settings.migrate {
            store.migrate().await.map_err(|error| {
                format!("the database cannot be brought up to date: {error}; check DATABASE_URL")
            })?;
        }
        store.check().await.map_err(|error| {
            format!(
                "the database cannot be used: {error}; is it there, and has `hookyard migrate` run?"
            )
        })?;
        // Ends with the ledger, after everything it was handed.
        let loops = TaskTracker::new();
        Ok(Self {
            ledger: Ledger::start(store.clone(), &loops),
            store,
            workers: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Starts the workers.
    pub(super) fn work(
        &self,
        _config: &Config,
        pipeline: &Arc<Pipeline>,
        egress: &Arc<Egress>,
        metrics: &Arc<Metrics>,
        clock: &SharedClock,
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
        Runner::new(self.store.clone(), pipeline.clone(), clock.clone())
            .start(workers, stop.clone());
        workers.close();
    }

    /// Makes what the admin routes need.
    pub(super) fn api(&self, pipeline: &Pipeline) -> DeskApi {
        DeskApi {
            desk: Desk::new(self.store.clone(), pipeline.handlers()),
            worker: None,
        }
    }

    /// Lets the workers end what they have begun, and keeps what is still to be kept.
    pub(super) async fn stop(&self) {
        self.ledger.flush().await;
        self.stop.cancel();
        self.workers.wait().await;
        self.ledger.flush().await;
    }
}
