//! Reads what a caller of the admin API asks for: query or JSON body, strictly.

use axum::body::{Body, to_bytes};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Uri};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ApiState;
use super::error::ApiError;
use crate::telemetry::RequestId;

/// What stands after the `?`: every name at most once, `ids` a list separated by commas.
#[derive(Debug)]
pub(super) struct Query {
    values: Map<String, Value>,
    id: RequestId,
}

impl Query {
    /// Reads the query of a request.
    ///
    /// # Errors
    /// 400 when a name is there twice, or a number or truth value is none.
    pub(super) fn of(uri: &Uri, id: &RequestId) -> Result<Self, ApiError> {
        let mut query = Self {
            values: Map::new(),
            id: id.clone(),
        };
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        for (name, text) in pairs {
            let value = match name.as_ref() {
                "ids" => text.split(',').filter(|id| !id.is_empty()).collect(),
                "limit" => text.parse::<i64>().ok().map_or(Value::Null, Value::from),
                "payload" => text.parse::<bool>().ok().map_or(Value::Null, Value::from),
                // An empty field of a form is one that was left out.
                _ if text.is_empty() => continue,
                _ => Value::from(text.as_ref()),
            };
            let twice = query.values.contains_key(name.as_ref());
            if twice || value.is_null() {
                return Err(query.unusable(&name));
            }
            query.values.insert(name.into_owned(), value);
        }
        Ok(query)
    }

    /// Takes some names out, as one struct.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(super) fn take<T: DeserializeOwned>(&mut self, names: &[&str]) -> Result<T, ApiError> {
        let taken = names.iter().filter_map(|name| self.values.remove_entry(*name));
        let taken = Value::Object(taken.collect());
        self.read(taken)
    }

    /// Takes all that is left.
    ///
    /// # Errors
    /// 400 naming a field that is not known.
    pub(super) fn rest<T: DeserializeOwned>(mut self) -> Result<T, ApiError> {
        let rest = Value::Object(std::mem::take(&mut self.values));
        self.read(rest)
    }

    fn read<T: DeserializeOwned>(&self, given: Value) -> Result<T, ApiError> {
        serde_path_to_error::deserialize(given)
            .map_err(|error| self.unusable(&error.path().to_string()))
    }

    fn unusable(&self, name: &str) -> ApiError {
        let message = "the query holds an unknown name, a name twice, or an unusable value";
        ApiError::bad_request("bad_query", message, self.id.clone()).at(name)
    }
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
