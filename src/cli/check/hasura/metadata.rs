//! The part of Hasura's metadata that is about triggers:
//! <https://hasura.io/docs/2.0/api-reference/syntax-defs/>.

use serde::Deserialize;
use serde_json::Value;

use crate::event::{EventType, Op};

/// What `export_metadata` answers.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    sources: Vec<Source>,
    #[serde(default)]
    cron_triggers: Vec<CronTrigger>,
}

#[derive(Debug, Deserialize)]
struct Source {
    #[serde(default)]
    tables: Vec<Table>,
}

#[derive(Debug, Deserialize)]
struct Table {
    table: Value,
    #[serde(default)]
    event_triggers: Vec<EventTrigger>,
}

#[derive(Debug, Deserialize)]
struct EventTrigger {
    name: String,
    #[serde(default)]
    definition: Definition,
    #[serde(default)]
    retry_conf: RetryConf,
    webhook: Option<String>,
    webhook_from_env: Option<String>,
    #[serde(default)]
    headers: Vec<Header>,
}

#[derive(Debug, Default, Deserialize)]
struct Definition {
    insert: Option<Operation>,
    update: Option<Operation>,
    delete: Option<Operation>,
    #[serde(default)]
    enable_manual: bool,
}

#[derive(Debug, Deserialize)]
struct Operation {
    /// A list of columns; `"*"` or nothing is all of them.
    payload: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct CronTrigger {
    name: String,
    webhook: Option<String>,
    #[serde(default)]
    headers: Vec<Header>,
    #[serde(default)]
    retry_conf: RetryConf,
}

/// Event triggers and cron triggers spell it differently.
#[derive(Debug, Default, Deserialize)]
struct RetryConf {
    num_retries: Option<u64>,
    timeout_sec: Option<u64>,
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Header {
    pub(super) name: String,
    /// In plain text; else it comes from Hasura's environment.
    pub(super) value: Option<Value>,
}

/// Hasura's own default.
const TIMEOUT_SECONDS: u64 = 60;

/// A trigger of either kind.
#[derive(Debug)]
pub(super) struct Trigger {
    pub(super) name: String,
    /// The event types it sends.
    pub(super) types: Vec<String>,
    pub(super) retries: u64,
    pub(super) timeout_seconds: u64,
    /// Its address, unless that comes from Hasura's environment.
    pub(super) webhook: Option<String>,
    /// The variable of Hasura's environment with its address.
    pub(super) webhook_env: Option<String>,
    pub(super) headers: Vec<Header>,
}

/// A trigger that sends all columns of its table.
#[derive(Debug)]
pub(super) struct WholeRow {
    pub(super) trigger: String,
    /// The table's type in the GraphQL schema.
    pub(super) type_name: String,
}

impl Metadata {
    /// Returns all triggers.
    pub(super) fn triggers(&self) -> Vec<Trigger> {
        let tables = self.sources.iter().flat_map(|source| &source.tables);
        let of_rows = tables.flat_map(|table| {
            let (schema, name) = table.name();
            let triggers = table.event_triggers.iter();
            triggers.map(move |trigger| Trigger {
                name: trigger.name.clone(),
                types: trigger.definition.types(&schema, &name),
                retries: trigger.retry_conf.num_retries.unwrap_or(0),
                timeout_seconds: trigger.retry_conf.timeout(),
                webhook: literal(trigger.webhook.as_ref()),
                webhook_env: trigger.webhook_from_env.clone(),
                headers: trigger.headers.clone(),
            })
        });
        let by_time = self.cron_triggers.iter().map(|trigger| Trigger {
            name: trigger.name.clone(),
            types: vec![format!("cron.{}", trigger.name)],
            retries: trigger.retry_conf.num_retries.unwrap_or(0),
            timeout_seconds: trigger.retry_conf.timeout(),
            webhook: literal(trigger.webhook.as_ref()),
            webhook_env: None,
            headers: trigger.headers.clone(),
        });
        of_rows.chain(by_time).collect()
    }

    /// Returns the triggers whose payload is not limited to some columns.
    pub(super) fn whole_rows(&self) -> Vec<WholeRow> {
        let tables = self.sources.iter().flat_map(|source| &source.tables);
        let rows = tables.flat_map(|table| {
            let (schema, name) = table.name();
            // Hasura's default; a table with a name of its own choice is not found then.
            let type_name = match schema.as_str() {
                "public" | "" => name,
                schema => format!("{schema}_{name}"),
            };
            let whole = |it: &&EventTrigger| it.definition.sends_whole_rows();
            let triggers = table.event_triggers.iter().filter(whole);
            triggers.map(move |trigger| WholeRow {
                trigger: trigger.name.clone(),
                type_name: type_name.clone(),
            })
        });
        rows.collect()
    }
}

impl Table {
    /// Schema and name; some kinds of source have no schema or call it otherwise.
    fn name(&self) -> (String, String) {
        fn text(value: Option<&Value>) -> &str {
            value.and_then(Value::as_str).unwrap_or_default()
        }
        match &self.table {
            Value::Object(it) => (
                text(it.get("schema").or(it.get("dataset"))).to_owned(),
                text(it.get("name")).to_owned(),
            ),
            Value::Array(parts) => (
                text(parts.iter().rev().nth(1)).to_owned(),
                text(parts.last()).to_owned(),
            ),
            other => ("public".to_owned(), text(Some(other)).to_owned()),
        }
    }
}

impl Definition {
    fn types(&self, schema: &str, table: &str) -> Vec<String> {
        let ops = [
            (self.insert.is_some(), Op::Insert),
            (self.update.is_some(), Op::Update),
            (self.delete.is_some(), Op::Delete),
            (self.enable_manual, Op::Manual),
        ];
        let set = ops.into_iter().filter(|(set, _)| *set);
        set.map(|(_, op)| EventType::of_table(schema, table, op).as_str().to_owned())
            .collect()
    }

    fn sends_whole_rows(&self) -> bool {
        let ops = [&self.insert, &self.update, &self.delete];
        let mut ops = ops.into_iter().flatten();
        ops.any(|op| !matches!(op.payload, Some(Value::Array(_))))
    }
}

impl RetryConf {
    fn timeout(&self) -> u64 {
        self.timeout_sec
            .or(self.timeout_seconds)
            .unwrap_or(TIMEOUT_SECONDS)
    }
}

/// Drops addresses that are only known once Hasura has filled in its variables.
fn literal(webhook: Option<&String>) -> Option<String> {
    webhook.filter(|text| !text.is_empty()).cloned()
}
