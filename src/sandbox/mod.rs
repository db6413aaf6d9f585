//! What `hookyard dev` and the tests run beside the service: a token issuer, a Pub/Sub pusher,
//! stateful stand-ins for Chargebee and Hasura.
//!
//! All of it speaks real HTTP on loopback, so nothing in the service knows that it is being
//! played to: the service is configured by [`Sandbox::variables`] as it would be in production.

mod broker;
mod chargebee;
mod emulator;
mod faults;
mod fleet;
mod hasura;
mod http;
mod issuer;
mod journal;
mod line;
mod proxy;
mod pusher;
mod routes;
mod traces;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpListener;

pub use broker::{FlakyBroker, RemoteBroker};
pub use chargebee::Chargebee;
pub use emulator::{Emulator, Pulled};
pub use faults::{Fault, Faults, Hold};
pub use fleet::{Fleet, Instance};
pub use hasura::Hasura;
pub use http::{Reply, Request, loopback_client};
pub use issuer::{HOUR, Issuer, JWKS_PATH};
pub use journal::{Did, Entry, Journal};
pub use line::{CutAfter, Line};
pub use proxy::{Passed, Proxy, Target};
pub use pusher::{
    Delivered, PublishError, PubsubMessage, PushSubscription, Pusher, Record, Standing, envelope,
};
pub use traces::{Step, Trace, Traces};

use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, ConfigError};
use crate::error::BoxError;

/// `aud` of the sandbox's tokens.
pub const AUDIENCE: &str = "https://hookyard.sandbox/push";

/// `email` of the sandbox's tokens.
pub const SERVICE_ACCOUNT: &str = "push@sandbox.iam.gserviceaccount.com";

/// Admin token of a service beside the sandbox. Not a secret: the service listens on loopback.
pub const ADMIN_TOKEN: &str = "dev";

/// Topic of the events that are pushed to the service.
pub const TOPIC: &str = "contract-events";

/// Subscription that pushes them.
pub const SUBSCRIPTION: &str = "contract-events-push";

/// Topic for what [`SUBSCRIPTION`] gives up on.
pub const UNDELIVERED_TOPIC: &str = "contract-events-undelivered";

/// The stand-ins, listening.
pub struct Sandbox {
    parts: Parts,
    server: http::Server,
    variables: BTreeMap<&'static str, String>,
}

/// What answers the sandbox's requests. Cheap to clone.
#[derive(Clone)]
struct Parts {
    issuer: Issuer,
    chargebee: Chargebee,
    hasura: Hasura,
    pusher: Pusher,
    proxy: Proxy,
    broker: FlakyBroker,
    clock: SharedClock,
    journal: Journal,
    traces: Traces,
}

/// Puts a sandbox together.
#[derive(Default)]
pub struct SandboxBuilder {
    listener: Option<TcpListener>,
    clock: Option<SharedClock>,
    auto_seed: bool,
    variables: Vec<(&'static str, String)>,
}

impl SandboxBuilder {
    /// Listens here instead of on any free port of 127.0.0.1.
    #[must_use]
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Takes another clock than the system's.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Lets subscriptions and contracts come into being when they are asked for.
    #[must_use]
    pub fn auto_seed(mut self) -> Self {
        self.auto_seed = true;
        self
    }

    /// Sets a variable of the service, over what the sandbox would set.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Starts listening.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(self) -> Result<Sandbox, BoxError> {
        let clock = self.clock.unwrap_or_else(SystemClock::shared);
        let listener = match self.listener {
            Some(listener) => listener,
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        };
        let journal = Journal::new();
        let issuer = Issuer::new(journal.clone(), clock.clone())?;
        let api_key = format!("test_{:016x}", rand::random::<u64>());
        let admin_secret = format!("{:032x}", rand::random::<u128>());
        let parts = Parts {
            chargebee: Chargebee::new(&api_key, journal.clone(), clock.clone()),
            hasura: Hasura::new(&admin_secret, journal.clone(), clock.clone()),
            pusher: Pusher::new(issuer.clone(), clock.clone())?,
            proxy: Proxy::new(issuer.clone())?,
            traces: Traces::new(clock.clone()),
            broker: FlakyBroker::default(),
            clock,
            issuer,
            journal,
        };
        parts.chargebee.set_auto_seed(self.auto_seed);
        parts.hasura.set_auto_seed(self.auto_seed);
        parts.pusher.create_topic(TOPIC);
        let answers = routes::answers(parts.clone());
        let server = http::Server::start(listener, answers)?;
        let mut variables = variables(server.address, &api_key, &admin_secret);
        variables.extend(self.variables);
        Ok(Sandbox {
            parts,
            server,
            variables,
        })
    }
}

