//! Statements of the handlers of community events: what they write, each to be run once or again.
//!
//! Ids come from the event or are derived from it, and what somebody else may have changed since
//! (a task's status, a later time) is left as it is, so a second run changes nothing.

pub mod requests;

use std::time::SystemTime;

use serde::Serialize;
use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::store::{Write, micros_of, timestamp};

/// Work for one of the agents.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Derived from the event.
    pub id: Uuid,
    /// What is to be done: `research_solution`.
    pub task_type: &'a str,
    /// Who is to do it: `account_manager`.
    pub agent_type: &'a str,
    /// For whom.
    pub user_id: Option<Uuid>,
    /// What it is about: kind and id.
    pub context: Option<(&'a str, &'a str)>,
    /// `low`, `medium`, `high` or `urgent`.
    pub priority: &'a str,
    /// The event it follows from.
    pub event_id: &'a str,
    /// When that happened.
    pub at: SystemTime,
}

/// Creates a task; `details` is what the agent gets to read.
///
/// # Errors
/// When the details cannot be written as JSON.
pub fn create_task(task: &Task<'_>, details: &impl Serialize) -> Result<Write> {
    let (context_type, context_id) = task.context.unzip();
    let write = Write::of(
        "INSERT INTO tasks (id, task_type, agent_type, user_id, context_type, context_id, \
         priority, context, event_id, created_at) \
         VALUES (CAST($1 AS UUID), $2, $3, CAST($4 AS UUID), $5, $6, $7, CAST($8 AS JSONB), $9, \
         CAST($10 AS TIMESTAMPTZ)) ON CONFLICT (id) DO NOTHING",
        "INSERT INTO tasks (id, task_type, agent_type, user_id, context_type, context_id, \
         priority, context, event_id, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING",
    );
    Ok(write
        .bind(task.id)
        .bind(task.task_type)
        .bind(task.agent_type)
        .bind_some(task.user_id)
        .bind_some(context_type)
        .bind_some(context_id)
        .bind(task.priority)
        .bind(json(details)?)
        .bind(task.event_id)
        .bind(text(task.at)))
}

/// Notes that a user wrote something. An older time than the one known changes nothing.
pub fn user_was_active(user_id: Uuid, at: SystemTime) -> Write {
    let write = Write::of(
        "INSERT INTO users (id, last_active_at, last_message_at) \
         VALUES (CAST($1 AS UUID), CAST($2 AS TIMESTAMPTZ), CAST($2 AS TIMESTAMPTZ)) \
         ON CONFLICT (id) DO UPDATE SET \
         last_active_at = GREATEST(users.last_active_at, EXCLUDED.last_active_at), \
         last_message_at = GREATEST(users.last_message_at, EXCLUDED.last_message_at)",
        "INSERT INTO users (id, last_active_at, last_message_at) VALUES ($1, $2, $2) \
         ON CONFLICT (id) DO UPDATE SET \
         last_active_at = max(coalesce(users.last_active_at, ''), excluded.last_active_at), \
         last_message_at = max(coalesce(users.last_message_at, ''), excluded.last_message_at)",
    );
    write.bind(user_id).bind(text(at))
}

/// Notes that a user is verified, and who talks to the user from now on.
pub fn verify_user(
    user_id: Uuid,
    poc_agent_type: &str,
    verified: SystemTime,
    at: SystemTime,
) -> Write {
    let write = Write::of(
        "INSERT INTO users (id, poc_agent_type, verified_at, caches_stale_since) \
         VALUES (CAST($1 AS UUID), $2, CAST($3 AS TIMESTAMPTZ), CAST($4 AS TIMESTAMPTZ)) \
         ON CONFLICT (id) DO UPDATE SET poc_agent_type = EXCLUDED.poc_agent_type, \
         verified_at = EXCLUDED.verified_at, caches_stale_since = \
         GREATEST(users.caches_stale_since, EXCLUDED.caches_stale_since)",
        "INSERT INTO users (id, poc_agent_type, verified_at, caches_stale_since) \
         VALUES ($1, $2, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET poc_agent_type = excluded.poc_agent_type, \
         verified_at = excluded.verified_at, caches_stale_since = \
         max(coalesce(users.caches_stale_since, ''), excluded.caches_stale_since)",
    );
    write
        .bind(user_id)
        .bind(poc_agent_type)
        .bind(text(verified))
        .bind(text(at))
}

