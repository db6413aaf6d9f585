//! What only the operator may see: `GET /metrics`, `GET /handlers`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::ApiState;
use super::error::ApiError;
use crate::telemetry::RequestId;

/// The type Prometheus asks for: text format, version 0.0.4.
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

pub(super) async fn metrics(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = admit(&state, &headers)?;
    (state.before_metrics)();
    let content_type = [(CONTENT_TYPE, PROMETHEUS)];
    let response = (content_type, state.metrics.render()).into_response();
    Ok(finished(response, id))
}

pub(super) async fn handlers(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = admit(&state, &headers)?;
    let response = Json((state.handlers)()).into_response();
    Ok(finished(response, id))
}

fn finished(mut response: Response, id: RequestId) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    id.put(response.headers_mut());
    response
}

/// Lets the operator in; closed when no `ADMIN_TOKEN` is set.
fn admit(state: &ApiState, headers: &HeaderMap) -> Result<RequestId, ApiError> {
    let id = RequestId::of(headers);
    if state.server.admin_token.is_none() {
        return Err(ApiError::admin_closed(id));
    }
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let token = match (given.next(), given.next()) {
        (Some(only), None) => only.to_str().ok().and_then(bearer_token),
        _ => None,
    };
    if token.is_some_and(|token| state.server.is_admin(token)) {
        Ok(id)
    } else {
        Err(ApiError::unauthorized(id))
    }
}

fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    bearer.then(|| token.trim_start_matches(' '))
}
