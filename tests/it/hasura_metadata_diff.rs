//! `hookyard hasura metadata export` and `diff`.

use std::fs;

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::hasura_stand_in::{StandIn, run};

const EXPORT: [&str; 3] = ["hasura", "metadata", "export"];
const DIFF: [&str; 3] = ["hasura", "metadata", "diff"];

fn with<'a>(command: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    command.iter().chain(more).copied().collect()
}

/// The event trigger on `contracts` as `export --json` says it.
async fn exported(more: &[&str]) -> Value {
    let ended = run(&with(&EXPORT, &with(&["--json"], more)), &[]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    serde_json::from_str(&ended.out).unwrap()
}

#[tokio::test]
async fn the_export_holds_a_trigger_for_each_table_of_the_handlers() {
    let metadata = exported(&[]).await;

    let tables = metadata["sources"][0]["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 2);
    let expected = json!({
        "table": {"schema": "public", "name": "contracts"},
        "event_triggers": [{
            "name": "contracts_events",
            "definition": {
                "enable_manual": false,
                "insert": {"columns": "*"},
                "update": {"columns": ["status"]},
            },
            "retry_conf": {"num_retries": 5, "interval_sec": 10, "timeout_sec": 60},
            "webhook_from_env": "HOOKYARD_WEBHOOK_URL",
            "headers": [{"name": "x-hookyard-secret", "value_from_env": "HOOKYARD_WEBHOOK_SECRET"}],
        }],
    });
    assert_eq!(tables[0], expected);
}

#[tokio::test]
async fn what_is_exported_is_configurable() {
    let flags = [
        "--source",
        "main",
        "--webhook-env",
        "URL",
        "--secret-env",
        "KEY",
        "--num-retries",
        "9",
        "--interval",
        "3",
        "--timeout",
        "90",
        "--trigger-name",
        "contracts=contract_events",
    ];
    let metadata = exported(&flags).await;

    assert_eq!(metadata["sources"][0]["name"], "main");
    let trigger = &metadata["sources"][0]["tables"][0]["event_triggers"][0];
    assert_eq!(trigger["name"], "contract_events");
    assert_eq!(trigger["webhook_from_env"], "URL");
    assert_eq!(trigger["headers"][0]["value_from_env"], "KEY");
    let retries = json!({"num_retries": 9, "interval_sec": 3, "timeout_sec": 90});
    assert_eq!(trigger["retry_conf"], retries);
}

#[tokio::test]
async fn exported_files_make_a_folder_that_does_not_differ() {
    let ended = run(&EXPORT, &[]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let folder = tempdir().unwrap();
    let mut tables = String::new();
    for document in ended.out.split("---\n") {
        let (path, text) = document.split_once('\n').unwrap();
        let path = folder.path().join(path.strip_prefix("# ").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        tables.push_str(&format!("- \"!include {name}\"\n"));
    }
    let databases = folder.path().join("databases");
    fs::write(databases.join("default/tables/tables.yaml"), tables).unwrap();
    let sources = "- name: default\n  kind: postgres\n  configuration:\n    connection_info:\n      \
                   database_url:\n        from_env: PG\n  tables: \"!include default/tables/tables.yaml\"\n";
    fs::write(databases.join("databases.yaml"), sources).unwrap();
    fs::write(folder.path().join("cron_triggers.yaml"), "[]\n").unwrap();
    let path = folder.path().to_str().unwrap();

    let same = run(&with(&DIFF, &["--folder", path]), &[]).await;
    let other = run(&with(&DIFF, &["--folder", path, "--num-retries", "7"]), &[]).await;

    assert_eq!(same.code, 0, "{}{}", same.out, same.err);
    assert!(
        same.out
            .starts_with("= contracts_events on public.contracts\n"),
        "{}",
        same.out
    );
    assert_eq!(other.code, 2);
    assert!(
        other.out.contains("num_retries: 5, should be 7"),
        "{}",
        other.out
    );
}

#[tokio::test]
async fn folders_that_cannot_be_read_are_errors() {
    let folder = tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let databases = folder.path().join("databases");
    fs::create_dir(&databases).unwrap();
    let cases = [
        ("", "has no source `default`"),
        (
            "- name: default\n  tables: \"!include missing.yaml\"\n",
            "not in the folder",
        ),
        (
            "- name: default\n  tables: \"!include ../../../../etc/hostname\"\n",
            "not in the folder",
        ),
        (
            "- name: default\n  tables: \"!include databases.yaml\"\n",
            "too deeply",
        ),
        ("- [unclosed", "is not YAML"),
        ("- tables: s3cret\n", "not in the shape"),
        ("- name: default\n  kind: bigquery\n", "no event triggers"),
    ];
    let nothing = run(&with(&DIFF, &["--folder", path]), &[]).await;
    assert_eq!(nothing.code, 1);
    for (text, complaint) in cases {
        fs::write(databases.join("databases.yaml"), text).unwrap();
        let ended = run(&with(&DIFF, &["--folder", path]), &[]).await;
        assert_eq!(ended.code, 1, "{text}\n{}", ended.out);
        assert!(ended.err.contains(complaint), "{text}\n{}", ended.err);
        assert!(!ended.err.contains("s3cret"));
    }
}

#[tokio::test]
async fn a_live_hasura_without_triggers_differs() {
    let hasura = StandIn::tracking(&["contracts", "customers", "others"]).await;

    let ended = hasura.run(&DIFF).await;

    assert_eq!(ended.code, 2, "{}", ended.err);
    let expected = "+ contracts_events on public.contracts\n    \
        fires on insert; update of status, for activate_contract, cancel_contract\n\
        + customers_events on public.customers\n    \
        fires on insert; update; delete, for sync_customer\n\
        0 as they should be, 2 to create, 0 to change, 0 in the way, 0 without a handler\n";
    assert_eq!(ended.out, expected);
    assert!(hasura.commands().is_empty());
}

#[tokio::test]
async fn what_cannot_be_compared_is_an_error_and_not_a_difference() {
    let hasura = StandIn::tracking(&[]).await;

    let denied = hasura.run_with(&DIFF, "wrong").await;
    assert_eq!(denied.code, 1);
    assert!(
        denied.err.contains("check HASURA_ADMIN_SECRET"),
        "{}",
        denied.err
    );
    let source = hasura.run(&with(&DIFF, &["--source", "other"])).await;
    assert_eq!(source.code, 1);
    assert!(source.err.contains("it has: default"), "{}", source.err);
    let usage = run(&with(&DIFF, &["--nonsense"]), &[]).await;
    assert_eq!(usage.code, 1);
    let unset = run(&DIFF, &[]).await;
    assert_eq!(unset.code, 1);
    assert!(
        unset.err.contains("HASURA_GRAPHQL_URL: is not set"),
        "{}",
        unset.err
    );
}

#[tokio::test]
async fn every_difference_is_told_and_no_value_that_is_written_out() {
    let hasura = StandIn::tracking(&["contracts", "customers"]).await;
    hasura.change(|metadata| {
        metadata["sources"][0]["tables"][0]["event_triggers"] = json!([{
            "name": "contract_changes",
            "definition": {"enable_manual": false, "update": {"columns": "*"}, "delete": {"columns": "*"}},
            "retry_conf": {"num_retries": 0, "interval_sec": 10},
            "webhook": "{{HOOKYARD_WEBHOOK_URL}}",
            "headers": [{"name": "X-Hookyard-Secret", "value": "s3cret"}],
        }]);
    });

    let ended = hasura.run(&DIFF).await;

    assert_eq!(ended.code, 2, "{}", ended.err);
    let expected = "~ contract_changes on public.contracts\n    \
        insert: does not fire, should\n    \
        update: fires on any column, should on status\n    \
        delete: fires, but no handler takes it\n    \
        header x-hookyard-secret: written out, should be from HOOKYARD_WEBHOOK_SECRET\n    \
        num_retries: 0, should be 5\n";
    assert!(ended.out.starts_with(expected), "{}", ended.out);
    assert!(!ended.out.contains("s3cret"));
}

#[tokio::test]
async fn what_is_in_the_way_and_what_nobody_takes_is_reported() {
    let foreign = json!({
        "name": "contracts_events",
        "definition": {"enable_manual": false, "insert": {"columns": "*"}},
        "retry_conf": {"num_retries": 3, "interval_sec": 10, "timeout_sec": 60},
        "webhook": "https://token@elsewhere.example.com",
    });
    let ours = json!({
        "name": "old_events",
        "definition": {"enable_manual": false, "insert": {"columns": "*"}},
        "retry_conf": {"num_retries": 5, "interval_sec": 10, "timeout_sec": 60},
        "webhook_from_env": "HOOKYARD_WEBHOOK_URL",
    });
    let hasura = StandIn::tracking(&["contracts", "old"]).await;
    hasura.change(|metadata| {
        metadata["sources"][0]["tables"][0]["event_triggers"] = json!([foreign]);
        metadata["sources"][0]["tables"][1]["event_triggers"] = json!([ours]);
    });

    let ended = hasura.run(&DIFF).await;

    assert_eq!(ended.code, 2, "{}", ended.err);
    for line in [
        "! contracts_events on public.contracts\n    it calls something else than HOOKYARD_WEBHOOK_URL; give --take-over contracts_events",
        "! customers_events on public.customers\n    the table is not tracked in source default",
        "? old_events (event trigger on public.old)\n    it calls us, but no handler takes its events",
        r#""type":"pg_delete_event_trigger""#,
        "0 as they should be, 0 to create, 0 to change, 2 in the way, 1 without a handler",
    ] {
        assert!(ended.out.contains(line), "{line}\n\n{}", ended.out);
    }
    assert!(!ended.out.contains("elsewhere"), "{}", ended.out);
    let more = with(&DIFF, &["--take-over", "contracts_events"]);
    let taken = hasura.run(&more).await;
    assert!(
        taken
            .out
            .contains("webhook: written out, should be from HOOKYARD_WEBHOOK_URL")
    );
}

#[tokio::test]
async fn tables_are_found_whatever_their_case() {
    let hasura = StandIn::tracking(&["Contracts", "customers"]).await;

    let ended = hasura.run(&DIFF).await;

    assert!(
        ended
            .out
            .contains("+ contracts_events on public.Contracts\n"),
        "{}",
        ended.out
    );
}
