//! What Pub/Sub accepts as a message, checked before anything is sent.
//!
//! Limits: <https://cloud.google.com/pubsub/quotas#resource_limits>. Bytes are never touched: a
//! message that is too large is refused. Attributes are labels beside them, so what is too long is
//! cut and what has no room is left out; refusing would turn a long label into a lost event.

use super::Message;
use crate::error::{Code, Error};

/// Largest message in bytes, attributes and ordering key included.
pub(super) const MAX_MESSAGE_BYTES: usize = 10_000_000;
/// Most attributes of one message.
const MAX_ATTRIBUTES: usize = 100;
/// Longest name of an attribute in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Longest value of an attribute in bytes.
const MAX_VALUE_BYTES: usize = 1024;
/// Longest ordering key in bytes.
const MAX_ORDERING_KEY_BYTES: usize = 1024;

/// Returns `message` in a shape the broker takes.
///
/// Attribute values and the ordering key are cut at 1024 bytes, between two characters. Attributes
/// whose name is empty, longer than 256 bytes or starts with Google's own `goog` are left out, and
/// so is everything past the hundredth.
///
/// # Errors
/// [`Error::Unpublishable`] with `message_too_large` or `empty_message`.
pub(super) fn fit(topic: &str, mut message: Message) -> Result<Message, Error> {
    let refused = |code| Error::Unpublishable {
        topic: topic.to_owned(),
        code: Code::new(code),
    };
    let mut changed = 0;
    message.attributes.retain_mut(|(name, value)| {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with("goog") {
            changed += 1;
            return false;
        }
        changed += usize::from(cut(value, MAX_VALUE_BYTES));
        true
    });
    changed += message.attributes.len().saturating_sub(MAX_ATTRIBUTES);
    message.attributes.truncate(MAX_ATTRIBUTES);
    message.ordering_key = message.ordering_key.filter(|key| !key.is_empty());
    if let Some(key) = &mut message.ordering_key {
        // Messages that share the first 1024 bytes of their keys then share one order.
        changed += usize::from(cut(key, MAX_ORDERING_KEY_BYTES));
    }
    if message.data.is_empty() && message.attributes.is_empty() {
        return Err(refused("empty_message"));
    }
    if size(&message) > MAX_MESSAGE_BYTES {
        return Err(refused("message_too_large"));
    }
    if changed > 0 {
        // Names may come from the publisher of the original event, so only their number is told.
        tracing::warn!(topic, changed, "attributes were cut to the broker's limits");
    }
    Ok(message)
}

fn size(message: &Message) -> usize {
    let attributes = message.attributes.iter();
    message.data.len()
        + attributes.map(|(k, v)| k.len() + v.len()).sum::<usize>()
        + message.ordering_key.as_ref().map_or(0, String::len)
}

/// Shortens `text` to at most `max` bytes and tells whether it had to.
fn cut(text: &mut String, max: usize) -> bool {
    let long = text.len() > max;
    text.truncate(text.floor_char_boundary(max));
    long
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(attributes: Vec<(String, String)>) -> Message {
        Message {
            data: Bytes::from_static(b"x"),
            attributes,
            ordering_key: None,
        }
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long = "é".repeat(600);
        let fitted = fit("t", message(vec![("a".to_owned(), format!("x{long}"))])).unwrap();
        assert_eq!(fitted.attributes[0].1.len(), 1023);
    }

    #[test]
    fn names_that_would_be_refused_are_left_out() {
        let names = ["", "googclient", &"n".repeat(257), "kept"];
        let attributes = names.map(|name| (name.to_owned(), String::new())).to_vec();
        let fitted = fit("t", message(attributes)).unwrap();
        assert_eq!(fitted.attributes, [("kept".to_owned(), String::new())]);
    }

    #[test]
    fn at_most_a_hundred_attributes_go_out() {
        let attributes = (0..150).map(|i| (format!("a{i}"), String::new())).collect();
        assert_eq!(fit("t", message(attributes)).unwrap().attributes.len(), 100);
    }

    #[test]
    fn a_message_of_exactly_the_limit_fits_and_one_byte_more_does_not() {
        let of = |len| Message {
            data: Bytes::from(vec![b'x'; len]),
            attributes: vec![("k".to_owned(), "v".to_owned())],
            ordering_key: Some("key".to_owned()),
        };
        assert!(fit("t", of(MAX_MESSAGE_BYTES - 5)).is_ok());
        let refused = fit("t", of(MAX_MESSAGE_BYTES - 4)).unwrap_err();
        assert_eq!(refused.code().as_str(), "message_too_large");
    }

    #[test]
    fn a_message_of_nothing_is_refused() {
        let nothing = Message {
            data: Bytes::new(),
            attributes: Vec::new(),
            ordering_key: Some(String::new()),
        };
        assert_eq!(
            fit("t", nothing).unwrap_err().code().as_str(),
            "empty_message"
        );
    }
}
