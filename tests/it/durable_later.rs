//! Handlers whose effects are known: claimed when they reach out, or never.

use std::time::Duration;

use hookyard::error::Result;
use hookyard::pipeline::{Completion, Context, Effects, Handler, Json, Repeated};
use http::StatusCode;
use serde::de::IgnoredAny;

use crate::durable_inbox::{NOTES, note, rows};
use crate::support::{Behaviour, Probe, TestApp, TestDatabase, both_databases, probe_event};

both_databases!(
    an_event_is_claimed_when_its_handler_reaches_out,
    a_duplicate_at_another_instance_does_not_reach_out,
    a_skipped_event_is_ended_without_a_claim_and_its_duplicate_is_told,
    of_two_instances_one_reaches_out,
    an_operators_redelivery_runs_again_wherever_the_effects_are,
    a_run_that_reached_out_and_was_taken_over_leaves_nothing_behind,
    failures_before_reaching_out_are_noted_and_kept,
);

const STATES: &str = "SELECT CAST(state AS TEXT) FROM inbox";

/// Does what one probe does, reaches out, and does what the other does.
#[derive(Clone)]
struct Reaching {
    before: Probe,
    after: Probe,
}

impl Reaching {
    fn that(before: Behaviour, after: Behaviour) -> Self {
        Self {
            before: Probe::that([before; 40]),
            after: Probe::that([after; 40]),
        }
    }

    async fn start(&self, database: &TestDatabase) -> TestApp {
        let app = TestApp::builder().database(database).handler(self.clone());
        app.start().await
    }
}

impl Handler for Reaching {
    const NAME: &'static str = "reaching";
    const EVENTS: &'static [&'static str] = &["probes.update"];
    const ABOUT: &'static str = "reaches out between two things a test says";
    const EFFECTS: Effects = Effects::Calls;
    const ON_REDELIVERY: Repeated = Repeated::Run;
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, cx: &Context, payload: Json<IgnoredAny>) -> Result<Completion> {
        cx.write(note("reached"))?;
        self.before.handle(cx, payload).await?;
        cx.call().gate.passed().await;
        self.after.handle(cx, payload).await
    }
}

async fn an_event_is_claimed_when_its_handler_reaches_out(database: TestDatabase) {
    let reaching = Reaching::that(Behaviour::WaitThenSucceed, Behaviour::WaitThenSucceed);
    let app = reaching.start(&database).await;
    let event = probe_event("reaches");

    let (answer, ()) = tokio::join!(app.push(&event), async {
        reaching.before.wait_for_runs(1).await;
        assert!(rows(&database, STATES).await.is_empty());
        reaching.before.open();
        reaching.after.wait_for_runs(1).await;
        assert_eq!(rows(&database, STATES).await, ["1"]);
        reaching.after.open();
    });

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(rows(&database, STATES).await, ["2"]);
    assert_eq!(rows(&database, NOTES).await, ["reached"]);
}

async fn a_duplicate_at_another_instance_does_not_reach_out(database: TestDatabase) {
    let (one, other) = (quick(), quick());
    let (first, second) = (one.start(&database).await, other.start(&database).await);
    let event = probe_event("reached-already");
    first.push(&event).await;

    let answer = second.push(&event).await;

    assert_eq!(answer.status, StatusCode::OK);
    let words = answer.header("x-hookyard-dedupe").unwrap();
    assert!(words.starts_with("done; at="), "{words}");
    assert_eq!((other.before.runs(), other.after.runs()), (1, 0));
    assert_eq!(rows(&database, NOTES).await, ["reached"]);
    // The other instance remembers it now, and does not even begin.
    second.push(&event).await;
    assert_eq!(other.before.runs(), 1);
}

fn quick() -> Reaching {
    Reaching::that(Behaviour::Succeed, Behaviour::Succeed)
}

/// Finds nothing to do.
struct Skips;

impl Handler for Skips {
    const NAME: &'static str = "skips";
    const EVENTS: &'static [&'static str] = &["probes.update"];
    const ABOUT: &'static str = "finds nothing to do";
    const EFFECTS: Effects = Effects::Calls;
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, _: &Context, _: Json<IgnoredAny>) -> Result<Completion> {
        Ok(Completion::Skipped("nothing to do"))
    }
}

