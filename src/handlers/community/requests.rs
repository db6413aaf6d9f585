//! Questions to the community, and the experts' answers.

use serde::Deserialize;
use uuid::Uuid;

use super::{happened, row_id};
use crate::error::Result;
use crate::event::contracts::CommunityRequestCreated;
use crate::pipeline::community::requests::{self, Request, Response};
use crate::pipeline::{Completion, Context, Effects, Handler, Json};

/// So many experts are asked at once: more would only be a nuisance to most of them.
const MOST_EXPERTS: i32 = 20;

/// An agent needs to know something that the community may know.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestNeeded {
    requesting_agent_type: String,
    #[serde(default)]
    requesting_user_id: Option<Uuid>,
    #[serde(default)]
    context_id: Option<String>,
    #[serde(default)]
    context_type: Option<String>,
    question: String,
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    expertise_needed: Vec<String>,
}

/// Puts a question to the community and notifies the experts.
pub struct OpenCommunityRequest;

impl Handler for OpenCommunityRequest {
    const NAME: &'static str = "open_community_request";
    const EVENTS: &'static [&'static str] = &["community.request_needed"];
    const ABOUT: &'static str =
        "opens a request to the community, notifies experts, emits community.request_created";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<RequestNeeded>;

    async fn handle(&self, cx: &Context, Json(needed): Self::Payload) -> Result<Completion> {
        let id = row_id(cx, "request");
        let topics: Vec<String> = needed
            .expertise_needed
            .iter()
            .map(|topic| topic.trim().to_lowercase())
            .collect();
        cx.write(requests::open(&Request {
            id,
            agent_type: &needed.requesting_agent_type,
            user_id: needed.requesting_user_id,
            context: needed
                .context_type
                .as_deref()
                .zip(needed.context_id.as_deref()),
            question: &needed.question,
            category: needed.category.as_deref(),
            topics: &topics,
            event_id: cx.event().id.as_str(),
            at: happened(cx),
        })?)?;
        let cause = row_id(cx, "experts");
        cx.write(requests::notify_experts(cause, id, MOST_EXPERTS))?;
        cx.write(requests::count_experts(cause, id))?;
        cx.emit(&CommunityRequestCreated {
            request_id: id.to_string(),
            question: needed.question,
            category: needed.category,
            expertise_needed: topics,
        })?;
        Ok(Completion::Done)
    }
}

/// An expert answered.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseReceived {
    response_id: String,
    request_id: Uuid,
    expert_user_id: Uuid,
    response_summary: String,
    verbatim_answer: String,
}

/// Brings an expert's answer to whoever asked.
pub struct DeliverExpertResponse;

impl Handler for DeliverExpertResponse {
    const NAME: &'static str = "deliver_expert_response";
    const EVENTS: &'static [&'static str] = &["community.response_received"];
    const ABOUT: &'static str = "keeps an expert's answer, has the asking agent deliver it";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<ResponseReceived>;

    async fn handle(&self, cx: &Context, Json(received): Self::Payload) -> Result<Completion> {
        cx.write(requests::keep_response(&Response {
            id: &received.response_id,
            request_id: received.request_id,
            expert_id: received.expert_user_id,
            summary: &received.response_summary,
            answer: &received.verbatim_answer,
            at: happened(cx),
        }))?;
        // An answer to a request nobody made is kept as a dead letter instead.
        cx.write(requests::answered(received.request_id))?;
        let task = row_id(cx, "task");
        let event_id = cx.event().id.as_str();
        cx.write(requests::deliver_task(
            task,
            &received.response_id,
            event_id,
        ))?;
        let cause = row_id(cx, "asker");
        cx.write(requests::notify_asker(cause, &received.response_id))?;
        Ok(Completion::Done)
    }
}
