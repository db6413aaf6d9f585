//! `hookyard check` on Hasura's triggers, our operations, Chargebee and limits.

use serde_json::json;

use crate::check_case::{Bench, Case, failed, skipped, warned};
use crate::check_world::CANARY;

const HASURA: &[Case] = &[
    failed(
        "a trigger that never tries again",
        |w| w.trigger()["retry_conf"]["num_retries"] = 0.into(),
        "trigger's retries",
        "hookyard hasura metadata apply --take-over=contract_events",
    ),
    failed(
        "a trigger without retry settings",
        |w| {
            w.trigger().as_object_mut().unwrap().remove("retry_conf");
        },
        "trigger's retries",
        "hookyard hasura metadata apply",
    ),
    failed(
        "a trigger that gives up before the bridge",
        |w| w.trigger()["retry_conf"]["timeout_sec"] = 30.into(),
        "trigger's timeout",
        "hookyard hasura metadata apply",
    ),
    failed(
        "a trigger without the secret",
        |w| w.trigger()["headers"] = json!([]),
        "trigger's secret",
        "hookyard hasura metadata apply",
    ),
    warned(
        "a trigger without the secret, to an unknown address",
        |w| {
            w.trigger()["headers"] = json!([]);
            w.trigger().as_object_mut().unwrap().remove("webhook");
            w.trigger()["webhook_from_env"] = "BRIDGE_EVENTS_URL".into();
        },
        "trigger's secret",
        "hookyard hasura metadata apply --webhook-env=BRIDGE_EVENTS_URL",
    ),
    failed(
        "a secret in the metadata",
        |w| {
            w.trigger()["headers"] = json!([{"name": "X-Hookyard-Secret", "value": CANARY}]);
        },
        "trigger's secret",
        "hookyard hasura metadata apply",
    ),
    warned(
        "a trigger nobody waits for",
        |w| w.trigger()["definition"]["delete"] = json!({"columns": "*"}),
        "trigger's handlers",
        "hookyard handlers",
    ),
    warned(
        "a cron trigger nobody waits for",
        |w| {
            w.metadata["cron_triggers"] = json!([{
                "name": "nightly", "webhook": "{{BRIDGE_URL}}/hasura/events", "schedule": "0 0 * * *",
                "headers": [{"name": "x-hookyard-secret", "value_from_env": "BRIDGE_SECRET"}],
                "retry_conf": {"num_retries": 3, "timeout_seconds": 60},
            }]);
        },
        "trigger's handlers",
        "hookyard handlers",
    ),
    warned(
        "a handler that gets only some of its events",
        |w| {
            let tables = w.metadata["sources"][0]["tables"].as_array_mut().unwrap();
            let definition = &mut tables[1]["event_triggers"][0]["definition"];
            definition.as_object_mut().unwrap().remove("delete");
        },
        "handler's triggers",
        "hookyard hasura metadata apply",
    ),
    failed(
        "a handler that gets nothing",
        |w| {
            let tables = w.metadata["sources"][0]["tables"].as_array_mut().unwrap();
            tables[1].as_object_mut().unwrap().remove("event_triggers");
        },
        "handler's triggers",
        "hookyard hasura metadata apply",
    ),
    warned(
        "payloads of any size",
        |w| {
            w.schema = w.schema.replace(
                "amount_cents: bigint",
                "amount_cents: bigint\n  scan: jsonb",
            )
        },
        "trigger's payload",
        "hookyard hasura metadata apply",
    ),
    skipped(
        "metadata is not served",
        |w| {
            w.answers
                .insert("/hasura/v1/metadata".to_owned(), 404.into());
        },
        "Hasura triggers",
        "",
    ),
    failed(
        "an operation on a column that is gone",
        |w| {
            w.schema =
                w.schema
                    .replacen("chargebee_subscription_id: String\n  status", "status", 1);
        },
        "Hasura operations",
        "hookyard hasura operations --live",
    ),
    failed(
        "an operation with a key of another type",
        |w| {
            w.schema = w
                .schema
                .replace("contracts_by_pk(id: uuid!)", "contracts_by_pk(id: bigint!)")
        },
        "Hasura operations",
        "hookyard hasura operations --live",
    ),
    failed(
        "a role that may not set a column",
        |w| {
            let (head, tail) = w.schema.split_once("input contracts_set_input").unwrap();
            let tail = tail.replace("chargebee_subscription_id: String\n", "");
            w.role_schema = Some(format!("{head}input contracts_set_input{tail}"));
            w.variables.insert("HASURA_ROLE", "billing".to_owned());
        },
        "Hasura operations",
        "hookyard hasura operations --live",
    ),
    failed(
        "a role that may change nothing",
        |w| {
            w.role_schema = Some(w.schema.replace("  mutation: mutation_root\n", ""));
            w.variables.insert("HASURA_ROLE", "billing".to_owned());
        },
        "Hasura operations",
        "hookyard hasura operations --live",
    ),
];

const UPSTREAMS_AND_LIMITS: &[Case] = &[
    failed(
        "the other product catalogue",
        |w| {
            let refusal =
                json!({"api_error_code": "configuration_incompatible", "message": CANARY});
            let items = "/chargebee/api/v2/items".to_owned();
            w.answers.insert(items, json!([400, refusal]));
        },
        "Chargebee catalogue",
        "--region=europe-west1 --update-env-vars=CHARGEBEE_PRODUCT_CATALOG=1",
    ),
    warned(
        "a time budget without a margin",
        |w| w.set("HANDLER_TIMEOUT_MS", "58000"),
        "time budget",
        "--update-env-vars=HANDLER_TIMEOUT_MS=55000",
    ),
    warned(
        "bodies smaller than a push may be",
        |w| {
            w.set("MAX_BODY_BYTES", "1000000");
        },
        "payload size",
        "--update-env-vars=MAX_BODY_BYTES=14680064",
    ),
    skipped(
        "a secret only the service has",
        |w| {
            w.variables.remove("CHARGEBEE_API_KEY");
        },
        "Chargebee",
        "export CHARGEBEE_API_KEY=\"$(gcloud secrets versions access latest \
         --secret=hookyard-chargebee-api-key --project=P)\"",
    ),
];

#[tokio::test]
async fn each_trigger_and_operation_that_does_not_fit_gives_its_row_and_its_command() {
    let Some(bench) = Bench::start().await else {
        return;
    };
    bench.cases(HASURA, &[]).await;
}

#[tokio::test]
async fn limits_and_upstreams_give_their_rows_and_their_commands() {
    let Some(bench) = Bench::start().await else {
        return;
    };
    bench.cases(UPSTREAMS_AND_LIMITS, &[]).await;
}
