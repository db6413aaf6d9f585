//! Rows P7 and P10: the database goes away, refuses, is full, and comes back.

use hookyard::store::{Pool, Store};
use http::StatusCode;
use sqlx::AssertSqlSafe;

use crate::support::{Cluster, TestApp, TestDatabase, Town, contract_event, count, eventually};

#[tokio::test]
async fn p7_a_restart_of_postgresql_is_handed_back_and_survived() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let database = cluster.database().await;
    let app = TestApp::builder()
        .database(&database)
        .variable("DATABASE_ACQUIRE_TIMEOUT_MS", "2000")
        .start()
        .await;
    let before = contract_event("p7-before", "signed", "active");
    assert_eq!(app.push(&before).await.status, StatusCode::OK);
    app.wait_for_events(1).await;

    cluster.down();
    let during = contract_event("p7-during", "signed", "active");
    let requests = app.upstream_requests();
    assert_eq!(
        app.push(&during).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(app.upstream_requests(), requests, "nothing without a claim");

    cluster.up();
    push_until_taken(&app, &during).await;
    push_until_taken(&app, &before).await;
    app.wait_for_events(2).await;
    assert_eq!(app.effects().len(), 4);
}

async fn push_until_taken(app: &TestApp, event: &str) {
    let taken = || async { app.push(event).await.status == StatusCode::OK };
    eventually(|| "the event is not taken".to_owned(), taken).await;
}

/// Lets the next statements of a kind on `inbox` fail with an error of PostgreSQL.
async fn fail_next(store: &Store, times: u32, code: &str, on: &str) {
    let Pool::Postgres(pool) = store.pool() else {
        panic!("this needs PostgreSQL");
    };
    let sql = format!(
        "DROP TRIGGER IF EXISTS refuse ON inbox; DROP SEQUENCE IF EXISTS refused; \
         CREATE SEQUENCE refused; \
         CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF nextval('refused') <= {times} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; \
         END IF; RETURN NEW; END $$; \
         CREATE TRIGGER refuse BEFORE {on} ON inbox FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(pool)
        .await
        .unwrap();
}

/// Each error at the claim and at the end of the run; whatever is answered, it is one effect.
async fn refused(codes: &[(&str, &str)]) {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    // What cannot even be given back is free again after its lease.
    let app = TestApp::builder()
        .database(&database)
        .variable("LEASE_MS", "1000")
        .start()
        .await;
    let store = database.store().await;
    let mut events = 0;
    for (code, name) in codes {
        for on in ["INSERT", "UPDATE"] {
            fail_next(&store, 2, code, on).await;
            events += 1;
            let event = contract_event(&format!("{name}-{on}"), "signed", "active");

            push_until_taken(&app, &event).await;

            assert_eq!(app.effects().len(), events * 2, "{name} at {on}");
        }
    }
    app.wait_for_events(events).await;
    let ended = "SELECT COUNT(*) FROM inbox WHERE state = 2";
    let runs = i64::try_from(events * 2).unwrap();
    assert_eq!(count(&store, ended).await, runs);
    assert_eq!(count(&store, "SELECT COUNT(*) FROM inbox").await, runs);
    let letters = "SELECT COUNT(*) FROM event_dead_letters";
    assert_eq!(count(&store, letters).await, 0);
}

#[tokio::test]
async fn p7_what_postgresql_asks_to_repeat_is_repeated() {
    refused(&[("40001", "serialization"), ("40P01", "deadlock")]).await;
}

#[tokio::test]
async fn p7_what_postgresql_refuses_for_the_moment_is_handed_back() {
    refused(&[
        ("57014", "statement-timeout"),
        ("53300", "too-many-connections"),
        ("25006", "read-only"),
        ("57P01", "shutdown"),
    ])
    .await;
}

#[tokio::test]
async fn p10_a_full_disk_of_postgresql_is_handed_back() {
    refused(&[("53100", "disk-full")]).await;
}

#[tokio::test]
async fn p10_a_full_disk_under_sqlite_is_handed_back_and_over_when_there_is_room() {
    let town = Town::on(TestDatabase::sqlite()).await;
    let instance = town.start_that_may_hit_limits().await;
    let before = contract_event("p10-before", "signed", "active");
    assert_eq!(town.push(&instance, &before).await, Some(200));
    town.wait_until_relayed().await;

    // No file may grow past its first bytes: every write to the database fails.
    instance.limit_files("4096").await.unwrap();
    let during = contract_event("p10-during", "signed", "active");
    assert_eq!(town.push(&instance, &during).await, Some(503));
    assert_eq!(town.effects(), (1, 1));

    instance.limit_files("unlimited").await.unwrap();
    town.push_until_taken(&instance, &during).await;
    town.wait_for_published(2).await;
    assert_eq!(town.effects(), (2, 2));
}
