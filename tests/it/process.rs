//! Rows P1–P3, P14 and P17: signals, panics and bad configuration, with the real binary.

use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use hookyard::sandbox::Sandbox;
use http::StatusCode;

use crate::support::{Behaviour, Probe, Process, TestApp, contract_event, probe_event};

#[tokio::test]
async fn p1_sigterm_lets_fifty_events_in_flight_end_and_exits_with_zero() {
    let service = Process::start(&[]).await;
    let hold = service.hold_chargebee(); // upstream answers wait, so that events stay in flight
    let pushes = join_all((0..50).map(|n| {
        let event = contract_event(&format!("p1-{n}"), "signed", "active");
        let service = &service;
        async move { service.push(&event).await.map(|answer| answer.status) }
    }));
    let stopped = async {
        hold.held(50).await;
        service.signal("TERM");
        service.wait_until_closed().await;
        hold.release();
    };
    let (answers, ()) = tokio::join!(pushes, stopped);

    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(StatusCode::OK))),
        "{answers:?}"
    );
    let status = service.wait().await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn p2_what_outlasts_the_grace_is_not_acknowledged_and_applied_once_later() {
    let service = Process::start(&[("SHUTDOWN_GRACE_MS", "200")]).await;
    let event = contract_event("p2", "signed", "active");
    let hold = service.hold_chargebee();
    let stopped = async {
        hold.held(1).await;
        service.signal("TERM");
        service.wait().await
    };
    let (answer, status) = tokio::join!(service.push(&event), stopped);
    assert!(!matches!(answer, Ok(ref answer) if answer.status == StatusCode::OK));
    assert_eq!(status.code(), Some(0));
    hold.release();

    let again = service.restart(&[]).await;
    assert_eq!(again.push(&event).await.unwrap().status, StatusCode::OK);

    assert_eq!(again.effects(), 2, "one in Chargebee, one in Hasura");
}

#[tokio::test]
async fn p3_a_second_signal_exits_at_once_and_not_with_zero() {
    let service = Process::start(&[]).await;
    let hold = service.hold_chargebee();
    let event = contract_event("p3", "signed", "active");
    let stopped = async {
        hold.held(1).await;
        service.signal("TERM");
        service.wait_until_closed().await;
        service.signal("TERM");
        service.wait().await
    };
    let (answer, status) = tokio::join!(service.push(&event), stopped);

    assert!(answer.is_err(), "the connection is cut");
    assert_eq!(status.code(), Some(130));
}

#[tokio::test]
async fn p14_a_panic_is_handed_back_first_and_kept_after_three() {
    let probe = Probe::that(vec![Behaviour::Panic; 3]);
    let app = TestApp::builder().handler(probe.clone()).start().await;

    assert_eq!(
        app.push(&probe_event("p14")).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        app.push(&probe_event("p14")).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(app.push(&probe_event("p14")).await.status, StatusCode::OK);

    let letters = app.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].attribute("hookyard-error-code"), Some("panic"));
    assert_eq!(letters[0].data, probe_event("p14").as_bytes());
}

#[tokio::test]
async fn p14_a_panic_does_not_disturb_other_events() {
    let probe = Probe::that([Behaviour::Panic, Behaviour::Succeed]);
    let app = TestApp::builder().handler(probe.clone()).start().await;

    assert_eq!(
        app.push(&probe_event("p14-a")).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(app.push(&probe_event("p14-b")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn p17_a_bad_configuration_is_refused_with_every_name_and_no_value() {
    let bad = [
        ("PUSH_AUDIENCE", ""),
        ("OIDC_JWKS_URL", "http://keys.example.com/canary-one"),
        (
            "HASURA_GRAPHQL_URL",
            "https://user:canary-two@example.com/v1/graphql",
        ),
        ("ACK_DEADLINE_MS", "1000"),
        ("HANDLER_TIMEOUT_MS", "2000"),
        ("CHARGEBEE_PRODUCT_CATALOG", "canary-three"),
    ];
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_hookyard"))
        .arg("serve")
        .env_clear()
        .envs(bad)
        .stdin(Stdio::null())
        .output();
    let output = tokio::time::timeout(Duration::from_secs(30), output)
        .await
        .unwrap()
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    for name in [
        "PUSH_AUDIENCE",
        "PUSH_SERVICE_ACCOUNT",
        "OIDC_JWKS_URL",
        "HASURA_GRAPHQL_URL",
        "HASURA_ADMIN_SECRET",
        "CHARGEBEE_URL",
        "CHARGEBEE_API_KEY",
        "CHARGEBEE_PRODUCT_CATALOG",
        "HANDLER_TIMEOUT_MS",
        "GOOGLE_CLOUD_PROJECT",
        "EVENTS_TOPIC",
        "DEAD_LETTER_TOPIC",
    ] {
        assert!(text.contains(name), "{name} is not named in:\n{text}");
    }
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn serving_with_a_broker_that_keeps_nothing_is_warned_of() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_hookyard"))
        .arg("serve")
        .env_clear()
        .envs(sandbox.variables())
        .env("PORT", "0")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut lines = tokio::io::AsyncBufReadExt::lines(lines);

    let first = lines.next_line().await.unwrap().unwrap();

    assert!(first.contains("\"severity\":\"WARNING\""), "{first}");
    assert!(first.contains("EVENT_BUS_TYPE is memory"), "{first}");
}
