//! The push door as a whole: what it answers to tokens and bodies, and what it keeps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookyard::sandbox::{AUDIENCE, HOUR, SERVICE_ACCOUNT};
use http::StatusCode;
use serde_json::json;

use crate::support::{Behaviour, Probe, TestApp, contract_event, probe_event};

#[tokio::test]
async fn b1_a_body_that_is_no_envelope_is_kept_as_it_came_and_acknowledged() {
    let app = TestApp::start().await;
    let bodies: [&[u8]; 9] = [
        b"",
        b"not json",
        b"42",
        b"[]",
        b"{}",
        b"{\"message\":null}",
        b"{\"message\":true}",
        b"{\"message\":{\"data\":\"%%%\"}}",
        b"\xff\xfe\x00",
    ];

    for body in bodies {
        let answer = app.post(body.to_vec()).await;
        assert_eq!(
            (answer.status, answer.body.len()),
            (StatusCode::OK, 0),
            "{body:?}"
        );
    }

    let kept: Vec<Vec<u8>> = app
        .dead_letters()
        .into_iter()
        .map(|letter| letter.data)
        .collect();
    assert_eq!(kept, bodies);
    assert_eq!(
        app.metric("hookyard_events_total", "undecodable", "dead_lettered")
            .await,
        9.0
    );
}

#[tokio::test]
async fn b3_attributes_without_data_are_kept_with_the_attributes() {
    let app = TestApp::start().await;
    let envelope = json!({"message": {"attributes": {"colour": "blue"}, "messageId": "b3"}});

    assert_eq!(app.push_envelope(&envelope).await.status, StatusCode::OK);

    let letter = app.dead_letters().remove(0);
    assert_eq!(letter.attribute("colour"), Some("blue"));
    assert_eq!(letter.attribute("hookyard-error-code"), Some("no_data"));
    assert_eq!(letter.attribute("hookyard-source-message-id"), Some("b3"));
}

#[tokio::test]
async fn b5_data_that_is_no_event_is_kept_without_its_wrapping() {
    let app = TestApp::start().await;
    let data: [&[u8]; 5] = [
        b"text",
        b"\x1f\x8b\x08",
        b"{\"a\":",
        b"{} {}",
        b"\xef\xbb\xbf{}",
    ];

    for bytes in data {
        assert_eq!(app.push_message(bytes, &[]).await.status, StatusCode::OK);
    }

    let kept: Vec<Vec<u8>> = app
        .dead_letters()
        .into_iter()
        .map(|letter| letter.data)
        .collect();
    assert_eq!(kept, data);
}

#[tokio::test]
async fn b9_a_million_brackets_are_kept_and_the_service_lives() {
    let app = TestApp::start().await;
    let deep = format!(
        "{{\"id\":{}{}}}",
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );

    assert_eq!(app.push(&deep).await.status, StatusCode::OK);
    assert_eq!(
        app.push(&contract_event("b9", "signed", "active"))
            .await
            .status,
        StatusCode::OK
    );

    assert_eq!(
        app.dead_letters()[0].attribute("hookyard-error-code"),
        Some("too_deep")
    );
}

