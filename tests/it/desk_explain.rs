//! What happened to an event, by any id; and how much waits.

use hookyard::app::App;
use hookyard::desk::{Desk, EventStory};
use hookyard::error::Result;
use hookyard::pipeline::{Completion, Context, Handler, Json};
use serde::de::IgnoredAny;

use crate::desk_kit::{Yard, execute, keep, letter, order, processed, row_id};
use crate::support::{TestApp, TestDatabase, both_databases, contract_event, eventually};

both_databases!(
    an_event_is_explained_with_what_followed_from_it,
    a_failed_event_is_explained_by_every_id_it_has,
    repeats_are_explained,
    what_came_again_is_counted_by_deliveries_and_not_by_handlers,
    what_waits_is_shown_by_the_status,
);

/// Takes what the reference service emits.
struct Follow;

impl Handler for Follow {
    const NAME: &'static str = "follow";
    const EVENTS: &'static [&'static str] = &["contract.activated"];
    const ABOUT: &'static str = "takes what came of an event";
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, _: &Context, _: Json<IgnoredAny>) -> Result<Completion> {
        Ok(Completion::Skipped("nothing is left to do"))
    }
}

async fn an_event_is_explained_with_what_followed_from_it(database: TestDatabase) {
    let app = TestApp::of(App::builder().handler(Follow)).database(&database);
    let app = Box::pin(app.start()).await;
    let answer = app
        .push_as("m-1", &contract_event("e1", "signed", "active"))
        .await;
    assert_eq!(answer.status, 200);
    app.wait_for_events(1).await;
    let went = app.events().remove(0);
    assert_eq!(
        app.push_message(&went.data, &went.attributes).await.status,
        200
    );

    let desk = Desk::new(database.store().await, Vec::new());
    for (id, kind) in [
        ("e1", "event"),
        ("m-1", "message"),
        (went.id.as_str(), "emitted"),
    ] {
        let told = desk.explain(id).await.unwrap();
        assert!(told.found_as.contains(&kind), "{id}: {:?}", told.found_as);
        assert_eq!(told.events.len(), 1, "{told:?}");
        let story = &told.events[0];
        assert_eq!(
            (story.event_id.as_str(), story.event_type.as_str()),
            ("e1", "contracts.update")
        );
        assert_eq!(story.hasura_id.as_deref(), Some("e1"));
        assert_eq!(story.runs.len(), 2);
        // Both began at once, and either may have been first.
        let run = |name: &str| story.runs.iter().find(|run| run.handler == name).unwrap();
        let (activate, cancel) = (run("activate_contract"), run("cancel_contract"));
        assert_eq!(activate.outcome.as_deref(), Some("done"));
        assert!(activate.duration_ms.is_some());
        assert_eq!(
            cancel.reason.as_deref(),
            Some("the contract was not cancelled")
        );
        let emitted = &story.emitted[0];
        assert_eq!(emitted.event_id, went.id);
        let then = emitted.then.as_deref().unwrap();
        assert_eq!(then.runs[0].handler, "follow");
        assert_eq!(then.correlation_id.as_deref(), Some("e1"));
        assert_eq!(then.remarks, ["follow skipped it: nothing is left to do"]);
    }
}

async fn a_failed_event_is_explained_by_every_id_it_has(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    let mut row = letter("3f1c2d2e-0000-4000-8000-000000000001");
    row.message_id = Some("m-9".to_owned());
    row.trace_id = Some("0af7651916cd43dd8448eb211c80319c".to_owned());
    row.correlation_id = Some("story-9".to_owned());
    keep(&yard.store, std::slice::from_ref(&row)).await;
    let id = row.id().to_string();
    let ids = [
        ("3f1c2d2e-0000-4000-8000-000000000001", "event"),
        ("m-9", "message"),
        ("story-9", "correlation"),
        ("0af7651916cd43dd8448eb211c80319c", "trace"),
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "trace",
        ),
        (id.as_str(), "dead_letter"),
    ];
    for (id, kind) in ids {
        let told = yard.desk.explain(id).await.unwrap();
        assert_eq!(told.found_as, [kind], "{id}");
        assert_eq!(told.events[0].dead_letters.len(), 1);
        assert!(told.events[0].remarks[0].contains("shipping failed for good"));
    }
    let unknown = yard.desk.explain("never-heard-of").await.unwrap_err();
    assert_eq!(unknown.code(), "not_found");

    processed(&yard.store, 1..2).await;
    let told = yard.desk.explain(&row_id(1)).await.unwrap();
    assert_eq!(told.events[0].kept.as_ref().unwrap().status, "done");
    assert!(told.events[0].runs.is_empty());
}

