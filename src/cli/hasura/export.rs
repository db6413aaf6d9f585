//! Writes what the handlers need as metadata, for a folder that is kept in version control.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::crons::by_hand;
use super::metadata::{EventTrigger, TableName};
use super::settings::Settings;
use super::wanted::{Wanted, default_name};
use crate::error::BoxError;

/// One file of a metadata folder.
#[derive(Serialize)]
struct TableFile {
    table: TableName,
    event_triggers: Vec<EventTrigger>,
}

fn tables(wanted: &Wanted, settings: &Settings) -> Vec<TableFile> {
    let mut files: BTreeMap<TableName, Vec<EventTrigger>> = BTreeMap::new();
    for trigger in &wanted.tables {
        let given = settings.name_for(&trigger.table).or(trigger.name);
        let name = given.map_or_else(|| default_name(&trigger.table), str::to_owned);
        let triggers = files.entry(trigger.table.clone()).or_default();
        triggers.push(settings.trigger(trigger, &name));
    }
    let files = files.into_iter();
    files
        .map(|(table, event_triggers)| TableFile {
            table,
            event_triggers,
        })
        .collect()
}

/// Returns every file one after the other, each under its path, as a stream of YAML documents.
///
/// # Errors
/// None in practice: names and numbers can all be written as YAML.
pub(super) fn as_yaml(wanted: &Wanted, settings: &Settings) -> Result<String, BoxError> {
    let mut documents = Vec::new();
    for file in tables(wanted, settings) {
        let source = &settings.source;
        let TableName { schema, name } = &file.table;
        let path = format!("databases/{source}/tables/{schema}_{name}.yaml");
        documents.push(format!("# {path}\n{}", serde_saphyr::to_string(&file)?));
    }
    let schedules = settings.schedules();
    let mut crons = Vec::new();
    let mut missing = String::new();
    for (name, handlers) in &wanted.crons {
        match schedules.get(name.as_str()) {
            Some(schedule) => crons.push(settings.cron(name, schedule)),
            None => {
                let text = format!("{name}: {}", by_hand(name, handlers, settings));
                missing.extend(text.lines().map(|line| format!("# {line}\n")));
            }
        }
    }
    if !crons.is_empty() || !missing.is_empty() {
        let list = match crons.is_empty() {
            true => String::new(),
            false => serde_saphyr::to_string(&crons)?,
        };
        documents.push(format!("# cron_triggers.yaml\n{missing}{list}"));
    }
    Ok(documents.join("---\n"))
}

/// Returns the same as one JSON document, in the shape of `export_metadata`.
pub(super) fn as_json(wanted: &Wanted, settings: &Settings) -> Value {
    let schedules = settings.schedules();
    let crons: Vec<_> = wanted
        .crons
        .keys()
        .filter_map(|name| Some(settings.cron(name, schedules.get(name.as_str())?)))
        .collect();
    json!({
        "version": 3,
        "sources": [{
            "name": settings.source,
            "kind": "postgres",
            "tables": tables(wanted, settings),
        }],
        "cron_triggers": crons,
    })
}
