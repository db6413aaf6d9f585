//! Triggers against handlers, retries, timeouts and the bridge's secret.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::report::{Finding, word};
use super::metadata::{Metadata, Trigger, WholeRow};
use crate::ingress::SECRET_HEADER;
use crate::pipeline::HandlerInfo;

/// Where the bridge takes webhooks.
const BRIDGE_PATH: &str = "/hasura/events";

/// What puts the triggers of our handlers right.
const APPLY: &str = "hookyard hasura metadata apply";

/// The variable a trigger's address is taken from unless `apply` is told another.
const WEBHOOK_ENV: &str = "HOOKYARD_WEBHOOK_URL";

/// Looks at all triggers; rows only for those that have to be mended, and one for the rest.
pub(super) fn judge(
    metadata: &Metadata,
    handlers: &[HandlerInfo],
    bridge: Duration,
) -> Vec<Finding> {
    let triggers = metadata.triggers();
    let mut findings = Vec::new();
    for trigger in &triggers {
        let looks = [
            of_retries(trigger),
            of_timeout(trigger, bridge),
            of_secret(trigger),
            of_handlers(trigger, handlers),
        ];
        let found = looks.into_iter().flatten();
        findings.extend(found.map(|it| it.of(&trigger.name)));
    }
    if findings.is_empty() && !triggers.is_empty() {
        let found = match triggers.len() {
            1 => "1 trigger, set up well".to_owned(),
            count => format!("{count} triggers, set up well"),
        };
        findings.push(Finding::ok("Hasura triggers", found));
    }
    findings.extend(of_unfed_handlers(&triggers, handlers));
    findings
}

/// Writes the command that puts a trigger right: one that does not take its address from the known
/// variable is not touched unless that is said.
fn apply(trigger: &Trigger) -> String {
    match trigger.webhook_env.as_deref() {
        Some(WEBHOOK_ENV) => APPLY.to_owned(),
        Some(other) => format!("{APPLY} --webhook-env={}", word(other)),
        None => format!("{APPLY} --take-over={}", word(&trigger.name)),
    }
}

fn of_retries(trigger: &Trigger) -> Option<Finding> {
    (trigger.retries == 0).then(|| {
        let advice = "Hasura's own default: an event is lost when its one delivery fails and the \
                      answer has no Retry-After, as when nothing answers";
        Finding::failed("trigger's retries", "0", advice).mend(apply(trigger))
    })
}

fn of_timeout(trigger: &Trigger, bridge: Duration) -> Option<Finding> {
    let seconds = trigger.timeout_seconds;
    (Duration::from_secs(seconds) <= bridge).then(|| {
        let advice = format!(
            "BRIDGE_TIMEOUT_MS is {} ms: Hasura gives up and sends again what the bridge is still \
             publishing",
            bridge.as_millis()
        );
        Finding::failed("trigger's timeout", format!("{seconds} s"), advice).mend(apply(trigger))
    })
}

fn of_secret(trigger: &Trigger) -> Option<Finding> {
    const CHECK: &str = "trigger's secret";
    let header = |name: &str| name.eq_ignore_ascii_case(SECRET_HEADER);
    match trigger.headers.iter().find(|it| header(&it.name)) {
        Some(header) if header.value.is_some() => {
            let advice = "whoever may read the metadata can publish any event: take it from \
                          Hasura's environment (value_from_env), and change it";
            let found = "in plain text in the metadata";
            Some(Finding::failed(CHECK, found, advice).mend(apply(trigger)))
        }
        Some(_) => None,
        None => {
            let to_bridge = |url: &String| url.trim_end_matches('/').ends_with(BRIDGE_PATH);
            let found = format!("the header {SECRET_HEADER} is not sent");
            if trigger.webhook.as_ref().is_some_and(to_bridge) {
                let advice = "the bridge answers 401, and no event gets any further";
                return Some(Finding::failed(CHECK, found, advice).mend(apply(trigger)));
            }
            let advice = "if it calls the bridge, every event is answered 401";
            Some(Finding::warning(CHECK, found, advice).mend(apply(trigger)))
        }
    }
}

fn of_handlers(trigger: &Trigger, handlers: &[HandlerInfo]) -> Option<Finding> {
    let taken: BTreeSet<&str> = types(handlers).collect();
    // Invoked by hand, for a look or a repair: no handler has to want that.
    let sent = trigger.types.iter().map(String::as_str);
    let sent = sent.filter(|it| !it.ends_with(".manual"));
    let unwanted: Vec<&str> = sent.filter(|it| !taken.contains(it)).collect();
    (!unwanted.is_empty()).then(|| {
        let found = format!("no handler takes {}", unwanted.join(", "));
        let advice = "such events are carried, counted as unrouted and thrown away: write a \
                      handler, or take the operation off the trigger";
        Finding::warning("trigger's handlers", found, advice).mend("hookyard handlers")
    })
}

/// Finds handlers that wait for table or cron events nobody sends. What comes from elsewhere,
/// domain events and one-off triggers, is not in the metadata.
fn of_unfed_handlers(triggers: &[Trigger], handlers: &[HandlerInfo]) -> Vec<Finding> {
    const CHECK: &str = "handler's triggers";
    let sent: BTreeSet<&str> = triggers
        .iter()
        .flat_map(|trigger| trigger.types.iter().map(String::as_str))
        .collect();
    let mut findings = Vec::new();
    for handler in handlers {
        let wanted = handler.event_types.iter().copied();
        let wanted: Vec<&str> = wanted.filter(|it| comes_from_hasura(it)).collect();
        let missing = wanted.iter().filter(|it| !sent.contains(**it));
        let missing: Vec<&str> = missing.copied().collect();
        if missing.is_empty() {
            continue;
        }
        let found = format!("no trigger sends {}", missing.join(", "));
        let all = missing.len() == handler.event_types.len();
        let finding = if all {
            Finding::failed(CHECK, found, "the handler never runs")
        } else {
            Finding::warning(CHECK, found, "the handler does not run for these")
        };
        findings.push(finding.of(handler.handler).mend(APPLY));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "every handler is fed"));
    }
    findings
}

fn types(handlers: &[HandlerInfo]) -> impl Iterator<Item = &str> {
    handlers
        .iter()
        .flat_map(|handler| handler.event_types.iter().copied())
}

fn comes_from_hasura(event_type: &str) -> bool {
    let op = event_type.rsplit('.').next().unwrap_or_default();
    matches!(op, "insert" | "update" | "delete" | "manual") || event_type.starts_with("cron.")
}

/// Warns of columns that may be of any size in a payload that is not limited.
pub(super) fn payload(whole: &WholeRow, large: &[String]) -> Option<Finding> {
    (!large.is_empty()).then(|| {
        let found = format!("whole rows, with {}", large.join(", "));
        let advice = "an event of more than 10 MB (old and new row together) cannot be published \
                      and is lost: name the columns that handlers need under `payload`";
        Finding::warning("trigger's payload", found, advice)
            .of(&whole.trigger)
            .mend(APPLY)
    })
}
