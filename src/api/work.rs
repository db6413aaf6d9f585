//! `POST /process-event`, `POST /process-batch`: events of the table, run because somebody asks.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::Caller;
use super::error::ApiError;
use super::request::{Fields, Nothing, change};
use super::{ApiState, DeskApi};
use crate::error::Error;

/// What became of asking for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It runs, and goes on after the answer.
    Started,
    /// There is no such event.
    Unknown,
    /// It was processed before; running it again is a replay.
    Processed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessEvent {
    event_id: Uuid,
}

/// `POST /process-event`
pub(super) async fn process_event(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (caller, mut fields) = change(&state, &headers, body).await?;
    let api = DeskApi::of(&state, &caller)?;
    let reason = reason(&mut fields)?;
    let ProcessEvent { event_id } = fields.rest()?;
    let by = caller.because(reason);
    let target = event_id.to_string();
    // Written down first: what was asked for is known even if the process ends right after.
    let noted = api.desk.note("event.process", &target, &by).await;
    noted.map_err(|error| ApiError::of_desk(&error, caller.request_id.clone()))?;
    let asked = (api.process_event)(event_id).await;
    let answer = json!({
        "success": true,
        "message": "Event processing started",
        "event_id": event_id,
    });
    answered(caller, asked, answer)
}

/// `POST /process-batch`
pub(super) async fn process_batch(
    State(state): State<Arc<ApiState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (caller, mut fields) = change(&state, &headers, body).await?;
    let api = DeskApi::of(&state, &caller)?;
    let by = caller.because(reason(&mut fields)?);
    let _nothing_else: Nothing = fields.rest()?;
    let noted = api.desk.note("events.process_batch", "events", &by).await;
    noted.map_err(|error| ApiError::of_desk(&error, caller.request_id.clone()))?;
    (api.process_batch)();
    let answer = json!({"success": true, "message": "Batch processing started"});
    answered(caller, Ok(Asked::Started), answer)
}

/// These two routes are older than the audit: callers need not give a reason.
fn reason(fields: &mut Fields) -> Result<String, ApiError> {
    match fields.has_reason() {
        true => fields.reason(),
        false => Ok("asked for by hand".to_owned()),
    }
}

fn answered(
    caller: Caller,
    asked: Result<Asked, Error>,
    answer: Value,
) -> Result<Response, ApiError> {
    let id = caller.request_id.clone();
    let conflict = |code, message| ApiError::new(StatusCode::CONFLICT, code, message, id.clone());
    match asked {
        Ok(Asked::Started) => {
            Ok(caller.finish((StatusCode::ACCEPTED, Json(answer)).into_response()))
        }
        Ok(Asked::Unknown) => Err(ApiError::no_such("event", id)),
        Ok(Asked::Processed) => Err(conflict(
            "already_processed",
            "this event was processed before; POST /replay runs it again",
        )),
        Err(_) => Err(ApiError::database_away(id)),
    }
}