/// Gives a user a priority to begin with, unless it is there.
pub fn begin_priority(id: Uuid, user_id: Uuid, item: &str, rank: i32, at: SystemTime) -> Write {
    let write = Write::of(
        "INSERT INTO user_priorities (id, user_id, item, rank, created_at) VALUES \
         (CAST($1 AS UUID), CAST($2 AS UUID), $3, $4, CAST($5 AS TIMESTAMPTZ)) \
         ON CONFLICT DO NOTHING",
        "INSERT INTO user_priorities (id, user_id, item, rank, created_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    );
    write
        .bind(id)
        .bind(user_id)
        .bind(item)
        .bind(rank)
        .bind(text(at))
}

/// What a user answered.
#[derive(Debug, Clone, Copy)]
pub struct UserResponse<'a> {
    /// Derived from the event.
    pub id: Uuid,
    /// Who answered.
    pub user_id: Uuid,
    /// Where.
    pub conversation_id: Option<&'a str>,
    /// `feedback`, `acceptance`, `rejection`, `clarification`.
    pub response_type: &'a str,
    /// To what.
    pub context: Option<&'a str>,
    /// In the user's own words.
    pub response: &'a str,
    /// When.
    pub at: SystemTime,
}

/// Keeps what a user answered.
pub fn keep_user_response(response: &UserResponse<'_>) -> Write {
    let write = Write::of(
        "INSERT INTO user_responses \
         (id, user_id, conversation_id, response_type, context, response, created_at) \
         VALUES (CAST($1 AS UUID), CAST($2 AS UUID), $3, $4, $5, $6, CAST($7 AS TIMESTAMPTZ)) \
         ON CONFLICT (id) DO NOTHING",
        "INSERT INTO user_responses \
         (id, user_id, conversation_id, response_type, context, response, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING",
    );
    write
        .bind(response.id)
        .bind(response.user_id)
        .bind_some(response.conversation_id)
        .bind(response.response_type)
        .bind_some(response.context)
        .bind(response.response)
        .bind(text(response.at))
}

/// Notes what a conversation is about. An older classification than the one known changes nothing.
pub fn note_intent(
    conversation_id: &str,
    user_id: Option<Uuid>,
    intent: &str,
    confidence: Option<f64>,
    at: SystemTime,
) -> Write {
    let write = Write::of(
        "INSERT INTO conversation_intents \
         (conversation_id, user_id, intent, confidence, classified_at) \
         VALUES ($1, CAST($2 AS UUID), $3, $4, CAST($5 AS TIMESTAMPTZ)) \
         ON CONFLICT (conversation_id) DO UPDATE SET user_id = EXCLUDED.user_id, \
         intent = EXCLUDED.intent, confidence = EXCLUDED.confidence, \
         classified_at = EXCLUDED.classified_at \
         WHERE conversation_intents.classified_at <= EXCLUDED.classified_at",
        "INSERT INTO conversation_intents \
         (conversation_id, user_id, intent, confidence, classified_at) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (conversation_id) DO UPDATE SET user_id = excluded.user_id, \
         intent = excluded.intent, confidence = excluded.confidence, \
         classified_at = excluded.classified_at \
         WHERE conversation_intents.classified_at <= excluded.classified_at",
    );
    write
        .bind(conversation_id)
        .bind_some(user_id)
        .bind(intent)
        .bind_some(confidence)
        .bind(text(at))
}

/// What the Account Manager did for a user.
#[derive(Debug, Clone, Copy)]
pub struct AccountManagerRun {
    /// Derived from the event.
    pub id: Uuid,
    /// For whom.
    pub user_id: Uuid,
    /// Events it looked at.
    pub processed_events: i32,
    /// Of these, urgent ones.
    pub urgent_items: i32,
    /// Priorities it changed.
    pub priorities_updated: i32,
    /// Tasks it made.
    pub tasks_created: i32,
    /// When it ended.
    pub completed_at: SystemTime,
}

