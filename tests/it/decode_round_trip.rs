//! Properties: what is wrapped comes out byte for byte, and nothing at all panics.

use bytes::Bytes;
use hookyard::event::contracts::Verbatim;
use hookyard::event::{Body, Change, Event, unwrap_push};
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::decode_fixtures::headers;

/// Base64 written from RFC 4648's table, independent of the library under test.
pub(crate) fn base64(bytes: &[u8], url_safe: bool, padded: bool) -> String {
    let mut alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').collect();
    alphabet.extend(if url_safe { ['-', '_'] } else { ['+', '/'] });
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, &b| bits << 8 | u32::from(b))
            << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                text.push(alphabet[(bits >> (18 - 6 * i)) as usize & 63]);
            } else if padded {
                text.push('=');
            }
        }
    }
    text
}

pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// JSON that uses the words the decoder looks for, in all the wrong places.
fn near_miss() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 20] = [
        "message",
        "data",
        "messageId",
        "publishTime",
        "attributes",
        "subscription",
        "specversion",
        "type",
        "id",
        "event",
        "op",
        "old",
        "new",
        "table",
        "trigger",
        "name",
        "schema",
        "scheduled_time",
        "payload",
        "trace_context",
    ];
    let word = prop::sample::select(&WORDS[..]);
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!("UPDATE")),
        Just(json!("e30=")),
        Just(json!("google.cloud.pubsub.topic.v1.messagePublished")),
        Just(json!("2021-02-26T19:13:55.749Z")),
        any::<u64>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(word.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Decodes and reads everything there is to read.
fn exercise(headers: &HeaderMap, body: Bytes) {
    let Ok(delivery) = unwrap_push(headers, body) else {
        return;
    };
    let Ok(event) = Event::decode(delivery) else {
        return;
    };
    event.fingerprint();
    event.role();
    if let Body::Row(row) = &event.body {
        row.changed("status");
        let parsed = Change::<Value>::parse(row, event.event_type.as_str());
        drop(parsed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_ids_and_attributes_come_out_as_they_went_in(
        old in any_json(),
        new in any_json(),
        id in "\\PC{1,60}",
        message_id in any::<String>(),
        attributes in prop::collection::btree_map("[a-z]{1,9}", any::<String>(), 0..5),
        (url_safe, padded, pretty) in any::<(bool, bool, bool)>(),
    ) {
        prop_assume!(!id.trim().is_empty());
        let text = |row: &Value| if pretty { format!("{row:#}") } else { row.to_string() };
        let (old, new) = (text(&old), text(&new));
        let data = format!(
            r#"{{"id":{},"trigger":{{"name":"t"}},"table":{{"schema":"s","name":"n"}},
                "event":{{"op":"UPDATE","data":{{"old":{old},"new":{new}}}}}}}"#,
            json!(id),
        );
        let body = json!({"message": {
            "data": base64(data.as_bytes(), url_safe, padded),
            "messageId": message_id, "message_id": message_id, "attributes": attributes,
        }});
        let delivery = unwrap_push(&HeaderMap::new(), body.to_string().into()).unwrap();
        prop_assert_eq!(&delivery.data[..], data.as_bytes());
        prop_assert_eq!(delivery.message_id.as_deref(), Some(&*message_id));
        for (name, value) in &attributes {
            prop_assert_eq!(delivery.attribute(name), Some(&**value));
        }

        let event = Event::decode(delivery).unwrap();
        prop_assert_eq!(event.id.as_str(), id);
        let Body::Row(row) = &event.body else { panic!("not a row") };
        for (json, sent) in [(row.old_json(), &old), (row.new_json(), &new)] {
            prop_assert_eq!(json, Some(&**sent).filter(|text| *text != "null"));
        }
        let verbatim = Change::<Verbatim>::parse(row, "x").unwrap();
        prop_assert_eq!(verbatim.new.as_ref().map(Verbatim::json), row.new_json());
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        exercise(&HeaderMap::new(), bytes.clone().into());
        exercise(&headers(&[("x-goog-pubsub-message-id", "1")]), bytes.clone().into());
        let data = base64(&bytes, false, true);
        exercise(&HeaderMap::new(), format!(r#"{{"message":{{"data":"{data}"}}}}"#).into());
    }

    #[test]
    fn any_json_is_decoded_or_refused(body in prop_oneof![any_json(), near_miss()]) {
        let text = body.to_string();
        exercise(&HeaderMap::new(), text.clone().into());
        exercise(&headers(&[("x-goog-pubsub-message-id", "1")]), text.clone().into());
        let data = base64(text.as_bytes(), true, false);
        exercise(&HeaderMap::new(), format!(r#"{{"message":{{"data":"{data}"}}}}"#).into());
    }

    #[test]
    fn an_event_with_one_byte_changed_is_decoded_or_refused(place in any::<prop::sample::Index>(), byte: u8) {
        let mut data = crate::decode_fixtures::update(r#"{"a":1}"#, r#"{"a":[{}]}"#).into_bytes();
        let place = place.index(data.len());
        data[place] = byte;
        exercise(&HeaderMap::new(), crate::decode_fixtures::wrap(&data).into());
        exercise(&HeaderMap::new(), data.into());
    }
}
