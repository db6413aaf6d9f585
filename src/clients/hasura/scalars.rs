//! Hasura's scalars in Rust, named as in the schema.
//!
//! Teams point their own operations here:
//! `custom_scalars_module = "hookyard::clients::hasura::scalars"`.

#![expect(non_camel_case_types, reason = "named as Postgres types")]

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::event::contracts::Verbatim;

/// Text: whether it is a UUID is the database's to say, which refuses others for good.
pub type uuid = String;
/// Text: RFC 3339 with microseconds and offset.
pub type timestamptz = String;
/// Text: without an offset, so not RFC 3339.
pub type timestamp = String;
/// Text: `2026-01-31`.
pub type date = String;
/// JSON, digit for digit.
pub type jsonb = Verbatim;
/// JSON, digit for digit.
pub type json = Verbatim;
/// A number of any size.
pub type numeric = Digits;
/// A number beyond 2^53.
pub type bigint = Digits;

/// A number as its digits, whether Hasura sends a JSON number or, under
/// `--stringify-numeric-types`, a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digits(String);

impl Digits {
    /// Returns the digits, with sign, point and exponent as they came.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<i64> for Digits {
    fn from(number: i64) -> Self {
        Self(number.to_string())
    }
}

impl Serialize for Digits {
    /// Writes a JSON string, which Hasura takes for a number of any size.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get().trim_matches('"');
        let number = |b: u8| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E');
        // Postgres' numeric also knows NaN and Infinity.
        if matches!(text, "NaN" | "Infinity" | "-Infinity")
            || (text.bytes().all(number) && text.bytes().any(|b| b.is_ascii_digit()))
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(serde::de::Error::custom("not a number"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_whether_or_not_they_come_as_text() {
        for json in ["50755254975729665", "\"50755254975729665\""] {
            let digits: Digits = serde_json::from_str(json).unwrap();
            assert_eq!(digits.as_str(), "50755254975729665");
        }
        let digits: Digits = serde_json::from_str("29700.10").unwrap();
        assert_eq!(digits.as_str(), "29700.10");
        for json in ["true", "\"\"", "\"x\"", "[1]", "\"1, 2\""] {
            assert!(serde_json::from_str::<Digits>(json).is_err(), "{json}");
        }
    }
}
