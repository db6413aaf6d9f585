//! Configuration: one struct per section, read from the environment once at start.
//!
//! This is the only folder that reads the environment. Every section names its variables in a
//! `VARIABLES` table; the README's table and `hookyard variables` are made from the same rows.

mod admin;
mod bridge;
mod bus;
mod reader;
mod server;
mod store;
mod telemetry;
mod upstreams;
mod work;

pub use admin::{Access, AdminTokens};
pub use bridge::{BridgeConfig, BridgeRoleConfig, KeyColumns};
pub use bus::{BusConfig, BusType};
pub use reader::{ConfigError, Problem, Reader, Variable};
pub use server::{LogConfig, LogFormat, PushAuthConfig, PushAuthMode, ServerConfig};
pub use store::{DEDUPE_WINDOW, RetryOwner, StoreConfig, WorkerConfig};
pub use telemetry::{OtlpConfig, OtlpProtocol, RootSampler, SamplerConfig, TelemetryConfig};
pub use upstreams::{ChargebeeConfig, HasuraConfig, ProductCatalog};
pub use work::{DedupeConfig, WorkConfig};

/// Everything the service is told from outside.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where and how to listen.
    pub server: ServerConfig,
    /// What to log.
    pub log: LogConfig,
    /// Whose push requests to accept.
    pub push_auth: PushAuthConfig,
    /// The Hasura GraphQL endpoint.
    pub hasura: HasuraConfig,
    /// The Chargebee site.
    pub chargebee: ChargebeeConfig,
    /// Where events go out.
    pub bus: BusConfig,
    /// Time budgets.
    pub work: WorkConfig,
    /// What is remembered about finished events.
    pub dedupe: DedupeConfig,
    /// The database; `None` in stateless mode.
    pub store: Option<StoreConfig>,
    /// The worker of the `events` table.
    pub worker: WorkerConfig,
    /// Where traces go.
    pub telemetry: TelemetryConfig,
}

impl Config {
    /// Reads the process environment.
    ///
    /// # Errors
    /// [`ConfigError`] names every missing or unusable variable at once; it never holds a value.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(&environment)
    }

    /// Reads the configuration from any source of named values.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(lookup);
        let server = ServerConfig::read(&mut reader);
        let log = LogConfig::read(&mut reader);
        let push_auth = PushAuthConfig::read(&mut reader);
        let hasura = HasuraConfig::read(&mut reader);
        let chargebee = ChargebeeConfig::read(&mut reader);
        let store = StoreConfig::read(&mut reader);
        let bus = BusConfig::read(&mut reader, store.is_some());
        let work = WorkConfig::read(&mut reader);
        let worker = WorkerConfig::read(&mut reader, store.is_some());
        let dedupe = DedupeConfig::read(&mut reader, store.is_some());
        let telemetry = TelemetryConfig::read(&mut reader);
        reader.finish()?;
        Ok(Self {
            server,
            log,
            push_auth,
            hasura,
            chargebee,
            bus,
            work,
            dedupe,
            store,
            worker,
            telemetry,
        })
    }

    /// Returns every variable the service knows, in the order of the sections.
    pub fn variables() -> impl Iterator<Item = &'static Variable> {
        [
            server::VARIABLES,
            admin::VARIABLES,
            upstreams::VARIABLES,
            bus::VARIABLES,
            work::VARIABLES,
            store::VARIABLES,
            bridge::VARIABLES,
            telemetry::VARIABLES,
        ]
        .into_iter()
        .flatten()
        .copied()
    }

    /// Renders the table of variables as Markdown, as it stands in the README.
    pub fn variables_as_markdown() -> String {
        let mut table = String::from("| variable | default | meaning |\n|---|---|---|\n");
        for variable in Self::variables() {
            let default = match variable.default {
                Some(default) => format!("`{default}`"),
                None => variable.absent.to_owned(),
            };
            table.push_str(&format!(
                "| `{}` | {default} | {} |\n",
                variable.name, variable.about
            ));
        }
        table
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
fn environment(name: &str) -> Option<String> {
    // What is not UTF-8 must be refused later on, and not pass for a variable that is not set.
    let value = std::env::var_os(name)?;
    Some(value.to_string_lossy().into_owned())
}
