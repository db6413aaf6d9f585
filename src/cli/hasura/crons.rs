//! Cron triggers: compared with what Hasura has, or to be created by hand when nobody gives their
//! schedule.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::compare;
use super::metadata::{CronTrigger, Metadata};
use super::plan::{Item, Sign, list};
use super::settings::Settings;

/// Compares what a cron trigger should be with what it is.
pub(super) fn item(
    name: &str,
    handlers: &BTreeSet<&'static str>,
    settings: &Settings,
    metadata: &Metadata,
) -> Item {
    let what = format!("{name} (cron trigger)");
    let schedules = settings.schedules();
    let schedule = schedules.get(name).copied();
    let present = metadata.cron_triggers.iter().find(|cron| cron.name == name);
    let item = |sign, lines, command: Option<Value>| Item {
        sign,
        what: what.clone(),
        lines,
        command,
    };
    let create = |cron: &CronTrigger, replace: bool| {
        let mut args = json!(cron);
        args["replace"] = json!(replace);
        Some(json!({"type": "create_cron_trigger", "args": args}))
    };
    match (present, schedule) {
        (None, None) => item(Sign::Problem, vec![by_hand(name, handlers, settings)], None),
        (None, Some(schedule)) => {
            let line = format!("at {schedule} (UTC), for {}", list(handlers));
            let cron = settings.cron(name, schedule);
            item(Sign::Create, vec![line], create(&cron, false))
        }
        (Some(present), _)
            if !settings.is_ours(&present.webhook)
                && !settings.take_over.iter().any(|taken| taken == name) =>
        {
            let line = format!(
                "it calls something else than {}; give --take-over {name} to replace it",
                settings.webhook_env
            );
            item(Sign::Problem, vec![line], None)
        }
        (Some(present), schedule) => {
            let schedule = schedule.unwrap_or(&present.schedule);
            let should_be = compare::keep_cron(present, settings.cron(name, schedule));
            let lines = compare::cron_triggers(present, &should_be);
            match lines.is_empty() {
                true => item(Sign::Same, lines, None),
                false => item(Sign::Change, lines, create(&should_be, true)),
            }
        }
    }
}

/// Says how to create a cron trigger whose schedule nobody has given.
pub(super) fn by_hand(
    name: &str,
    handlers: &BTreeSet<&'static str>,
    settings: &Settings,
) -> String {
    let template = vec![settings.cron(name, "0 3 * * *")];
    let template = serde_saphyr::to_string(&template).unwrap_or_default();
    format!(
        "not there, but wanted by {}; give --schedule '{name}=0 3 * * *', or put into \
         cron_triggers.yaml:\n{template}",
        list(handlers)
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::hasura::plan::Plan;
    use crate::cli::hasura::wanted::Wanted;
    use crate::cli::output::Paint;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn nightly(flags: &[&str], present: Value) -> Plan {
        let mut wanted = Wanted::default();
        let handlers = BTreeSet::from(["clean_up"]);
        wanted.crons.insert("nightly".to_owned(), handlers);
        let line = Line::parse_from(["x"].iter().chain(flags));
        let metadata = serde_json::from_value(json!({"cron_triggers": present})).unwrap();
        Plan::make(&wanted, &line.settings, &metadata).unwrap()
    }

    const SCHEDULE: [&str; 2] = ["--schedule", "nightly=0 3 * * *"];

    #[test]
    fn a_cron_trigger_without_a_schedule_is_to_be_made_by_hand() {
        let plan = nightly(&[], json!([]));

        assert!(plan.has_problems() && plan.commands().is_empty());
        let text = plan.render(Paint::none());
        assert!(text.contains("--schedule 'nightly=0 3 * * *'"), "{text}");
        assert!(text.contains("    - name: nightly\n"), "{text}");
        assert!(
            text.contains("webhook: \"{{HOOKYARD_WEBHOOK_URL}}\""),
            "{text}"
        );
    }

    #[test]
    fn a_cron_trigger_with_a_schedule_is_created_and_then_the_same() {
        let plan = nightly(&SCHEDULE, json!([]));

        let commands = plan.commands();
        let expected = json!([{"type": "create_cron_trigger", "args": {
            "name": "nightly",
            "webhook": "{{HOOKYARD_WEBHOOK_URL}}",
            "schedule": "0 3 * * *",
            "include_in_metadata": true,
            "retry_conf": {
                "num_retries": 5, "retry_interval_seconds": 10, "timeout_seconds": 60,
                "tolerance_seconds": 21600,
            },
            "headers": [{"name": "x-hookyard-secret", "value_from_env": "HOOKYARD_WEBHOOK_SECRET"}],
            "replace": false,
        }}]);
        assert_eq!(Value::Array(commands.clone()), expected);
        let present = json!([commands[0]["args"]]);
        assert!(nightly(&SCHEDULE, present.clone()).is_done());
        // Whoever gives no schedule leaves the one that is there.
        assert!(nightly(&[], present).is_done());
    }

    #[test]
    fn a_cron_trigger_that_differs_is_replaced_and_keeps_its_payload() {
        let present = json!([{
            "name": "nightly", "webhook": "{{HOOKYARD_WEBHOOK_URL}}", "schedule": "0 4 * * *",
            "include_in_metadata": true, "payload": {"a": 1}, "comment": "why",
        }]);

        let plan = nightly(&SCHEDULE, present);

        let text = plan.render(Paint::none());
        assert!(
            text.contains("schedule: 0 4 * * *, should be 0 3 * * *"),
            "{text}"
        );
        assert!(text.contains("header x-hookyard-secret: missing"), "{text}");
        let args = &plan.commands()[0]["args"];
        assert_eq!(args["replace"], true);
        assert_eq!(
            (&args["payload"]["a"], &args["comment"]),
            (&json!(1), &json!("why"))
        );
    }

    #[test]
    fn cron_triggers_of_others_are_in_the_way_and_ours_without_a_handler_orphans() {
        let present = json!([
            {"name": "nightly", "webhook": "https://elsewhere.example.com", "schedule": "0 3 * * *"},
            {"name": "hourly", "webhook": "{{ HOOKYARD_WEBHOOK_URL }}", "schedule": "0 * * * *"},
            {"name": "other", "webhook": "https://elsewhere.example.com", "schedule": "0 * * * *"},
        ]);

        let plan = nightly(&SCHEDULE, present.clone());

        let signs: Vec<Sign> = plan.items.iter().map(|item| item.sign).collect();
        assert_eq!(signs, [Sign::Problem, Sign::Orphan]);
        assert!(!plan.render(Paint::none()).contains("elsewhere"));
        let taken = [&SCHEDULE[..], &["--take-over", "nightly"]].concat();
        assert_eq!(nightly(&taken, present).commands().len(), 1);
    }
}