/// Returns everything a service beside this sandbox has to be told.
fn variables(
    sandbox: SocketAddr,
    api_key: &str,
    admin_secret: &str,
) -> BTreeMap<&'static str, String> {
    let url = format!("http://{sandbox}");
    BTreeMap::from([
        ("HOST", "127.0.0.1".to_owned()),
        ("PUSH_AUDIENCE", AUDIENCE.to_owned()),
        ("PUSH_SERVICE_ACCOUNT", SERVICE_ACCOUNT.to_owned()),
        ("OIDC_JWKS_URL", format!("{url}{JWKS_PATH}")),
        ("HASURA_GRAPHQL_URL", format!("{url}/v1/graphql")),
        ("HASURA_ADMIN_SECRET", admin_secret.to_owned()),
        ("CHARGEBEE_URL", url),
        ("CHARGEBEE_API_KEY", api_key.to_owned()),
        ("EVENT_BUS_TYPE", "memory".to_owned()),
        ("ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
    ])
}

impl Sandbox {
    /// Starts putting a sandbox together.
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder::default()
    }

    /// Returns where the sandbox listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Returns the sandbox's base URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Returns the environment variables of a service beside this sandbox.
    pub fn variables(&self) -> &BTreeMap<&'static str, String> {
        &self.variables
    }

    /// Returns the configuration of a service beside this sandbox, read from
    /// [`Sandbox::variables`] the way the environment is read.
    ///
    /// # Errors
    /// When a variable set over the sandbox's own is not usable.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::from_lookup(&|name| self.variables.get(name).cloned())
    }

    /// Makes the pusher push [`TOPIC`] to the service, and the proxy pass requests on to it.
    ///
    /// Returns the subscription's options; nothing is undeliverable with them, so a message is
    /// tried until it is acknowledged.
    pub fn push_to(&self, service: SocketAddr) -> PushSubscription {
        let endpoint = self.pass_on_to(service);
        let subscription = PushSubscription {
            audience: AUDIENCE.to_owned(),
            service_account: SERVICE_ACCOUNT.to_owned(),
            ..PushSubscription::new(SUBSCRIPTION, TOPIC, &endpoint)
        };
        self.parts.pusher.subscribe(subscription.clone());
        subscription
    }

    /// Makes the proxy pass requests on to the service, without any subscription. Returns the
    /// service's push endpoint.
    pub fn pass_on_to(&self, service: SocketAddr) -> String {
        let endpoint = format!("http://{service}/push");
        self.parts.proxy.set_target(Target {
            endpoint: endpoint.clone(),
            audience: AUDIENCE.to_owned(),
            service_account: SERVICE_ACCOUNT.to_owned(),
        });
        endpoint
    }

    /// Lets Hasura fire its trigger: every contract that an operation changes is published to
    /// [`TOPIC`] as an event, so that the service's own writes come back to it.
    pub fn fire_triggers(&self) {
        let pusher = self.parts.pusher.clone();
        self.parts.hasura.set_trigger(Arc::new(move |event| {
            // An event is neither empty nor large, and the topic is there from the start.
            pusher.publish(TOPIC, event.to_string(), &[], None).ok();
        }));
    }

    /// Returns a good token for the service.
    pub fn token(&self) -> String {
        self.parts.issuer.token(AUDIENCE, SERVICE_ACCOUNT, HOUR)
    }

    /// Returns the token issuer.
    pub fn issuer(&self) -> &Issuer {
        &self.parts.issuer
    }

    /// Returns the Chargebee site.
    pub fn chargebee(&self) -> &Chargebee {
        &self.parts.chargebee
    }

    /// Returns the Hasura endpoint.
    pub fn hasura(&self) -> &Hasura {
        &self.parts.hasura
    }

    /// Returns the Pub/Sub pusher.
    pub fn pusher(&self) -> &Pusher {
        &self.parts.pusher
    }

    /// Returns the signing proxy.
    pub fn proxy(&self) -> &Proxy {
        &self.parts.proxy
    }

    /// Returns the broker that services in other processes publish to.
    pub fn broker(&self) -> &FlakyBroker {
        &self.parts.broker
    }

    /// Returns the journal of all stand-ins.
    pub fn journal(&self) -> &Journal {
        &self.parts.journal
    }

    /// Returns the collected traces; their layer has to be part of the subscriber.
    pub fn traces(&self) -> &Traces {
        &self.parts.traces
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.parts.pusher.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spells a time to the millisecond, as Pub/Sub does.
fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let millis = time.replace_millisecond(time.millisecond()).unwrap_or(time);
    millis.format(&Rfc3339).unwrap_or_default()
}

/// Token lifetime that `POST /token` gives when it is not asked for another.
const DEFAULT_TTL: Duration = HOUR;
