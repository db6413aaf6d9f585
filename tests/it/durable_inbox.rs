//! The durable inbox: claims, fences, repeats, and what is kept together with a completion.

use std::time::Duration;

use hookyard::error::Result;
use hookyard::pipeline::{Completion, Context, Effects, Handler, Json, Repeated};
use hookyard::store::{Pool, Write};
use http::StatusCode;
use serde::de::IgnoredAny;
use sqlx::AssertSqlSafe;

use crate::support::{
    Behaviour, Probe, TestApp, TestDatabase, both_databases, contract_event, probe_event,
};

both_databases!(
    c1_a_duplicate_is_told_when_and_on_which_try_it_was_done,
    c7_a_duplicate_at_another_instance_has_no_second_effect,
    c9_another_event_under_a_used_id_is_kept_as_a_dead_letter,
    an_operators_redelivery_runs_again_where_the_handler_wants_it,
    repeats_are_recorded_with_their_kind,
    what_a_handler_writes_lasts_only_with_its_completion,
    p13_a_run_whose_claim_was_taken_over_leaves_nothing_behind,
    a_handler_without_effects_elsewhere_runs_once_in_effect_at_two_instances,
    a_failed_try_is_noted_and_the_next_one_counts_on,
    a_permanent_failure_is_kept_with_its_bytes,
    an_event_nobody_takes_is_kept,
);

/// Runs a statement and returns the first column of its rows as text.
pub(crate) async fn rows(database: &TestDatabase, sql: &str) -> Vec<String> {
    let store = database.connect(hookyard::clock::SystemClock::shared());
    let sql = AssertSqlSafe(sql.to_owned());
    match store.pool() {
        Pool::Sqlite { write, .. } => sqlx::query_scalar(sql).fetch_all(write).await.unwrap(),
        Pool::Postgres(pool) => sqlx::query_scalar(sql).fetch_all(pool).await.unwrap(),
    }
}

async fn c1_a_duplicate_is_told_when_and_on_which_try_it_was_done(database: TestDatabase) {
    let probe = Probe::that([Behaviour::FailTransiently, Behaviour::Succeed]);
    let app = TestApp::builder().database(&database).handler(probe);
    let app = app.start().await;
    app.push(&probe_event("told")).await;
    app.push(&probe_event("told")).await;

    let answer = app.push(&probe_event("told")).await;

    assert_eq!(answer.status, StatusCode::OK);
    let words = answer.header("x-hookyard-dedupe").unwrap().to_owned();
    assert!(words.starts_with("done; at=20"), "{words}");
    assert!(words.ends_with("; attempt=2"), "{words}");
}

async fn c7_a_duplicate_at_another_instance_has_no_second_effect(database: TestDatabase) {
    let first = TestApp::builder().database(&database).start().await;
    let second = TestApp::builder().database(&database).start().await;
    let event = contract_event("c7-two", "signed", "active");

    assert_eq!(first.push_as("m1", &event).await.status, StatusCode::OK);
    let answer = second.push_as("m2", &event).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.header("x-hookyard-dedupe").is_some());
    assert_eq!(first.effects().len(), 2);
    assert_eq!(second.upstream_requests(), 0);
}

async fn c9_another_event_under_a_used_id_is_kept_as_a_dead_letter(database: TestDatabase) {
    let app = TestApp::builder().database(&database).start().await;
    let event = contract_event("c9-used", "signed", "active");
    app.push(&event).await;
    let other = event.replace("29700", "11100");
    assert_ne!(event, other);

    assert_eq!(app.push(&other).await.status, StatusCode::OK);

    let sql = "SELECT DISTINCT error_code FROM event_dead_letters WHERE status = 'open'";
    assert_eq!(rows(&database, sql).await, ["id_reuse"]);
}

/// Runs again what an operator has delivered again.
struct Again;

impl Handler for Again {
    const NAME: &'static str = "again";
    const EVENTS: &'static [&'static str] = &["probes.update"];
    const ABOUT: &'static str = "emits nothing, counts in the database";
    const ON_REDELIVERY: Repeated = Repeated::Run;
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, cx: &Context, _: Json<IgnoredAny>) -> Result<Completion> {
        cx.write(note("again"))?;
        Ok(Completion::Done)
    }
}

