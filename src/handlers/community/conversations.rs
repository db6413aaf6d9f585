//! What users write and answer, and what their conversations are about.

use serde::Deserialize;
use uuid::Uuid;

use super::{happened, row_id};
use crate::error::Result;
use crate::pipeline::community::{self, UserResponse};
use crate::pipeline::{Completion, Context, Effects, Handler, Json};

/// A user wrote a message. What it says is nobody's business here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageReceived {
    user_id: Uuid,
}

/// Notes when a user was active last.
pub struct NoteUserMessage;

impl Handler for NoteUserMessage {
    const NAME: &'static str = "note_user_message";
    const EVENTS: &'static [&'static str] = &["user.message.received"];
    const ABOUT: &'static str = "notes when the user was active last";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<MessageReceived>;

    async fn handle(&self, cx: &Context, Json(message): Self::Payload) -> Result<Completion> {
        cx.write(community::user_was_active(message.user_id, happened(cx)))?;
        Ok(Completion::Done)
    }
}

/// A user answered something.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseRecorded {
    user_id: Uuid,
    #[serde(default)]
    conversation_id: Option<String>,
    response_type: String,
    #[serde(default)]
    context: Option<String>,
    response: String,
}

/// Keeps a user's answer, to learn from.
pub struct KeepUserResponse;

impl Handler for KeepUserResponse {
    const NAME: &'static str = "keep_user_response";
    const EVENTS: &'static [&'static str] = &["user.response.recorded"];
    const ABOUT: &'static str = "keeps the user's answer, to learn from";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<ResponseRecorded>;

    async fn handle(&self, cx: &Context, Json(recorded): Self::Payload) -> Result<Completion> {
        cx.write(community::keep_user_response(&UserResponse {
            id: row_id(cx, "response"),
            user_id: recorded.user_id,
            conversation_id: recorded.conversation_id.as_deref(),
            response_type: &recorded.response_type,
            context: recorded.context.as_deref(),
            response: &recorded.response,
            at: happened(cx),
        }))?;
        Ok(Completion::Done)
    }
}

/// Somebody worked out what a conversation is about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntentClassified {
    conversation_id: String,
    #[serde(default)]
    user_id: Option<Uuid>,
    intent: String,
    #[serde(default)]
    confidence: Option<f64>,
}

/// Notes what a conversation is about.
pub struct NoteIntent;

impl Handler for NoteIntent {
    const NAME: &'static str = "note_intent";
    const EVENTS: &'static [&'static str] = &["conversation.intent_classified"];
    const ABOUT: &'static str = "notes what the conversation is about";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<IntentClassified>;

    async fn handle(&self, cx: &Context, Json(said): Self::Payload) -> Result<Completion> {
        cx.write(community::note_intent(
            &said.conversation_id,
            said.user_id,
            &said.intent,
            said.confidence,
            happened(cx),
        ))?;
        Ok(Completion::Done)
    }
}
