//! A push request's body: unwrapped, decoded, its rows parsed.
//!
//! The first byte chooses the form, the rest is the body.

#![no_main]

use bytes::Bytes;
use hookyard::event::contracts::Verbatim;
use hookyard::event::{Body, Change, Event, unwrap_push};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;

#[derive(Deserialize)]
#[expect(dead_code, reason = "only parsed")]
struct Contract {
    id: String,
    status: String,
    amount_cents: Option<Verbatim>,
}

fuzz_target!(|input: &[u8]| {
    let Some((form, body)) = input.split_first() else {
        return;
    };
    let mut headers = HeaderMap::new();
    match form % 4 {
        0 => {}
        1 => {
            headers.insert("x-goog-pubsub-message-id", HeaderValue::from_static("1"));
        }
        2 => {
            headers.insert("ce-id", HeaderValue::from_static("1"));
            headers.insert("ce-type", HeaderValue::from_static("contract.activated"));
        }
        _ => {
            let kind = "google.cloud.pubsub.topic.v1.messagePublished";
            headers.insert("ce-type", HeaderValue::from_static(kind));
        }
    }
    let body = Bytes::copy_from_slice(body);
    let delivery = match unwrap_push(&headers, body.clone()) {
        Ok(delivery) => delivery,
        Err(undecodable) => {
            assert_eq!(undecodable.delivery.data, body, "the original bytes are kept");
            return;
        }
    };
    let data = delivery.data.clone();
    let event = match Event::decode(delivery) {
        Ok(event) => event,
        Err(undecodable) => {
            assert_eq!(undecodable.delivery.data, data, "the original bytes are kept");
            return;
        }
    };
    event.fingerprint();
    event.claim_id();
    event.role();
    let Body::Row(row) = &event.body else {
        return;
    };
    row.changed("status");
    for json in [row.old_json(), row.new_json()].into_iter().flatten() {
        serde_json::from_str::<serde::de::IgnoredAny>(json).expect("a row is JSON");
    }
    let verbatim = Change::<Verbatim>::parse(row, "x").expect("any JSON is verbatim");
    assert_eq!(verbatim.new.as_ref().map(Verbatim::json), row.new_json());
    let typed = Change::<Contract>::parse(row, "x");
    if let Ok(change) = &typed {
        let rows = [&change.old, &change.new].into_iter().flatten().count();
        let objects = [row.old_json(), row.new_json()].into_iter().flatten();
        assert_eq!(rows, objects.filter(|json| json.starts_with('{')).count());
    }
});
