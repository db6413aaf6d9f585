//! What somebody on call meets: ids out of a log, rows that were given up, lanes that rest.

use std::time::Duration;

use hookyard::desk::{Desk, EventStory};
use hookyard::sandbox::ADMIN_TOKEN;
use hookyard::store::Store;
use serde_json::{Value, json};

use crate::admin_access::Operator;
use crate::admin_desk::{failure, hookyard, out};
use crate::desk_kit::{keep, letter, text};
use crate::support::rows::{EventRow, count, execute, row_state, uuid};
use crate::support::{
    Behaviour, OtherProbe, Probe, TestApp, TestDatabase, both_databases, event, probe_event,
};

both_databases!(
    what_rests_is_not_called_unattended,
    an_event_runs_at_once_under_the_id_that_logs_have,
    what_was_decided_is_not_decided_again,
    an_events_id_is_answered_with_the_way_to_its_dead_letters,
    what_the_worker_gives_up_is_found_by_its_trace,
    what_was_given_up_waits_for_no_try,
    a_try_of_our_own_is_no_delivery,
    the_last_error_of_a_row_is_the_one_it_ended_with,
    an_error_is_noted_where_metadata_is_null,
);

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A service that keeps what is pushed, and its probe.
async fn app(database: &TestDatabase, max_retries: &str, script: &[Behaviour]) -> TestApp {
    let app = TestApp::builder()
        .database(database)
        .handler(Probe::that(script.iter().copied()))
        .handler(OtherProbe::default())
        .variable("ENABLE_POLLING", "true")
        .variable("RETRY_OWNER", "self")
        .variable("POLL_INTERVAL_MS", "50")
        .variable("MAX_RETRIES", max_retries);
    app.start().await
}

fn operator(app: &TestApp) -> Operator<'_> {
    Operator::with(app, ADMIN_TOKEN)
}

