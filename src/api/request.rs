//! Reads what a caller of the admin API asks for: query or JSON body, strictly.

use axum::body::{Body, to_bytes};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Uri};
use serde::de::DeserializeOwned;

use super::ApiState;
use super::error::ApiError;
use crate::telemetry::RequestId;

/// Reads the query. Unknown and doubled names, and values of the wrong kind are refused.
///
/// # Errors
/// 400, naming the field.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri, id: &RequestId) -> Result<T, ApiError> {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let given = serde_urlencoded::Deserializer::new(pairs);
    serde_path_to_error::deserialize(given).map_err(|error| {
        let message = "the query holds an unknown name, a name twice, or an unusable value";
        ApiError::bad_request("bad_query", message, id.clone()).at(&error.path().to_string())
    })
}

/// Reads a JSON body of at most `MAX_BODY_BYTES`; an empty one counts as `{}`.
///
/// # Errors
/// 413, 415, 408, or 400 naming the field.
pub(super) async fn json<T: DeserializeOwned>(
    state: &ApiState,
    headers: &HeaderMap,
    body: Body,
    id: &RequestId,
) -> Result<T, ApiError> {
    let encoded = |value: &http::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().any(encoded) {
        return Err(ApiError::unsupported_encoding(id.clone()));
    }
    let read = to_bytes(body, state.server.max_body_bytes);
    let body = match tokio::time::timeout(state.server.body_timeout, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if is_too_large(&error) => {
            return Err(ApiError::body_too_large(id.clone()));
        }
        Ok(Err(_)) => return Err(bad_body(id)),
        Err(_) => return Err(ApiError::body_timeout(id.clone())),
    };
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let mut given = serde_json::Deserializer::from_slice(text);
    // The parser's own words quote what it read; where it stopped is enough.
    let parsed = serde_path_to_error::deserialize(&mut given)
        .map_err(|error| bad_body(id).at(&error.path().to_string()))?;
    given.end().map_err(|_| bad_body(id))?;
    Ok(parsed)
}

fn is_too_large(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>())
}

fn bad_body(id: &RequestId) -> ApiError {
    let message = "the body is not the JSON object this route takes; docs/API.md describes it";
    ApiError::bad_request("bad_body", message, id.clone())
}
