//! `GET /status`, `GET /explain/{id}`, `GET /audit`: how it goes, what happened, who did it.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};

use super::access::Caller;
use super::error::ApiError;
use super::request::{Nothing, Query, segment};
use super::{ApiState, DeskApi};

/// `GET /status`
pub(super) async fn status(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    let answer = DeskApi::of(&state, &caller)?.desk.status().await;
    caller.answer(StatusCode::OK, answer)
}

/// `GET /explain/{id}`
pub(super) async fn explain(
    State(state): State<Arc<ApiState>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    let id = segment(id, &caller)?;
    let answer = DeskApi::of(&state, &caller)?.desk.explain(&id).await;
    caller.answer(StatusCode::OK, answer)
}

/// `GET /audit`
pub(super) async fn audit(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    let mut query = Query::of(&uri, &caller.request_id)?;
    let page = query.page()?;
    let _nothing_else: Nothing = query.rest()?;
    let answer = DeskApi::of(&state, &caller)?.desk.audit(&page).await;
    caller.answer(StatusCode::OK, answer)
}
