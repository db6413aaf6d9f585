//! `POST /erasures`: takes out what was kept about somebody.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::error::ApiError;
use super::request::change;
use super::{ApiState, DeskApi};
use crate::desk::Erase;

/// `POST /erasures`; with `dry_run` only counts.
pub(super) async fn erase(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (caller, mut fields) = change(&state, &headers, body).await?;
    let desk = &DeskApi::of(&state, &caller)?.desk;
    let by = caller.because(fields.reason()?);
    let ask: Erase = fields.rest()?;
    let answer = desk.erase(&ask, &by).await;
    caller.answer(StatusCode::OK, answer)
}
