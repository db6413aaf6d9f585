//! The composition root: the only folder that names concrete backends.

mod durable;
pub(crate) mod listen;
mod routes;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::brokers::{MemoryBroker, Publisher, PubsubBroker, Subscriber};
use crate::clients::chargebee::Chargebee;
use crate::clients::hasura::Hasura;
use crate::clients::http::Policy;
use crate::clock::{Deadline, SharedClock, SystemClock};
use crate::config::{BusType, Config};
use crate::egress::{Egress, RelayOptions};
use crate::error::BoxError;
use crate::ingress::{Gate, OidcVerifier, TokenVerifier};
use crate::pipeline::{
    DeadLetters, Handler, Inbox, Parts, Pipeline, Registry, RegistryError, Services,
};
use crate::telemetry::{self, Metrics, Tracer};
use durable::Durable;

/// A service, put together but not yet listening.
pub struct App {
    config: Config,
    router: Router,
    pipeline: Arc<Pipeline>,
    gate: Gate,
    egress: Arc<Egress>,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    clock: SharedClock,
    durable: Option<Durable>,
    tasks: TaskTracker,
    background: TaskTracker,
    stop: CancellationToken,
}

/// Puts a service together.
#[derive(Default)]
pub struct AppBuilder {
    config: Option<Config>,
    registry: Registry,
    problems: Vec<RegistryError>,
    verifier: Option<Arc<dyn TokenVerifier>>,
    publisher: Option<Arc<dyn Publisher>>,
    subscriber: Option<Arc<dyn Subscriber>>,
    clock: Option<SharedClock>,
    services: Option<Services>,
    client_policy: Policy,
    relay: RelayOptions,
}

impl AppBuilder {
    /// Takes the configuration; without it [`AppBuilder::build`] reads the environment.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Adds a handler.
    #[must_use]
    pub fn handler<H: Handler>(mut self, handler: H) -> Self {
        self.problems.extend(self.registry.register(handler).err());
        self
    }

    /// Adds a list of handlers, such as [`crate::handlers::register`].
    #[must_use]
    pub fn handlers(
        mut self,
        register: impl FnOnce(&mut Registry) -> Result<(), RegistryError>,
    ) -> Self {
        self.problems.extend(register(&mut self.registry).err());
        self
    }

    /// Takes another token verifier than the one of the configuration.
    #[must_use]
    pub fn token_verifier(mut self, verifier: Arc<dyn TokenVerifier>) -> Self {
        self.verifier = Some(verifier);
        self
    }

    /// Takes another broker than the one of the configuration.
    #[must_use]
    pub fn publisher(mut self, publisher: Arc<dyn Publisher>) -> Self {
        self.publisher = Some(publisher);
        self
    }

    /// Takes another broker to receive from than the one of the configuration.
    #[must_use]
    pub fn subscriber(mut self, subscriber: Arc<dyn Subscriber>) -> Self {
        self.subscriber = Some(subscriber);
        self
    }

    /// Takes another clock than the system's.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Takes other clients than those of the configuration, for instance with other retries.
    #[must_use]
    pub fn services(mut self, services: Services) -> Self {
        self.services = Some(services);
        self
    }

    /// Takes other time limits and retries for the clients of the configuration.
    #[must_use]
    pub fn client_policy(mut self, policy: Policy) -> Self {
        self.client_policy = policy;
        self
    }

    /// Lets the outbox's relay work in another way.
    #[must_use]
    pub fn relay(mut self, options: RelayOptions) -> Self {
        self.relay = options;
        self
    }

    /// Runs the whole service: reads the environment unless a configuration was given, starts
    /// logging, and serves until SIGTERM or Ctrl-C. What a `main` needs.
    ///
    /// # Errors
    /// As [`AppBuilder::build`] and [`App::serve`].
    pub async fn run(mut self) -> Result<(), BoxError> {
        let config = match self.config.take() {
            Some(config) => config,
            None => Config::from_env()?,
        };
        let _logs = telemetry::init(&config.log, config.bus.project.as_deref())?;
        if config.bus.bus_type == BusType::Memory && self.publisher.is_none() {
            let what = match config.store {
                Some(_) => "published events",
                None => "published events and dead letters",
            };
            tracing::warn!(
                "{what} stay in memory and are lost with this process: EVENT_BUS_TYPE is memory"
            );
        }
        self.config(config).build().await?.serve().await
    }

    /// Puts the service together.
    ///
    /// # Errors
    /// What is wrong with the configuration, the list of handlers, or the broker's client.
    pub async fn build(self) -> Result<App, BoxError> {
        // On the heap: it holds the configuration and every part at some time.
        Box::pin(self.put_together()).await
    }

