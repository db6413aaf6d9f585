//! The composition root of the bridge: Hasura's webhooks in, messages out, no handlers.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, ApiState};
use crate::app::listen;
use crate::brokers::{MemoryBroker, Publisher, PubsubBroker};
use crate::clock::{Deadline, SharedClock, SystemClock};
use crate::config::{BridgeRoleConfig, BusType};
use crate::error::BoxError;
use crate::ingress::{Gate, Refusals, WebhookDoor, receive_webhook};
use crate::telemetry::{Metrics, Tracer};

/// A bridge, put together but not yet listening.
pub struct Bridge {
    config: BridgeRoleConfig,
    router: Router,
    publisher: Arc<dyn Publisher>,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    clock: SharedClock,
    stop: CancellationToken,
}

/// Puts a bridge together.
pub struct BridgeBuilder {
    config: BridgeRoleConfig,
    publisher: Option<Arc<dyn Publisher>>,
    clock: Option<SharedClock>,
}

impl BridgeBuilder {
    /// Takes another broker than the one of the configuration.
    #[must_use]
    pub fn publisher(mut self, publisher: Arc<dyn Publisher>) -> Self {
        self.publisher = Some(publisher);
        self
    }

    /// Takes another clock than the system's.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Puts the bridge together.
    ///
    /// # Errors
    /// What is wrong with the broker's client or the exporter of traces.
    pub async fn build(self) -> Result<Bridge, BoxError> {
        let config = self.config;
        let clock = self.clock.unwrap_or_else(SystemClock::shared);
        let metrics = Metrics::new()?;
        let tracer = match &config.telemetry.otlp {
            Some(otlp) => Tracer::start(otlp, &config.log, clock.clone(), metrics.clone())?,
            None => Tracer::off(),
        };
        let publisher: Arc<dyn Publisher> = match self.publisher {
            Some(publisher) => publisher,
            None => match config.bus.bus_type {
                BusType::Memory => Arc::new(MemoryBroker::new()),
                BusType::Pubsub => Arc::new(PubsubBroker::connect(&config.bus).await?),
            },
        };
        let door = WebhookDoor {
            config: config.bridge.clone(),
            publisher: Arc::clone(&publisher),
            gate: Gate::new(config.server.max_in_flight),
            max_body_bytes: config.server.max_body_bytes,
            body_timeout: config.server.body_timeout,
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            tracer: tracer.clone(),
            system: config.bus.bus_type.messaging_system(),
            refusals: Refusals::default(),
        };
        let stop = CancellationToken::new();
        let api = ApiState {
            metrics: Arc::clone(&metrics),
            server: config.server.clone(),
            before_metrics: Arc::new(|| {}),
            detail: None,
            desk: None,
            handlers: Arc::new(|| json!({"handlers": []})),
            ready: {
                let stop = stop.clone();
                Arc::new(move || match stop.is_cancelled() {
                    true => Err("shutting down"),
                    false => Ok(()),
                })
            },
        };
        let webhook = Router::new()
            .route("/hasura/events", post(receive_webhook))
            .with_state(Arc::new(door));
        Ok(Bridge {
            router: api::router(api, webhook),
            config,
            publisher,
            metrics,
            tracer,
            clock,
            stop,
        })
    }
}

impl Bridge {
    /// Starts putting a bridge together.
    pub fn builder(config: BridgeRoleConfig) -> BridgeBuilder {
        BridgeBuilder {
            config,
            publisher: None,
            clock: None,
        }
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the routes, for callers that bring their own server.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Listens where the configuration says and serves until SIGTERM or Ctrl-C.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(self) -> Result<(), BoxError> {
        let signals = listen::StopSignals::new()?;
        let listener = listen::bind(&self.config.server).await?;
        let running = self.start(listener)?;
        tracing::info!(address = %running.address, "bridge listening");
        let config = &running.bridge.config.server;
        signals.until_told_to_stop(config).await;
        running.shutdown().await;
        Ok(())
    }

    /// Serves on `listener` in the background.
    ///
    /// # Errors
    /// When the listener's own address cannot be read.
    pub fn start(self, listener: TcpListener) -> Result<RunningBridge, BoxError> {
        let (address, server) =
            listen::start(listener, &self.router, &self.config.server, &self.stop)?;
        Ok(RunningBridge {
            address,
            bridge: self,
            server,
        })
    }
}

/// A bridge that listens.
pub struct RunningBridge {
    /// Where it listens.
    pub address: SocketAddr,
    bridge: Bridge,
    server: TaskTracker,
}

impl RunningBridge {
    /// Returns the bridge.
    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// Stops: not ready any more, the listener closes, webhooks under way are answered within the
    /// grace. Hasura delivers again what was not answered.
    pub async fn shutdown(self) {
        let Self { bridge, server, .. } = self;
        let grace = bridge.config.server.shutdown_grace;
        bridge.stop.cancel();
        let drain = async {
            server.wait().await;
            bridge.publisher.flush().await;
        };
        let end = Deadline::after(&bridge.clock, grace);
        if end.run(drain).await.is_err() {
            tracing::warn!("grace is over; webhooks under way are cut off and come again");
        }
        bridge.tracer.shutdown(end.remaining()).await;
    }
}
