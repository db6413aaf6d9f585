//! Row P8, X12: the connection to PostgreSQL is cut at every moment, after COMMIT was sent too.

use hookyard::sandbox::CutAfter;
use http::StatusCode;

use crate::support::{TestApp, TestDatabase, contract_event, count, eventually};

/// Messages to PostgreSQL that one event can take at most, its relay included.
const MESSAGES: u64 = 30;

/// Delivers until it is acknowledged.
async fn taken(app: &TestApp, event: &str) {
    let ok = async || app.push(event).await.status == StatusCode::OK;
    eventually(|| "the event is not taken".to_owned(), ok).await;
}

/// Cuts the connection at one moment after the other, and delivers until it is acknowledged.
async fn cut(after: CutAfter, moments: u64) {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (line, url) = database.line().await;
    let app = TestApp::builder()
        .variable("DATABASE_URL", url)
        .variable("LEASE_MS", "500")
        .start()
        .await;

    for moment in 0..moments {
        let cuts = line.cuts();
        line.cut_once(after, moment);
        let event = contract_event(&format!("p8-{moment}"), "signed", "active");
        // Without an answer of PostgreSQL it is not known whether the claim or the end was kept.
        taken(&app, &event).await;
        let expected = (usize::try_from(moment).unwrap() + 1) * 2;
        assert_eq!(
            app.effects().len(),
            expected,
            "cut {} at {moment}",
            line.cuts() - cuts
        );
    }

    assert!(line.cuts() >= moments / 4, "only {} cuts", line.cuts());
    let (events, rows) = (
        usize::try_from(moments).unwrap(),
        i64::try_from(moments).unwrap(),
    );
    app.wait_for_events(events).await;
    let store = database.store().await;
    // The one that activates contracts, and the one that cancels them and had nothing to do.
    let ended = "SELECT COUNT(*) FROM inbox WHERE state = 2";
    assert_eq!(count(&store, ended).await, rows * 2);
    assert_eq!(count(&store, "SELECT COUNT(*) FROM outbox").await, rows);
}

#[tokio::test]
async fn p8_a_commit_whose_answer_is_lost_is_looked_up_and_not_done_again() {
    cut(CutAfter::Commit, 8).await;
}

#[tokio::test]
async fn p8_a_connection_cut_at_any_message_leaves_one_effect() {
    cut(CutAfter::Anything, MESSAGES).await;
}

#[tokio::test]
async fn x12_an_instance_cut_from_postgresql_hands_back_without_effect() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (line, url) = database.line().await;
    let app = TestApp::builder()
        .variable("DATABASE_URL", url)
        .variable("DATABASE_ACQUIRE_TIMEOUT_MS", "500")
        .start()
        .await;
    line.go_down();
    let event = contract_event("x12", "signed", "active");

    assert_eq!(
        app.push(&event).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(app.upstream_requests(), 0);

    line.go_up();
    taken(&app, &event).await;
    assert_eq!(app.effects().len(), 2);
}
