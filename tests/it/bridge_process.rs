//! The real binary: `hookyard bridge` and `scripts/refresh-schema.sh`.

use std::fs;
use std::process::Stdio;

use hookyard::sandbox::loopback_client;
use http::StatusCode;
use tempfile::{NamedTempFile, tempdir};
use tokio::process::Command;

use crate::bridge_kit::SECRET;
use crate::hasura_stand_in::{Ended, StandIn, run};
use crate::support::process::listening;
use crate::support::{PATIENCE, contract_event, eventually};

#[tokio::test]
async fn the_bridge_names_everything_it_lacks_and_does_not_start() {
    let ended = run(&["bridge"], &[("EVENT_BUS_TYPE", "pubsub")]).await;

    assert_eq!(ended.code, 1);
    for variable in ["BRIDGE_SECRET: is not set", "BRIDGE_TOPIC: is not set"] {
        assert!(ended.err.contains(variable), "{}", ended.err);
    }
    for not_needed in [
        "CHARGEBEE",
        "HASURA_GRAPHQL_URL",
        "PUSH_AUDIENCE",
        "EVENTS_TOPIC",
    ] {
        assert!(!ended.err.contains(not_needed), "{}", ended.err);
    }
}

#[tokio::test]
async fn p1_the_bridge_serves_and_ends_on_sigterm() {
    let log = NamedTempFile::new().unwrap();
    let mut bridge = Command::new(env!("CARGO_BIN_EXE_hookyard"))
        .arg("bridge")
        .env_clear()
        .env("HOST", "127.0.0.1")
        .env("PORT", "0")
        .env("EVENT_BUS_TYPE", "memory")
        .env("BRIDGE_TOPIC", "hasura-events")
        .env("BRIDGE_SECRET", SECRET)
        .stdin(Stdio::null())
        .stdout(log.reopen().unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let address = listening(&log, &mut bridge).await;
    let client = loopback_client(PATIENCE).unwrap();
    let url = |path: &str| format!("http://{address}{path}");
    let what = || "the bridge did not become ready".to_owned();
    eventually(what, async || {
        let ready = client.get(url("/ready")).send().await;
        ready.is_ok_and(|answer| answer.status() == StatusCode::OK)
    })
    .await;

    let event = contract_event("e1", "signed", "s3cret");
    let webhook = client.post(url("/hasura/events")).body(event);
    let answer = webhook.header("x-hookyard-secret", SECRET).send().await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    let wrong = client.post(url("/hasura/events")).body("s3cret");
    let answer = wrong.header("x-hookyard-secret", "wr0ng").send().await;
    assert_eq!(answer.unwrap().status(), StatusCode::UNAUTHORIZED);

    let pid = bridge.id().unwrap().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(killed.unwrap().success());
    let ended = tokio::time::timeout(PATIENCE, bridge.wait());
    assert_eq!(ended.await.unwrap().unwrap().code(), Some(0));
    let logs = fs::read_to_string(log.path()).unwrap();
    assert!(
        logs.contains("event published") && logs.contains("secret_wrong"),
        "{logs}"
    );
    for secret in ["s3cret", "wr0ng", SECRET] {
        assert!(!logs.contains(secret), "{logs}");
    }
}

async fn refresh(hasura: &StandIn, args: &[&str]) -> Ended {
    let output = Command::new("scripts/refresh-schema.sh")
        .args(args)
        .env("HOOKYARD", env!("CARGO_BIN_EXE_hookyard"))
        .env(
            "HASURA_GRAPHQL_URL",
            format!("http://{}/v1/graphql", hasura.address),
        )
        .env("HASURA_ADMIN_SECRET", crate::hasura_stand_in::SECRET)
        .output()
        .await
        .unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn the_schema_is_refreshed_only_when_the_operations_still_fit() {
    let hasura = StandIn::tracking(&[]).await;
    let schema = fs::read_to_string("graphql/schema.graphql").unwrap();
    let folder = tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let file = folder.path().join("schema.graphql");
    fs::write(&file, &schema).unwrap();
    for name in ["contract_by_id.graphql", "link_subscription.graphql"] {
        fs::copy(format!("graphql/{name}"), folder.path().join(name)).unwrap();
    }

    let differs = refresh(&hasura, &["--check", "--folder", path]).await;
    assert_eq!(differs.code, 2, "{}{}", differs.out, differs.err);
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        schema,
        "nothing is changed"
    );
    let replaced = refresh(&hasura, &["--folder", path]).await;
    assert_eq!(replaced.code, 0, "{}{}", replaced.out, replaced.err);
    let fresh = fs::read_to_string(&file).unwrap();
    assert_ne!(fresh, schema);
    assert_eq!(
        refresh(&hasura, &["--check", "--folder", path]).await.code,
        0
    );

    hasura.set_schema(&schema.replace("  status: String\n", ""));
    let refused = refresh(&hasura, &["--folder", path]).await;
    assert_eq!(refused.code, 2, "{}{}", refused.out, refused.err);
    assert!(
        refused.out.contains("has no field `status`"),
        "{}",
        refused.out
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), fresh);
    assert_eq!(
        refresh(&hasura, &["--force", "--folder", path]).await.code,
        0
    );
    assert!(!fs::read_to_string(&file).unwrap().contains("status"));
}
