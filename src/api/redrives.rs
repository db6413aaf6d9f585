//! `/redrives` and `/replay`: long work on many events.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use serde_json::json;

use super::access::Caller;
use super::error::ApiError;
use super::request::{Fields, Nothing, Query, change, segment};
use super::{ApiState, DeskApi};
use crate::desk::StartReplay;

/// `GET /redrives`
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    let desk = &DeskApi::of(&state, &caller)?.desk;
    let mut query = Query::of(&uri, &caller.request_id)?;
    let page = query.page()?;
    let _nothing_else: Nothing = query.rest()?;
    let redrives = desk.redrives(&page).await;
    let answer = redrives.map(|redrives| json!({"redrives": redrives}));
    caller.answer(StatusCode::OK, answer)
}

/// `GET /redrives/{id}`
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    let id = segment(id, &caller)?;
    let desk = &DeskApi::of(&state, &caller)?.desk;
    let answer = desk.redrive_detail(&id).await;
    caller.answer(StatusCode::OK, answer)
}

/// `POST /redrives/{id}/abort`
pub(super) async fn abort(
    State(state): State<Arc<ApiState>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (caller, mut fields) = change(&state, &headers, body).await?;
    let id = segment(id, &caller)?;
    let desk = &DeskApi::of(&state, &caller)?.desk;
    let by = caller.because(fields.reason()?);
    let _nothing_else: Nothing = fields.rest()?;
    let answer = desk.abort(&id, &by).await;
    caller.answer(StatusCode::OK, answer)
}

/// `POST /replay`; with `dry_run` only tells what it would do.
pub(super) async fn replay(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    let mut fields = Fields::of(&state, &headers, body, &caller.request_id).await?;
    let dry_run = fields.flag("dry_run")?;
    if !dry_run {
        caller.may_change()?;
    }
    let desk = &DeskApi::of(&state, &caller)?.desk;
    if dry_run {
        fields.drop_reason();
        let ask: StartReplay = fields.rest()?;
        let answer = desk.preview_replay(&ask).await;
        return caller.answer(StatusCode::OK, answer);
    }
    let by = caller.because(fields.reason()?);
    let ask: StartReplay = fields.rest()?;
    let answer = desk.replay(&ask, &by).await;
    caller.answer(StatusCode::ACCEPTED, answer)
}
