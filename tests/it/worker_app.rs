//! The worker in a whole service: rows of the table, and deliveries that push leaves to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hookyard::error::{Error, Result};
use hookyard::event::contracts::DomainEvent;
use hookyard::pipeline::{Completion, Context, Handler, Json};
use hookyard::store::Store;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::support::hands::until;
use crate::support::rows::{EventRow, count, row_state, uuid};
use crate::support::{Builder, TestApp, TestDatabase, both_databases};

both_databases!(
    a_row_runs_through_its_handler_and_what_it_emits_is_published,
    c13_an_event_both_pushed_and_polled_has_one_effect,
    a_delivery_is_answered_when_it_is_kept_and_tried_again_by_the_worker,
    a_kept_delivery_that_never_succeeds_becomes_a_dead_letter_with_its_bytes,
    what_the_worker_gives_up_is_counted_and_told_as_what_a_handler_refuses,
    what_nobody_takes_is_not_kept_for_the_worker,
    a_row_nobody_takes_is_marked_so,
    a_row_set_back_runs_again,
    a_service_that_stops_gives_its_lanes_back,
);

#[derive(Debug, Deserialize)]
struct Thing {
    n: i64,
}

#[derive(Serialize)]
struct ThingCounted {
    n: i64,
}

impl DomainEvent for ThingCounted {
    const TYPE: &'static str = "thing.counted";

    fn subject(&self) -> String {
        "thing".to_owned()
    }
}

/// Counts, after so many failures.
#[derive(Clone, Default)]
struct Counter {
    runs: Arc<AtomicUsize>,
    failures: usize,
}

impl Handler for Counter {
    const NAME: &'static str = "counter";
    const EVENTS: &'static [&'static str] = &["thing.happened"];
    const ABOUT: &'static str = "counts";
    type Payload = Json<Thing>;

    async fn handle(&self, cx: &Context, Json(thing): Self::Payload) -> Result<Completion> {
        if self.runs.fetch_add(1, Ordering::SeqCst) < self.failures {
            return Err(Error::transient("not_yet"));
        }
        cx.emit(&ThingCounted { n: thing.n })?;
        Ok(Completion::Done)
    }
}