#[tokio::test]
async fn b15_messages_up_to_what_pubsub_allows_are_processed() {
    let app = TestApp::start().await;

    for (n, bytes) in [1_000_000, 3_000_000, 9_900_000].into_iter().enumerate() {
        let notes = format!("\"notes\":\"{}\"", "n".repeat(bytes));
        let event = contract_event(&format!("b15-{n}"), "signed", "active");
        // Only in the new row, or the message would be twice as large.
        let (head, tail) = event.rsplit_once("\"notes\":null").unwrap();
        let answer = app.push(&format!("{head}{notes}{tail}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{bytes} bytes");
    }

    assert_eq!(app.events().len(), 3);
}

#[tokio::test]
async fn b16_a_body_over_the_limit_is_refused_and_counted() {
    let app = TestApp::builder()
        .variable("MAX_BODY_BYTES", "1000")
        .start()
        .await;

    let answer = app.post(vec![b' '; 1001]).await;

    assert_eq!(
        (answer.status, answer.body.len()),
        (StatusCode::PAYLOAD_TOO_LARGE, 0)
    );
    let metrics = app.get("/metrics").await.text();
    assert!(metrics.contains("hookyard_push_rejected_total{reason=\"body_too_large\"} 1"));
    assert!(app.dead_letters().is_empty());
}

#[tokio::test]
async fn an_unwrapped_message_is_an_event_like_any_other() {
    let probe = Probe::that([Behaviour::Succeed]);
    let app = TestApp::builder().handler(probe.clone()).start().await;

    let event = probe_event("unwrapped").into_bytes();
    assert_eq!(app.post(event.clone()).await.status, StatusCode::OK);
    assert_eq!(app.post(event).await.status, StatusCode::OK);

    assert_eq!(probe.runs(), 1);
}

#[tokio::test]
async fn eventarcs_structured_form_is_an_event_like_any_other() {
    let probe = Probe::that([Behaviour::Succeed]);
    let app = TestApp::builder().handler(probe.clone()).start().await;

    let envelope = json!({
        "specversion": "1.0",
        "id": "1",
        "type": "google.cloud.pubsub.topic.v1.messagePublished",
        "source": "//pubsub.googleapis.com/projects/p/topics/t",
        "data": {"message": {"data": STANDARD.encode(probe_event("eventarc"))}},
    });
    assert_eq!(app.push_envelope(&envelope).await.status, StatusCode::OK);

    assert_eq!(probe.runs(), 1);
}

#[tokio::test]
async fn t6_an_address_the_issuer_has_not_verified_is_refused() {
    let app = TestApp::start().await;

    for verified in [json!(false), json!("true"), json!(1), json!(null)] {
        let mut claims = app.sandbox.issuer().claims(AUDIENCE, SERVICE_ACCOUNT, HOUR);
        claims["email_verified"] = verified.clone();
        let token = app.sandbox.issuer().sign(&claims);
        assert_eq!(app.push_with_token(&token).await.status, 401, "{verified}");
    }

    assert_eq!(app.upstream_requests(), 0);
}

#[tokio::test]
async fn t19_refusals_of_tokens_are_the_same_bytes_and_have_no_effect() {
    let app = TestApp::start().await;
    let issuer = app.sandbox.issuer();
    let other_audience = issuer.token("https://elsewhere.example", SERVICE_ACCOUNT, HOUR);
    let forged = format!("{}x", app.sandbox.token());

    let mut seen = Vec::new();
    for token in ["", "a.b.c", &other_audience, &forged] {
        let answer = app.push_with_token(token).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        seen.push(answer.body);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);

    let stranger = issuer.token(AUDIENCE, "somebody@else.iam.gserviceaccount.com", HOUR);
    assert_eq!(
        app.push_with_token(&stranger).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(app.upstream_requests(), 0);
    assert!(app.dead_letters().is_empty());
}

#[tokio::test]
async fn s6_the_admin_routes_compare_the_whole_token() {
    let app = TestApp::builder()
        .variable("ADMIN_TOKEN", "devil")
        .start()
        .await;

    // TestApp's own operator says `dev`, a prefix of the token.
    assert_eq!(app.get("/metrics").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(app.get("/handlers").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn s6_without_an_admin_token_the_admin_routes_are_closed() {
    let app = TestApp::builder().variable("ADMIN_TOKEN", "").start().await;

    let answer = app.get("/metrics").await;

    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
    assert!(
        answer.text().contains("ADMIN_TOKEN"),
        "says what to do: {}",
        answer.text()
    );
}

#[tokio::test]
async fn every_answer_carries_a_request_id_and_the_callers_own_if_it_has_one() {
    let app = TestApp::start().await;
    assert!(
        app.push(&probe_event("ids"))
            .await
            .header("x-request-id")
            .is_some()
    );
    assert!(app.get("/health").await.header("x-request-id").is_some());
    assert!(app.get("/nowhere").await.text().contains("\"request_id\""));
}

#[tokio::test]
async fn b1_what_is_too_large_for_one_dead_letter_is_kept_in_parts() {
    let app = TestApp::start().await;
    let garbage = "no event ".repeat(1_400_000).into_bytes();
    let attributes = [("colour".to_owned(), "blue".to_owned())];
    let largest = vec![b'x'; 9_999_900]; // with ours on top, more than a message may hold

    assert_eq!(app.post(garbage.clone()).await.status, StatusCode::OK);
    assert_eq!(
        app.push_message(&largest, &attributes).await.status,
        StatusCode::OK
    );

    let letters = app.dead_letters();
    let parts: Vec<_> = letters
        .iter()
        .map(|letter| letter.attribute("hookyard-part").unwrap_or_default())
        .collect();
    assert_eq!(parts, ["1/2", "2/2", "1/2", "2/2"]);
    let joined = |first: usize| [&*letters[first].data, &letters[first + 1].data].concat();
    assert!(joined(0) == garbage, "the bytes are not the same");
    assert!(joined(2) == largest, "the bytes are not the same");
    for letter in &letters[2..] {
        assert_eq!(letter.attribute("colour"), Some("blue"));
        assert!(letter.attribute("hookyard-source-message-id").is_some());
    }

    // Published again by mistake, a part fails again and stays the part it was.
    let part = &letters[1];
    app.push_message(&part.data, &part.attributes).await;
    let again = app.dead_letters().pop().unwrap();
    assert_eq!(again.attribute("hookyard-part"), Some("2/2"));
}

#[tokio::test]
async fn trap_8_an_event_is_acknowledged_with_200_and_no_other_success() {
    let app = TestApp::start().await;
    let done = contract_event("trap-8-done", "signed", "active");

    for event in [
        done.as_str(),
        &done, // a duplicate
        &contract_event("trap-8-skipped", "draft", "signed"),
        &crate::support::event("trap-8-unrouted", "nobodys", "INSERT", "null", "{}"),
        "a dead letter",
    ] {
        let answer = app.push(event).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    }
}
