//! The service and everything around it, started together.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::state;
use crate::app::{App, Running};
use crate::brokers::MemoryBroker;
use crate::config::Config;
use crate::error::BoxError;
use crate::event::TraceContext;
use crate::pipeline::{Registry, RegistryError};
use crate::sandbox::{Emulator, Sandbox, TOPIC, Trace, loopback_client};
use crate::telemetry;

/// Project of the emulator's topics.
const PROJECT: &str = "hookyard-dev";
const EVENTS_TOPIC: &str = "hookyard-events";
const DEAD_LETTER_TOPIC: &str = "hookyard-dead-letters";

/// How long a sample may take from publication to acknowledgement.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often something that will come is asked for.
const GLANCE: Duration = Duration::from_millis(20);

/// Where to listen and what to log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    /// The usual port, or any.
    pub(super) service_port: u16,
    pub(super) sandbox_port: u16,
    /// Log level when `LOG_LEVEL` says nothing.
    pub(super) log_level: &'static str,
    pub(super) handlers: fn(&mut Registry) -> Result<(), RegistryError>,
}

/// A service beside its sandbox.
pub(super) struct World {
    pub(super) sandbox: Sandbox,
    pub(super) service: Running,
    /// The database made for this run.
    pub(super) database: Option<OwnDatabase>,
    bus: Bus,
    _logs: telemetry::Guard,
}

/// A SQLite file that lasts as long as this run.
pub(super) struct OwnDatabase {
    folder: PathBuf,
}

impl OwnDatabase {
    fn new() -> std::io::Result<Self> {
        let name = format!("{:08x}-{}", rand::random::<u32>(), std::process::id());
        let folder = std::env::temp_dir().join(state::FOLDER).join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Returns what `DATABASE_URL` is.
    pub(super) fn url(&self) -> String {
        format!("sqlite://{}", self.folder.join("hookyard.db").display())
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// What stands in for Pub/Sub.
enum Bus {
    Own {
        broker: MemoryBroker,
        seen: [usize; 2],
    },
    Emulator {
        emulator: Emulator,
        /// Distinguishes this run's subscriptions from those of earlier runs.
        run: String,
    },
}

/// A message the service has published.
#[derive(Debug, Clone)]
pub(super) struct Out {
    pub(super) data: Vec<u8>,
    pub(super) attributes: Vec<(String, String)>,
}

impl Out {
    pub(super) fn attribute(&self, name: &str) -> &str {
        let found = self.attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// One of the two topics the service publishes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Events,
    DeadLetters,
}

impl Topic {
    fn name(self) -> &'static str {
        match self {
            Self::Events => EVENTS_TOPIC,
            Self::DeadLetters => DEAD_LETTER_TOPIC,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "dev has no configuration yet when it decides on one"
)]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
}

/// Listens on a loopback port; on any free one when the wanted one is taken and may be changed.
pub(super) async fn listen(port: u16, fixed: bool) -> Result<TcpListener, BoxError> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) if !fixed => Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?),
        Err(error) => Err(format!("cannot listen on port {port}: {error}").into()),
    }
}

/// Reads the configuration of a service beside `sandbox`. The sandbox's variables win over the
/// environment: a shell that points to a real Chargebee site must not reach it from here.
pub(super) fn configure(sandbox: &Sandbox, log_level: &str) -> Result<Config, BoxError> {
    let ours = sandbox.variables();
    let lookup = |name: &str| {
        let default = match name {
            "LOG_LEVEL" => Some(log_level.to_owned()),
            "LOG_FORMAT" => Some("pretty".to_owned()),
            _ => None,
        };
        ours.get(name)
            .cloned()
            .or_else(|| variable(name))
            .or(default)
    };
    Ok(Config::from_lookup(&lookup)?)
}

impl World {
    pub(super) async fn start(setup: Setup) -> Result<Self, BoxError> {
        let fixed = variable("PORT").map(|port| port.parse::<u16>()).transpose();
        let fixed = fixed.map_err(|_| "PORT must be a port number between 0 and 65535")?;
        let sandbox_listener = listen(setup.sandbox_port, false).await?;
        let mut builder = Sandbox::builder().listener(sandbox_listener).auto_seed();
        let emulator = variable("PUBSUB_EMULATOR_HOST");
        let bus_type = if emulator.is_some() {
            "pubsub"
        } else {
            "memory"
        };
        for (name, value) in [
            ("EVENT_BUS_TYPE", bus_type),
            ("GOOGLE_CLOUD_PROJECT", PROJECT),
            ("EVENTS_TOPIC", EVENTS_TOPIC),
            ("DEAD_LETTER_TOPIC", DEAD_LETTER_TOPIC),
        ] {
            builder = builder.variable(name, value);
        }
        let database = match variable("DATABASE_URL") {
            Some(_) => None,
            None => Some(OwnDatabase::new()?),
        };
        if let Some(database) = &database {
            builder = builder
                .variable("DATABASE_URL", database.url())
                .variable("ENABLE_POLLING", "true");
        }
        let sandbox = builder.start().await?;
        let config = configure(&sandbox, setup.log_level)?;
        let logs = telemetry::Logs::new(&config.log, None)
            .layer(sandbox.traces().layer())
            .install()?;

        let listener = match (setup.service_port, fixed) {
            (0, _) => listen(0, true).await?,
            (_, Some(port)) => listen(port, true).await?,
            (port, None) => listen(port, false).await?,
        };
        let address = listener.local_addr()?;
        let app = App::builder()
            .config(config.clone())
            .handlers(setup.handlers);
        let (app, bus) = match &emulator {
            None => {
                sandbox.push_to(address);
                let broker = MemoryBroker::new();
                let app = app.publisher(Arc::new(broker.clone()));
                (
                    app,
                    Bus::Own {
                        broker,
                        seen: [0; 2],
                    },
                )
            }
            Some(host) => {
                sandbox.pass_on_to(address);
                (app, connect(Emulator::new(host, PROJECT)?, &sandbox).await?)
            }
        };
        let service = app.build().await?.start(listener)?;
        wait_until_ready(service.address).await?;
        Ok(Self {
            sandbox,
            service,
            database,
            bus,
            _logs: logs,
        })
    }

