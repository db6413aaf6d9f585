//! What only the operator may see: `GET /metrics`, `GET /handlers`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::ApiState;
use super::access::Caller;
use super::error::ApiError;
use crate::telemetry::RequestId;

/// The type Prometheus asks for: text format, version 0.0.4.
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

pub(super) async fn metrics(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = Caller::reader(&state, &headers)?;
    (state.before_metrics)();
    let content_type = [(CONTENT_TYPE, PROMETHEUS)];
    let response = (content_type, state.metrics.render()).into_response();
    Ok(finished(response, caller.request_id))
}

pub(super) async fn handlers(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = Caller::reader(&state, &headers)?;
    let response = Json((state.handlers)()).into_response();
    Ok(finished(response, caller.request_id))
}

pub(super) fn finished(mut response: Response, id: RequestId) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    id.put(response.headers_mut());
    response
}
