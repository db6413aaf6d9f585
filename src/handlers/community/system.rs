//! What the agents have finished.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Urgency, happened, moment, row_id};
use crate::error::{Error, Result};
use crate::event::contracts::{CreditsAwarded, Verbatim};
use crate::event::derived_id;
use crate::pipeline::community::{self, AccountManagerRun, Task};
use crate::pipeline::{Completion, Context, Effects, Handler, Json};

/// The Solution Saga has found something.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResearchComplete {
    workflow_id: String,
    user_id: Uuid,
    #[serde(default)]
    request_description: Option<String>,
    findings: Verbatim,
}

/// Has the Concierge tell a user what was found.
pub struct PresentFindings;

impl Handler for PresentFindings {
    const NAME: &'static str = "present_findings";
    const EVENTS: &'static [&'static str] = &["solution.research_complete"];
    const ABOUT: &'static str = "has the Concierge tell the user what was found";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<ResearchComplete>;

    async fn handle(&self, cx: &Context, Json(complete): Self::Payload) -> Result<Completion> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Details<'a> {
            request_description: Option<&'a str>,
            findings: &'a Verbatim,
        }
        let task = Task {
            id: row_id(cx, "task"),
            task_type: "present_findings",
            agent_type: "concierge",
            user_id: Some(complete.user_id),
            context: Some(("solution_workflow", &complete.workflow_id)),
            priority: Urgency::High.as_str(),
            event_id: cx.event().id.as_str(),
            at: happened(cx),
        };
        let details = Details {
            request_description: complete.request_description.as_deref(),
            findings: &complete.findings,
        };
        cx.write(community::create_task(&task, &details)?)?;
        Ok(Completion::Done)
    }
}

/// Two people have been introduced to each other.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntroCompleted {
    intro_id: Uuid,
    connector_user_id: Uuid,
    #[serde(default)]
    innovator_id: Option<Uuid>,
    #[serde(default)]
    prospect_id: Option<Uuid>,
    #[serde(deserialize_with = "moment")]
    completed_at: SystemTime,
    #[serde(default)]
    credits_awarded: i64,
}

/// Credits whoever made an introduction, and tells both sides.
pub struct SettleIntro;

impl Handler for SettleIntro {
    const NAME: &'static str = "settle_intro";
    const EVENTS: &'static [&'static str] = &["intro.completed"];
    const ABOUT: &'static str =
        "completes the introduction, credits its maker, notifies both, emits credits.awarded";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<IntroCompleted>;

    async fn handle(&self, cx: &Context, Json(intro): Self::Payload) -> Result<Completion> {
        let (connector, at) = (intro.connector_user_id, happened(cx));
        let intro_id = intro.intro_id.to_string();
        if intro.credits_awarded < 0 {
            return Err(Error::permanent("negative_credits"));
        }
        cx.write(community::complete_intro(
            intro.intro_id,
            connector,
            intro.innovator_id,
            intro.prospect_id,
            intro.completed_at,
        ))?;
        if intro.credits_awarded > 0 {
            // Of the introduction, not of the event: told twice, it is credited once.
            let id = derived_id(&["credits", &intro_id, &connector.to_string()]);
            let amount = intro.credits_awarded;
            let write = community::award_credits(id, connector, amount, intro.intro_id, at);
            cx.write(write)?;
            cx.emit(&CreditsAwarded {
                user_id: connector.to_string(),
                intro_id: intro_id.clone(),
                amount,
            })?;
        }
        let cause = derived_id(&["intro_completed", &intro_id]);
        for party in [Some(connector), intro.innovator_id].into_iter().flatten() {
            cx.write(community::notify(
                cause,
                party,
                "intro_completed",
                &intro_id,
                at,
            ))?;
        }
        Ok(Completion::Done)
    }
}

/// The Account Manager has gone through what there was to do for a user.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessingCompleted {
    user_id: Uuid,
    #[serde(default)]
    processed_events: i32,
    #[serde(default)]
    urgent_items: i32,
    #[serde(default)]
    priorities_updated: i32,
    #[serde(default)]
    tasks_created: i32,
    #[serde(deserialize_with = "moment")]
    completed_at: SystemTime,
}

/// Keeps what the Account Manager did.
pub struct KeepAccountManagerRun;

impl Handler for KeepAccountManagerRun {
    const NAME: &'static str = "keep_account_manager_run";
    const EVENTS: &'static [&'static str] = &["account_manager.processing.completed"];
    const ABOUT: &'static str = "keeps what the Account Manager did";
    const EFFECTS: Effects = Effects::Transaction;
    type Payload = Json<ProcessingCompleted>;

    async fn handle(&self, cx: &Context, Json(done): Self::Payload) -> Result<Completion> {
        cx.write(community::keep_account_manager_run(&AccountManagerRun {
            id: row_id(cx, "run"),
            user_id: done.user_id,
            processed_events: done.processed_events,
            urgent_items: done.urgent_items,
            priorities_updated: done.priorities_updated,
            tasks_created: done.tasks_created,
            completed_at: done.completed_at,
        }))?;
        Ok(Completion::Done)
    }
}