    /// Says what plays Pub/Sub.
    pub(super) fn bus_name(&self) -> &'static str {
        match &self.bus {
            Bus::Own { .. } => "the sandbox's pusher",
            Bus::Emulator { .. } => "the Pub/Sub emulator, through a signing proxy",
        }
    }

    pub(super) fn is_emulator(&self) -> bool {
        matches!(self.bus, Bus::Emulator { .. })
    }

    /// Publishes an event in a trace of its own, waits until the service has acknowledged it, and
    /// returns what the service did, delivery by delivery.
    pub(super) async fn run(&self, json: &str) -> Result<Vec<Trace>, BoxError> {
        let trace = TraceContext::new_root();
        let traceparent = trace.to_string();
        let attributes = [("traceparent", traceparent.as_str())];
        let acknowledged = async {
            match &self.bus {
                Bus::Own { .. } => {
                    let pusher = self.sandbox.pusher();
                    let data = json.as_bytes().to_vec();
                    let message_id = pusher.publish(TOPIC, data, &attributes, None)?;
                    pusher.idle().await;
                    let deliveries = pusher.records_of(&message_id).into_iter();
                    let ids = deliveries.flat_map(|record| record.deliveries);
                    Ok::<_, BoxError>(ids.filter_map(|done| done.request_id).collect::<Vec<_>>())
                }
                Bus::Emulator { emulator, run } => {
                    let topic = format!("{TOPIC}-{run}");
                    let message_id = emulator
                        .publish(&topic, json.as_bytes(), &attributes)
                        .await?;
                    loop {
                        let passed = self.sandbox.proxy().passed_of(&message_id);
                        if passed.last().is_some_and(|last| last.status == 200) {
                            let ids = passed.into_iter().filter_map(|one| one.request_id);
                            return Ok(ids.collect());
                        }
                        tokio::time::sleep(GLANCE).await;
                    }
                }
            }
        };
        let request_ids = tokio::time::timeout(PATIENCE, acknowledged).await;
        let request_ids =
            request_ids.map_err(|_| "the service did not acknowledge it in 30 s")??;
        let traces = self.sandbox.traces();
        Ok(request_ids.iter().flat_map(|id| traces.find(id)).collect())
    }

    /// Returns what the service has published to a topic since this was asked last, once at least
    /// `expected` messages have come or it is clear that they will not.
    pub(super) async fn published(
        &mut self,
        topic: Topic,
        expected: usize,
    ) -> Result<Vec<Out>, BoxError> {
        match &mut self.bus {
            Bus::Own { broker, seen } => {
                // The relay publishes a moment after the acknowledgement.
                let mut all = broker.published(topic.name());
                for _ in 0..250 {
                    if all.len() >= seen[topic as usize] + expected {
                        break;
                    }
                    tokio::time::sleep(GLANCE).await;
                    all = broker.published(topic.name());
                }
                let fresh = all.iter().skip(seen[topic as usize]).map(|published| Out {
                    data: published.message.data.to_vec(),
                    attributes: published.message.attributes.clone(),
                });
                let fresh = fresh.collect();
                seen[topic as usize] = all.len();
                Ok(fresh)
            }
            Bus::Emulator { emulator, run } => {
                let subscription = format!("{}-{run}", topic.name());
                let mut fresh = Vec::new();
                for _ in 0..50 {
                    let pulled = emulator.pull(&subscription).await?;
                    fresh.extend(pulled.into_iter().map(|pulled| Out {
                        data: pulled.data,
                        attributes: pulled.attributes.into_iter().collect(),
                    }));
                    if fresh.len() >= expected {
                        break;
                    }
                    tokio::time::sleep(GLANCE * 3).await;
                }
                Ok(fresh)
            }
        }
    }
}

/// Makes topics and subscriptions on the emulator.
async fn connect(emulator: Emulator, sandbox: &Sandbox) -> Result<Bus, BoxError> {
    let run = format!("{:08x}", rand::random::<u32>());
    let topic = format!("{TOPIC}-{run}");
    emulator.create_topic(&topic).await?;
    let proxy = format!("{}/push", sandbox.url());
    let name = format!("{topic}-push");
    emulator
        .create_push_subscription(&name, &topic, &proxy, 60)
        .await?;
    for topic in [Topic::Events, Topic::DeadLetters] {
        emulator.create_topic(topic.name()).await?;
        let name = format!("{}-{run}", topic.name());
        emulator
            .create_pull_subscription(&name, topic.name())
            .await?;
    }
    Ok(Bus::Emulator { emulator, run })
}

/// Waits until the service has the issuer's keys.
pub(super) async fn wait_until_ready(service: SocketAddr) -> Result<(), BoxError> {
    let client = loopback_client(Duration::from_secs(2))?;
    let url = format!("http://{service}/ready");
    for _ in 0..500 {
        let answer = client.get(&url).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        tokio::time::sleep(GLANCE).await;
    }
    Err("the service did not become ready in 10 s".into())
}
