//! What the bridge makes of Hasura's events: labels, ordering keys and traces.

use http::StatusCode;

use crate::bridge_kit::{SECRET, TestBridge, answer, attribute};
use crate::support::{contract_event, event};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn ordering_key(bridge: &TestBridge, event: String) -> String {
    assert_eq!(bridge.send(event).await.status, StatusCode::OK);
    let message = bridge.published().pop().unwrap();
    message.ordering_key.unwrap()
}

#[tokio::test]
async fn an_event_is_labelled_for_filters() {
    let bridge = TestBridge::start().await;
    bridge.send(contract_event("e1", "signed", "active")).await;

    let message = bridge.published().pop().unwrap();

    let expected = [
        ("event_id", "e1"),
        ("event_type", "contracts.update"),
        ("trigger", "contracts_events"),
        ("table", "contracts"),
        ("op", "update"),
    ];
    for (name, value) in expected {
        assert_eq!(attribute(&message, name), Some(value), "{name}");
    }
    // Or the receiver would take it for a CloudEvent.
    assert!(
        !message
            .attributes
            .iter()
            .any(|(name, _)| name.starts_with("ce-"))
    );
    assert_eq!(
        message.ordering_key.as_deref(),
        Some("contracts/e1-contract")
    );
}

#[tokio::test]
async fn rows_of_one_key_share_an_order_whatever_happens_to_them() {
    let bridge = TestBridge::start().await;
    let row = r#"{"id":7,"name":"a"}"#;

    for (op, old, new) in [
        ("INSERT", "null", row),
        ("UPDATE", row, r#"{"name":"b","id":7}"#),
        ("UPDATE", "null", row),
        ("MANUAL", "null", row),
        ("DELETE", row, "null"),
    ] {
        let key = ordering_key(&bridge, event("e", "things", op, old, new)).await;
        assert_eq!(key, "things/7", "{op}");
    }
}

#[tokio::test]
async fn keys_of_several_columns_are_told_by_table() {
    let keys = [(
        "BRIDGE_KEY_COLUMNS",
        "orders=region+number,billing.invoices=number",
    )];
    let bridge = TestBridge::with(&keys).await;
    let row = r#"{"id":"x","region":"e/u","number":12,"paid":true}"#;

    let order = event("e", "orders", "INSERT", "null", row);
    assert_eq!(ordering_key(&bridge, order).await, "orders/e/u/12");
    let invoice =
        event("e", "invoices", "INSERT", "null", row).replace("\"public\"", "\"billing\"");
    assert_eq!(ordering_key(&bridge, invoice).await, "billing.invoices/12");
    let other = event("e", "others", "INSERT", "null", row);
    assert_eq!(ordering_key(&bridge, other).await, "others/x");
}

#[tokio::test]
async fn a_row_that_lacks_its_key_is_ordered_with_its_table() {
    let keys = [("BRIDGE_KEY_COLUMNS", "orders=region+number")];
    let bridge = TestBridge::with(&keys).await;

    for row in [
        r#"{"region":"eu"}"#,
        r#"{"region":"eu","number":null}"#,
        r#"{"region":"eu","number":{"a":1}}"#,
        "[1]",
        "null",
    ] {
        let key = ordering_key(&bridge, event("e", "orders", "UPDATE", "null", row)).await;
        assert_eq!(key, "orders", "{row}");
    }
}

#[tokio::test]
async fn scheduled_triggers_are_taken_as_well() {
    let bridge = TestBridge::start().await;
    let cron =
        r#"{"scheduled_time":"2026-01-05T10:00:00Z","payload":{"a":1},"name":"nightly","id":"c1"}"#;
    let one_off = r#"{"scheduled_time":"2026-01-05T10:00:00Z","payload":null,"created_at":"2026-01-05T09:00:00Z","id":"o1","comment":null}"#;

    assert_eq!(ordering_key(&bridge, cron.to_owned()).await, "cron.nightly");
    assert_eq!(
        ordering_key(&bridge, one_off.to_owned()).await,
        "scheduled.one_off"
    );

    let published = bridge.published();
    assert_eq!(published[0].data, cron.as_bytes());
    assert_eq!(attribute(&published[0], "trigger"), Some("nightly"));
    assert_eq!(attribute(&published[0], "event_type"), Some("cron.nightly"));
    assert_eq!(attribute(&published[0], "table"), None);
    assert_eq!(attribute(&published[1], "trigger"), None);
    assert_eq!(attribute(&published[1], "event_id"), Some("o1"));
}

#[tokio::test]
async fn the_events_own_trace_goes_on() {
    let bridge = TestBridge::start().await;
    let context = format!(r#"{{"trace_id":"{TRACE}","span_id":"00f067aa0ba902b7"}}"#);
    let event = contract_event("e1", "signed", "active").replace(
        "\"trace_context\":null",
        &format!("\"trace_context\":{context}"),
    );
    let webhook = bridge.webhook(event).header("x-hookyard-secret", SECRET);
    let other = "00-11111111111111111111111111111111-1111111111111111-01";

    answer(webhook.header("traceparent", other)).await;

    let message = bridge.published().pop().unwrap();
    let traceparent = attribute(&message, "traceparent").unwrap();
    assert!(
        traceparent.starts_with(&format!("00-{TRACE}-")),
        "{traceparent}"
    );
    assert!(
        !traceparent.contains("00f067aa0ba902b7"),
        "a span of its own"
    );
}

#[tokio::test]
async fn else_the_requests_trace_goes_on_or_a_new_one_starts() {
    let bridge = TestBridge::start().await;
    let event = contract_event("e1", "signed", "active");
    let webhook = || {
        let request = bridge.webhook(event.clone());
        request.header("x-hookyard-secret", SECRET)
    };

    answer(
        webhook()
            .header("x-b3-traceid", TRACE)
            .header("x-b3-spanid", "00f067aa0ba902b7"),
    )
    .await;
    answer(webhook().header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-00"))).await;
    answer(webhook()).await;

    let published = bridge.published();
    let traces: Vec<&str> = published
        .iter()
        .map(|message| attribute(message, "traceparent").unwrap())
        .collect();
    assert!(traces[0].starts_with(&format!("00-{TRACE}-")) && traces[0].ends_with("-01"));
    assert!(traces[1].starts_with(&format!("00-{TRACE}-")) && traces[1].ends_with("-00"));
    assert_eq!(traces[2].len(), 55);
    assert!(!traces[2].contains(TRACE));
}
