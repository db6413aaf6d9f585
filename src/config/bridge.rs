//! The bridge: from Hasura's webhooks to a topic.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;

use super::reader::{ConfigError, Reader, Variable};
use super::{BusConfig, LogConfig, ServerConfig, TelemetryConfig};

const BRIDGE_SECRET: Variable = Variable::optional(
    "BRIDGE_SECRET",
    "required with `bridge`",
    "value of the `x-hookyard-secret` header Hasura sends; two, comma-separated, while it is changed",
);
const BRIDGE_TOPIC: Variable = Variable::optional(
    "BRIDGE_TOPIC",
    "required with `bridge`",
    "topic that takes Hasura's events: a short name or `projects/…/topics/…`",
);
const BRIDGE_KEY_COLUMNS: Variable = Variable::optional(
    "BRIDGE_KEY_COLUMNS",
    "`id` for every table",
    "columns of the ordering key by table, such as `orders=region+number,billing.invoices=number`",
);
const BRIDGE_TIMEOUT_MS: Variable = Variable::defaulted(
    "BRIDGE_TIMEOUT_MS",
    "30000",
    "from a webhook's arrival to the broker's confirmation; keep it below the trigger's timeout (60 s)",
);

pub(super) const VARIABLES: &[&Variable] = &[
    &BRIDGE_SECRET,
    &BRIDGE_TOPIC,
    &BRIDGE_KEY_COLUMNS,
    &BRIDGE_TIMEOUT_MS,
];

/// Shortest secret taken: whoever guesses it can publish any event.
const MIN_SECRET_BYTES: usize = 16;

/// Hasura's webhooks and where they go.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// Accepted secrets (`BRIDGE_SECRET`); the door is closed when there is none.
    pub secrets: Vec<SecretString>,
    /// Where events go (`BRIDGE_TOPIC`).
    pub topic: String,
    /// What their ordering keys are made of (`BRIDGE_KEY_COLUMNS`).
    pub key_columns: KeyColumns,
    /// Time for one event (`BRIDGE_TIMEOUT_MS`).
    pub timeout: Duration,
}

/// Everything the bridge is told from outside.
#[derive(Debug, Clone)]
pub struct BridgeRoleConfig {
    /// Where and how to listen.
    pub server: ServerConfig,
    /// What to log.
    pub log: LogConfig,
    /// Where traces go.
    pub telemetry: TelemetryConfig,
    /// Which broker takes the events.
    pub bus: BusConfig,
    /// What comes in and where it goes.
    pub bridge: BridgeConfig,
}

impl BridgeRoleConfig {
    /// Reads the process environment.
    ///
    /// # Errors
    /// [`ConfigError`] names every missing or unusable variable at once; it never holds a value.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(&super::environment)
    }

    /// Reads the configuration from any source of named values.
    ///
    /// # Errors
    /// As [`BridgeRoleConfig::from_env`].
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(lookup);
        let server = ServerConfig::read(&mut reader);
        let log = LogConfig::read(&mut reader);
        let telemetry = TelemetryConfig::read(&mut reader);
        let bridge = BridgeConfig::read(&mut reader);
        let bus = BusConfig::read_with_topic(&mut reader, &bridge.topic);
        reader.finish()?;
        Ok(Self {
            server,
            log,
            telemetry,
            bus,
            bridge,
        })
    }
}

impl BridgeConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        let key_columns = reader.text(&BRIDGE_KEY_COLUMNS).unwrap_or_default();
        let key_columns = KeyColumns::parse(&key_columns).unwrap_or_else(|what| {
            reader.problem(BRIDGE_KEY_COLUMNS.name, what);
            KeyColumns::default()
        });
        Self {
            secrets: secrets(reader),
            topic: reader.required(&BRIDGE_TOPIC),
            key_columns,
            timeout: reader.millis(&BRIDGE_TIMEOUT_MS),
        }
    }
}

