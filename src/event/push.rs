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
use super::json::{Text, is_object, member, text_of};
use super::{Reason, TraceContext, Undecodable};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Most attributes a Pub/Sub message may have (<https://cloud.google.com/pubsub/quotas>).
const MAX_ATTRIBUTES: usize = 100;

/// The CloudEvents members that become attributes, as they would be in binary mode.
const STRUCTURED: [&str; 7] = [
    "id",
    "source",
    "type",
    "subject",
    "time",
    "traceparent",
    "eventdepth",
];

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
    /// The trace of the HTTP request itself. The message and the event know better when they
    /// name a trace: a proxy may have made this one up.
    pub request_trace: Option<TraceContext>,
}

impl Delivery {
    /// Returns the value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns how often Pub/Sub had delivered a message before it gave up and put it on a
    /// dead-letter topic (<https://cloud.google.com/pubsub/docs/handling-failures>).
    pub fn source_deliveries(&self) -> Option<u32> {
        let count = self.attribute("CloudPubSubDeadLetterSourceDeliveryCount")?;
        count.parse().ok()
    }

    /// Returns when the message was published, on its first topic if it has been on two.
    pub fn first_published(&self) -> Option<SystemTime> {
        self.attribute("CloudPubSubDeadLetterSourceTopicPublishTime")
            .and_then(timestamp)
            .or(self.publish_time)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    subscription: Option<&'a RawValue>,
    #[serde(borrow, rename = "deliveryAttempt")]
    delivery_attempt: Option<&'a RawValue>,
    // A CloudEvent in structured mode.
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Text<'a>>,
    // A Hasura event that was unwrapped without metadata.
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    scheduled_time: Option<&'a RawValue>,
}

/// Pub/Sub sends both spellings of two members at once, so each has a field of its own: a serde
/// alias would fail with "duplicate field".
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    data: Option<Text<'a>>,
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
    attributes: Option<Attributes>,
}

/// The attributes in the order they came.
struct Attributes(Vec<(String, String)>);

/// Takes a push request apart.
///
/// # Errors
/// [`Undecodable`] when the body is no push envelope or its base64 is broken; the delivery in it
/// then holds the whole body as its data.
pub fn unwrap_push(headers: &HeaderMap, body: Bytes) -> Result<Delivery, Box<Undecodable>> {
    let mut delivery = if is_unwrapped(headers) {
        unwrapped(headers, body)
    } else {
        read_envelope(headers, body, Nesting::Outer)?
    };
    delivery.request_trace = header(headers, "traceparent").and_then(TraceContext::parse);
    Ok(delivery)
}

/// Tells whether the body is the data itself, with everything else in headers: a subscription
/// that unwraps and writes metadata, or a CloudEvent in binary mode. Eventarc's CloudEvents about
/// Pub/Sub messages are not meant: their data is the wrapped form.
fn is_unwrapped(headers: &HeaderMap) -> bool {
    headers.contains_key("x-goog-pubsub-message-id")
        || headers.contains_key("x-goog-pubsub-subscription-name")
        || header(headers, "ce-type").is_some_and(|kind| !is_transport(kind))
}

/// Tells whether a CloudEvent type says only that a Pub/Sub message was published.
pub(super) fn is_transport(ce_type: &str) -> bool {
    ce_type.starts_with("google.cloud.pubsub.")
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether an envelope stands by itself or inside a CloudEvent, which wraps at most once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nesting {
    Outer,
    Inner,
}

fn read_envelope(
    headers: &HeaderMap,
    body: Bytes,
    nesting: Nesting,
) -> Result<Delivery, Box<Undecodable>> {
    let fault = |code, what| Err(undecodable(code, what, &body, Delivery::default()));
    if body.is_empty() {
        return fault("empty_body", "the request has no body");
    }
    let Ok(text) = std::str::from_utf8(&body) else {
        return fault("not_utf8", "the request body is not UTF-8 text");
    };
    let envelope: Envelope<'_> = match serde_json::from_str(text) {
        Ok(envelope) if is_object(text) => envelope,
        Err(error) if !error.is_data() => {
            return fault("not_json", "the request body is not one JSON document");
        }
        Err(_) if is_object(text) => {
            return fault("bad_envelope", "the request body is no sound push envelope");
        }
        Ok(_) | Err(_) => return fault("no_envelope", "the request body is not a JSON object"),
    };
    if let Some(message) = envelope.message {
        let delivery = Delivery {
            data: Bytes::new(),
            message_id: owned(message.message_id.or(message.message_id_snake)),
            publish_time: text_of(message.publish_time.or(message.publish_time_snake))
                .and_then(|text| timestamp(&text)),
            attempt: text_of(envelope.delivery_attempt).and_then(|text| text.parse().ok()),
            ordering_key: owned(message.ordering_key.or(message.ordering_key_snake))
                .filter(|key| !key.is_empty()),
            attributes: message.attributes.map(|all| all.0).unwrap_or_default(),
            subscription: owned(envelope.subscription),
            request_trace: None,
        };
        return with_base64(
            message.data.as_ref().map_or("", |data| &data.0),
            &body,
            delivery,
        );
    }
    if envelope.specversion.is_some() && nesting == Nesting::Outer {
        return structured(headers, &body, text, &envelope);
    }
    if envelope.event.is_some() || envelope.scheduled_time.is_some() {
        // A Hasura event itself, from a subscription that unwraps without metadata.
        let attributes = header_attributes(headers);
        return Ok(Delivery {
            data: body,
            attributes,
            ..Delivery::default()
        });
    }
    fault("no_envelope", "the request body has no `message`")
}

