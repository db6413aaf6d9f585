//! Tells two triggers apart, in words. Values that may be secret are never in them.

use super::metadata::{Columns, CronTrigger, Definition, EventTrigger, Header, Operation, Webhook};

/// What the registry says nothing about and Hasura would forget if it were not sent again.
const KEPT: [&str; 4] = [
    "cleanup_config",
    "request_transform",
    "response_transform",
    "trigger_on_replication",
];

/// The same for cron triggers.
const KEPT_BY_CRONS: [&str; 4] = [
    "payload",
    "comment",
    "request_transform",
    "response_transform",
];

/// Takes over from the present trigger what is not ours to decide: payload columns, more headers,
/// log cleanup, transforms, and that it may be invoked by hand.
pub(super) fn keep(present: &EventTrigger, mut should_be: EventTrigger) -> EventTrigger {
    let definition = &mut should_be.definition;
    let before = &present.definition;
    definition.enable_manual |= before.enable_manual;
    for (operation, before) in [
        (&mut definition.insert, &before.insert),
        (&mut definition.update, &before.update),
        (&mut definition.delete, &before.delete),
    ] {
        if let (Some(operation), Some(before)) = (operation, before) {
            operation.payload.clone_from(&before.payload);
        }
    }
    keep_headers(&present.headers, &mut should_be.headers);
    if present.webhook.variable() == should_be.webhook.variable() {
        should_be.webhook = present.webhook.clone();
    }
    for name in KEPT {
        if let Some(value) = present.rest.get(name) {
            should_be.rest.insert(name.to_owned(), value.clone());
        }
    }
    should_be
}

/// Takes over from the present cron trigger what is not ours to decide.
pub(super) fn keep_cron(present: &CronTrigger, mut should_be: CronTrigger) -> CronTrigger {
    keep_headers(&present.headers, &mut should_be.headers);
    should_be.include_in_metadata = present.include_in_metadata;
    should_be.retry_conf.tolerance_seconds = present.retry_conf.tolerance_seconds;
    for name in KEPT_BY_CRONS {
        if let Some(value) = present.rest.get(name) {
            should_be.rest.insert(name.to_owned(), value.clone());
        }
    }
    should_be
}

fn keep_headers(present: &[Header], should_be: &mut Vec<Header>) {
    for header in present {
        let taken = |other: &Header| other.name.eq_ignore_ascii_case(&header.name);
        if !should_be.iter().any(taken) {
            should_be.push(header.clone());
        }
    }
}

/// Says how a trigger differs from what it should be; nothing when it does not.
pub(super) fn event_triggers(present: &EventTrigger, should_be: &EventTrigger) -> Vec<String> {
    let mut lines = Vec::new();
    let (before, after) = (&present.definition, &should_be.definition);
    for (name, before, after) in [
        ("insert", &before.insert, &after.insert),
        ("update", &before.update, &after.update),
        ("delete", &before.delete, &after.delete),
    ] {
        lines.extend(operation(name, before.as_ref(), after.as_ref()));
    }
    if after.enable_manual && !before.enable_manual {
        lines.push("manual: cannot be invoked, should be".to_owned());
    }
    lines.extend(webhook(&present.webhook, &should_be.webhook));
    lines.extend(headers(&present.headers, &should_be.headers));
    let (before, after) = (present.retry_conf, should_be.retry_conf);
    lines.extend(number("num_retries", before.num_retries, after.num_retries));
    lines.extend(number(
        "interval_sec",
        before.interval_sec,
        after.interval_sec,
    ));
    lines.extend(number("timeout_sec", before.timeout_sec, after.timeout_sec));
    lines
}

/// Says how a cron trigger differs from what it should be.
pub(super) fn cron_triggers(present: &CronTrigger, should_be: &CronTrigger) -> Vec<String> {
    let mut lines = Vec::new();
    if present.schedule != should_be.schedule {
        let (before, after) = (&present.schedule, &should_be.schedule);
        lines.push(format!("schedule: {before}, should be {after}"));
    }
    lines.extend(webhook(&present.webhook, &should_be.webhook));
    lines.extend(headers(&present.headers, &should_be.headers));
    let (before, after) = (present.retry_conf, should_be.retry_conf);
    lines.extend(number("num_retries", before.num_retries, after.num_retries));
    lines.extend(number(
        "retry_interval_seconds",
        before.retry_interval_seconds,
        after.retry_interval_seconds,
    ));
    lines.extend(number(
        "timeout_seconds",
        before.timeout_seconds,
        after.timeout_seconds,
    ));
    lines
}

fn operation(name: &str, before: Option<&Operation>, after: Option<&Operation>) -> Option<String> {
    match (before, after) {
        (None, None) => None,
        (Some(_), None) => Some(format!("{name}: fires, but no handler takes it")),
        (None, Some(_)) => Some(format!("{name}: does not fire, should")),
        // Only updates look at columns.
        (Some(before), Some(after)) if name == "update" && before.columns != after.columns => {
            let (before, after) = (&before.columns, &after.columns);
            Some(format!("{name}: fires on {before}, should on {after}"))
        }
        (Some(_), Some(_)) => None,
    }
}

fn webhook(before: &Webhook, after: &Webhook) -> Option<String> {
    let (before, after) = (before.variable(), after.variable()?);
    let before = match before {
        Some(before) if before == after => return None,
        Some(before) => format!("from {before}"),
        None => "written out".to_owned(),
    };
    Some(format!("webhook: {before}, should be from {after}"))
}

fn headers(before: &[Header], after: &[Header]) -> Vec<String> {
    let mut lines = Vec::new();
    for header in after {
        let Some(variable) = &header.value_from_env else {
            continue;
        };
        let found = before
            .iter()
            .find(|other| other.name.eq_ignore_ascii_case(&header.name));
        let present = match found.map(|found| found.value_from_env.as_ref()) {
            None => "missing".to_owned(),
            Some(None) => "written out".to_owned(),
            Some(Some(other)) if other == variable => continue,
            Some(Some(other)) => format!("from {other}"),
        };
        let name = &header.name;
        lines.push(format!(
            "header {name}: {present}, should be from {variable}"
        ));
    }
    lines
}

fn number(name: &str, before: u32, after: u32) -> Option<String> {
    (before != after).then(|| format!("{name}: {before}, should be {after}"))
}

/// Says on what a trigger fires.
pub(super) fn fires(definition: &Definition) -> String {
    let mut words = Vec::new();
    if definition.insert.is_some() {
        words.push("insert".to_owned());
    }
    match definition.update.as_ref().map(|update| &update.columns) {
        Some(Columns::All(_)) => words.push("update".to_owned()),
        Some(columns @ Columns::Some(_)) => words.push(format!("update of {columns}")),
        None => {}
    }
    if definition.delete.is_some() {
        words.push("delete".to_owned());
    }
    if definition.enable_manual {
        words.push("manual".to_owned());
    }
    words.join("; ")
}
