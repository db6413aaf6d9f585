//! The envelope: wrapped, unwrapped, CloudEvents, and what the emulator makes of it.

use std::time::{Duration, SystemTime};

use hookyard::event::{Body, Op, unwrap_push};
use http::HeaderMap;

use crate::decode_fixtures::{decode, decode_data, decode_with, headers, update, wrap};

const CONTRACT: &str = r#"{"id":"c1","status":"active"}"#;

fn at(seconds: u64, millis: u64) -> Option<SystemTime> {
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis))
}

#[test]
fn b1_a_body_that_is_no_envelope_is_undecodable() {
    for (body, code) in [
        ("", "empty_body"),
        (" ", "not_json"),
        ("hello", "not_json"),
        ("true", "no_envelope"),
        ("1", "no_envelope"),
        ("\"text\"", "no_envelope"),
        ("null", "no_envelope"),
        ("[]", "no_envelope"),
        ("{}", "no_envelope"),
        (r#"{"subscription":"s"}"#, "no_envelope"),
        (r#"{"message":null}"#, "no_envelope"),
        (r#"{"message":true}"#, "bad_envelope"),
        (r#"{"message":"text"}"#, "bad_envelope"),
        (r#"{"message":{"data":5}}"#, "bad_envelope"),
        (r#"{"message":{"attributes":{"a":5}}}"#, "bad_envelope"),
        (r#"{"message":{}}"#, "no_data"),
        (r#"{"message":{}} {"message":{}}"#, "not_json"),
        (r#"{"message":{}"#, "not_json"),
        ("\u{feff}{}", "not_json"),
    ] {
        assert_eq!(decode(body).unwrap_err(), code, "{body}");
    }
}

#[test]
fn b1_an_array_does_not_pass_for_an_envelope_member_by_member() {
    let message = wrap(update("null", CONTRACT));
    let inside: serde_json::Value = serde_json::from_str(&message).unwrap();
    let message = &inside["message"];
    let body = format!(r#"[{message},"s",null,null,null,null,null,null]"#);
    assert_eq!(decode(body).unwrap_err(), "no_envelope");
}

#[test]
fn b2_both_spellings_at_once_are_one_message() {
    let event = decode_data(update("null", CONTRACT)).unwrap();

    assert_eq!(event.delivery.message_id.as_deref(), Some("207"));
    assert_eq!(event.delivery.publish_time, at(1_614_366_835, 749));
    let subscription = event.delivery.subscription.as_deref();
    assert_eq!(subscription, Some("projects/p/subscriptions/s"));
}

#[test]
fn b2_only_the_snake_spelling_is_read_too() {
    let body = r#"{"message":{"data":"e30=","message_id":"7","ordering_key":"k",
        "publish_time":"2021-02-26T19:13:55Z"}}"#;
    let delivery = unwrap_push(&HeaderMap::new(), body.into()).unwrap();

    assert_eq!(delivery.message_id.as_deref(), Some("7"));
    assert_eq!(delivery.ordering_key.as_deref(), Some("k"));
    assert_eq!(delivery.publish_time, at(1_614_366_835, 0));
}

#[test]
fn b2_attempt_ordering_key_attributes_and_unknown_members_are_taken() {
    let body = r#"{"deliveryAttempt":5,"extra":[{"deep":{}}],
        "message":{"@type":"type.googleapis.com/google.pubsub.v1.PubsubMessage",
            "attributes":{"k":"v","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
            "data":"e30=","messageId":"207","message_id":"207","orderingKey":"key","new":null},
        "subscription":"projects/p/subscriptions/s"}"#;
    let delivery = unwrap_push(&HeaderMap::new(), body.into()).unwrap();

    assert_eq!(delivery.attempt, Some(5));
    assert_eq!(delivery.ordering_key.as_deref(), Some("key"));
    assert_eq!(delivery.attribute("k"), Some("v"));
    assert_eq!(delivery.attribute("absent"), None);
    assert_eq!(&delivery.data[..], b"{}");
}

#[test]
fn b2_the_order_of_the_members_does_not_matter() {
    let body = r#"{"subscription":"s","message":{"publish_time":"2021-02-26T19:13:55.749Z",
        "messageId":"1","data":"e30=","attributes":null,"message_id":"1"},"deliveryAttempt":null}"#;
    let delivery = unwrap_push(&HeaderMap::new(), body.into()).unwrap();

    assert_eq!(&delivery.data[..], b"{}");
    assert_eq!(delivery.attempt, None);
    assert!(delivery.attributes.is_empty());
}

#[test]
fn b2_the_emulators_shape_is_read() {
    // Slashes escaped, no orderingKey, no deliveryAttempt.
    let data = update("null", r#"{"id":"c1","url":"??>>??"}"#);
    let body = wrap(&data).replace('/', r"\/");
    let event = decode(body).unwrap();

    let subscription = event.delivery.subscription.as_deref();
    assert_eq!(subscription, Some("projects/p/subscriptions/s"));
    assert_eq!(event.delivery.data, data);
    assert_eq!(event.delivery.attempt, None);
}

#[test]
fn b3_attributes_without_data_are_undecodable_and_kept() {
    for data in ["", r#""data":null,"#, r#""data":"","#] {
        let body = format!(r#"{{"message":{{{data}"attributes":{{"a":"b"}},"messageId":"1"}}}}"#);
        let delivery = unwrap_push(&HeaderMap::new(), body.clone().into()).unwrap();
        assert_eq!(delivery.attribute("a"), Some("b"));
        assert_eq!(decode(body).unwrap_err(), "no_data");
    }
}

#[test]
fn b4_base64_of_both_alphabets_with_or_without_padding_is_read() {
    for (text, bytes) in [
        ("+/8=", &[0xfb, 0xff][..]),
        ("+/8", &[0xfb, 0xff]),
        ("-_8=", &[0xfb, 0xff]),
        ("-_8", &[0xfb, 0xff]),
        ("AA==", &[0]),
        ("AA", &[0]),
        ("AA=", &[0]),
        ("", &[]),
    ] {
        let body = format!(r#"{{"message":{{"data":"{text}"}}}}"#);
        match unwrap_push(&HeaderMap::new(), body.into()) {
            Ok(delivery) => assert_eq!(&delivery.data[..], bytes, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn b4_any_other_base64_is_undecodable() {
    for text in [
        "A",
        "AAAAA",
        "AA A",
        " AAAA",
        "AAAA ",
        "AA\\nAA",
        "AAAA\\r\\n",
        "-_8+",
        "A=A=",
        "====",
        "AAAA=",
        "AA===",
        "é",
        "AB==",
        "%41",
        "AA==AA==",
    ] {
        let body =
            format!(r#"{{"message":{{"data":"{text}","messageId":"9"}},"subscription":"s"}}"#);
        let error = unwrap_push(&HeaderMap::new(), body.clone().into()).unwrap_err();
        assert_eq!(error.reason.code, "bad_base64", "{text}");
        assert_eq!(error.delivery.data, body, "the whole body is kept");
        assert_eq!(error.delivery.message_id.as_deref(), Some("9"));
        assert_eq!(error.delivery.subscription.as_deref(), Some("s"));
    }
}

#[test]
fn b18_the_content_type_does_not_decide() {
    for kind in [
        "application/json; charset=utf-16",
        "application/cloudevents+json",
        "application/x-www-form-urlencoded",
        "text/plain",
    ] {
        let headers = headers(&[("content-type", kind)]);
        let event = decode_with(&headers, wrap(update("null", CONTRACT))).unwrap();
        assert_eq!(event.event_type.as_str(), "contracts.update");
        let event = decode_with(&headers, update("null", CONTRACT)).unwrap();
        assert_eq!(event.event_type.as_str(), "contracts.update");
    }
}

#[test]
fn an_unwrapped_message_has_its_metadata_in_headers() {
    let headers = headers(&[
        (
            "x-goog-pubsub-subscription-name",
            "projects/p/subscriptions/s",
        ),
        ("x-goog-pubsub-message-id", "12"),
        ("x-goog-pubsub-publish-time", "2021-02-26T19:13:55.749Z"),
        ("x-goog-ordering-key", "c1"),
        ("authorization", "Bearer secret"),
        ("tenant", "acme"),
    ]);
    let data = update("null", CONTRACT);
    let event = decode_with(&headers, data.clone()).unwrap();

    assert_eq!(event.event_type.as_str(), "contracts.update");
    assert_eq!(event.delivery.message_id.as_deref(), Some("12"));
    assert_eq!(event.delivery.ordering_key.as_deref(), Some("c1"));
    assert_eq!(event.delivery.publish_time, at(1_614_366_835, 749));
    assert_eq!(event.delivery.attribute("authorization"), None);
    assert_eq!(event.delivery.data, data);
}

#[test]
fn an_unwrapped_message_may_hold_anything() {
    let headers = headers(&[("x-goog-pubsub-message-id", "12")]);
    for (data, code) in [
        (&b""[..], "no_data"),
        (b"\x1f\x8b\x08", "not_utf8"),
        (b"{\"message\":{}}", "no_event_id"),
    ] {
        assert_eq!(decode_with(&headers, data).unwrap_err(), code);
    }
}

#[test]
fn an_unwrapped_message_without_metadata_is_told_by_its_shape() {
    let event = decode(update("null", CONTRACT)).unwrap();
    assert_eq!(event.event_type.as_str(), "contracts.update");
    assert_eq!(event.delivery.message_id, None);

    let cron =
        r#"{"id":"1","name":"nightly","scheduled_time":"2021-02-26T19:13:55Z","payload":{}}"#;
    assert_eq!(decode(cron).unwrap().event_type.as_str(), "cron.nightly");

    // Mentioning the word is not enough.
    let body = r#"{"note":"an \"event\"","list":["event"]}"#;
    assert_eq!(decode(body).unwrap_err(), "no_envelope");
}

#[test]
fn a_binary_cloud_event_about_a_message_is_unwrapped_from_it() {
    let headers = headers(&[
        ("ce-id", "207"),
        ("ce-source", "//pubsub.googleapis.com/projects/p/topics/t"),
        ("ce-type", "google.cloud.pubsub.topic.v1.messagePublished"),
        ("ce-time", "2021-02-26T19:13:55.749Z"),
        ("ce-specversion", "1.0"),
    ]);
    let event = decode_with(&headers, wrap(update("null", CONTRACT))).unwrap();

    assert_eq!(event.event_type.as_str(), "contracts.update");
    assert_eq!(event.delivery.message_id.as_deref(), Some("207"));
}

#[test]
fn a_structured_cloud_event_about_a_message_is_unwrapped_from_it() {
    let inner = wrap(update("null", CONTRACT));
    for inner in [inner.clone(), format!("\n\t {inner}")] {
        let body = format!(
            r#"{{"specversion":"1.0","id":"207","source":"//pubsub.googleapis.com/projects/p/topics/t",
                "type":"google.cloud.pubsub.topic.v1.messagePublished",
                "datacontenttype":"application/json","data":{inner}}}"#
        );
        let event = decode(body).unwrap();
        assert_eq!(event.event_type.as_str(), "contracts.update");
        assert_eq!(event.delivery.message_id.as_deref(), Some("207"));
    }
}

#[test]
fn cloud_events_inside_one_another_are_undecodable_at_any_depth() {
    let kind = "google.cloud.pubsub.topic.v1.messagePublished";
    let mut body = wrap(update("null", CONTRACT));
    for _ in 0..3 {
        body = format!(r#"{{"specversion":"1.0","type":"{kind}","data":{body}}}"#);
    }
    assert_eq!(decode(body).unwrap_err(), "no_envelope");

    let open = format!(r#"{{"specversion":"1.0","type":"{kind}","data":"#);
    let body = format!("{}1{}", open.repeat(50_000), "}".repeat(50_000));
    assert_eq!(decode(body).unwrap_err(), "no_envelope");
}

#[test]
fn a_structured_cloud_event_of_its_own_is_a_domain_event() {
    let body = r#"{"specversion":"1.0","id":"e1","source":"/contracts","type":"contract.activated",
        "subject":"c1","time":"2021-02-26T19:13:55Z",
        "traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "data":{"amount": 1.10}}"#;
    let event = decode(body).unwrap();

    assert_eq!(event.id.as_str(), "e1");
    assert_eq!(event.event_type.as_str(), "contract.activated");
    assert_eq!(event.created_at, at(1_614_366_835, 0));
    assert_eq!(event.delivery.attribute("ce-subject"), Some("c1"));
    let trace = event.trace.unwrap().trace_id();
    assert_eq!(trace, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(matches!(&event.body, Body::Message(data) if data == r#"{"amount": 1.10}"#));
}

#[test]
fn a_structured_cloud_event_may_hold_base64() {
    let event = |data: &str| {
        format!(r#"{{"specversion":"1.0","id":"e","type":"a.b","data_base64":"{data}"}}"#)
    };
    let Body::Message(data) = decode(event("AP8=")).unwrap().body else {
        panic!("not a domain event");
    };
    assert_eq!(&data[..], [0, 0xff]);
    assert_eq!(decode(event("?")).unwrap_err(), "bad_base64");
}

#[test]
fn a_binary_cloud_event_of_its_own_is_a_domain_event() {
    let headers = headers(&[("ce-id", "e1"), ("ce-type", "contract.activated")]);
    let event = decode_with(&headers, "any bytes").unwrap();

    assert_eq!(event.event_type.as_str(), "contract.activated");
    assert!(matches!(&event.body, Body::Message(data) if data == "any bytes"));
}

#[test]
fn an_event_of_our_own_comes_back_by_its_attributes() {
    let body = r#"{"message":{"data":"eyJjb250cmFjdF9pZCI6ImMxIn0=","messageId":"1",
        "attributes":{"ce-id":"e1","ce-type":"contract.activated","ce-specversion":"1.0",
            "ce-time":"2021-02-26T19:13:55Z","ce-subject":"c1",
            "traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}}"#;
    let event = decode(body).unwrap();

    assert_eq!(event.id.as_str(), "e1");
    assert_eq!(event.event_type.as_str(), "contract.activated");
    assert_eq!(event.created_at, at(1_614_366_835, 0));
    assert!(event.trace.is_some());
    assert!(matches!(&event.body, Body::Message(data) if data == r#"{"contract_id":"c1"}"#));

    let body = body.replace(r#""ce-id":"e1","#, "");
    assert_eq!(decode(body).unwrap_err(), "no_event_id");
}

#[test]
fn the_trace_is_the_messages_then_hasuras_then_the_requests() {
    let parent = |digit: char| {
        let id = digit.to_string().repeat(32);
        format!("00-{id}-00f067aa0ba902b7-01")
    };
    let trace = |body: String| {
        let headers = headers(&[("traceparent", &parent('b'))]);
        let event = decode_with(&headers, body).unwrap();
        event.trace.unwrap().trace_id()
    };
    let with_context = update("null", CONTRACT);
    let without = with_context.replace("trace_context", "other");

    assert_eq!(trace(wrap(&without)), "b".repeat(32));
    let hasuras = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(trace(wrap(&with_context)), hasuras);
    let attribute = format!(r#""attributes":{{"traceparent":"{}"}},"data""#, parent('a'));
    let body = wrap(&with_context).replace(r#""data""#, &attribute);
    assert_eq!(trace(body), "a".repeat(32));
}

#[test]
fn the_requests_trace_does_not_become_an_attribute() {
    let headers = headers(&[(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )]);
    let event = decode_with(&headers, wrap(update("null", CONTRACT))).unwrap();
    assert!(event.delivery.attributes.is_empty());
}

#[test]
fn numbers_where_ids_are_expected_keep_their_digits() {
    let body = r#"{"deliveryAttempt":"3","subscription":7,
        "message":{"data":"e30=","messageId":12345678901234567890123}}"#;
    let delivery = unwrap_push(&HeaderMap::new(), body.into()).unwrap();

    assert_eq!(
        delivery.message_id.as_deref(),
        Some("12345678901234567890123")
    );
    assert_eq!(delivery.subscription.as_deref(), Some("7"));
    assert_eq!(delivery.attempt, Some(3));
}

#[test]
fn no_more_attributes_are_kept_than_pubsub_allows() {
    let many: Vec<String> = (0..5_000).map(|i| format!(r#""k{i}":"v""#)).collect();
    let body = format!(
        r#"{{"message":{{"data":"e30=","attributes":{{{}}}}}}}"#,
        many.join(",")
    );
    let delivery = unwrap_push(&HeaderMap::new(), body.into()).unwrap();
    assert_eq!(delivery.attributes.len(), 100);
}

#[test]
fn an_update_is_recognised_in_every_form() {
    let event = decode_data(update("null", CONTRACT)).unwrap();
    let Body::Row(row) = &event.body else {
        panic!("not a row");
    };
    assert_eq!(row.op(), Op::Update);
    assert_eq!(row.new_json(), Some(CONTRACT));
}