/// Waits until so many repeats of `e1` are noted, which happens in passing.
async fn with_repeats(desk: &Desk, count: usize) -> EventStory {
    let mut story = desk.explain("e1").await.unwrap().events.remove(0);
    let what = || "the repeats were not noted".to_owned();
    eventually(what, async || {
        story = desk.explain("e1").await.unwrap().events.remove(0);
        story.repeats.len() == count
    })
    .await;
    story
}

async fn repeats_are_explained(database: TestDatabase) {
    let yard = Yard::on(&database).await;
    for _ in 0..3 {
        assert_eq!(yard.app.push_as("m-1", &order("e1")).await.status, 200);
    }
    let told = with_repeats(&yard.desk, 2).await;
    assert_eq!(told.repeats[0].kind, "pubsub_redelivery");
    let remark = "it came again 2 times and was not run again, because it had ended";
    assert_eq!(told.remarks, [remark]);
}

async fn what_came_again_is_counted_by_deliveries_and_not_by_handlers(database: TestDatabase) {
    let app = TestApp::builder().database(&database).start().await;
    let event = contract_event("e1", "signed", "active");
    for message in ["m-1", "m-1", "m-1", "m-2"] {
        assert_eq!(app.push_as(message, &event).await.status, 200);
    }
    let desk = Desk::new(database.store().await, Vec::new());
    // By each of the two handlers.
    let told = with_repeats(&desk, 6).await;
    let remark = "it came again 3 times and was not run again, because it had ended";
    assert!(
        told.remarks.iter().any(|it| it == remark),
        "{:?}",
        told.remarks
    );
}

async fn what_waits_is_shown_by_the_status(database: TestDatabase) {
    let store = database.store().await;
    let desk = Desk::new(store.clone(), Vec::new());
    let empty = desk.status().await.unwrap();
    assert_eq!(
        (
            empty.events.pending,
            empty.outbox.waiting,
            empty.dead_letters.open
        ),
        (0, 0, 0)
    );
    assert_eq!(empty.events.oldest_age_seconds, None);
    assert!(empty.lanes.is_empty());

    processed(&store, 1..4).await;
    execute(&store, "UPDATE events SET processed = FALSE").await;
    let later = store.now() + 3_600_000_000;
    let sql = format!(
        "UPDATE events SET attempts = 1, next_attempt_at = {later} WHERE id = '{}'",
        row_id(1)
    );
    execute(&store, sql).await;
    keep(&store, &[letter("e1")]).await;
    execute(
        &store,
        "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, attempt, \
         event_type, instance, created_at, started_at) VALUES ('e1', 'shipping', 0, 1, 1, 5, 1, \
         'orders.update', 'gone', 1, 1)",
    )
    .await;

    let status = desk.status().await.unwrap();
    assert_eq!(
        (
            status.events.pending,
            status.events.due,
            status.events.retrying
        ),
        (3, 2, 1)
    );
    assert!(status.events.oldest_age_seconds.unwrap() > 1000.0);
    assert_eq!((status.inbox.running, status.inbox.abandoned), (1, 1));
    assert_eq!(status.dead_letters.open, 1);
    assert!(status.dead_letters.oldest_age_seconds.unwrap() < 600.0);
    assert_eq!(status.lanes.iter().map(|lane| lane.waiting).sum::<i64>(), 3);
    let told = desk.explain("e1").await.unwrap();
    assert!(
        told.events[0].remarks[0].contains("never ended"),
        "{:?}",
        told.events[0].remarks
    );
}
