//! `/dead-letters`: what failed, and what is done about it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use super::access::Caller;
use super::error::ApiError;
use super::request::{Fields, Nothing, Query, change, segment};
use super::{ApiState, DeskApi};
use crate::desk::{DeadLetterFilter, Discard, Edit, StartRedrive};

#[derive(Deserialize)]
struct Show {
    payload: Option<bool>,
}

/// `GET /dead-letters`
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    let desk = &DeskApi::of(&state, &caller)?.desk;
    let mut query = Query::of(&uri, &caller.request_id)?;
    let page = query.page()?;
    let filter = query.rest()?;
    let answer = desk.dead_letters(&filter, &page).await;
    caller.answer(StatusCode::OK, answer)
}

/// `GET /dead-letters/groups`
pub(super) async fn groups(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    let desk = &DeskApi::of(&state, &caller)?.desk;
    let filter = Query::of(&uri, &caller.request_id)?.rest()?;
    let groups = desk.groups(&filter).await;
    let answer = groups.map(|groups| json!({"groups": groups}));
    caller.answer(StatusCode::OK, answer)
}

/// `GET /dead-letters/{id}`; with `?payload=true` also the original, which is audited.
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&state, &headers)?;
    let id = segment(id, &caller)?;
    let mut query = Query::of(&uri, &caller.request_id)?;
    let show: Show = query.take(&["payload"])?;
    let _nothing_else: Nothing = query.rest()?;
    let payload = show.payload == Some(true);
    if payload {
        caller.may_see_payloads()?;
    }
    let desk = &DeskApi::of(&state, &caller)?.desk;
    let mut answer = desk.dead_letter(&id, payload).await;
    if payload && answer.is_ok() {
        let by = caller.because("payload looked at");
        if let Err(error) = desk.note("dead_letter.read", &id, &by).await {
            answer = Err(error);
        }
    }
    caller.answer(StatusCode::OK, answer)
}

/// `POST /dead-letters/redrive`; with `dry_run` only tells what it would do.
pub(super) async fn redrive(
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
        let ask: StartRedrive = fields.rest()?;
        let answer = desk.preview_redrive(&ask).await;
        return caller.answer(StatusCode::OK, answer);
    }
    let by = caller.because(fields.reason()?);
    let ask: StartRedrive = fields.rest()?;
    let answer = desk.redrive(&ask, &by).await;
    caller.answer(StatusCode::ACCEPTED, answer)
}

/// `POST /dead-letters/{id}/redrive`
pub(super) async fn redrive_one(
    State(state): State<Arc<ApiState>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (caller, mut fields) = change(&state, &headers, body).await?;
    let id = segment(id, &caller)?;
    let desk = &DeskApi::of(&state, &caller)?.desk;
    let by = caller.because(fields.reason()?);
    fields.refuse("select")?;
    fields.refuse("all")?;
    let mut ask: StartRedrive = fields.rest()?;
    ask.select.ids = vec![id];
    let answer = desk.redrive(&ask, &by).await;
    caller.answer(StatusCode::ACCEPTED, answer)
}

/// `POST /dead-letters/discard`
pub(super) async fn discard(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (caller, mut fields) = change(&state, &headers, body).await?;
    let desk = &DeskApi::of(&state, &caller)?.desk;
    let by = caller.because(fields.reason()?);
    let ask: Discard = fields.rest()?;
    let answer = desk.discard(&ask, &by).await;
    caller.answer(StatusCode::OK, answer)
}

/// `POST /dead-letters/{id}/discard`
pub(super) async fn discard_one(
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
    let ask = Discard {
        select: DeadLetterFilter {
            ids: vec![id],
            ..DeadLetterFilter::default()
        },
        expected: None,
    };
    let answer = desk.discard(&ask, &by).await;
    caller.answer(StatusCode::OK, answer)
}

/// `POST /dead-letters/{id}/edit`
pub(super) async fn edit(
    State(state): State<Arc<ApiState>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (caller, mut fields) = change(&state, &headers, body).await?;
    let id = segment(id, &caller)?;
    let desk = &DeskApi::of(&state, &caller)?.desk;
    let by = caller.because(fields.reason()?);
    let ask: Edit = fields.rest()?;
    let answer = desk.edit(&id, &ask, &by).await;
    caller.answer(StatusCode::ACCEPTED, answer)
}
