//! What is asked of an upstream and what it answers.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use uuid::Uuid;

use crate::error::{Code, Error, Result};

/// Longest id taken into a path; Chargebee's are at most 50 characters.
const MAX_SEGMENT_BYTES: usize = 256;

/// Longest `Retry-After` believed: an upstream that is away for longer is asked again anyway.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Everything but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Encodes an id as exactly one segment of a path.
///
/// # Errors
/// Permanent `bad_id` for what cannot be one: nothing, `.` and `..` (which URLs resolve), and
/// more than 256 bytes.
pub fn segment(id: &str) -> Result<Cow<'_, str>> {
    if matches!(id, "" | "." | "..") || id.len() > MAX_SEGMENT_BYTES {
        return Err(Error::permanent("bad_id"));
    }
    Ok(utf8_percent_encode(id, SEGMENT).into())
}

/// One request, sent unchanged on every try.
///
/// Not `Debug`: its headers and body hold keys and rows.
#[derive(Clone)]
pub struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) repeatable: bool,
    pub(super) writes: bool,
}

impl Request {
    /// Asks for `path`, which is appended to the base URL and encoded already (see [`segment`]).
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: HeaderMap::new(),
            body: None,
            repeatable: true,
            writes: false,
        }
    }

    /// Posts `body` to `path`, once, unless [`Request::with_key`] or [`Request::repeatable`] says
    /// that it may be sent again.
    pub fn post(
        path: impl Into<String>,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        Self {
            method: Method::POST,
            path: path.into(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]),
            body: Some(body.into()),
            repeatable: false,
            writes: true,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Adds an idempotency key, under which the upstream applies the request at most once.
    #[must_use]
    pub fn with_key(mut self, name: HeaderName, key: Uuid) -> Self {
        // A UUID is always a valid header value; were it not, the request would not be repeated.
        if let Ok(value) = HeaderValue::try_from(key.to_string()) {
            self.headers.insert(name, value);
            self.repeatable = true;
        }
        self
    }

    /// Says that sending the request twice has the effect of sending it once.
    #[must_use]
    pub fn repeatable(self) -> Self {
        Self {
            repeatable: true,
            ..self
        }
    }

    /// Says that the request changes nothing, though it is a POST.
    #[must_use]
    pub fn reading(self) -> Self {
        Self {
            writes: false,
            ..self
        }
    }

    /// Allows a single try only.
    #[must_use]
    pub fn once(self) -> Self {
        Self {
            repeatable: false,
            ..self
        }
    }
}

/// A complete answer of an upstream, whatever its status.
pub struct Answer {
    /// Which upstream.
    pub service: &'static str,
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body; empty when an error's body was larger than allowed.
    pub body: Bytes,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("service", &self.service)
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// Reads the body of a 2xx answer as JSON; what most APIs need.
    ///
    /// # Errors
    /// Those of [`Answer::error_by_status`] and [`Answer::json`].
    pub fn json_on_success<T: DeserializeOwned>(&self) -> Result<T> {
        if self.status.is_success() {
            self.json()
        } else {
            Err(self.error_by_status())
        }
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when it is not JSON or not of this shape. The parser's own words are
    /// dropped: they quote values.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| match error.classify() {
            Category::Data => self.unreadable("unexpected_shape"),
            Category::Io | Category::Syntax | Category::Eof => self.unreadable("not_json"),
        })
    }

    /// Judges an answer that is not a success by its status alone: 401 and 403 are about our
    /// credentials; 408, 425, 429 and 5xx may pass; any other will not.
    pub fn error_by_status(&self) -> Error {
        let code = Code::new(code_of(self.status));
        match self.status.as_u16() {
            401 | 403 => self.credentials(code),
            408 | 425 | 429 => self.unavailable(code),
            _ if self.status.is_server_error() => self.unavailable(code),
            _ => self.rejected(code),
        }
    }

    /// Makes [`Error::Unavailable`]; `Retry-After` is filled in by the [`Upstream`](super::http::Upstream).
    pub fn unavailable(&self, code: Code) -> Error {
        Error::Unavailable {
            service: self.service,
            code,
            retry_after: None,
            source: None,
        }
    }

    /// Makes [`Error::Credentials`].
    pub fn credentials(&self, code: Code) -> Error {
        let service = self.service;
        Error::Credentials { service, code }
    }

    /// Makes [`Error::Rejected`].
    pub fn rejected(&self, code: Code) -> Error {
        let service = self.service;
        Error::Rejected { service, code }
    }

    /// Makes [`Error::Unreadable`].
    pub fn unreadable(&self, code: &'static str) -> Error {
        Error::Unreadable {
            service: self.service,
            code: Code::new(code),
        }
    }

    /// Returns how long the upstream asks to be left alone: whole seconds or an HTTP date.
    /// Anything else in the header is as good as no header.
    pub(super) fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
        } else {
            let at = httpdate::parse_http_date(text).ok()?;
            at.duration_since(now).unwrap_or_default()
        };
        Some(wait.min(MAX_RETRY_AFTER))
    }
}

fn code_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "bad_request",
        401 => "unauthorized",
        402 => "payment_required",
        403 => "forbidden",
        404 => "not_found",
        405 => "method_not_allowed",
        408 => "request_timeout",
        409 => "conflict",
        410 => "gone",
        413 => "payload_too_large",
        415 => "unsupported_media_type",
        422 => "unprocessable",
        425 => "too_early",
        429 => "too_many_requests",
        500 => "internal_server_error",
        501 => "not_implemented",
        502 => "bad_gateway",
        503 => "service_unavailable",
        504 => "gateway_timeout",
        _ if status.is_client_error() => "client_error",
        _ if status.is_server_error() => "server_error",
        _ => "unexpected_status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &'static str) -> Option<Duration> {
        let answer = Answer {
            service: "crm",
            status: StatusCode::TOO_MANY_REQUESTS,
            headers: HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]),
            body: Bytes::new(),
        };
        // Sun, 06 Nov 1994 08:49:37 GMT
        answer.retry_after(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_garbage_is_ignored() {
        let seconds = |n| Some(Duration::from_secs(n));

        assert_eq!(after("0"), seconds(0));
        assert_eq!(after(" 7 "), seconds(7));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:07 GMT"), seconds(30));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), seconds(0));
        assert_eq!(after("99999999999999999999999"), seconds(86_400));
        for garbage in ["", "-1", "+1", "1.5", "soon", "0x10", "1 2"] {
            assert_eq!(after(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn an_id_is_one_segment_or_refused() {
        for (id, encoded) in [
            ("sub_1-a.b~c", "sub_1-a.b~c"),
            ("../../customers/x", "..%2F..%2Fcustomers%2Fx"),
            ("%2F", "%252F"),
            ("%2e%2e", "%252e%252e"),
            ("a?b#c", "a%3Fb%23c"),
            ("...", "..."),
            ("é\\ \n", "%C3%A9%5C%20%0A"),
        ] {
            assert_eq!(segment(id).unwrap(), encoded);
        }
        for id in ["", ".", "..", "x".repeat(257).as_str()] {
            assert_eq!(segment(id).unwrap_err().code().as_str(), "bad_id");
        }
    }
}
