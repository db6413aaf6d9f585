//! How triggers are to look, from the command line.

use std::collections::BTreeMap;

use clap::Args;

use super::metadata::{
    CronRetryConf, CronTrigger, EventTrigger, Header, RetryConf, TableName, Webhook,
};
use super::wanted::WantedTrigger;
use crate::ingress::SECRET_HEADER;

/// How late a cron event may be; Hasura's own default.
const TOLERANCE_SECONDS: u32 = 21_600;

/// How triggers are to look.
#[derive(Args, Clone)]
pub(super) struct Settings {
    /// Name of the source (database) in Hasura that holds the tables.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(super) source: String,

    /// Variable in Hasura's environment that holds the bridge's URL, path included:
    /// https://…/hasura/events. A trigger that calls it counts as ours.
    #[arg(long, default_value = "HOOKYARD_WEBHOOK_URL", value_name = "VARIABLE")]
    pub(super) webhook_env: String,

    /// Variable in Hasura's environment that holds the shared secret, one of the bridge's
    /// BRIDGE_SECRET. Sent in the header x-hookyard-secret.
    #[arg(
        long,
        default_value = "HOOKYARD_WEBHOOK_SECRET",
        value_name = "VARIABLE"
    )]
    pub(super) secret_env: String,

    /// How often Hasura tries again after a refusal without Retry-After. Its own default is 0.
    #[arg(long, default_value_t = 5, value_name = "TIMES")]
    pub(super) num_retries: u32,

    /// Seconds between two tries.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(super) interval: u32,

    /// Seconds Hasura waits for an answer; above the bridge's BRIDGE_TIMEOUT_MS.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(super) timeout: u32,

    /// Name of a table's trigger, such as contracts=contract_events or billing.invoices=bills.
    /// Without it: the name a handler asks for, that of our trigger on the table, or
    /// <table>_events. May be given several times.
    #[arg(long = "trigger-name", value_name = "TABLE=NAME", value_parser = pair)]
    names: Vec<(String, String)>,

    /// Schedule of a cron trigger in UTC, such as 'nightly=0 3 * * *'. Without it a cron trigger
    /// a handler waits for is reported, and has to be created by hand. May be given several times.
    #[arg(long = "schedule", value_name = "NAME=CRON", value_parser = pair)]
    schedules: Vec<(String, String)>,

    /// Makes ours a trigger of this name that calls something else at present; its webhook,
    /// operations and retries are replaced. May be given several times.
    #[arg(long = "take-over", value_name = "TRIGGER")]
    pub(super) take_over: Vec<String>,
}

/// Reads `name=value`.
fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("must be NAME=VALUE"),
    }
}

impl Settings {
    /// Returns the name the operator gave to a table's trigger.
    pub(super) fn name_for(&self, table: &TableName) -> Option<&str> {
        let matches = |given: &str| {
            let (schema, name) = given.split_once('.').unwrap_or(("public", given));
            table.is_like(&TableName::new(schema, name))
        };
        let mut names = self.names.iter();
        names.find_map(|(given, name)| matches(given).then_some(name.as_str()))
    }

    pub(super) fn schedules(&self) -> BTreeMap<&str, &str> {
        self.schedules
            .iter()
            .map(|(name, schedule)| (name.as_str(), schedule.as_str()))
            .collect()
    }

    pub(super) fn is_ours(&self, webhook: &Webhook) -> bool {
        webhook.variable() == Some(&self.webhook_env)
    }

    fn secret(&self) -> Header {
        Header::from_env(SECRET_HEADER, &self.secret_env)
    }

    /// Returns an event trigger as it should be.
    pub(super) fn trigger(&self, wanted: &WantedTrigger, name: &str) -> EventTrigger {
        EventTrigger {
            name: name.to_owned(),
            definition: wanted.definition.clone(),
            retry_conf: RetryConf {
                num_retries: self.num_retries,
                interval_sec: self.interval,
                timeout_sec: self.timeout,
            },
            webhook: Webhook::from_env(&self.webhook_env),
            headers: vec![self.secret()],
            rest: serde_json::Map::new(),
        }
    }

    /// Returns a cron trigger as it should be.
    pub(super) fn cron(&self, name: &str, schedule: &str) -> CronTrigger {
        CronTrigger {
            name: name.to_owned(),
            webhook: Webhook::template(&self.webhook_env),
            schedule: schedule.to_owned(),
            include_in_metadata: true,
            retry_conf: CronRetryConf {
                num_retries: self.num_retries,
                retry_interval_seconds: self.interval,
                timeout_seconds: self.timeout,
                tolerance_seconds: TOLERANCE_SECONDS,
            },
            headers: vec![self.secret()],
            rest: serde_json::Map::new(),
        }
    }
}