async fn a_skipped_event_is_ended_without_a_claim_and_its_duplicate_is_told(
    database: TestDatabase,
) {
    let app = || TestApp::builder().database(&database).handler(Skips);
    let (first, second) = (app().start().await, app().start().await);
    let event = probe_event("skipped");

    assert_eq!(first.push_as("m1", &event).await.status, StatusCode::OK);
    let answer = second.push_as("m2", &event).await;

    assert!(answer.header("x-hookyard-dedupe").is_some());
    // Begun and ended by one statement.
    let sql = "SELECT outcome || ' ' || reason || ' ' || attempt || ' ' || \
        CASE WHEN started_at = ended_at THEN 'at once' ELSE 'claimed' END FROM inbox";
    let ended = rows(&database, sql).await;
    assert_eq!(ended, ["skipped nothing to do 1 at once"]);
    let third = app().start().await;
    third
        .push(&event.replace("\"new\":{}", "\"new\":{\"n\":1}"))
        .await;
    let sql = "SELECT error_code FROM event_dead_letters";
    assert_eq!(rows(&database, sql).await, ["id_reuse"]);
}

async fn of_two_instances_one_reaches_out(database: TestDatabase) {
    let (one, other) = (quick(), quick());
    let (first, second) = (one.start(&database).await, other.start(&database).await);
    for n in 0..20 {
        let event = probe_event(&format!("race-{n}"));
        let (a, b) = tokio::join!(first.push(&event), second.push(&event));
        assert_eq!((a.status, b.status), (StatusCode::OK, StatusCode::OK));
    }
    assert_eq!(one.after.runs() + other.after.runs(), 20);
    assert_eq!(rows(&database, NOTES).await.len(), 20);
}

/// Runs again what an operator has delivered again; has its only effect in the transaction.
struct Writes;

impl Handler for Writes {
    const NAME: &'static str = "writes_again";
    const EVENTS: &'static [&'static str] = &["probes.update"];
    const ABOUT: &'static str = "writes a row";
    const EFFECTS: Effects = Effects::Transaction;
    const ON_REDELIVERY: Repeated = Repeated::Run;
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, cx: &Context, _: Json<IgnoredAny>) -> Result<Completion> {
        cx.write(note("written"))?;
        Ok(Completion::Done)
    }
}

async fn an_operators_redelivery_runs_again_wherever_the_effects_are(database: TestDatabase) {
    let reaching = quick();
    let app = TestApp::builder()
        .database(&database)
        .handler(reaching.clone())
        .handler(Writes);
    let app = app.manual_clock().start().await;
    let event = probe_event("operator");
    app.push_as("m1", &event).await;
    app.clock().advance(Duration::from_secs(31 * 60));

    let answer = app.push_as("m2", &event).await;

    assert_eq!(answer.status, StatusCode::OK);
    let mut notes = rows(&database, NOTES).await;
    notes.sort();
    assert_eq!(notes, ["reached", "reached", "written", "written"]);
    assert_eq!(reaching.after.runs(), 2);
    let sql = "SELECT handler || ' ' || generation || ' ' || state FROM inbox \
        ORDER BY handler, generation";
    assert_eq!(
        rows(&database, sql).await,
        [
            "reaching 0 2",
            "reaching 1 2",
            "writes_again 0 2",
            "writes_again 1 2"
        ]
    );
}

async fn a_run_that_reached_out_and_was_taken_over_leaves_nothing_behind(database: TestDatabase) {
    let slow = Reaching::that(Behaviour::Succeed, Behaviour::WaitThenSucceed);
    let (first, second) = (slow.start(&database).await, quick().start(&database).await);
    let event = probe_event("taken-over");

    let (stale, ()) = tokio::join!(first.push(&event), async {
        slow.after.wait_for_runs(1).await;
        // As if the first had been stopped for longer than its lease.
        let sql = "UPDATE inbox SET lease_until = 0 RETURNING handler";
        rows(&database, sql).await;
        assert_eq!(second.push(&event).await.status, StatusCode::OK);
        slow.after.open();
    });

    assert_eq!(stale.status, StatusCode::OK, "it is a duplicate now");
    assert!(stale.header("x-hookyard-dedupe").is_some());
    assert_eq!(rows(&database, NOTES).await.len(), 1);
}

async fn failures_before_reaching_out_are_noted_and_kept(database: TestDatabase) {
    let mut reaching = quick();
    reaching.before = Probe::that([Behaviour::FailTransiently, Behaviour::FailForGood]);
    let app = reaching.start(&database).await;
    let event = probe_event("fails-early");

    let answer = app.push(&event).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.push(&event).await.status, StatusCode::OK);

    let sql = "SELECT error_code FROM failures";
    assert_eq!(rows(&database, sql).await, ["probe_is_busy"]);
    assert_eq!(rows(&database, STATES).await, ["3"]);
    let sql = "SELECT status FROM event_dead_letters";
    assert_eq!(rows(&database, sql).await, ["open"]);
    assert_eq!(reaching.after.runs(), 0);
    assert!(rows(&database, NOTES).await.is_empty());
}
