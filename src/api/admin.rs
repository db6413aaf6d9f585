//! What only the operator may see of the process: `GET /metrics`, `GET /handlers`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::ApiState;
use super::access::Caller;
use super::request::NoQuery;

/// The type Prometheus asks for: text format, version 0.0.4.
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

pub(super) async fn metrics(caller: Caller, State(state): State<Arc<ApiState>>) -> Response {
    (state.before_metrics)();
    let content_type = [(CONTENT_TYPE, PROMETHEUS)];
    caller.finish((content_type, state.metrics.render()).into_response())
}

pub(super) async fn handlers(
    caller: Caller,
    _: NoQuery,
    State(state): State<Arc<ApiState>>,
) -> Response {
    caller.finish(Json((state.handlers)()).into_response())
}
