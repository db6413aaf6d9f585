//! Compares what the handlers need with what Hasura has, and says what would have to be done.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::compare;
use super::crons;
use super::metadata::{EventTrigger, Metadata, Source, Table, TableName};
use super::settings::Settings;
use super::wanted::{Wanted, WantedTrigger, default_name};
use crate::cli::output::{Ink, Paint};
use crate::error::BoxError;

/// What is to be done about one trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It is as it should be.
    Same,
    /// It is not there.
    Create,
    /// It is not as it should be.
    Change,
    /// Somebody has to do something first.
    Problem,
    /// It calls us, but no handler takes its events.
    Orphan,
}

/// One trigger of the plan.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) sign: Sign,
    pub(super) what: String,
    pub(super) lines: Vec<String>,
    pub(super) command: Option<Value>,
}

/// What would have to be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) items: Vec<Item>,
    notes: Vec<String>,
}

impl Plan {
    /// Compares.
    ///
    /// # Errors
    /// When the source is not there, or is no database with event triggers.
    pub(super) fn make(
        wanted: &Wanted,
        settings: &Settings,
        metadata: &Metadata,
    ) -> Result<Self, BoxError> {
        let mut items = Vec::new();
        let mut notes = Vec::new();
        let mut known = BTreeSet::new();
        if let Some(source) = find_source(metadata, settings, wanted)? {
            for trigger in &wanted.tables {
                let (name, item) = event_trigger(trigger, settings, source);
                known.insert(name);
                items.push(item);
            }
            items.extend(orphans(source, settings, &known));
        }
        for (name, handlers) in &wanted.crons {
            items.push(crons::item(name, handlers, settings, metadata));
        }
        for cron in &metadata.cron_triggers {
            if settings.is_ours(&cron.webhook) && !wanted.crons.contains_key(&cron.name) {
                items.push(orphan(
                    &cron.name,
                    "cron trigger",
                    &json!({"type": "delete_cron_trigger", "args": {"name": cron.name}}),
                ));
            }
        }
        for name in settings.schedules().keys() {
            if !wanted.crons.contains_key(*name) {
                notes.push(format!("--schedule {name}: no handler takes cron.{name}"));
            }
        }
        if !wanted.one_offs.is_empty() {
            notes.push(format!(
                "one-off triggers are no metadata, the application creates them: {}",
                list(&wanted.one_offs)
            ));
        }
        Ok(Self { items, notes })
    }

    /// Tells whether everything is as it should be.
    pub(super) fn is_done(&self) -> bool {
        self.items.iter().all(|item| item.sign == Sign::Same)
    }

    pub(super) fn has_problems(&self) -> bool {
        self.items.iter().any(|item| item.sign == Sign::Problem)
    }

    /// Returns the commands that do it, none of which deletes anything.
    pub(super) fn commands(&self) -> Vec<Value> {
        self.items
            .iter()
            .filter_map(|i| i.command.clone())
            .collect()
    }

    /// Renders the plan for people.
    pub(super) fn render(&self, paint: Paint) -> String {
        let mut text = String::new();
        for item in &self.items {
            let (sign, ink) = match item.sign {
                Sign::Same => ("=", Ink::Dim),
                Sign::Create => ("+", Ink::Green),
                Sign::Change => ("~", Ink::Yellow),
                Sign::Problem => ("!", Ink::Red),
                Sign::Orphan => ("?", Ink::Yellow),
            };
            text.push_str(&paint.ink(ink, &format!("{sign} {}", item.what)));
            text.push('\n');
            for line in item.lines.iter().flat_map(|line| line.lines()) {
                text.push_str(&format!("    {line}\n"));
            }
        }
        for note in &self.notes {
            text.push_str(&format!("{} {note}\n", paint.ink(Ink::Dim, "note:")));
        }
        let count = |sign| self.items.iter().filter(|item| item.sign == sign).count();
        text.push_str(&format!(
            "{} as they should be, {} to create, {} to change, {} in the way, {} without a handler\n",
            count(Sign::Same),
            count(Sign::Create),
            count(Sign::Change),
            count(Sign::Problem),
            count(Sign::Orphan),
        ));
        text
    }
}

