//! From Hasura's webhook to a handler's effects: bridge → broker → push → pipeline.

use std::sync::Arc;

use hookyard::bridge::Bridge;
use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;

use crate::bridge_kit::{SECRET, TestBridge, config};
use crate::emulator::Emulator;
use crate::support::{TestApp, contract_event};

#[tokio::test]
async fn a_webhook_ends_in_a_handlers_effects_once() {
    let bridge = TestBridge::start().await;
    let service = TestApp::start().await;
    let event = contract_event("e1", "signed", "active");

    // Hasura did not see the first answer and tries again: two messages, one event.
    bridge.send(event.clone()).await;
    bridge.send(event).await;
    let published = bridge.published();
    assert_eq!(published.len(), 2);
    for message in published {
        let pushed = service.push_message(&message.data, &message.attributes);
        assert_eq!(pushed.await.status, StatusCode::OK);
    }

    assert_eq!(
        service.chargebee_contract_id("e1-sub").as_deref(),
        Some("e1-contract")
    );
    assert_eq!(
        service.hasura_subscription_id("e1-contract").as_deref(),
        Some("e1-sub")
    );
    assert_eq!(service.effects().len(), 2, "{:?}", service.effects());
    assert!(service.dead_letters().is_empty());
    let events = service.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event_type, "contract.activated");
}

#[tokio::test]
async fn the_trace_of_the_mutation_reaches_the_downstream_event() {
    let bridge = TestBridge::start().await;
    let service = TestApp::start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let event = contract_event("e1", "signed", "active").replace(
        "\"trace_context\":null",
        &format!("\"trace_context\":{{\"trace_id\":\"{trace}\",\"span_id\":\"00f067aa0ba902b7\"}}"),
    );

    bridge.send(event).await;
    let message = bridge.published().pop().unwrap();
    service
        .push_message(&message.data, &message.attributes)
        .await;

    let events = service.events();
    let downstream = events[0].attribute("traceparent").unwrap();
    assert!(downstream.contains(trace), "{downstream}");
}

#[tokio::test]
async fn with_the_emulator_events_of_one_row_keep_their_order() {
    let Some(emulator) = Emulator::find().await else {
        return;
    };
    emulator.create_topic("hasura").await;
    let mut config = config(&[]);
    config.bus = emulator.bus("hasura", "hasura");
    config.bridge.topic = "hasura".to_owned();
    let bridge = Bridge::builder(config).build().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = Arc::new(bridge.start(listener).unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = |body: String| {
        let url = format!("http://{}/hasura/events", running.address);
        let request = client.post(url).header("x-hookyard-secret", SECRET);
        request.body(body).send()
    };

    let events: Vec<String> = (0..5)
        .map(|n| {
            contract_event("row", "signed", "active").replacen("\"row\"", &format!("\"e{n}\""), 1)
        })
        .collect();
    for event in &events {
        assert_eq!(send(event.clone()).await.unwrap().status(), StatusCode::OK);
    }
    let received = emulator.pull("hasura", events.len()).await;

    let data: Vec<&[u8]> = received.iter().map(|r| r.data.as_slice()).collect();
    let expected: Vec<&[u8]> = events.iter().map(|e| e.as_bytes()).collect();
    assert_eq!(data, expected);
    for (n, received) in received.iter().enumerate() {
        assert_eq!(
            received.ordering_key.as_deref(),
            Some("contracts/row-contract")
        );
        assert_eq!(received.attributes["event_id"], json!(format!("e{n}")));
    }
}

#[tokio::test]
async fn with_the_emulator_a_topic_that_is_not_there_loses_nothing() {
    let Some(emulator) = Emulator::find().await else {
        return;
    };
    let mut config = config(&[]);
    config.bus = emulator.bus("nowhere", "nowhere");
    config.bridge.topic = "nowhere".to_owned();
    let bridge = Bridge::builder(config).build().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = bridge.start(listener).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = || {
        let url = format!("http://{}/hasura/events", running.address);
        let request = client.post(url).header("x-hookyard-secret", SECRET);
        request
            .body(contract_event("e1", "signed", "active"))
            .send()
    };

    let refused = send().await.unwrap();
    emulator.create_topic("nowhere").await;
    let taken = send().await.unwrap();

    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(taken.status(), StatusCode::OK);
    assert_eq!(emulator.pull("nowhere", 1).await.len(), 1);
}
