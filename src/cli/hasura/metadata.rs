//! Hasura's metadata, as far as triggers go: what `export_metadata` answers and what the files of a
//! metadata folder hold.
//!
//! Format: <https://hasura.io/docs/2.0/api-reference/metadata-api/manage-metadata/>; what Hasura
//! leaves out when it writes is optional here.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The metadata of one Hasura.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) sources: Vec<Source>,
    #[serde(default)]
    pub(super) cron_triggers: Vec<CronTrigger>,
}

/// A database.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Source {
    pub(super) name: String,
    #[serde(default = "postgres")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) tables: Vec<Table>,
}

fn postgres() -> String {
    "postgres".to_owned()
}

impl Source {
    /// Returns the command that makes an event trigger in this kind of database.
    pub(super) fn create_command(&self) -> Option<&'static str> {
        match self.kind.as_str() {
            "postgres" => Some("pg_create_event_trigger"),
            "citus" => Some("citus_create_event_trigger"),
            "cockroach" => Some("cockroach_create_event_trigger"),
            "mssql" => Some("mssql_create_event_trigger"),
            _ => None,
        }
    }
}

/// A tracked table.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Table {
    /// Other databases than Postgres and its kin name their tables otherwise.
    table: Value,
    #[serde(default)]
    pub(super) event_triggers: Vec<EventTrigger>,
}

impl Table {
    pub(super) fn name(&self) -> Option<TableName> {
        match &self.table {
            Value::String(name) => Some(TableName::new("public", name)),
            Value::Object(table) => {
                let schema = table.get("schema").and_then(Value::as_str);
                let name = table.get("name")?.as_str()?;
                Some(TableName::new(schema.unwrap_or("public"), name))
            }
            _ => None,
        }
    }
}

/// The name of a table with its schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(super) struct TableName {
    pub(super) name: String,
    pub(super) schema: String,
}

impl TableName {
    pub(super) fn new(schema: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            schema: schema.to_owned(),
        }
    }

    /// Tells whether event types, which are in lower case, mean the same table.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.schema.eq_ignore_ascii_case(&other.schema)
            && self.name.eq_ignore_ascii_case(&other.name)
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// An event trigger of a table.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct EventTrigger {
    pub(super) name: String,
    #[serde(default)]
    pub(super) definition: Definition,
    #[serde(default)]
    pub(super) retry_conf: RetryConf,
    #[serde(flatten)]
    pub(super) webhook: Webhook,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) headers: Vec<Header>,
    /// What the registry says nothing about, such as `cleanup_config`.
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// Which operations fire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Definition {
    #[serde(default)]
    pub(super) enable_manual: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) insert: Option<Operation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) update: Option<Operation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delete: Option<Operation>,
}

/// On which columns one operation fires, and which it sends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Operation {
    pub(super) columns: Columns,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) payload: Option<Columns>,
}

/// `*`, or some columns.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Columns {
    /// Every one; the text is `*`.
    All(String),
    /// These.
    Some(Vec<String>),
}

impl Columns {
    pub(super) fn all() -> Self {
        Self::All("*".to_owned())
    }
}

impl PartialEq for Columns {
    /// The order of columns does not matter.
    fn eq(&self, other: &Self) -> bool {
        let sorted = |columns: &Self| match columns {
            Self::All(_) => None,
            Self::Some(names) => {
                let mut names = names.clone();
                names.sort_unstable();
                names.dedup();
                Some(names)
            }
        };
        sorted(self) == sorted(other)
    }
}

impl Eq for Columns {}

impl std::fmt::Display for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All(_) => f.write_str("any column"),
            Self::Some(names) => f.write_str(&names.join(", ")),
        }
    }
}

/// Where a trigger calls: a text, in which `{{NAME}}` stands for a variable, or a variable.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(super) struct Webhook {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    webhook: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    webhook_from_env: Option<String>,
}

impl Webhook {
    pub(super) fn from_env(name: &str) -> Self {
        Self {
            webhook: None,
            webhook_from_env: Some(name.to_owned()),
        }
    }

    /// Cron triggers have no `webhook_from_env`, but know the template.
    pub(super) fn template(name: &str) -> Self {
        Self {
            webhook: Some(format!("{{{{{name}}}}}")),
            webhook_from_env: None,
        }
    }

    /// Returns the variable it is taken from as a whole.
    pub(super) fn variable(&self) -> Option<&str> {
        let template = || {
            let text = self.webhook.as_deref()?.trim();
            let name = text.strip_prefix("{{")?.strip_suffix("}}")?.trim();
            (!name.contains(['{', '}'])).then_some(name)
        };
        self.webhook_from_env.as_deref().or_else(template)
    }
}

/// A header a trigger sends. A value that is written out may be a secret and is never shown.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Header {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) value_from_env: Option<String>,
}

impl Header {
    pub(super) fn from_env(name: &str, variable: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: None,
            value_from_env: Some(variable.to_owned()),
        }
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header")
            .field("name", &self.name)
            .field("value_from_env", &self.value_from_env)
            .finish_non_exhaustive()
    }
}

/// How often Hasura tries. What it leaves out has these defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct RetryConf {
    pub(super) num_retries: u32,
    pub(super) interval_sec: u32,
    pub(super) timeout_sec: u32,
}

impl Default for RetryConf {
    fn default() -> Self {
        Self {
            num_retries: 0,
            interval_sec: 10,
            timeout_sec: 60,
        }
    }
}

/// A cron trigger.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct CronTrigger {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) webhook: Webhook,
    pub(super) schedule: String,
    #[serde(default)]
    pub(super) include_in_metadata: bool,
    #[serde(default)]
    pub(super) retry_conf: CronRetryConf,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) headers: Vec<Header>,
    /// `payload`, `comment`, transforms.
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// How often Hasura tries a cron trigger: the same with other names, and how late it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct CronRetryConf {
    pub(super) num_retries: u32,
    pub(super) retry_interval_seconds: u32,
    pub(super) timeout_seconds: u32,
    pub(super) tolerance_seconds: u32,
}

impl Default for CronRetryConf {
    fn default() -> Self {
        Self {
            num_retries: 0,
            retry_interval_seconds: 10,
            timeout_seconds: 60,
            tolerance_seconds: 21_600,
        }
    }
}
