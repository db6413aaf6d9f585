//! The loop guard: an event that our own writes cause again and again is stopped.

use hookyard::error::Result;
use hookyard::event::Event;
use hookyard::pipeline::{Completion, Context, Handler};
use http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hookyard::event::Change;

use crate::clients_support::{Peer, Run, ok};
use crate::support::{
    Behaviour, Probe, TestApp, TestDatabase, both_databases, contract_event, probe_event, texts,
};

/// A handler with the mistake the guard is for: it answers every change of a row with another.
#[derive(Clone, Default)]
struct Restless(Arc<AtomicUsize>);

#[derive(Deserialize)]
struct Row {
    id: String,
}

impl Handler for Restless {
    const NAME: &'static str = "restless";
    const EVENTS: &'static [&'static str] = &["contracts.update"];
    const ABOUT: &'static str = "Writes whenever the row is written";
    type Payload = Change<Row>;

    async fn handle(&self, cx: &Context, change: Change<Row>) -> Result<Completion> {
        let run = self.0.fetch_add(1, Ordering::SeqCst);
        let other = format!("subscription-{run}");
        cx.hasura()
            .link_subscription(&change.row()?.id, &other)
            .await?;
        Ok(Completion::Done)
    }
}

fn deep(id: &str, depth: &str) -> String {
    let session = r#""session_variables":{"x-hasura-role":"user""#;
    let deeper = format!(
        r#""session_variables":{{"x-hasura-event-depth":"{depth}","x-hasura-event-cause":"c-1","x-hasura-role":"admin""#
    );
    probe_event(id).replace(session, &deeper)
}

#[tokio::test]
async fn a_handler_that_answers_its_own_writes_is_stopped() {
    let restless = Restless::default();
    let app = TestApp::builder().handler(restless.clone()).start().await;
    app.sandbox.push_to(app.running.address);
    app.sandbox.fire_triggers();

    let first = contract_event("loop", "draft", "signed");
    assert_eq!(app.push(&first).await.status, StatusCode::OK);
    app.sandbox.pusher().idle().await;

    // The first event and eight that it caused; the ninth is kept.
    assert_eq!(restless.0.load(Ordering::SeqCst), 9);
    let letters = app.dead_letters();
    let codes: Vec<_> = letters
        .iter()
        .map(|letter| letter.attribute("hookyard-error-code"))
        .collect();
    assert_eq!(codes, [Some("event_loop")]);
}

both_databases!(a_stopped_loop_is_one_dead_letter_at_the_desk);

async fn a_stopped_loop_is_one_dead_letter_at_the_desk(database: TestDatabase) {
    let restless = Restless::default();
    let app = TestApp::builder().database(&database);
    let app = app.handler(restless.clone()).start().await;
    app.sandbox.push_to(app.running.address);
    app.sandbox.fire_triggers();

    app.push(&contract_event("loop", "draft", "signed")).await;
    app.sandbox.pusher().idle().await;

    assert_eq!(restless.0.load(Ordering::SeqCst), 9);
    let sql = "SELECT handler || ' ' || error_code || ' ' || status FROM event_dead_letters";
    let letters = texts(&database.store().await, sql).await;
    assert_eq!(letters, ["restless event_loop open"]);
}

#[tokio::test]
async fn the_longest_chain_is_what_the_configuration_says() {
    let probe = Probe::that([Behaviour::Succeed; 3]);
    let app = TestApp::builder()
        .handler(probe.clone())
        .variable("MAX_EVENT_DEPTH", "5")
        .start()
        .await;

    for depth in ["5", "6", "99999999999", "no number"] {
        let answer = app.push(&deep(&format!("deep-{depth}"), depth)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }

    assert_eq!(probe.runs(), 2, "those with 5 and without a number");
    assert_eq!(app.dead_letters().len(), 2);
}

#[tokio::test]
async fn an_event_nobody_takes_is_no_loop() {
    let app = TestApp::start().await;
    let answer = app.push(&deep("nobody", "50")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(app.dead_letters().is_empty());
}

#[tokio::test]
async fn a_parked_event_that_an_operator_publishes_again_runs() {
    let probe = Probe::that([Behaviour::Succeed]);
    let app = TestApp::builder().handler(probe.clone()).start().await;
    app.push(&deep("again", "9")).await;
    let letter = app.dead_letters().remove(0);

    let answer = app.push_message(&letter.data, &letter.attributes).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!((probe.runs(), app.dead_letters().len()), (1, 1));
}

#[tokio::test]
async fn what_is_emitted_counts_as_caused_by_us() {
    let app = TestApp::start().await;
    let event = contract_event("emit", "signed", "active");
    let role = r#"{"x-hasura-role":"user"}"#;
    let event = event.replace(role, r#"{"x-hasura-event-depth":"2"}"#);

    app.push(&event).await;

    let emitted = app.events().remove(0);
    assert_eq!(emitted.attribute("ce-eventdepth"), Some("3"));
    let delivery = hookyard::event::Delivery {
        data: emitted.data.into(),
        attributes: emitted.attributes,
        ..Default::default()
    };
    let decoded = Event::decode(delivery).unwrap();
    assert_eq!(decoded.depth, 3);
    assert_eq!(decoded.cause().as_deref(), Some("emit"));
}

#[tokio::test]
async fn a_write_to_hasura_tells_how_deep_it_is_and_why() {
    let linked = r#"{"data":{"update_contracts_by_pk":{"id":"c-1"}}}"#;
    let peer = Peer::start([ok(linked.to_owned())]).await;
    let mut run = Run::new();
    run.call.depth = 4;
    let hasura = run.hasura(&peer);

    let calls = hasura.on_behalf_of(&run.call);
    calls.link_subscription("c-1", "sub_1").await.unwrap();

    let asked = peer.asked().remove(0);
    assert_eq!(asked.header("x-hasura-event-depth"), Some("5"));
    let cause = Some(run.call.event_id.as_str());
    assert_eq!(asked.header("x-hasura-event-cause"), cause);
}
