//! `hookyard hasura metadata apply`: nothing before the plan and a yes, nothing deleted.

use serde_json::json;

use crate::hasura_stand_in::StandIn;

const APPLY: [&str; 4] = ["hasura", "metadata", "apply", "--yes"];
const DIFF: [&str; 3] = ["hasura", "metadata", "diff"];

#[tokio::test]
async fn triggers_are_created_and_then_nothing_differs() {
    let hasura = StandIn::tracking(&["contracts", "customers"]).await;

    let applied = hasura.run(&APPLY).await;

    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    assert!(
        applied.out.starts_with("+ contracts_events"),
        "the plan: {}",
        applied.out
    );
    assert!(
        applied
            .out
            .ends_with("applied; 2 triggers created or changed\n")
    );
    let types: Vec<_> = hasura
        .commands()
        .iter()
        .map(|c| c["type"].clone())
        .collect();
    assert_eq!(
        types,
        ["pg_create_event_trigger", "pg_create_event_trigger"]
    );
    assert_eq!(hasura.trigger("contracts")["retry_conf"]["num_retries"], 5);
    assert_eq!(hasura.run(&DIFF).await.code, 0);

    let again = hasura.run(&APPLY).await;
    assert_eq!(again.code, 0);
    assert!(again.out.ends_with("nothing to do\n"), "{}", again.out);
    assert_eq!(hasura.commands().len(), 2);
}

#[tokio::test]
async fn without_a_terminal_and_without_yes_nothing_is_changed() {
    let hasura = StandIn::tracking(&["contracts", "customers"]).await;

    let ended = hasura.run(&APPLY[..3]).await;

    assert_eq!(ended.code, 1);
    assert!(
        ended.out.contains("2 to create"),
        "the plan is shown all the same"
    );
    assert!(ended.err.contains("give --yes"), "{}", ended.err);
    assert!(hasura.commands().is_empty());
}

#[tokio::test]
async fn a_changed_trigger_keeps_what_is_not_ours_to_decide() {
    let hasura = StandIn::tracking(&["contracts", "customers"]).await;
    hasura.run(&APPLY).await;
    hasura.change(|metadata| {
        let trigger = &mut metadata["sources"][0]["tables"][0]["event_triggers"][0];
        trigger["retry_conf"]["num_retries"] = json!(0);
        trigger["definition"]["enable_manual"] = json!(true);
        trigger["definition"]["update"]["payload"] = json!(["id", "status"]);
        trigger["cleanup_config"] = json!({"schedule": "0 0 * * *", "clear_older_than": 168});
        let headers = trigger["headers"].as_array_mut().unwrap();
        headers.push(json!({"name": "x-tenant", "value": "a"}));
    });

    let applied = hasura.run(&APPLY).await;

    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    let change = hasura.commands().pop().unwrap();
    assert_eq!(change["args"]["replace"], true);
    let trigger = hasura.trigger("contracts");
    assert_eq!(trigger["retry_conf"]["num_retries"], 5);
    assert_eq!(trigger["definition"]["enable_manual"], true);
    assert_eq!(
        trigger["definition"]["update"]["payload"],
        json!(["id", "status"])
    );
    assert_eq!(trigger["cleanup_config"]["clear_older_than"], 168);
    assert_eq!(
        trigger["headers"][1],
        json!({"name": "x-tenant", "value": "a"})
    );
}

#[tokio::test]
async fn triggers_of_others_are_left_alone_unless_named() {
    let hasura = StandIn::tracking(&["contracts", "customers"]).await;
    hasura.change(|metadata| {
        metadata["sources"][0]["tables"][0]["event_triggers"] = json!([{
            "name": "contracts_events",
            "definition": {"enable_manual": false, "insert": {"columns": "*"}},
            "retry_conf": {"num_retries": 3, "interval_sec": 10, "timeout_sec": 60},
            "webhook": "https://elsewhere.example.com",
        }]);
    });

    let refused = hasura.run(&APPLY).await;
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("nothing was changed"),
        "{}",
        refused.err
    );
    assert!(hasura.commands().is_empty());

    let named = ["--trigger-name", "contracts=hookyard_contracts"];
    let beside = hasura.run(&[&APPLY[..], &named].concat()).await;
    assert_eq!(beside.code, 0, "{}{}", beside.out, beside.err);
    let metadata = hasura.metadata();
    let triggers = &metadata["sources"][0]["tables"][0]["event_triggers"];
    assert_eq!(triggers[0]["webhook"], "https://elsewhere.example.com");
    assert_eq!(triggers[1]["name"], "hookyard_contracts");

    let again = hasura.run(&DIFF).await;
    assert_eq!(again.code, 0, "ours is found under its name: {}", again.out);
}

#[tokio::test]
async fn a_trigger_without_a_handler_is_reported_and_not_deleted() {
    let hasura = StandIn::tracking(&["contracts", "customers", "old"]).await;
    hasura.change(|metadata| {
        metadata["sources"][0]["tables"][2]["event_triggers"] = json!([{
            "name": "old_events",
            "definition": {"enable_manual": false, "insert": {"columns": "*"}},
            "webhook_from_env": "HOOKYARD_WEBHOOK_URL",
        }]);
    });

    let applied = hasura.run(&APPLY).await;

    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    assert!(applied.out.contains("? old_events"), "{}", applied.out);
    assert_eq!(hasura.trigger("old")["name"], "old_events");
    assert_eq!(hasura.run(&DIFF).await.code, 2, "it still differs");
}

#[tokio::test]
async fn what_hasura_refuses_changes_nothing_and_says_why() {
    let hasura = StandIn::tracking(&["contracts", "customers"]).await;
    hasura.forget_variable("HOOKYARD_WEBHOOK_SECRET");

    let refused = hasura.run(&APPLY).await;

    assert_eq!(refused.code, 1);
    let expected = "(not-exists): environment variable 'HOOKYARD_WEBHOOK_SECRET' not set";
    assert!(refused.err.contains(expected), "{}", refused.err);
    assert!(hasura.commands().is_empty());
    assert_eq!(hasura.run(&DIFF).await.code, 2);
}

#[tokio::test]
async fn a_change_by_somebody_else_is_not_overwritten() {
    let hasura = StandIn::tracking(&["contracts", "customers"]).await;
    hasura.disturb();

    let ended = hasura.run(&APPLY).await;

    assert_eq!(ended.code, 1);
    assert!(
        ended.err.contains("(conflict)") && ended.err.contains("look again"),
        "{}",
        ended.err
    );
    assert!(hasura.commands().is_empty());
}
