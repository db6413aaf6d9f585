//! `GET /health`: is the process alive; `GET /ready`: can it take work. Both are public.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::ApiState;
use crate::telemetry::RequestId;

pub(super) async fn health(headers: HeaderMap) -> Response {
    let mut response = Json(json!({"status": "ok"})).into_response();
    RequestId::of(&headers).put(response.headers_mut());
    response
}

pub(super) async fn ready(State(state): State<Arc<ApiState>>, headers: HeaderMap) -> Response {
    let mut response = match (state.ready)() {
        Ok(()) => Json(json!({"status": "ready"})).into_response(),
        Err(reason) => {
            let body = json!({"status": "not_ready", "reason": reason});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    };
    RequestId::of(&headers).put(response.headers_mut());
    response
}
