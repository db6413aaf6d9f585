//! Takes a Pub/Sub push request apart: wrapped, unwrapped, or as a CloudEvent.
//!
//! Pub/Sub's format: <https://cloud.google.com/pubsub/docs/push#receive_push>,
//! unwrapped: <https://cloud.google.com/pubsub/docs/payload-unwrapping>.

use std::borrow::Cow;
use std::time::SystemTime;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::hasura::timestamp;
use super::{Reason, Undecodable};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Most attributes a Pub/Sub message may have (<https://cloud.google.com/pubsub/quotas>).
const MAX_ATTRIBUTES: usize = 100;

/// One arrival of a message.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// The message's bytes: base64 taken off, nothing else changed.
    pub data: Bytes,
    /// Pub/Sub's id of the message.
    pub message_id: Option<String>,
    /// When it was published.
    pub publish_time: Option<SystemTime>,
    /// Which delivery of the message this is, from 1; only told with a dead-letter policy.
    pub attempt: Option<u32>,
    /// The message's ordering key.
    pub ordering_key: Option<String>,
    /// The message's attributes.
    pub attributes: Vec<(String, String)>,
    /// Full name of the subscription that pushes.
    pub subscription: Option<String>,
}

impl Delivery {
    /// Returns the value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    subscription: Option<&'a RawValue>,
    #[serde(borrow, rename = "deliveryAttempt")]
    delivery_attempt: Option<&'a RawValue>,
    // CloudEvents structured mode puts the same under `data`.
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
}

/// Pub/Sub sends both spellings of two members at once, so each has a field of its own: a serde
/// alias would fail with "duplicate field".
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "messageId")]
    message_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "message_id")]
    message_id_snake: Option<&'a RawValue>,
    #[serde(borrow, rename = "publishTime")]
    publish_time: Option<&'a RawValue>,
    #[serde(borrow, rename = "publish_time")]
    publish_time_snake: Option<&'a RawValue>,
    #[serde(borrow, rename = "orderingKey")]
    ordering_key: Option<&'a RawValue>,
    #[serde(borrow, rename = "ordering_key")]
    ordering_key_snake: Option<&'a RawValue>,
    #[serde(default)]
    attributes: Option<Attributes>,
}

/// The attributes in the order they came.
struct Attributes(Vec<(String, String)>);

/// Takes a push request's body apart.
///
/// # Errors
/// [`Undecodable`] when the body is no push envelope or its base64 is broken; the delivery in it
/// then holds the whole body.
pub fn unwrap_push(headers: &HeaderMap, body: Bytes) -> Result<Delivery, Box<Undecodable>> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if header("x-goog-pubsub-message-id").is_some()
        || header("x-goog-pubsub-subscription-name").is_some()
    {
        return Ok(unwrapped(headers, body));
    }
    match read_envelope(headers, &body) {
        Ok(Some(delivery)) => Ok(delivery),
        // No envelope: the subscription unwraps without metadata, so the body is the message.
        Ok(None) => Ok(Delivery {
            attributes: header_attributes(headers),
            data: body,
            ..Delivery::default()
        }),
        Err(reason) => Err(Undecodable::new(
            reason,
            Delivery {
                data: body,
                ..Delivery::default()
            },
        )),
    }
}