    async fn put_together(self) -> Result<App, BoxError> {
        if let Some(problem) = self.problems.into_iter().next() {
            return Err(problem.into());
        }
        let config = match self.config {
            Some(config) => config,
            None => Config::from_env()?,
        };
        let own_clock = self.clock.is_some();
        let clock = self.clock.unwrap_or_else(SystemClock::shared);
        let metrics = Metrics::new()?;
        let tracer = match &config.telemetry.otlp {
            Some(otlp) => Tracer::start(otlp, &config.log, clock.clone(), metrics.clone())?,
            None => Tracer::off(),
        };
        let (tasks, background) = (TaskTracker::new(), TaskTracker::new());
        let stop = CancellationToken::new();

        let (publisher, subscriber): (Arc<dyn Publisher>, _) = match self.publisher {
            Some(publisher) => (publisher, self.subscriber),
            None => match config.bus.bus_type {
                BusType::Memory => both(MemoryBroker::new(), self.subscriber),
                BusType::Pubsub => both(PubsubBroker::connect(&config.bus).await?, self.subscriber),
            },
        };
        let services = match self.services {
            Some(services) => services,
            None => Services {
                chargebee: Chargebee::with_policy(
                    &config.chargebee,
                    metrics.clone(),
                    clock.clone(),
                    self.client_policy.clone(),
                )?,
                hasura: Hasura::with_policy(
                    &config.hasura,
                    metrics.clone(),
                    clock.clone(),
                    self.client_policy,
                )?,
            },
        };
        let verifier = match self.verifier {
            Some(verifier) => verifier,
            None => {
                let verifier = Arc::new(OidcVerifier::new(
                    &config.push_auth,
                    clock.clone(),
                    metrics.clone(),
                ));
                verifier.start(&background, stop.clone());
                verifier
            }
        };
        let egress = Egress::new(
            publisher,
            config.bus.events_topic.clone(),
            config.bus.dead_letter_topic.clone(),
            metrics.clone(),
        );
        let system = config.bus.bus_type.messaging_system();
        let egress = Arc::new(egress.traced(tracer.clone(), system));
        let revision = config.server.revision.clone();
        let durable = match &config.store {
            Some(settings) => {
                let opened = Durable::open(settings, &clock, own_clock, &metrics);
                Some(Box::pin(opened).await?.relay(self.relay))
            }
            None => None,
        };
        let pipeline = Arc::new(Pipeline::new(Parts {
            registry: self.registry,
            inbox: Inbox::new(&config.dedupe, clock.clone()),
            ledger: durable.as_ref().map(|durable| durable.ledger.clone()),
            dead_letters: DeadLetters::new(egress.clone(), clock.clone(), revision),
            egress: egress.clone(),
            services: Arc::new(services),
            clock: clock.clone(),
            work: config.work.clone(),
            max_event_depth: config.worker.max_event_depth,
            metrics: metrics.clone(),
            tracer: tracer.clone(),
            tasks: tasks.clone(),
        }));
        if let Some(durable) = &durable {
            durable.work(&config, &stop, &pipeline, &egress, &clock, subscriber)?;
        }
        let mut app = App {
            gate: Gate::new(config.server.max_in_flight),
            router: Router::new(),
            config,
            pipeline,
            egress,
            metrics,
            tracer,
            clock,
            durable,
            tasks,
            background,
            stop,
        };
        app.router = app.routes(&verifier);
        Ok(app)
    }
}

impl App {
    /// Starts putting a service together.
    pub fn builder() -> AppBuilder {
        AppBuilder::default()
    }

    /// Returns the pipeline, for what is shown about it.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// Returns how many push requests are being worked on.
    pub fn in_flight(&self) -> usize {
        self.gate.in_flight()
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
        tracing::info!(address = %running.address, "listening");
        let config = &running.app.config.server;
        signals.until_told_to_stop(config).await;
        running.shutdown().await;
        Ok(())
    }

    /// Serves on `listener` in the background.
    ///
    /// # Errors
    /// When the listener's own address cannot be read.
    pub fn start(self, listener: TcpListener) -> Result<Running, BoxError> {
        let (address, server) =
            listen::start(listener, &self.router, &self.config.server, &self.stop)?;
        Ok(Running {
            address,
            app: self,
            server,
        })
    }
}

/// Returns both ends of a broker; `other` is where to receive from instead.
fn both<B: Publisher + Subscriber>(
    broker: B,
    other: Option<Arc<dyn Subscriber>>,
) -> (Arc<dyn Publisher>, Option<Arc<dyn Subscriber>>) {
    let broker = Arc::new(broker);
    (broker.clone(), Some(other.unwrap_or(broker)))
}

/// A service that listens.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    app: App,
    server: TaskTracker,
}

impl Running {
    /// Returns the service.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Stops: not ready any more, the listener closes, events in flight end, and what waits for
    /// its broker is flushed; all within the grace. What is not over then is cut off without an
    /// answer, and comes again.
    pub async fn shutdown(self) {
        let app = self.app;
        app.stop.cancel();
        app.tasks.close();
        app.background.close();
        let end = Deadline::after(&app.clock, app.config.server.shutdown_grace);
        let drain = async {
            self.server.wait().await;
            app.tasks.wait().await;
            if let Some(durable) = &app.durable {
                durable.stop().await;
            }
            app.egress.flush().await;
            app.background.wait().await;
        };
        match end.run(drain).await {
            Ok(()) => tracing::info!("every event in flight has ended"),
            Err(_) => tracing::warn!(
                events = app.tasks.len(),
                "grace is over; events still in flight are cut off and come again"
            ),
        }
        app.tracer.shutdown(end.remaining()).await;
    }
}