pub(crate) fn note(action: &'static str) -> Write {
    let sql = "INSERT INTO audit (at, actor, action, target, reason, detail) \
               VALUES (0, 'test', $1, '', '', '{}')";
    Write::new(sql).bind(action)
}

pub(crate) const NOTES: &str = "SELECT action FROM audit WHERE actor = 'test'";

async fn an_operators_redelivery_runs_again_where_the_handler_wants_it(database: TestDatabase) {
    let app = TestApp::builder().database(&database).handler(Again);
    let app = app.manual_clock().start().await;
    let event = probe_event("operator");
    app.push_as("m1", &event).await;
    app.push_as("m2", &event).await;
    assert_eq!(rows(&database, NOTES).await.len(), 1, "a double publish");

    app.clock().advance(Duration::from_secs(31 * 60));
    app.push_as("m3", &event).await;

    assert_eq!(rows(&database, NOTES).await.len(), 2);
    let sql = "SELECT CAST(generation AS TEXT) FROM inbox ORDER BY generation";
    assert_eq!(rows(&database, sql).await, ["0", "1"]);
}

async fn repeats_are_recorded_with_their_kind(database: TestDatabase) {
    let app = TestApp::builder().database(&database).manual_clock();
    let app = app.start().await;
    let event = contract_event("kinds", "signed", "active");
    let retried = event.replace("\"current_retry\":0", "\"current_retry\":1");
    app.push_as("m1", &event).await;
    app.push_as("m1", &event).await;
    app.push_as("m2", &retried).await;
    app.push_as("m3", &event).await;
    app.clock().advance(Duration::from_secs(31 * 60));
    app.push_as("m4", &event).await;
    app.running.app().pipeline().ledger().unwrap().flush().await;

    let sql = "SELECT DISTINCT kind FROM repeats";
    let mut kinds = rows(&database, sql).await;
    kinds.sort();
    let expected = [
        "double_publish",
        "hasura_retry",
        "operator_redelivery",
        "pubsub_redelivery",
    ];
    assert_eq!(kinds, expected);
}

/// Writes, and then does what a probe does.
struct Writes(Probe);

impl Handler for Writes {
    const NAME: &'static str = "writes";
    const EVENTS: &'static [&'static str] = &["probes.update"];
    const ABOUT: &'static str = "writes a row, then does what a test says";
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, cx: &Context, payload: Json<IgnoredAny>) -> Result<Completion> {
        cx.write(note("written"))?;
        self.0.handle(cx, payload).await
    }
}

async fn what_a_handler_writes_lasts_only_with_its_completion(database: TestDatabase) {
    let script = [
        Behaviour::FailTransiently,
        Behaviour::FailForGood,
        Behaviour::Succeed,
    ];
    let handler = Writes(Probe::that(script));
    let app = TestApp::builder().database(&database).handler(handler);
    let app = app.start().await;

    app.push(&probe_event("fails")).await;
    app.push(&probe_event("fails")).await;
    assert!(rows(&database, NOTES).await.is_empty());
    app.push(&probe_event("succeeds")).await;

    assert_eq!(rows(&database, NOTES).await, ["written"]);
}

async fn p13_a_run_whose_claim_was_taken_over_leaves_nothing_behind(database: TestDatabase) {
    let slow = Probe::that([Behaviour::WaitThenSucceed]);
    let builder = TestApp::builder().database(&database);
    let first = builder.handler(Writes(slow.clone())).start().await;
    let quick = Writes(Probe::that([Behaviour::Succeed]));
    let second = TestApp::builder().database(&database).handler(quick);
    let second = second.start().await;
    let event = probe_event("p13");

    let (stale, ()) = tokio::join!(first.push(&event), async {
        slow.wait_for_runs(1).await;
        // As if the first had been stopped for longer than its lease.
        rows(
            &database,
            "UPDATE inbox SET lease_until = 0 RETURNING handler",
        )
        .await;
        assert_eq!(second.push(&event).await.status, StatusCode::OK);
        slow.open();
    });

    assert_eq!(stale.status, StatusCode::OK, "it is a duplicate now");
    assert!(stale.header("x-hookyard-dedupe").is_some());
    assert_eq!(rows(&database, NOTES).await.len(), 1);
}

