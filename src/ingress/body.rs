//! Reads a request body within a limit and a time, and says what kinds of body are taken.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is, or says it is, larger than the limit.
    #[error("the body is too large")]
    TooLarge,
    /// It did not arrive in time.
    #[error("the body took too long")]
    Timeout,
    /// The connection broke off, or the framing is wrong.
    #[error("the body broke off")]
    Broken,
    /// It is compressed.
    #[error("the body is compressed")]
    Encoded,
}

impl BodyError {
    /// Returns 413, 408, 400 or 415.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    /// Returns the word for `hookyard_push_rejected_total{reason}`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "body_too_large",
            Self::Timeout => "body_timeout",
            Self::Broken => "body_broken",
            Self::Encoded => "body_encoded",
        }
    }
}

impl IntoResponse for BodyError {
    /// Answers without a body, as all of push does.
    fn into_response(self) -> Response {
        self.status().into_response()
    }
}

/// Refuses compressed bodies: a small one could become a huge one.
///
/// The content type is no reason to refuse. Pub/Sub sends `application/json`, but an unwrapped
/// message comes as `application/x-www-form-urlencoded`, or as whatever its publisher put into a
/// `Content-Type` attribute (<https://cloud.google.com/pubsub/docs/payload-unwrapping>): refusing
/// it would send the same message round for days. What cannot be decoded is kept as a dead letter.
///
/// # Errors
/// [`BodyError::Encoded`] with any `Content-Encoding` but `identity`.
pub fn refuse_encoding(headers: &HeaderMap) -> Result<(), BodyError> {
    let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        Ok(())
    } else {
        Err(BodyError::Encoded)
    }
}

/// Reads a whole body of at most `limit` bytes, within `wait`.
///
/// A body that arrived in one piece is not copied.
///
/// # Errors
/// [`BodyError::TooLarge`] before the first byte is read when `Content-Length` says so, else as
/// soon as the limit is passed; [`BodyError::Timeout`]; [`BodyError::Broken`].
pub async fn read_body(body: Body, limit: usize, wait: Duration) -> Result<Bytes, BodyError> {
    let hint = body.size_hint();
    if hint.lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let expected = hint.exact().and_then(|exact| usize::try_from(exact).ok());
    tokio::time::timeout(wait, collect(body, limit, expected))
        .await
        .unwrap_or(Err(BodyError::Timeout))
}

async fn collect(
    mut body: Body,
    limit: usize,
    expected: Option<usize>,
) -> Result<Bytes, BodyError> {
    let Some(first) = next_data(&mut body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(BodyError::TooLarge);
    }
    let Some(second) = next_data(&mut body).await? else {
        return Ok(first);
    };
    let mut whole = BytesMut::with_capacity(expected.unwrap_or(first.len() + second.len()));
    whole.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(data) = next {
        if whole.len() + data.len() > limit {
            return Err(BodyError::TooLarge);
        }
        whole.extend_from_slice(&data);
        next = next_data(&mut body).await?;
    }
    Ok(whole.freeze())
}

async fn next_data(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    if body.is_end_stream() {
        return Ok(None);
    }
    while let Some(frame) = body.frame().await {
        // Trailers are not looked at.
        if let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
