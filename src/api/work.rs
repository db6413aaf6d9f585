//! `POST /process-event`, `POST /process-batch`: events of the table, run because somebody asks.

use axum::Json;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Caller;
use super::error::ApiError;
use super::request::{Answer, Change};
use crate::desk::Length;
use crate::event::EventId;

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
    /// The row's id, or the event's: that of a pushed one is the publisher's.
    event_id: String,
}

/// These two routes are older than the audit: callers need not give a reason.
const NO_REASON: &str = "asked for by hand";

/// `POST /process-event`
pub(super) async fn process_event(mut change: Change) -> Answer {
    let by = change.by_or(NO_REASON)?;
    let process_event = change.api.process_event.clone();
    let (caller, desk, ProcessEvent { event_id }) = change.rest()?;
    let id = caller.request_id.clone();
    if EventId::new(&event_id).is_none() || event_id.contains('\0') {
        let message = "`event_id` must be the id of an event or of its row";
        let error = ApiError::bad_request("invalid_request", message, id);
        return Err(error.at("event_id"));
    }
    // Written down first: what was asked for is known even if the process ends right after.
    let noted = desk.note("event.process", &event_id, &by);
    caller.ask(Length::Usual, &desk, noted).await?;
    match process_event(event_id.clone()).await {
        Ok(Asked::Started) => {
            let message = "Event processing started";
            let answer = json!({"success": true, "message": message, "event_id": event_id});
            Ok(accepted(caller, answer))
        }
        Ok(Asked::Unknown) => Err(ApiError::no_such("event", id)),
        Ok(Asked::Processed) => {
            let message = "this event was processed before; POST /replay runs it again";
            let code = "already_processed";
            Err(ApiError::new(StatusCode::CONFLICT, code, message, id))
        }
        Err(_) => Err(ApiError::database_away(id)),
    }
}

/// `POST /process-batch`
pub(super) async fn process_batch(mut change: Change) -> Answer {
    let by = change.by_or(NO_REASON)?;
    let process_batch = change.api.process_batch.clone();
    let (caller, desk) = change.end()?;
    let noted = desk.note("events.process_batch", "events", &by);
    caller.ask(Length::Usual, &desk, noted).await?;
    process_batch();
    let answer = json!({"success": true, "message": "Batch processing started"});
    Ok(accepted(caller, answer))
}

fn accepted(caller: Caller, answer: Value) -> axum::response::Response {
    caller.finish((StatusCode::ACCEPTED, Json(answer)).into_response())
}