/// Has its only effect in the transaction.
struct Transactional;

impl Handler for Transactional {
    const NAME: &'static str = "transactional";
    const EVENTS: &'static [&'static str] = &["probes.update"];
    const ABOUT: &'static str = "writes a row";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, cx: &Context, _: Json<IgnoredAny>) -> Result<Completion> {
        cx.write(note("once"))?;
        Ok(Completion::Done)
    }
}

async fn a_handler_without_effects_elsewhere_runs_once_in_effect_at_two_instances(
    database: TestDatabase,
) {
    let app = || {
        TestApp::builder()
            .database(&database)
            .handler(Transactional)
    };
    let (first, second) = (app().start().await, app().start().await);
    for n in 0..20 {
        let event = probe_event(&format!("t-{n}"));
        let (a, b) = tokio::join!(first.push(&event), second.push(&event));
        assert_eq!((a.status, b.status), (StatusCode::OK, StatusCode::OK));
    }
    assert_eq!(rows(&database, NOTES).await.len(), 20);
}

async fn a_failed_try_is_noted_and_the_next_one_counts_on(database: TestDatabase) {
    let probe = Probe::that([Behaviour::FailTransiently, Behaviour::Succeed]);
    let app = TestApp::builder().database(&database).handler(probe);
    let app = app.start().await;

    let answer = app.push(&probe_event("tries")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.push(&probe_event("tries")).await.status, StatusCode::OK);

    let sql = "SELECT error_code FROM failures";
    assert_eq!(rows(&database, sql).await, ["probe_is_busy"]);
    let sql = "SELECT outcome || ' ' || attempt FROM inbox";
    assert_eq!(rows(&database, sql).await, ["done 2"]);
}

async fn a_permanent_failure_is_kept_with_its_bytes(database: TestDatabase) {
    let probe = Probe::that([Behaviour::FailForGood]);
    let app = TestApp::builder().database(&database).handler(probe);
    let app = app.start().await;

    let answer = app.push(&probe_event("lost-cause")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        app.push(&probe_event("lost-cause")).await.status,
        StatusCode::OK
    );

    let sql = "SELECT handler || ' ' || error_code || ' ' || status FROM event_dead_letters";
    assert_eq!(rows(&database, sql).await, ["probe probe_refuses open"]);
    let sql = if database.is_postgres() {
        "SELECT convert_from(original, 'UTF8') FROM event_dead_letters"
    } else {
        "SELECT CAST(original AS TEXT) FROM event_dead_letters"
    };
    assert_eq!(rows(&database, sql).await, [probe_event("lost-cause")]);
}

async fn an_event_nobody_takes_is_kept(database: TestDatabase) {
    let app = TestApp::builder().database(&database).start().await;
    let answer = app.push(&probe_event("nobody")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let sql = "SELECT error_code FROM event_dead_letters";
    assert_eq!(rows(&database, sql).await, ["unrouted"]);
}

mod relayed {
    use super::*;

    both_databases!(u14_what_a_handler_emits_is_published_by_the_relay_in_the_end);

    async fn u14_what_a_handler_emits_is_published_by_the_relay_in_the_end(database: TestDatabase) {
        let app = TestApp::builder().database(&database).start().await;
        let event = contract_event("u14-relay", "signed", "active");
        assert_eq!(app.push(&event).await.status, StatusCode::OK);

        app.wait_for_events(1).await;

        let events = app.events();
        assert_eq!(events[0].event_type, "contract.activated");
        let stateless = TestApp::start().await;
        stateless.push(&event).await;
        let direct = stateless.events();
        assert_eq!(events[0].id, direct[0].id);
        assert_eq!(events[0].data, direct[0].data);
        assert_eq!(events[0].ordering_key, direct[0].ordering_key);
    }
}
