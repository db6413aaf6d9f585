//! What users want, and that they are verified.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Urgency, happened, moment, row_id};
use crate::error::Result;
use crate::event::contracts::UserProfileUpdated;
use crate::pipeline::community::{self, Task};
use crate::pipeline::{Completion, Context, Effects, Handler, Json};

/// A user looks for a solution.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SolutionNeeded {
    user_id: Uuid,
    #[serde(default)]
    conversation_id: Option<String>,
    request_description: String,
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    urgency: Urgency,
}

/// Has the Solution Saga research what a user looks for.
pub struct RequestResearch;

impl Handler for RequestResearch {
    const NAME: &'static str = "request_research";
    const EVENTS: &'static [&'static str] = &["user.inquiry.solution_needed"];
    const ABOUT: &'static str = "creates the Solution Saga's research task";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<SolutionNeeded>;

    async fn handle(&self, cx: &Context, Json(asked): Self::Payload) -> Result<Completion> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Details<'a> {
            request_description: &'a str,
            category: Option<&'a str>,
        }
        let task = Task {
            id: row_id(cx, "task"),
            task_type: "research_solution",
            agent_type: "solution_saga",
            user_id: Some(asked.user_id),
            context: asked
                .conversation_id
                .as_deref()
                .map(|id| ("conversation", id)),
            priority: asked.urgency.as_str(),
            event_id: cx.event().id.as_str(),
            at: happened(cx),
        };
        let details = Details {
            request_description: &asked.request_description,
            category: asked.category.as_deref(),
        };
        cx.write(community::create_task(&task, &details)?)?;
        Ok(Completion::Done)
    }
}

/// A user asks about an introduction.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntroInquiry {
    user_id: Uuid,
    intro_id: Uuid,
    user_question: String,
    #[serde(default)]
    conversation_id: Option<String>,
}

/// Has the Account Manager answer a user's question about an introduction.
pub struct FollowUpIntro;

impl Handler for FollowUpIntro {
    const NAME: &'static str = "follow_up_intro";
    const EVENTS: &'static [&'static str] = &["user.intro_inquiry"];
    const ABOUT: &'static str = "creates the Account Manager's follow-up task for an introduction";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<IntroInquiry>;

    async fn handle(&self, cx: &Context, Json(asked): Self::Payload) -> Result<Completion> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Details<'a> {
            user_question: &'a str,
            conversation_id: Option<&'a str>,
        }
        let intro_id = asked.intro_id.to_string();
        let task = Task {
            id: row_id(cx, "task"),
            task_type: "intro_followup",
            agent_type: "account_manager",
            user_id: Some(asked.user_id),
            context: Some(("intro", &intro_id)),
            priority: Urgency::High.as_str(),
            event_id: cx.event().id.as_str(),
            at: happened(cx),
        };
        let details = Details {
            user_question: &asked.user_question,
            conversation_id: asked.conversation_id.as_deref(),
        };
        cx.write(community::create_task(&task, &details)?)?;
        Ok(Completion::Done)
    }
}

/// A user has shown who they are.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    user_id: Uuid,
    #[serde(deserialize_with = "moment")]
    verification_completed_at: SystemTime,
    #[serde(default)]
    poc_agent_type: Poc,
}

/// The agent that talks to the user; one this service does not know is the concierge.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Poc {
    Innovator,
    #[default]
    #[serde(other)]
    Concierge,
}

impl Poc {
    fn as_str(self) -> &'static str {
        match self {
            Self::Concierge => "concierge",
            Self::Innovator => "innovator",
        }
    }

    /// What such a user begins with, most important first.
    fn first_priorities(self) -> &'static [&'static str] {
        match self {
            Self::Concierge => &["tell_what_you_need", "tell_what_you_know", "offer_an_intro"],
            Self::Innovator => &["describe_the_offer", "name_prospects", "offer_an_intro"],
        }
    }
}

/// Gives a verified user the first priorities and has copies of the user read again.
pub struct WelcomeUser;

impl Handler for WelcomeUser {
    const NAME: &'static str = "welcome_user";
    const EVENTS: &'static [&'static str] = &["user.verified"];
    const ABOUT: &'static str =
        "gives a verified user first priorities, marks copies as stale, emits user.profile_updated";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<Verified>;

    async fn handle(&self, cx: &Context, Json(verified): Self::Payload) -> Result<Completion> {
        let (user, poc, at) = (verified.user_id, verified.poc_agent_type, happened(cx));
        let verified = verified.verification_completed_at;
        cx.write(community::verify_user(user, poc.as_str(), verified, at))?;
        for (rank, item) in (1..).zip(poc.first_priorities()) {
            let id = row_id(cx, item);
            cx.write(community::begin_priority(id, user, item, rank, at))?;
        }
        cx.emit(&UserProfileUpdated {
            user_id: user.to_string(),
        })?;
        Ok(Completion::Done)
    }
}
