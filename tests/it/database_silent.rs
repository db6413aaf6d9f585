//! Row P7: connections to the database that stay open and say nothing any more.

use std::time::Duration;

use hookyard::clock::SystemClock;
use http::StatusCode;
use serde_json::json;

use crate::admin_access::operator;
use crate::support::hands::{left, until};
use crate::support::rows::EventRow;
use crate::support::{TestApp, TestDatabase, contract_event, eventually};

async fn taken_again(variables: &[(&'static str, &str)]) {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (line, url) = database.line().await;
    let mut app = TestApp::builder()
        .variable("DATABASE_URL", url)
        .variable("DATABASE_MAX_CONNECTIONS", "5")
        .variable("DATABASE_ACQUIRE_TIMEOUT_MS", "1000")
        .variable("DATABASE_STATEMENT_TIMEOUT_MS", "500")
        .variable("ENABLE_POLLING", "true")
        .variable("POLL_INTERVAL_MS", "100")
        .variable("LEASE_MS", "1000");
    for (name, value) in variables {
        app = app.variable(name, *value);
    }
    let app = app.start().await;
    let store = database.connect(SystemClock::shared());
    for n in 0..2 {
        let event = contract_event(&format!("p7-silent-{n}"), "signed", "active");
        let taken = async || app.push(&event).await.status == StatusCode::OK;
        eventually(|| format!("event {n} is not taken"), taken).await;
        app.wait_for_events(n + 1).await;
        EventRow::new("nobody.cares").insert(&store).await;
        until("rows are worked off", async || left(&store).await == 0).await;

        line.hush();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whoever asks the desk gets an answer, and not for ever none.
#[tokio::test]
async fn p7_the_desk_does_not_wait_for_connections_that_fall_silent() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (line, url) = database.line().await;
    let app = TestApp::builder()
        .variable("DATABASE_URL", url)
        .variable("DATABASE_MAX_CONNECTIONS", "5")
        .variable("DATABASE_ACQUIRE_TIMEOUT_MS", "300")
        .variable("DATABASE_STATEMENT_TIMEOUT_MS", "200")
        .start()
        .await;
    app.wait_until_ready().await;
    let operator = operator(&app);
    let preview = json!({"dry_run": true, "all": true});
    let process = json!({"event_id": uuid::Uuid::new_v4()});
    for (path, body) in [
        ("/status", None),
        ("/audit", None),
        ("/explain/x", None),
        ("/dead-letters", None),
        ("/dead-letters/groups", None),
        ("/redrives", None),
        ("/dead-letters/redrive", Some(&preview)),
        ("/process-event", Some(&process)),
    ] {
        let ask = async || match body {
            None => operator.get(path).await,
            Some(body) => operator.post(path, body).await,
        };
        ask().await;
        line.hush();
        let answer = tokio::time::timeout(Duration::from_secs(60), ask()).await;
        let answer = answer.unwrap_or_else(|_| panic!("{path}: no answer"));
        // A connection that was idle for a second was looked at first, and replaced.
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            let code = &answer.json()["error"]["code"];
            assert_eq!(code, "database_unavailable", "{path}");
            assert!(answer.header("retry-after").is_some(), "{path}");
        } else {
            assert!(answer.status.as_u16() < 500, "{path}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn p7_connections_that_fall_silent_are_given_up() {
    taken_again(&[]).await;
}

#[tokio::test]
async fn p7_connections_that_fall_silent_are_given_up_by_who_keeps_events_too() {
    taken_again(&[("RETRY_OWNER", "self")]).await;
}