/// Keeps the whole body of a request that holds no event, beside what is known about it.
fn undecodable(
    code: &'static str,
    what: &'static str,
    body: &Bytes,
    known: Delivery,
) -> Box<Undecodable> {
    let delivery = Delivery {
        data: body.clone(),
        ..known
    };
    Undecodable::new(Reason { code, what }, delivery)
}

/// Fills in the data of a delivery, or keeps the whole body when the data is broken.
fn with_base64(data: &str, body: &Bytes, delivery: Delivery) -> Result<Delivery, Box<Undecodable>> {
    match decode_base64(data) {
        Ok(data) => Ok(Delivery {
            data: data.into(),
            ..delivery
        }),
        Err(_) => Err(undecodable(
            "bad_base64",
            "the data is not base64",
            body,
            delivery,
        )),
    }
}

/// A CloudEvent in structured mode: Eventarc's wrapping of a push envelope, or an event itself.
fn structured(
    headers: &HeaderMap,
    body: &Bytes,
    text: &str,
    envelope: &Envelope<'_>,
) -> Result<Delivery, Box<Undecodable>> {
    let attributes: Vec<(String, String)> = STRUCTURED
        .iter()
        .filter_map(|name| {
            let value = text_of(Some(serde_json::from_str(member(text, name)?).ok()?))?;
            Some((format!("ce-{name}"), value.into_owned()))
        })
        .collect();
    let about_message = attributes
        .iter()
        .any(|(name, value)| name == "ce-type" && is_transport(value));
    let mut delivery = Delivery {
        attributes,
        ..Delivery::default()
    };
    let Some(data) = envelope.data else {
        let data = envelope.data_base64.as_ref().map_or("", |data| &data.0);
        return with_base64(data, body, delivery);
    };
    let data = body.slice_ref(data.get().as_bytes());
    if about_message {
        return read_envelope(headers, data, Nesting::Inner).map_err(|mut undecodable| {
            undecodable.delivery.data = body.clone();
            undecodable
        });
    }
    delivery.data = data;
    Ok(delivery)
}

/// The form in which everything but the data is in headers.
fn unwrapped(headers: &HeaderMap, body: Bytes) -> Delivery {
    let owned = |name: &str| header(headers, name).map(str::to_owned);
    Delivery {
        data: body,
        message_id: owned("x-goog-pubsub-message-id"),
        publish_time: header(headers, "x-goog-pubsub-publish-time").and_then(timestamp),
        attempt: header(headers, "x-goog-pubsub-delivery-attempt")
            .and_then(|text| text.parse().ok()),
        ordering_key: owned("x-goog-pubsub-ordering-key").or_else(|| owned("x-goog-ordering-key")),
        attributes: header_attributes(headers),
        subscription: owned("x-goog-pubsub-subscription-name"),
        request_trace: None,
    }
}

/// Pub/Sub copies attributes into headers when it unwraps. Only those of a CloudEvent are taken
/// back: any other header may hold a credential.
fn header_attributes(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("ce-"))
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .take(MAX_ATTRIBUTES)
        .collect()
}

/// Takes the standard and the URL-safe alphabet, with or without padding.
fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    STANDARD.decode(text).or_else(|error| {
        // Pub/Sub itself never sends the other alphabet.
        if text.contains(['-', '_']) {
            URL_SAFE.decode(text)
        } else {
            Err(error)
        }
    })
}

fn owned(raw: Option<&RawValue>) -> Option<String> {
    text_of(raw).map(Cow::into_owned)
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