/// Finds the source, which may be missing when no handler needs a table.
fn find_source<'a>(
    metadata: &'a Metadata,
    settings: &Settings,
    wanted: &Wanted,
) -> Result<Option<&'a Source>, BoxError> {
    let found = metadata.sources.iter().find(|s| s.name == settings.source);
    match found {
        None if wanted.tables.is_empty() => Ok(None),
        None => {
            let names: Vec<&str> = metadata.sources.iter().map(|s| s.name.as_str()).collect();
            let names = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            let name = &settings.source;
            Err(format!("Hasura has no source `{name}` (it has: {names}); give --source").into())
        }
        Some(source) if source.create_command().is_none() => {
            let (name, kind) = (&source.name, &source.kind);
            Err(format!("source `{name}` is a {kind} database, which has no event triggers").into())
        }
        found => Ok(found),
    }
}

fn event_trigger(wanted: &WantedTrigger, settings: &Settings, source: &Source) -> (String, Item) {
    let tracked: Vec<(TableName, &Table)> = source
        .tables
        .iter()
        .filter_map(|table| Some((table.name()?, table)))
        .collect();
    let exact = tracked.iter().find(|(name, _)| *name == wanted.table);
    let like = || tracked.iter().find(|(name, _)| name.is_like(&wanted.table));
    let table = exact.or_else(like);
    let name = name_of(wanted, settings, table.map(|(_, table)| *table));
    let table_name = table.map_or(&wanted.table, |(name, _)| name);
    let problem = |line: String| {
        let what = format!("{name} on {table_name}");
        Item {
            sign: Sign::Problem,
            what,
            lines: vec![line],
            command: None,
        }
    };
    if table.is_none() {
        let line = format!(
            "the table is not tracked in source {}; track it, or check the handlers: {}",
            source.name,
            list(&wanted.handlers)
        );
        return (name.clone(), problem(line));
    }
    let present = tracked.iter().find_map(|(on, table)| {
        let found = table.event_triggers.iter().find(|t| t.name == name)?;
        Some((on, found))
    });
    let item = match present {
        Some((on, _)) if on != table_name => problem(format!(
            "a trigger of this name is on {on}, and Hasura cannot move it; \
             give --trigger-name {}={name}_2",
            short(table_name)
        )),
        Some((_, present))
            if !settings.is_ours(&present.webhook) && !settings.take_over.contains(&name) =>
        {
            problem(format!(
                "it calls something else than {}; give --take-over {name} to replace it, or \
                 --trigger-name {}=… to leave it alone",
                settings.webhook_env,
                short(table_name)
            ))
        }
        present => {
            let present = present.map(|(_, present)| present);
            let should_be = settings.trigger(wanted, &name);
            compared(present, should_be, table_name, wanted, source)
        }
    };
    (name, item)
}

/// The operator's name goes before the handler's, and that before the one our trigger has.
fn name_of(wanted: &WantedTrigger, settings: &Settings, table: Option<&Table>) -> String {
    let mut ours = table
        .iter()
        .flat_map(|table| &table.event_triggers)
        .filter(|trigger| settings.is_ours(&trigger.webhook));
    let only = match (ours.next(), ours.next()) {
        (Some(only), None) => Some(only.name.as_str()),
        _ => None,
    };
    let given = settings.name_for(&wanted.table).or(wanted.name).or(only);
    given.map_or_else(|| default_name(&wanted.table), str::to_owned)
}

