//! Rows C8 and P18: without its database the service takes nothing in, says so, and recovers.

use hookyard::app::App;
use hookyard::sandbox::Sandbox;
use http::StatusCode;
use serde_json::json;

use crate::support::{TestApp, TestDatabase, contract_event, eventually, execute};

/// Waits until `/ready` says this.
async fn not_ready_because(app: &TestApp, reason: &str) {
    let expected = json!({"status": "not_ready", "reason": reason});
    eventually(
        || format!("ready to say {reason}"),
        async || {
            let answer = app.get("/ready").await;
            answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.json() == expected
        },
    )
    .await;
}

/// Pushes until it is taken: a service this hasty may find the database slow once more.
async fn taken(app: &TestApp, event: &str) {
    let ok = async || app.push(event).await.status == StatusCode::OK;
    eventually(|| "the event is not taken".to_owned(), ok).await;
}

#[tokio::test]
async fn p18_a_service_started_before_its_database_takes_nothing_in_until_it_is_there() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (line, url) = database.line().await;
    line.go_down();
    let app = TestApp::builder().variable("DATABASE_URL", url);
    let app = app
        .variable("DATABASE_ACQUIRE_TIMEOUT_MS", "1000")
        .launch()
        .await;
    let event = contract_event("p18", "signed", "active");

    assert_eq!(app.get("/health").await.status, StatusCode::OK);
    not_ready_because(&app, "the database does not answer").await;
    let refused = app.push(&event).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.upstream_requests(), 0);

    line.go_up();
    app.wait_until_ready().await;
    taken(&app, &event).await;
    assert_eq!(app.effects().len(), 2);
}

#[tokio::test]
async fn c8_an_event_whose_claim_cannot_be_kept_has_no_effect() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (line, url) = database.line().await;
    let app = TestApp::builder().variable("DATABASE_URL", url);
    let app = app
        .variable("DATABASE_ACQUIRE_TIMEOUT_MS", "1000")
        .start()
        .await;

    line.go_down();
    let event = contract_event("c8", "signed", "active");
    let refused = app.push(&event).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(app.upstream_requests(), 0);
    not_ready_because(&app, "the database does not answer").await;
    let metrics = app.get("/metrics").await.text();
    assert!(metrics.contains("hookyard_database_up{kind=\"postgres\"} 0"));

    line.go_up();
    app.wait_until_ready().await;
    taken(&app, &event).await;
    assert_eq!(app.effects().len(), 2);
    let metrics = app.get("/metrics").await.text();
    assert!(metrics.contains("hookyard_database_up{kind=\"postgres\"} 1"));
    assert!(metrics.contains("hookyard_database_connections{state=\"idle\"}"));
}

#[tokio::test]
async fn p18_tables_that_somebody_else_makes_are_waited_for() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let app = TestApp::builder()
        .database(&database)
        .variable("MIGRATE_ON_START", "false")
        .launch()
        .await;
    not_ready_because(&app, "the database has no tables; run `hookyard migrate`").await;

    database.store().await;

    app.wait_until_ready().await;
}

#[tokio::test]
async fn p18_a_database_that_does_not_exist_is_a_mistake_and_not_an_outage() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let url = format!("{}_absent", database.url());
    let sandbox = Sandbox::builder().variable("DATABASE_URL", url);
    let sandbox = sandbox.start().await.unwrap();

    let app = App::builder().config(sandbox.config().unwrap());
    let refused = app.build().await.err().unwrap().to_string();

    assert!(refused.contains("no_such_database"), "{refused}");
    assert!(!refused.contains("_absent"), "{refused}");
}

#[tokio::test]
async fn p18_a_sqlite_file_that_cannot_be_made_is_told() {
    let url = "sqlite:///proc/nowhere/hookyard.db";
    let app = TestApp::builder()
        .variable("DATABASE_URL", url)
        .launch()
        .await;
    not_ready_because(&app, "the database does not answer").await;
    let event = contract_event("p18-sqlite", "signed", "active");
    let refused = app.push(&event).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.upstream_requests(), 0);
}

#[tokio::test]
async fn p18_tables_of_an_older_program_are_told() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let store = database.store().await;
    let last = "(SELECT MAX(version) FROM _sqlx_migrations)";
    let older = format!("DELETE FROM _sqlx_migrations WHERE version = {last}");
    execute(&store, &older).await;
    let app = TestApp::builder()
        .database(&database)
        .variable("MIGRATE_ON_START", "false")
        .launch()
        .await;

    not_ready_because(
        &app,
        "the database has older tables; run `hookyard migrate`",
    )
    .await;
}

#[tokio::test]
async fn p18_tables_of_a_newer_program_are_worked_with() {
    for migrate in ["true", "false"] {
        let Some(database) = TestDatabase::postgres().await else {
            return;
        };
        let store = database.store().await;
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, \
            execution_time) VALUES (9999, 'newer', TRUE, '', 0)";
        execute(&store, newer).await;

        let app = TestApp::builder()
            .database(&database)
            .variable("MIGRATE_ON_START", migrate)
            .start()
            .await;

        let event = contract_event("p18-newer", "signed", "active");
        assert_eq!(app.push(&event).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn p18_a_copy_that_cannot_be_written_to_is_not_ready() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let store = database.store().await;
    let read_only = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET \
        default_transaction_read_only = on', current_database()); END $$";
    execute(&store, read_only).await;
    let app = TestApp::builder()
        .database(&database)
        .variable("MIGRATE_ON_START", "false")
        .launch()
        .await;

    not_ready_because(&app, "the database cannot be written to").await;
}
