//! Rows C11, P9, P19, W16 and X3 on both databases.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{join_all, pending};
use hookyard::clock::ManualClock;
use hookyard::error::Result;
use hookyard::event::Change;
use hookyard::pipeline::{Completion, Context, Effects, Handler};
use hookyard::sandbox::Fault;
use hookyard::store::Write;
use http::StatusCode;
use serde::Deserialize;

use crate::durable_inbox::rows;
use crate::support::hands::{done, failed, hands, ran, settings, until, worker};
use crate::support::rows::{EventRow, execute, row_state};
use crate::support::{
    Behaviour, OtherProbe, Probe, TestApp, TestDatabase, both_databases, contract_event, event,
    probe_event,
};

both_databases!(
    c11_many_events_of_one_aggregate_at_once_lose_no_update,
    p9_events_are_taken_while_the_broker_is_away_and_published_in_order_when_it_is_back,
    p19_an_older_program_works_on_newer_tables,
    w16_one_handlers_failure_does_not_run_the_others_again,
    x3_a_row_of_a_worker_that_died_comes_back_after_its_lease_with_its_tries,
);

/// Adds up in the database, not in what it has read.
struct Adds;

#[derive(Deserialize)]
struct Amount {
    n: i64,
}

impl Handler for Adds {
    const NAME: &'static str = "adds";
    const EVENTS: &'static [&'static str] = &["sums.insert"];
    const ABOUT: &'static str = "adds to one row";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Change<Amount>;

    async fn handle(&self, cx: &Context, change: Change<Amount>) -> Result<Completion> {
        let sql = "UPDATE audit SET at = at + $1 WHERE actor = 'sum'";
        cx.write(Write::new(sql).bind(change.row()?.n).expect_rows(1))?;
        Ok(Completion::Done)
    }
}

async fn c11_many_events_of_one_aggregate_at_once_lose_no_update(database: TestDatabase) {
    let app = || TestApp::builder().database(&database).handler(Adds);
    let (one, two) = (app().start().await, app().start().await);
    let sum = "INSERT INTO audit (at, actor, action, target, reason, detail) \
               VALUES (0, 'sum', '', '', '', '{}') RETURNING actor";
    rows(&database, sum).await;

    let pushes = (1..=40).map(|n| {
        let app = if n % 2 == 0 { &one } else { &two };
        let event = event(
            &format!("c11-{n}"),
            "sums",
            "INSERT",
            "null",
            &format!(r#"{{"n":{n}}}"#),
        );
        async move { app.push(&event).await.status }
    });
    let answers = join_all(pushes).await;

    assert!(answers.iter().all(|status| *status == StatusCode::OK));
    let sql = "SELECT CAST(at AS TEXT) FROM audit WHERE actor = 'sum'";
    assert_eq!(rows(&database, sql).await, ["820"]);
}

async fn p9_events_are_taken_while_the_broker_is_away_and_published_in_order_when_it_is_back(
    database: TestDatabase,
) {
    let app = TestApp::builder().database(&database).start().await;
    app.broker_faults.always(Fault::ResetBefore);
    for n in 0..20 {
        let event = contract_event(&format!("p9-{n}"), "signed", "active");
        assert_eq!(app.push(&event).await.status, StatusCode::OK);
    }
    assert!(app.events().is_empty());
    let waiting = "SELECT CAST(COUNT(*) AS TEXT) FROM outbox WHERE state = 0";
    assert_eq!(rows(&database, waiting).await, ["20"]);

    app.broker_faults.stop();
    app.wait_for_events(20).await;

    let mut by_key: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for went in app.events() {
        by_key.entry(went.ordering_key).or_default().push(went.id);
    }
    let expected = rows(&database, "SELECT message_id FROM outbox ORDER BY seq").await;
    for ids in by_key.values() {
        let places = ids.iter().map(|id| expected.iter().position(|e| e == id));
        assert!(places.is_sorted(), "{ids:?}");
    }
}

async fn p19_an_older_program_works_on_newer_tables(database: TestDatabase) {
    let store = database.store().await;
    let newer = if database.is_postgres() {
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'of a later release', TRUE, '\\x00', 0)"
    } else {
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'of a later release', TRUE, x'00', 0)"
    };
    execute(&store, newer).await;
    execute(&store, "ALTER TABLE inbox ADD COLUMN later TEXT").await;

    let probe = Probe::that([Behaviour::Succeed]);
    let app = TestApp::builder().database(&database).handler(probe);
    let app = app.start().await;

    assert_eq!(app.push(&probe_event("p19")).await.status, StatusCode::OK);
}

async fn w16_one_handlers_failure_does_not_run_the_others_again(database: TestDatabase) {
    let other = OtherProbe::default();
    let probe = Probe::that([Behaviour::FailTransiently, Behaviour::Succeed]);
    let app = TestApp::builder()
        .database(&database)
        .handler(probe.clone());
    let app = app.handler(other.clone()).start().await;

    let first = app.push(&probe_event("w16")).await;
    let second = app.push(&probe_event("w16")).await;

    assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(second.status, StatusCode::OK);
    assert_eq!((probe.runs(), other.runs()), (2, 1));
}

async fn x3_a_row_of_a_worker_that_died_comes_back_after_its_lease_with_its_tries(
    database: TestDatabase,
) {
    let clock = ManualClock::start();
    let dying = database.store_on(clock.clone()).await;
    let living = database.store_on(clock.clone()).await;
    let id = EventRow::new("a").insert(&dying).await;
    let (fails, _) = hands(|_| async { failed("timeout", Duration::from_secs(1), false) });
    worker(&dying, fails, settings()).turn().await.unwrap();
    assert_eq!(row_state(&dying, &id).await.attempts, 1);
    clock.advance(Duration::from_secs(5));

    let begun = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&begun);
    let (never, _) = hands(move |_| {
        *counted.lock().unwrap() += 1;
        pending()
    });
    let dead = worker(&dying, never, settings());
    tokio::select! {
        _ = dead.turn() => panic!("its run never ends"),
        () = until("the run has begun", async || *begun.lock().unwrap() == 1) => {}
    }

    let (works, journal) = hands(|_| async { done() });
    let second = worker(&living, works, settings());
    assert_eq!(
        second.turn().await.unwrap().settled,
        0,
        "the lease still runs"
    );
    assert_eq!(
        row_state(&living, &id).await.attempts,
        1,
        "no try is forgotten"
    );
    clock.advance(Duration::from_secs(31));
    assert_eq!(second.turn().await.unwrap().settled, 1);
    assert_eq!(ran(&journal).len(), 1);
    assert!(row_state(&living, &id).await.processed);
}