async fn all_done(store: &Store) {
    let left = "SELECT COUNT(*) FROM events WHERE processed IS NOT TRUE";
    for _ in 0..4000 {
        if count(store, left).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not all was worked off");
}

async fn told(store: &Store, id: &str) -> EventStory {
    let desk = Desk::new(store.clone(), Vec::new());
    desk.explain(id).await.unwrap().events.remove(0)
}

async fn what_rests_is_not_called_unattended(database: TestDatabase) {
    let store = database.store().await;
    EventRow::new("order.paid").insert(&store).await;
    let nobody = "no instance works on what waits";
    let shown = out(&hookyard(&database, &["status"]).await);
    assert!(shown.contains(nobody), "{shown}");

    let pause = "UPDATE lanes SET paused_until = 9000000000000000";
    execute(&store, pause).await;

    let shown = out(&hookyard(&database, &["status"]).await);
    assert!(!shown.contains(nobody), "{shown}");
    assert!(shown.contains("what is due rests"), "{shown}");
}

async fn an_event_runs_at_once_under_the_id_that_logs_have(database: TestDatabase) {
    let probe = Probe::that([Behaviour::FailTransiently, Behaviour::Succeed]);
    let app = TestApp::builder()
        .database(&database)
        .handler(probe.clone())
        .variable("RETRY_OWNER", "self");
    let app = app.start().await;
    let store = database.store().await;
    assert_eq!(app.push(&probe_event("order/7")).await.status, 200);
    let ask = json!({"event_id": "order/7"});

    let answer = operator(&app).post("/process-event", &ask).await;

    let message = "Event processing started";
    let started = json!({"success": true, "message": message, "event_id": "order/7"});
    assert_eq!((answer.status.as_u16(), answer.json()), (202, started));
    probe.wait_for_runs(1).await;
    let failed = "SELECT COUNT(*) FROM events WHERE attempts = 1";
    for _ in 0..4000 {
        if count(&store, failed).await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Its next try can wait for as long as it likes.
    execute(
        &store,
        "UPDATE events SET next_attempt_at = 9000000000000000",
    )
    .await;
    execute(&store, "UPDATE lanes SET lease_until = 0").await;
    let answer = operator(&app).post("/process-event", &ask).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    all_done(&store).await;
    let answer = operator(&app).post("/process-event", &ask).await;
    let code = answer.json()["error"]["code"].clone();
    assert_eq!(
        (answer.status.as_u16(), code),
        (409, json!("already_processed"))
    );
}

async fn what_was_decided_is_not_decided_again(database: TestDatabase) {
    let app = app(&database, "1", &[]).await;
    let store = database.store().await;
    let (given_up, retried) = (letter("e1"), letter("e2"));
    keep(&store, &[given_up.clone(), retried.clone()]).await;
    let post = async |id: &str, what: &str, ask: Value| {
        let path = format!("/dead-letters/{id}/{what}");
        let answer = operator(&app).post(&path, &ask).await;
        let code = answer.json()["error"]["code"].clone();
        (answer.status.as_u16(), code)
    };
    let (given_up, retried) = (given_up.id().to_string(), retried.id().to_string());
    let why = || json!({"reason": "test data"});
    assert_eq!(post(&given_up, "discard", why()).await, (200, Value::Null));

    let decided = (409, json!("decided"));
    assert_eq!(post(&given_up, "discard", why()).await, decided);
    assert_eq!(post(&given_up, "redrive", why()).await, decided);
    let why_not = ["dead-letters", "redrive", &given_up, "-r", "x", "-y"];
    let shown = failure(&hookyard(&database, &why_not).await);
    assert!(shown.contains("it was decided already"), "{shown}");
    let why_not = ["dead-letters", "discard", &given_up, "-r", "x", "-y"];
    let shown = failure(&hookyard(&database, &why_not).await);
    assert!(shown.contains("it was decided already"), "{shown}");
    // A request that is sent again finds what it began, whatever has become of that.
    let named = || json!({"reason": "x", "request_id": "once"});
    assert_eq!(post(&retried, "redrive", named()).await, (202, Value::Null));
    execute(&store, "UPDATE event_dead_letters SET status = 'redriven'").await;
    assert_eq!(post(&retried, "redrive", named()).await, (202, Value::Null));
    assert_eq!(post(&retried, "redrive", why()).await, decided);
}

async fn an_events_id_is_answered_with_the_way_to_its_dead_letters(database: TestDatabase) {
    let store = database.store().await;
    let event = uuid();
    keep(&store, &[letter(&event)]).await;
    for ask in [
        vec!["dead-letters", "show", &event],
        vec!["dead-letters", "redrive", &event, "-r", "x", "-y"],
        vec!["dead-letters", "discard", &event, "-r", "x", "-y"],
    ] {
        let shown = failure(&hookyard(&database, &ask).await);
        assert!(shown.contains("hookyard explain"), "{shown}");
    }
}

async fn what_the_worker_gives_up_is_found_by_its_trace(database: TestDatabase) {
    let app = app(&database, "1", &[Behaviour::FailTransiently]).await;
    let store = database.store().await;
    let with = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let attributes = [
        with("ce-id", "e1"),
        with("ce-type", "probes.update"),
        with("ce-source", "/shop"),
        with("ce-specversion", "1.0"),
        with("ce-correlationid", "story-1"),
        with("traceparent", &format!("00-{TRACE}-b7ad6b7169203331-01")),
    ];
    assert_eq!(app.push_message(b"{}", &attributes).await.status, 200);
    all_done(&store).await;

    let sql = "SELECT COALESCE(trace_id, '-') || ' ' || COALESCE(correlation_id, '-') \
        FROM event_dead_letters";
    assert_eq!(text(&store, sql).await, format!("{TRACE} story-1"));
}

async fn what_was_given_up_waits_for_no_try(database: TestDatabase) {
    let script = [Behaviour::FailTransiently, Behaviour::FailTransiently];
    let app = app(&database, "2", &script).await;
    let store = database.store().await;
    assert_eq!(app.push(&probe_event("e1")).await.status, 200);
    all_done(&store).await;

    let story = told(&store, "e1").await;

    let run = story.runs.iter().find(|run| run.handler == "probe");
    assert_eq!(run.unwrap().state, "given_up", "{story:?}");
    assert_eq!(story.remarks.len(), 1, "{:?}", story.remarks);
    assert!(story.remarks[0].contains("failed for good (probe_is_busy)"));
    let shown = out(&hookyard(&database, &["explain", "e1"]).await);
    assert!(shown.contains("probe: given up, at try 2"), "{shown}");
}

async fn a_try_of_our_own_is_no_delivery(database: TestDatabase) {
    let script = [Behaviour::FailTransiently, Behaviour::Succeed];
    let app = app(&database, "5", &script).await;
    let store = database.store().await;
    assert_eq!(app.push_as("m-1", &probe_event("e1")).await.status, 200);
    all_done(&store).await;
    // Repeats are noted in passing, and kept by then.
    app.running.shutdown().await;

    let story = told(&store, "e1").await;

    assert_eq!(story.repeats, [], "{story:?}");
    assert_eq!(story.remarks, [""; 0]);
}

async fn the_last_error_of_a_row_is_the_one_it_ended_with(database: TestDatabase) {
    let script = [Behaviour::FailTransiently, Behaviour::FailForGood];
    let app = app(&database, "5", &script).await;
    let store = database.store().await;
    let body = event("e1", "probes", "UPDATE", "null", "{}");
    assert_eq!(app.push(&body).await.status, 200);
    all_done(&store).await;
    let kept = told(&store, "e1").await.kept.unwrap();
    let row = row_state(&store, &kept.id).await;
    assert_eq!(row.status, "dead_lettered");
    assert_eq!(row.error_code.as_deref(), Some("probe_refuses"));
    let metadata: Value = serde_json::from_str(&row.metadata.unwrap()).unwrap();
    assert_eq!(metadata["retry_count"], 2, "{metadata}");
    assert_eq!(metadata["last_error"]["code"], "probe_refuses");
    assert_eq!(metadata["last_error"]["class"], "permanent");
}

async fn an_error_is_noted_where_metadata_is_null(database: TestDatabase) {
    let script = [Behaviour::FailTransiently, Behaviour::FailTransiently];
    let _app = app(&database, "2", &script).await;
    let store = database.connect(hookyard::clock::SystemClock::shared());
    let row = EventRow::new("probes.update").metadata("null");
    let id = row.insert(&store).await;
    all_done(&store).await;
    let row = row_state(&store, &id).await;
    let metadata: Value = serde_json::from_str(&row.metadata.unwrap()).unwrap();
    assert_eq!(metadata["retry_count"], 2, "{metadata}");
    assert_eq!(metadata["last_error"]["code"], "probe_is_busy");
    assert_eq!(row.error_code.as_deref(), Some("probe_is_busy"));
}

#[tokio::test]
async fn a_look_at_a_file_that_is_not_there_does_not_make_it() {
    let database = TestDatabase::sqlite();
    let file = database.url().strip_prefix("sqlite://").unwrap();
    for ask in [&["status"][..], &["dead-letters", "groups"]] {
        let why = failure(&hookyard(&database, ask).await);
        assert!(why.contains("hookyard migrate"), "{why}");
        assert!(why.contains("DATABASE_URL names a file"), "{why}");
    }
    assert!(!std::path::Path::new(file).exists());
}