fn read_envelope(headers: &HeaderMap, body: &Bytes) -> Result<Option<Delivery>, Reason> {
    let fault = |code, what| Err(Reason { code, what });
    if body.is_empty() {
        return fault("empty_body", "the request has no body");
    }
    let Ok(text) = std::str::from_utf8(body) else {
        return fault("not_utf8", "the request body is not UTF-8 text");
    };
    let envelope: Envelope<'_> = match serde_json::from_str(text) {
        Ok(envelope) => envelope,
        Err(error) if error.is_data() => {
            return fault("no_envelope", "the request body is not a JSON object");
        }
        Err(_) => return fault("not_json", "the request body is not one JSON document"),
    };
    let (envelope, structured) = match (envelope.message, envelope.specversion, envelope.data) {
        (None, Some(_), Some(data)) => match serde_json::from_str::<Envelope<'_>>(data.get()) {
            Ok(inner) if inner.message.is_some() => (inner, None),
            _ => (envelope, Some(data)),
        },
        _ => (envelope, None),
    };
    if let Some(data) = structured {
        return Ok(Some(structured_event(&envelope, body, data)));
    }
    let Some(message) = envelope.message else {
        // A Hasura event itself, from a subscription without wrapper and without metadata.
        return match text.contains("\"event\"") || text.contains("\"scheduled_time\"") {
            true => Ok(None),
            false => fault("no_envelope", "the request body has no `message`"),
        };
    };
    let message: Message<'_> = match serde_json::from_str(message.get()) {
        Ok(message) => message,
        Err(_) => return fault("bad_envelope", "`message` is not a Pub/Sub message"),
    };
    let Ok(data) = decode_base64(message.data.as_deref().unwrap_or_default()) else {
        return fault("bad_base64", "`message.data` is not base64");
    };
    let mut attributes = message
        .attributes
        .map(|attributes| attributes.0)
        .unwrap_or_default();
    if attributes.is_empty() {
        // Eventarc's binary mode and plain HTTP tracing say it in headers.
        if let Some(trace) = headers
            .get("traceparent")
            .and_then(|value| value.to_str().ok())
        {
            attributes.push(("traceparent".to_owned(), trace.to_owned()));
        }
    }
    Ok(Some(Delivery {
        data: data.into(),
        message_id: text_of(message.message_id.or(message.message_id_snake)),
        publish_time: text_of(message.publish_time.or(message.publish_time_snake))
            .as_deref()
            .and_then(timestamp),
        attempt: envelope
            .delivery_attempt
            .and_then(|raw| raw.get().trim_matches('"').parse().ok()),
        ordering_key: text_of(message.ordering_key.or(message.ordering_key_snake))
            .filter(|key| !key.is_empty()),
        attributes,
        subscription: text_of(envelope.subscription),
    }))
}

/// A CloudEvent in structured mode that is not Eventarc's wrapping of a Pub/Sub message.
fn structured_event(envelope: &Envelope<'_>, body: &Bytes, data: &RawValue) -> Delivery {
    let mut attributes = Vec::new();
    for (name, raw) in [
        ("ce-id", envelope.id),
        ("ce-type", envelope.kind),
        ("ce-time", envelope.time),
    ] {
        if let Some(value) = text_of(raw) {
            attributes.push((name.to_owned(), value));
        }
    }
    Delivery {
        data: body.slice_ref(data.get().as_bytes()),
        attributes,
        ..Delivery::default()
    }
}

/// The form of a subscription with payload unwrapping and metadata: everything but the data is
/// in headers.
fn unwrapped(headers: &HeaderMap, body: Bytes) -> Delivery {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    Delivery {
        data: body,
        message_id: header("x-goog-pubsub-message-id"),
        publish_time: header("x-goog-pubsub-publish-time")
            .as_deref()
            .and_then(timestamp),
        attempt: header("x-goog-pubsub-delivery-attempt").and_then(|text| text.parse().ok()),
        ordering_key: header("x-goog-pubsub-ordering-key")
            .or_else(|| header("x-goog-ordering-key")),
        attributes: header_attributes(headers),
        subscription: header("x-goog-pubsub-subscription-name"),
    }
}

/// Pub/Sub copies attributes into headers when it unwraps. Only these are taken back: any other
/// header may hold a credential.
fn header_attributes(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("ce-") || name.as_str() == "traceparent")
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// Takes the standard and the URL-safe alphabet, with or without padding.
fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    let url_safe = text.bytes().any(|b| b == b'-' || b == b'_');
    if url_safe {
        URL_SAFE.decode(text)
    } else {
        STANDARD.decode(text)
    }
}

/// Returns a string's text, or a number's digits; some emulators send ids as numbers.
fn text_of(raw: Option<&RawValue>) -> Option<String> {
    let raw = raw?.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).ok(),
        Some(b'0'..=b'9') => Some(raw.to_owned()),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Attributes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Attributes, A::Error> {
                let mut attributes = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if attributes.len() < MAX_ATTRIBUTES {
                        attributes.push((key, value));
                    }
                }
                Ok(Attributes(attributes))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
