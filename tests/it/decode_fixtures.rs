//! Bodies for the decoder's tests, wrapped by hand and not by the code under test.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hookyard::event::{Event, unwrap_push};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What is in a push request's body when Hasura's event is `data`.
pub(crate) fn wrap(data: impl AsRef<[u8]>) -> String {
    let data = BASE64_STANDARD.encode(data);
    format!(
        r#"{{"message":{{"data":"{data}","messageId":"207","message_id":"207",
            "publishTime":"2021-02-26T19:13:55.749Z","publish_time":"2021-02-26T19:13:55.749Z"}},
            "subscription":"projects/p/subscriptions/s"}}"#
    )
}

/// An update of a row in `public.contracts`.
pub(crate) fn update(old: &str, new: &str) -> String {
    event("UPDATE", old, new)
}

/// A table event on `public.contracts`.
pub(crate) fn event(op: &str, old: &str, new: &str) -> String {
    format!(
        r#"{{"id":"85558393-c75d-4d2f-9c15-e80591b83894",
            "created_at":"2018-09-05T07:14:21.601701Z",
            "delivery_info":{{"current_retry":2,"max_retries":5}},
            "trigger":{{"name":"contract_events"}},
            "table":{{"schema":"public","name":"contracts"}},
            "event":{{"op":"{op}","data":{{"old":{old},"new":{new}}},
                "session_variables":{{"x-hasura-role":"admin","x-hasura-user-id":"1"}},
                "trace_context":{{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736",
                    "span_id":"00f067aa0ba902b7"}}}}}}"#
    )
}

/// Headers by name and value.
pub(crate) fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        })
        .collect()
}

/// Decodes a push request without metadata headers; the error is the reason's code.
pub(crate) fn decode(body: impl Into<Bytes>) -> Result<Event, &'static str> {
    decode_with(&HeaderMap::new(), body)
}

/// Decodes a push request; the error is the reason's code.
///
/// Whatever fails must have kept the bytes that arrived: the body, or the data in it.
pub(crate) fn decode_with(
    headers: &HeaderMap,
    body: impl Into<Bytes>,
) -> Result<Event, &'static str> {
    let body = body.into();
    let delivery = unwrap_push(headers, body.clone()).map_err(|undecodable| {
        assert_eq!(undecodable.delivery.data, body, "the original body is kept");
        known(undecodable.reason.code)
    })?;
    let data = delivery.data.clone();
    Event::decode(delivery).map_err(|undecodable| {
        assert_eq!(undecodable.delivery.data, data, "the original data is kept");
        known(undecodable.reason.code)
    })
}

/// Decodes a Hasura event in a wrapped push request.
pub(crate) fn decode_data(data: impl AsRef<[u8]>) -> Result<Event, &'static str> {
    decode(wrap(data))
}

/// Codes are labels of metrics, so there are only these.
fn known(code: &'static str) -> &'static str {
    const CODES: [&str; 12] = [
        "empty_body",
        "not_utf8",
        "not_json",
        "no_envelope",
        "bad_envelope",
        "bad_base64",
        "no_data",
        "too_deep",
        "not_an_event",
        "no_event_id",
        "unknown_op",
        "name_too_long",
    ];
    assert!(CODES.contains(&code), "unknown reason code {code}");
    code
}
