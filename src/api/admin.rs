//! What only the operator may see of the process: `GET /metrics`, `GET /handlers`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::ApiState;
use super::access::Caller;
use super::error::ApiError;

/// The type Prometheus asks for: text format, version 0.0.4.
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

pub(super) async fn metrics(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    (state.before_metrics)();
    let content_type = [(CONTENT_TYPE, PROMETHEUS)];
    Ok(caller.finish((content_type, state.metrics.render()).into_response()))
}

pub(super) async fn handlers(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    Ok(caller.finish(Json((state.handlers)()).into_response()))
}