fn secrets(reader: &mut Reader<'_>) -> Vec<SecretString> {
    let secrets = reader.list(&BRIDGE_SECRET);
    if secrets.len() > 2 {
        reader.problem(
            BRIDGE_SECRET.name,
            "holds more than two values: the new one and the one it replaces",
        );
    }
    if secrets.iter().any(|secret| secret.len() < MIN_SECRET_BYTES) {
        reader.problem(
            BRIDGE_SECRET.name,
            "must be at least 16 characters, such as `openssl rand -hex 32` makes",
        );
    }
    if secrets
        .iter()
        .any(|s| !s.bytes().all(|b| b.is_ascii_graphic()))
    {
        reader.problem(
            BRIDGE_SECRET.name,
            "must be visible ASCII characters, or no header can carry it",
        );
    }
    secrets.into_iter().map(SecretString::from).collect()
}

/// Which columns tell the rows of a table apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyColumns(BTreeMap<String, Vec<String>>);

impl KeyColumns {
    /// Reads `contracts=id,orders=region+number`. Tables are named as in event types: in lower
    /// case, with the schema in front unless it is `public`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut tables = BTreeMap::new();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let wrong = "must be `table=column` or `table=column+column`, joined by commas";
            let (table, columns) = item.split_once('=').ok_or(wrong)?;
            let table = table.trim().to_ascii_lowercase();
            let table = table.strip_prefix("public.").unwrap_or(&table).to_owned();
            let columns: Vec<String> = columns.split('+').map(|c| c.trim().to_owned()).collect();
            if table.is_empty() || columns.iter().any(String::is_empty) {
                return Err(wrong);
            }
            if tables.insert(table, columns).is_some() {
                return Err("names a table twice");
            }
        }
        Ok(Self(tables))
    }

    /// Returns the columns of `table`, named as in event types; `id` unless told otherwise.
    pub fn of(&self, table: &str) -> impl Iterator<Item = &str> {
        let told = self.0.get(table);
        let default = told.is_none().then_some("id");
        told.into_iter()
            .flatten()
            .map(String::as_str)
            .chain(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(secret: &str) -> Result<BridgeRoleConfig, ConfigError> {
        let secret = secret.to_owned();
        BridgeRoleConfig::from_lookup(&move |name| match name {
            "BRIDGE_SECRET" => Some(secret.clone()),
            "BRIDGE_TOPIC" => Some("contract-events".to_owned()),
            "EVENT_BUS_TYPE" => Some("memory".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn without_a_secret_the_bridge_does_not_start() {
        let error = read("").unwrap_err().to_string();

        assert!(error.contains("BRIDGE_SECRET: is not set"), "{error}");
        assert!(!error.contains("EVENTS_TOPIC"), "{error}");
    }

    #[test]
    fn secrets_are_long_and_at_most_two() {
        assert_eq!(read("0123456789abcdef").unwrap().bridge.secrets.len(), 1);
        let two = read("0123456789abcdef, fedcba9876543210").unwrap();
        assert_eq!(two.bridge.secrets.len(), 2);
        for bad in ["short", "0123456789abcdef,x", "0123456789abcdéf"] {
            let error = read(bad).unwrap_err().to_string();
            assert!(!error.contains("0123456789"), "{error}");
        }
        assert!(read(&["0123456789abcdef"; 3].join(",")).is_err());
    }

    #[test]
    fn key_columns_are_by_table_and_id_without_one() {
        let keys = KeyColumns::parse("orders=region+number, public.Users = email").unwrap();

        assert_eq!(keys.of("orders").collect::<Vec<_>>(), ["region", "number"]);
        assert_eq!(keys.of("users").collect::<Vec<_>>(), ["email"]);
        assert_eq!(keys.of("contracts").collect::<Vec<_>>(), ["id"]);
        for bad in ["orders", "orders=", "=id", "a=b+", "a=b,a=c"] {
            assert!(KeyColumns::parse(bad).is_err(), "{bad}");
        }
    }
}
