//! Small readers of JSON text that the decoders share.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::value::RawValue;

use crate::error::Error;

/// A string that is borrowed unless it holds escapes.
///
/// A plain `Option<Cow<str>>` would always be copied: serde borrows a `Cow` only where it stands
/// directly in a field.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Returns a string's text, or a number's digits; some emulators send ids as numbers.
pub(super) fn text_of(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let raw = raw?.get();
    match raw.as_bytes().first() {
        Some(b'"') => string(raw),
        Some(b'0'..=b'9') => Some(Cow::Borrowed(raw)),
        _ => None,
    }
}

/// Reads a JSON string; `None` when the text is another value or holds a lone surrogate.
pub(super) fn string(json: &str) -> Option<Cow<'_, str>> {
    let text: Text<'_> = serde_json::from_str(json).ok()?;
    Some(text.0)
}

/// Tells whether JSON text is an object.
///
/// Derived structs also read themselves from an array, member by member, which would let
/// `["a", "b"]` pass for a row.
pub(super) fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{')
}

/// Returns the JSON text of one member of an object; the last one, when it is there twice.
pub(super) fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    struct Find<'n>(&'n str);
    impl<'de> Visitor<'de> for Find<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some((key, value)) = map.next_entry::<Text<'_>, &RawValue>()? {
                if key.0 == self.0 {
                    found = Some(value);
                }
            }
            Ok(found)
        }
    }
    let mut parser = serde_json::Deserializer::from_str(object);
    let found = parser.deserialize_map(Find(name)).ok()??;
    Some(found.get())
}

/// Parses JSON into what a handler declared, naming only the place of a mismatch.
///
/// # Errors
/// [`Error::Malformed`] with the place that does not fit, never its value.
pub(crate) fn parse_json<T: DeserializeOwned>(
    json: &str,
    event_type: &str,
    side: &str,
) -> Result<T, Error> {
    let malformed = |path: String| Error::Malformed {
        event_type: event_type.to_owned(),
        path,
    };
    if json.trim_start().starts_with('[') {
        return T::deserialize(NoRow(json)).map_err(|_| malformed(side.to_owned()));
    }
    // The plain parser is several times faster than the one that tracks paths.
    if let Ok(value) = serde_json::from_str(json) {
        return Ok(value);
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut parser)
        .map_err(|error| malformed(safe_path(side, error.path(), error.inner())))
}

/// A JSON array, which is whatever a handler asks for except a row.
struct NoRow<'a>(&'a str);

impl<'de> Deserializer<'de> for NoRow<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let mut parser = serde_json::Deserializer::from_str(self.0);
        parser.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::invalid_type(Unexpected::Seq, &visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        // serde_json knows its own RawValue by this call.
        let mut parser = serde_json::Deserializer::from_str(self.0);
        parser.deserialize_newtype_struct(name, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Spells the place of a mismatch: the column, and below it only positions.
///
/// A column's name is part of the schema, but the keys inside a JSON column are data.
fn safe_path(side: &str, path: &serde_path_to_error::Path, error: &serde_json::Error) -> String {
    use serde_path_to_error::Segment;
    let mut text = side.to_owned();
    for (depth, segment) in path.iter().enumerate() {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } if depth == 0 && is_column(key) => {
                text.push('.');
                text.push_str(key);
            }
            Segment::Map { .. } | Segment::Enum { .. } | Segment::Unknown => text.push_str(".?"),
        }
    }
    if let Some(name) = missing_field(&error.to_string()) {
        text.push('.');
        text.push_str(name);
    }
    text
}

/// Returns the name in serde's "missing field `x`": a member of the handler's own type.
fn missing_field(message: &str) -> Option<&str> {
    let (name, _) = message.strip_prefix("missing field `")?.split_once('`')?;
    is_column(name).then_some(name)
}

fn is_column(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Returns a JSON object's text with another `id`; everything else stays as it is written.
pub(crate) fn with_id(text: &str, id: &str) -> Option<String> {
    let quoted = serde_json::to_string(id).ok()?;
    if !is_object(text) || serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return None;
    }
    if let Some(old) = member(text, "id") {
        let start = old.as_ptr().addr() - text.as_ptr().addr();
        let (before, after) = (&text[..start], &text[start + old.len()..]);
        return Some(format!("{before}{quoted}{after}"));
    }
    let inside = text.trim_start().strip_prefix('{')?;
    let comma = if inside.trim_start().starts_with('}') {
        ""
    } else {
        ","
    };
    Some(format!("{{\"id\":{quoted}{comma}{inside}"))
}
