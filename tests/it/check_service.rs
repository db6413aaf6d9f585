//! `hookyard check` on the Cloud Run service and its door.

use serde_json::json;

use crate::check_case::{Bench, Case, failed, skipped, warned};
use crate::check_world::CANARY;

const CLOUD_RUN: &[Case] = &[
    failed(
        "no such service",
        |w| {
            let path = w.service_path();
            w.answers.remove(&path);
        },
        "Cloud Run",
        "gcloud run services list --project=P",
    ),
    skipped(
        "Cloud Run's API is off",
        |w| {
            let disabled = json!({"error": {"details": [{"reason": "SERVICE_DISABLED"}]}});
            w.answers.insert(w.service_path(), json!([403, disabled]));
        },
        "Cloud Run",
        "gcloud services enable run.googleapis.com --project=P",
    ),
    failed(
        "the last change failed",
        |w| w.service()["terminalCondition"]["state"] = "CONDITION_FAILED".into(),
        "Cloud Run",
        "gcloud run services describe hookyard --project=P --region=europe-west1",
    ),
    failed(
        "Cloud Run gives up first",
        |w| w.service()["template"]["timeout"] = "30s".into(),
        "Cloud Run timeout",
        "--timeout=70",
    ),
    warned(
        "one request per instance",
        |w| w.service()["template"]["maxInstanceRequestConcurrency"] = 1.into(),
        "Cloud Run concurrency",
        "--concurrency=80",
    ),
    warned(
        "more requests than the service takes",
        |w| w.service()["template"]["maxInstanceRequestConcurrency"] = 250.into(),
        "Cloud Run concurrency",
        "--concurrency=80",
    ),
    failed(
        "a secret in plain text",
        |w| {
            let env = &mut w.service()["template"]["containers"][0]["env"];
            let env = env.as_array_mut().unwrap();
            env.retain(|it| it["name"] != "CHARGEBEE_API_KEY");
            env.push(json!({"name": "CHARGEBEE_API_KEY", "value": CANARY}));
        },
        "Cloud Run secrets",
        "--update-secrets=CHARGEBEE_API_KEY=hookyard-chargebee-api-key:latest",
    ),
    failed(
        "an emulator in production",
        |w| {
            let env = &mut w.service()["template"]["containers"][0]["env"];
            let emulator = json!({"name": "PUBSUB_EMULATOR_HOST", "value": "localhost:8085"});
            env.as_array_mut().unwrap().push(emulator);
        },
        "Cloud Run settings",
        "--remove-env-vars=PUBSUB_EMULATOR_HOST",
    ),
    failed(
        "settings the service does not start with",
        |w| {
            let env = &mut w.service()["template"]["containers"][0]["env"];
            env.as_array_mut()
                .unwrap()
                .retain(|it| it["name"] != "PUSH_AUDIENCE");
        },
        "Cloud Run settings",
        "--update-env-vars=PUSH_AUDIENCE=VALUE",
    ),
    warned(
        "settings that differ from ours",
        |w| {
            w.variables.insert("MAX_IN_FLIGHT", "100".to_owned());
        },
        "Cloud Run settings",
        "unset MAX_IN_FLIGHT",
    ),
    failed(
        "verify behind the invoker check",
        |w| w.service()["invokerIamDisabled"] = false.into(),
        "invoker check",
        "--no-invoker-iam-check",
    ),
];

/// In platform mode a warning that it is one stands beside the row that counts.
const PLATFORM: &[Case] = &[
    failed(
        "platform without the invoker check",
        |w| {
            w.platform();
            w.service()["invokerIamDisabled"] = true.into();
        },
        "invoker check",
        "--invoker-iam-check",
    ),
    failed(
        "platform, and everybody may call",
        |w| {
            w.platform();
            let push = format!("serviceAccount:{}", w.push_account);
            w.invokers(&[&push, "allUsers"]);
        },
        "invoker check",
        "gcloud run services remove-iam-policy-binding hookyard --project=P --region=europe-west1 \
         --member=allUsers --role=roles/run.invoker",
    ),
    failed(
        "platform, and the push account may not call",
        |w| {
            w.platform();
            w.invokers(&[]);
        },
        "push account's right to call",
        "gcloud run services add-iam-policy-binding hookyard --project=P --region=europe-west1 \
         --member=serviceAccount:hookyard-push@P.iam.gserviceaccount.com --role=roles/run.invoker",
    ),
    failed(
        "platform, and Cloud Run does not know the audience",
        |w| {
            w.platform();
            w.service()["customAudiences"] = json!([]);
        },
        "custom audience",
        "--add-custom-audiences=hookyard.acme",
    ),
];

#[tokio::test]
async fn each_broken_setting_of_the_service_gives_its_row_and_its_command() {
    let Some(bench) = Bench::start().await else {
        return;
    };
    bench.cases(CLOUD_RUN, &[]).await;
}

#[tokio::test]
async fn each_way_to_open_or_shut_the_door_in_platform_mode_gives_its_row() {
    let Some(bench) = Bench::start().await else {
        return;
    };
    bench.cases(PLATFORM, &["push tokens"]).await;
}
