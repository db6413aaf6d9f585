//! `x-request-id`: the sender's own if it is a decent one, else a new one; on every answer.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// The header that carries the id, in and out.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LONGEST: usize = 128;

/// The id under which a request can be found again: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Takes the id out of a request's headers, or makes one (UUID v4).
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(X_REQUEST_ID) {
            Some(given) if is_decent(given) => Self(given.clone()),
            _ => Self::new(),
        }
    }

    fn new() -> Self {
        // From the thread's own generator: the operating system's costs more than the rest of
        // this file, and nobody has to be unable to guess it.
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let mut text = Uuid::encode_buffer();
        let text = Hyphenated::from_uuid(id).encode_lower(&mut text);
        let id = HeaderValue::from_str(text);
        Self(id.unwrap_or_else(|_| HeaderValue::from_static("-")))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("-")
    }

    /// Puts the id on an answer.
    pub fn stamp(&self, response: &mut Response) {
        response.headers_mut().insert(X_REQUEST_ID, self.0.clone());
    }
}

fn is_decent(given: &HeaderValue) -> bool {
    let bytes = given.as_bytes();
    (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}