fn compared(
    present: Option<&EventTrigger>,
    should_be: EventTrigger,
    table: &TableName,
    wanted: &WantedTrigger,
    source: &Source,
) -> Item {
    let what = format!("{} on {table}", should_be.name);
    let should_be = match present {
        Some(present) => compare::keep(present, should_be),
        None => should_be,
    };
    let (sign, lines) = match present {
        None => {
            let fires = compare::fires(&should_be.definition);
            let handlers = list(&wanted.handlers);
            (
                Sign::Create,
                vec![format!("fires on {fires}, for {handlers}")],
            )
        }
        Some(present) => {
            let lines = compare::event_triggers(present, &should_be);
            let same = lines.is_empty();
            (if same { Sign::Same } else { Sign::Change }, lines)
        }
    };
    let command =
        (sign != Sign::Same).then(|| command(&should_be, table, source, present.is_some()));
    Item {
        sign,
        what,
        lines,
        command,
    }
}

/// Makes `pg_create_event_trigger`.
///
/// `replace` is for triggers that are there: Hasura refuses it for others
/// (`askTabInfoFromTrigger`: "event trigger … does not exist").
fn command(trigger: &EventTrigger, table: &TableName, source: &Source, replace: bool) -> Value {
    let members = |value: Value| match value {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    let mut args = members(json!(trigger));
    let definition = args.remove("definition").unwrap_or_default();
    args.extend(members(definition));
    args.insert("source".to_owned(), json!(source.name));
    args.insert("table".to_owned(), json!(table));
    args.insert("replace".to_owned(), json!(replace));
    json!({"type": source.create_command(), "args": args})
}

fn orphans(source: &Source, settings: &Settings, known: &BTreeSet<String>) -> Vec<Item> {
    let mut items = Vec::new();
    for table in &source.tables {
        for trigger in &table.event_triggers {
            if settings.is_ours(&trigger.webhook) && !known.contains(&trigger.name) {
                let kind = source.kind.replace("postgres", "pg");
                let on = table
                    .name()
                    .map_or_else(String::new, |name| name.to_string());
                items.push(orphan(
                    &trigger.name,
                    &format!("event trigger on {on}"),
                    &json!({
                        "type": format!("{kind}_delete_event_trigger"),
                        "args": {"source": source.name, "name": trigger.name},
                    }),
                ));
            }
        }
    }
    items
}

/// Never deleted from here: its events that wait in Hasura's log would be gone with it.
fn orphan(name: &str, kind: &str, delete: &Value) -> Item {
    Item {
        sign: Sign::Orphan,
        what: format!("{name} ({kind})"),
        lines: vec![format!(
            "it calls us, but no handler takes its events; to delete it, post to /v1/metadata:\n{delete}"
        )],
        command: None,
    }
}

pub(super) fn list(names: &BTreeSet<&'static str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

/// The name of a table as the command line takes it.
fn short(table: &TableName) -> String {
    match table.schema.as_str() {
        "public" => table.name.clone(),
        _ => table.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn a_trigger_on_another_table_is_in_the_way() {
        let mut wanted = Wanted::default();
        wanted.tables.push(WantedTrigger {
            table: TableName::new("public", "orders"),
            name: Some("orders_events"),
            definition: serde_json::from_value(json!({"insert": {"columns": "*"}})).unwrap(),
            handlers: BTreeSet::from(["ship"]),
        });
        let metadata = serde_json::from_value(json!({"sources": [{"name": "default", "tables": [
            {"table": {"schema": "public", "name": "orders"}},
            {"table": {"schema": "old", "name": "orders"}, "event_triggers": [
                {"name": "orders_events", "webhook_from_env": "HOOKYARD_WEBHOOK_URL"},
            ]},
        ]}]}));
        let line = Line::parse_from(["x"]);

        let plan = Plan::make(&wanted, &line.settings, &metadata.unwrap()).unwrap();

        assert_eq!(plan.items.len(), 1);
        assert!(
            plan.items[0].lines[0].contains("is on old.orders"),
            "{plan:?}"
        );
    }
}
