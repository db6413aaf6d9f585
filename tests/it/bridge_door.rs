//! `POST /hasura/events`: who may call it, what it answers, and what is never lost.

use http::StatusCode;

use crate::bridge_kit::{
    OLD_SECRET, SECRET, TOPIC, TestBridge, answer, config, error, retry_after,
};
use crate::support::contract_event;

#[tokio::test]
async fn an_event_is_answered_200_after_the_broker_has_it() {
    let bridge = TestBridge::start().await;
    let event = contract_event("e1", "signed", "active");

    let answer = bridge.send(event.clone()).await;

    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.text(), r#"{"message_id":"1"}"#);
    assert!(answer.headers.contains_key("x-request-id"));
    let published = bridge.published();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].data, event.as_bytes(), "byte for byte");
}

#[tokio::test]
async fn odd_but_good_json_is_published_byte_for_byte() {
    let bridge = TestBridge::start().await;
    let event = contract_event("e1", "signed", "active");
    let odd = event.replace(
        r#""amount_cents":29700"#,
        "\"amount_cents\" : 1e400,\t\"x\":\"\\u00e9\"",
    ) + " \r\n";

    assert_eq!(bridge.send(odd.clone()).await.status, StatusCode::OK);

    assert_eq!(bridge.published()[0].data, odd.as_bytes());
}

#[tokio::test]
async fn s1_without_the_secret_nothing_is_taken() {
    let bridge = TestBridge::start().await;
    let event = contract_event("e1", "signed", "active");
    let near = SECRET.replace('f', "e");
    let tries = [
        bridge.webhook(event.clone()),
        bridge
            .webhook(event.clone())
            .header("x-hookyard-secret", ""),
        bridge
            .webhook(event.clone())
            .header("x-hookyard-secret", near),
        bridge
            .webhook(event.clone())
            .header("x-hookyard-secret", &SECRET[1..]),
        bridge.webhook(event.clone()).bearer_auth(SECRET),
        bridge
            .webhook(event)
            .header("x-hookyard-secret", SECRET)
            .header("x-hookyard-secret", SECRET),
    ];

    for request in tries {
        let answer = answer(request).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(!answer.text().contains(SECRET));
        // Hasura goes on trying: a secret changed on one side only loses nothing.
        assert_eq!(retry_after(&answer), Some(60));
    }
    assert!(bridge.published().is_empty());
}

#[tokio::test]
async fn s16_while_a_secret_is_changed_both_are_taken() {
    let both = format!("{SECRET}, {OLD_SECRET}");
    let bridge = TestBridge::with(&[("BRIDGE_SECRET", &both)]).await;

    for secret in [SECRET, OLD_SECRET] {
        let webhook = bridge.webhook(contract_event("e1", "signed", "active"));
        let answer = answer(webhook.header("x-hookyard-secret", secret)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let webhook = bridge.webhook("{}").header("x-hookyard-secret", both);
    assert_eq!(answer(webhook).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_a_configured_secret_the_door_is_closed() {
    let mut config = config(&[]);
    config.bridge.secrets.clear();
    let bridge = TestBridge::of(config).await;

    let answer = bridge.send(contract_event("e1", "signed", "active")).await;

    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error(&answer).0, "bridge_closed");
    assert_eq!(retry_after(&answer), Some(60));
    assert!(bridge.published().is_empty());
}

#[tokio::test]
async fn u14_what_the_broker_does_not_confirm_comes_again() {
    let bridge = TestBridge::start().await;
    let event = contract_event("e1", "signed", "active");

    bridge.broker.go_down();
    let refused = bridge.send(event.clone()).await;
    bridge.broker.recover();
    let taken = bridge.send(event).await;

    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error(&refused).0, "not_published");
    assert_eq!(retry_after(&refused), Some(5));
    assert_eq!(taken.status, StatusCode::OK);
    assert_eq!(bridge.published().len(), 1);
}

#[tokio::test]
async fn b_an_oversize_event_is_refused_with_a_word_about_it() {
    let bridge = TestBridge::with(&[("MAX_BODY_BYTES", "2000")]).await;
    let event = contract_event("e1", "signed", "active");
    let large = event.replace("null", &format!("\"{}\"", "x".repeat(2000)));

    let answer = bridge.send(large).await;

    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let (code, message) = error(&answer);
    assert_eq!(code, "body_too_large");
    assert!(message.contains("payload"), "{message}");
    // Tried as often as the trigger says, then kept in Hasura's log as failed.
    assert_eq!(retry_after(&answer), None);
    assert!(bridge.published().is_empty());
}

#[tokio::test]
async fn b_an_event_the_broker_finds_too_large_is_refused_the_same_way() {
    let bridge = TestBridge::start().await;
    let event = contract_event("e1", "signed", "active");
    let room = 10_000_000 - event.len() + "null".len() - "\"\"".len();
    let at_the_limit = event.replacen(
        "\"notes\":null",
        &format!("\"notes\":\"{}\"", "x".repeat(room)),
        1,
    );
    let over = event.replacen(
        "\"notes\":null",
        &format!("\"notes\":\"{}\"", "x".repeat(room + 1)),
        1,
    );

    for large in [at_the_limit, over] {
        let answer = bridge.send(large).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(error(&answer).0, "body_too_large");
    }
}

#[tokio::test]
async fn b_what_is_no_event_is_refused_with_the_reason_and_no_value() {
    let bridge = TestBridge::start().await;
    let good = contract_event("e1", "signed", "active");
    let cases = [
        (String::new(), "no_data"),
        ("{\"id\": s3cret".to_owned(), "not_json"),
        ("[\"s3cret\"]".to_owned(), "not_an_event"),
        (
            "{\"id\":\"s3cret\",\"note\":\"s3cret\"}".to_owned(),
            "not_an_event",
        ),
        (good.replace("UPDATE", "s3cret"), "unknown_op"),
        (good.replace("\"e1\"", "\" \""), "no_event_id"),
    ];

    for (body, code) in cases {
        let answer = bridge.send(body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{code}");
        assert_eq!(error(&answer).0, code);
        assert!(!answer.text().contains("s3cret"), "{}", answer.text());
        assert_eq!(retry_after(&answer), None);
    }
    assert!(bridge.published().is_empty());
}

#[tokio::test]
async fn compressed_bodies_are_refused() {
    let bridge = TestBridge::start().await;
    let webhook = bridge.webhook("x").header("x-hookyard-secret", SECRET);

    let answer = answer(webhook.header("content-encoding", "gzip")).await;

    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(error(&answer).0, "body_encoded");
}

#[tokio::test]
async fn the_bridge_has_the_usual_routes_and_counts_what_it_does() {
    let bridge = TestBridge::start().await;
    bridge.send(contract_event("e1", "signed", "active")).await;
    bridge.send("[]").await;

    assert_eq!(bridge.get("/health").await.status, StatusCode::OK);
    assert_eq!(bridge.get("/ready").await.status, StatusCode::OK);
    assert_eq!(bridge.get("/push").await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        bridge.get("/hasura/events").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    let metrics = bridge.get("/metrics").await.text();
    for line in [
        &*format!("hookyard_published_total{{outcome=\"ok\",topic=\"{TOPIC}\"}} 1"),
        "hookyard_push_rejected_total{reason=\"not_an_event\"} 1",
        "hookyard_event_age_seconds_count 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}