/// Keeps what the Account Manager did.
pub fn keep_account_manager_run(run: &AccountManagerRun) -> Write {
    let write = Write::of(
        "INSERT INTO account_manager_runs (id, user_id, processed_events, urgent_items, \
         priorities_updated, tasks_created, completed_at) \
         VALUES (CAST($1 AS UUID), CAST($2 AS UUID), $3, $4, $5, $6, CAST($7 AS TIMESTAMPTZ)) \
         ON CONFLICT (id) DO NOTHING",
        "INSERT INTO account_manager_runs (id, user_id, processed_events, urgent_items, \
         priorities_updated, tasks_created, completed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING",
    );
    write
        .bind(run.id)
        .bind(run.user_id)
        .bind(run.processed_events)
        .bind(run.urgent_items)
        .bind(run.priorities_updated)
        .bind(run.tasks_created)
        .bind(text(run.completed_at))
}

/// Notes that an introduction took place.
pub fn complete_intro(
    intro_id: Uuid,
    connector: Uuid,
    innovator: Option<Uuid>,
    prospect: Option<Uuid>,
    completed: SystemTime,
) -> Write {
    let write = Write::of(
        "INSERT INTO intros \
         (id, connector_user_id, innovator_id, prospect_id, status, completed_at) \
         VALUES (CAST($1 AS UUID), CAST($2 AS UUID), CAST($3 AS UUID), CAST($4 AS UUID), \
         'completed', CAST($5 AS TIMESTAMPTZ)) \
         ON CONFLICT (id) DO UPDATE SET status = 'completed', \
         completed_at = COALESCE(intros.completed_at, EXCLUDED.completed_at)",
        "INSERT INTO intros \
         (id, connector_user_id, innovator_id, prospect_id, status, completed_at) \
         VALUES ($1, $2, $3, $4, 'completed', $5) \
         ON CONFLICT (id) DO UPDATE SET status = 'completed', \
         completed_at = coalesce(intros.completed_at, excluded.completed_at)",
    );
    write
        .bind(intro_id)
        .bind(connector)
        .bind_some(innovator)
        .bind_some(prospect)
        .bind(text(completed))
}

/// Credits a user for an introduction. The same id again corrects the amount.
pub fn award_credits(
    id: Uuid,
    user_id: Uuid,
    amount: i64,
    intro_id: Uuid,
    at: SystemTime,
) -> Write {
    let write = Write::of(
        "INSERT INTO credits (id, user_id, amount, reason, intro_id, awarded_at) \
         VALUES (CAST($1 AS UUID), CAST($2 AS UUID), $3, 'intro_completed', CAST($4 AS UUID), \
         CAST($5 AS TIMESTAMPTZ)) ON CONFLICT (id) DO UPDATE SET amount = EXCLUDED.amount",
        "INSERT INTO credits (id, user_id, amount, reason, intro_id, awarded_at) \
         VALUES ($1, $2, $3, 'intro_completed', $4, $5) \
         ON CONFLICT (id) DO UPDATE SET amount = excluded.amount",
    );
    write
        .bind(id)
        .bind(user_id)
        .bind(amount)
        .bind(intro_id)
        .bind(text(at))
}

/// Notifies one user; `cause` is derived from the event and the step.
pub fn notify(cause: Uuid, recipient: Uuid, kind: &str, about: &str, at: SystemTime) -> Write {
    let write = Write::of(
        "INSERT INTO notifications (cause, recipient_id, kind, about_id, created_at) VALUES \
         (CAST($1 AS UUID), CAST($2 AS UUID), $3, $4, CAST($5 AS TIMESTAMPTZ)) \
         ON CONFLICT (cause, recipient_id) DO NOTHING",
        "INSERT INTO notifications (cause, recipient_id, kind, about_id, created_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (cause, recipient_id) DO NOTHING",
    );
    write
        .bind(cause)
        .bind(recipient)
        .bind(kind)
        .bind(about)
        .bind(text(at))
}

/// Writes a time as both databases take it.
fn text(at: SystemTime) -> String {
    timestamp(micros_of(at))
}

/// Writes a JSON column.
fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|_| Error::Never {
        code: Code::new("not_serialisable"),
    })
}
