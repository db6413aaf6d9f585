//! The id of one HTTP request, taken from the caller or made here.

use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

/// Longest id that is taken from a caller.
const MAX_BYTES: usize = 128;

/// The id of one HTTP request: in its log lines, in error bodies, and in the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The header that carries it, in and out.
    pub const HEADER: &'static str = "x-request-id";

    /// Takes the caller's id if it is 1 to 128 visible ASCII characters, else makes one.
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(Self::HEADER).filter(|value| {
            let bytes = value.as_bytes();
            (1..=MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
        });
        Self(given.cloned().unwrap_or_else(Self::fresh))
    }

    fn fresh() -> HeaderValue {
        let mut buffer = Uuid::encode_buffer();
        let text = Uuid::from_u128(rand::random())
            .simple()
            .encode_lower(&mut buffer);
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("-")
    }

    /// Puts the id on an answer.
    pub fn put(self, headers: &mut HeaderMap) {
        headers.insert(Self::HEADER, self.0);
    }
}