impl Counter {
    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

fn builder(database: &TestDatabase, counter: &Counter) -> Builder {
    TestApp::builder()
        .database(database)
        .handler(counter.clone())
        .variable("ENABLE_POLLING", "true")
}

fn thing(n: i64) -> EventRow {
    EventRow::new("thing.happened").payload(&format!(r#"{{"n":{n}}}"#))
}

async fn push_thing(app: &TestApp, id: &str) -> StatusCode {
    let attribute = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let attributes = [
        attribute("ce-id", id),
        attribute("ce-type", "thing.happened"),
        attribute("ce-source", "/shop"),
        attribute("ce-specversion", "1.0"),
    ];
    app.push_message(br#"{"n":7}"#, &attributes).await.status
}

async fn all_done(store: &Store) {
    let left = "SELECT COUNT(*) FROM events WHERE processed IS NOT TRUE";
    until("all done", async || count(store, left).await == 0).await;
}

async fn a_row_runs_through_its_handler_and_what_it_emits_is_published(database: TestDatabase) {
    let counter = Counter::default();
    let app = builder(&database, &counter)
        .variable("POLL_INTERVAL_MS", "50")
        .start()
        .await;
    let store = database.connect(hookyard::clock::SystemClock::shared());
    let row = thing(1).metadata(r#"{"correlation_id":"story-1"}"#);
    let id = row.insert(&store).await;
    app.wait_for_events(1).await;
    all_done(&store).await;
    let event = app.events().remove(0);
    assert_eq!(event.event_type, "thing.counted");
    assert_eq!(event.attribute("ce-correlationid"), Some("story-1"));
    assert_eq!(row_state(&store, &id).await.status, "done");
    assert_eq!(counter.runs(), 1);
}

async fn c13_an_event_both_pushed_and_polled_has_one_effect(database: TestDatabase) {
    let counter = Counter::default();
    let app = builder(&database, &counter)
        .variable("POLL_INTERVAL_MS", "50")
        .start()
        .await;
    let store = database.connect(hookyard::clock::SystemClock::shared());
    let mut ids = Vec::new();
    for n in 0..20 {
        let row = thing(7);
        ids.push(row.id.clone());
        if n % 2 == 0 {
            assert_eq!(push_thing(&app, &row.id).await, StatusCode::OK);
            row.insert(&store).await;
        } else {
            let id = row.insert(&store).await;
            assert_eq!(push_thing(&app, &id).await, StatusCode::OK);
        }
    }
    all_done(&store).await;
    app.wait_for_events(20).await;
    assert_eq!(counter.runs(), 20);
    assert_eq!(app.events().len(), 20);
    for id in ids {
        assert_eq!(row_state(&store, &id).await.status, "done");
    }
}

async fn a_delivery_is_answered_when_it_is_kept_and_tried_again_by_the_worker(
    database: TestDatabase,
) {
    let counter = Counter {
        failures: 1,
        ..Counter::default()
    };
    let app = builder(&database, &counter)
        .variable("RETRY_OWNER", "self")
        .start()
        .await;
    let store = database.connect(hookyard::clock::SystemClock::shared());
    assert_eq!(push_thing(&app, "order/7").await, StatusCode::OK);
    all_done(&store).await;
    app.wait_for_events(1).await;
    assert_eq!(counter.runs(), 2);
    assert_eq!(push_thing(&app, "order/7").await, StatusCode::OK);
    all_done(&store).await;
    assert_eq!((counter.runs(), app.events().len()), (2, 1));
    let kept = "SELECT COUNT(*) FROM events WHERE event_key = 'order/7' AND status = 'done'";
    assert_eq!(count(&store, kept).await, 2);
}

async fn a_kept_delivery_that_never_succeeds_becomes_a_dead_letter_with_its_bytes(
    database: TestDatabase,
) {
    let counter = Counter {
        failures: usize::MAX,
        ..Counter::default()
    };
    let app = builder(&database, &counter)
        .variable("RETRY_OWNER", "self")
        .variable("MAX_RETRIES", "2")
        .start()
        .await;
    let store = database.connect(hookyard::clock::SystemClock::shared());
    assert_eq!(push_thing(&app, "order/8").await, StatusCode::OK);
    all_done(&store).await;
    assert_eq!(counter.runs(), 2);
    let letters = "SELECT COUNT(*) FROM event_dead_letters WHERE event_key = 'order/8' \
        AND source = 'push' AND handler = 'counter' AND retry_count = 2 \
        AND error_code = 'not_yet' AND length(original) = 7";
    assert_eq!(count(&store, letters).await, 1);
}

async fn what_the_worker_gives_up_is_counted_and_told_as_what_a_handler_refuses(
    database: TestDatabase,
) {
    let counter = Counter {
        failures: usize::MAX,
        ..Counter::default()
    };
    let app = builder(&database, &counter)
        .variable("RETRY_OWNER", "self")
        .variable("MAX_RETRIES", "1")
        .variable("DEAD_LETTER_TOPIC", "hookyard-dead-letters")
        .start()
        .await;
    let store = database.connect(hookyard::clock::SystemClock::shared());
    assert_eq!(push_thing(&app, "order/9").await, StatusCode::OK);
    // As PostgreSQL writes JSON.
    let row = thing(5).payload(r#"{"n": 5}"#).insert(&store).await;
    all_done(&store).await;
    app.wait_until_relayed(&database).await;
    let metric = async |outcome| {
        let name = "hookyard_events_total";
        app.metric(name, "counter", outcome).await
    };
    assert_eq!(metric("dead_lettered").await, 2.0);
    let mut told: Vec<_> = app
        .dead_letters()
        .iter()
        .map(|letter| {
            let of = |name| letter.attribute(name).unwrap_or_default().to_owned();
            assert_eq!(of("hookyard-error-code"), "not_yet");
            assert_eq!(of("hookyard-handler"), "counter");
            (of("hookyard-event-id"), letter.data.clone())
        })
        .collect();
    let mut kept = vec![
        ("order/9".to_owned(), br#"{"n":7}"#.to_vec()),
        (row, br#"{"n": 5}"#.to_vec()),
    ];
    told.sort();
    kept.sort();
    assert_eq!(told, kept);
}

async fn what_nobody_takes_is_not_kept_for_the_worker(database: TestDatabase) {
    let counter = Counter::default();
    let app = builder(&database, &counter)
        .variable("RETRY_OWNER", "self")
        .start()
        .await;
    let store = database.connect(hookyard::clock::SystemClock::shared());
    let attributes = [
        ("ce-id".to_owned(), "x".to_owned()),
        ("ce-type".to_owned(), "nobody.cares".to_owned()),
    ];
    let answer = app.push_message(b"{}", &attributes).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(count(&store, "SELECT COUNT(*) FROM events").await, 0);
}

async fn a_row_nobody_takes_is_marked_so(database: TestDatabase) {
    let counter = Counter::default();
    let _app = builder(&database, &counter)
        .variable("POLL_INTERVAL_MS", "50")
        .start()
        .await;
    let store = database.connect(hookyard::clock::SystemClock::shared());
    let id = EventRow::new("nobody.cares").insert(&store).await;
    all_done(&store).await;
    assert_eq!(row_state(&store, &id).await.status, "unrouted");
}

async fn a_row_set_back_runs_again(database: TestDatabase) {
    let counter = Counter::default();
    let app = builder(&database, &counter)
        .variable("POLL_INTERVAL_MS", "50")
        .start()
        .await;
    let store = database.connect(hookyard::clock::SystemClock::shared());
    thing(1).of(&uuid()).insert(&store).await;
    all_done(&store).await;
    crate::support::rows::execute(&store, "UPDATE events SET processed = FALSE").await;
    all_done(&store).await;
    assert_eq!(counter.runs(), 2);
    app.wait_for_events(2).await;
}

async fn a_service_that_stops_gives_its_lanes_back(database: TestDatabase) {
    let counter = Counter::default();
    let app = builder(&database, &counter)
        .variable("POLL_INTERVAL_MS", "50")
        .start()
        .await;
    let store = database.connect(hookyard::clock::SystemClock::shared());
    for n in 0..20 {
        thing(n).insert(&store).await;
    }
    until("some are done", async || !app.events().is_empty()).await;
    app.running.shutdown().await;
    let held = "SELECT COUNT(*) FROM lanes WHERE lease_until > 0";
    assert_eq!(count(&store, held).await, 0);
}
