//! Statements for requests to the community and the experts' answers to them.

use std::time::SystemTime;

use uuid::Uuid;

use super::{json, text};
use crate::error::Result;
use crate::store::Write;

/// A question to the community.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Derived from the event.
    pub id: Uuid,
    /// The agent that asks.
    pub agent_type: &'a str,
    /// On whose behalf.
    pub user_id: Option<Uuid>,
    /// What it is about: kind and id.
    pub context: Option<(&'a str, &'a str)>,
    /// The question.
    pub question: &'a str,
    /// Its field.
    pub category: Option<&'a str>,
    /// Who could answer: topics in lower case.
    pub topics: &'a [String],
    /// The event it follows from.
    pub event_id: &'a str,
    /// When that happened.
    pub at: SystemTime,
}

/// Opens a request.
///
/// # Errors
/// When the topics cannot be written as JSON.
pub fn open(request: &Request<'_>) -> Result<Write> {
    let (context_type, context_id) = request.context.unzip();
    let write = Write::of(
        "INSERT INTO community_requests (id, requesting_agent_type, requesting_user_id, \
         context_type, context_id, question, category, expertise_needed, event_id, created_at) \
         VALUES (CAST($1 AS UUID), $2, CAST($3 AS UUID), $4, $5, $6, $7, CAST($8 AS JSONB), $9, \
         CAST($10 AS TIMESTAMPTZ)) ON CONFLICT (id) DO NOTHING",
        "INSERT INTO community_requests (id, requesting_agent_type, requesting_user_id, \
         context_type, context_id, question, category, expertise_needed, event_id, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING",
    );
    Ok(write
        .bind(request.id)
        .bind(request.agent_type)
        .bind_some(request.user_id)
        .bind_some(context_type)
        .bind_some(context_id)
        .bind(request.question)
        .bind_some(request.category)
        .bind(json(&request.topics)?)
        .bind(request.event_id)
        .bind(text(request.at)))
}

/// Notifies the experts on the request's topics, at most `most` of them, but not the asker.
///
/// Asked again, the same step notifies nobody else: who it notified is known by its `cause`.
pub fn notify_experts(cause: Uuid, request_id: Uuid, most: i32) -> Write {
    let write = Write::of(
        "INSERT INTO notifications (cause, recipient_id, kind, about_id, created_at) \
         SELECT DISTINCT CAST($1 AS UUID), experts.user_id, 'community_request', \
         CAST(requests.id AS TEXT), requests.created_at \
         FROM community_requests AS requests \
         CROSS JOIN jsonb_array_elements_text(requests.expertise_needed) AS topics (topic) \
         JOIN community_experts AS experts ON experts.topic = topics.topic \
         WHERE requests.id = CAST($2 AS UUID) \
         AND experts.user_id IS DISTINCT FROM requests.requesting_user_id \
         AND NOT EXISTS (SELECT FROM notifications WHERE cause = CAST($1 AS UUID)) \
         ORDER BY experts.user_id LIMIT $3 \
         ON CONFLICT (cause, recipient_id) DO NOTHING",
        "INSERT INTO notifications (cause, recipient_id, kind, about_id, created_at) \
         SELECT DISTINCT $1, experts.user_id, 'community_request', requests.id, \
         requests.created_at \
         FROM community_requests AS requests, json_each(requests.expertise_needed) AS topics \
         JOIN community_experts AS experts ON experts.topic = topics.value \
         WHERE requests.id = $2 AND experts.user_id IS NOT requests.requesting_user_id \
         AND NOT EXISTS (SELECT 1 FROM notifications WHERE cause = $1) \
         ORDER BY experts.user_id LIMIT $3 \
         ON CONFLICT (cause, recipient_id) DO NOTHING",
    );
    write.bind(cause).bind(request_id).bind(most)
}

/// Notes at the request how many experts were notified; nobody is a status of its own.
pub fn count_experts(cause: Uuid, request_id: Uuid) -> Write {
    let write = Write::of(
        "UPDATE community_requests SET experts_notified = notified.many, \
         status = CASE WHEN status <> 'open' THEN status WHEN notified.many = 0 \
         THEN 'no_experts' ELSE 'open' END \
         FROM (SELECT CAST(COUNT(*) AS INTEGER) AS many FROM notifications \
         WHERE cause = CAST($1 AS UUID)) AS notified WHERE id = CAST($2 AS UUID)",
        "UPDATE community_requests SET experts_notified = notified.many, \
         status = CASE WHEN status <> 'open' THEN status WHEN notified.many = 0 \
         THEN 'no_experts' ELSE 'open' END \
         FROM (SELECT COUNT(*) AS many FROM notifications WHERE cause = $1) AS notified \
         WHERE id = $2",
    );
    write.bind(cause).bind(request_id)
}

/// An expert's answer.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The answer's own id.
    pub id: &'a str,
    /// What it answers.
    pub request_id: Uuid,
    /// Who answers.
    pub expert_id: Uuid,
    /// In short.
    pub summary: &'a str,
    /// In the expert's own words.
    pub answer: &'a str,
    /// When.
    pub at: SystemTime,
}

/// Keeps an answer.
pub fn keep_response(response: &Response<'_>) -> Write {
    let write = Write::of(
        "INSERT INTO community_responses \
         (id, request_id, expert_user_id, summary, answer, created_at) \
         VALUES ($1, CAST($2 AS UUID), CAST($3 AS UUID), $4, $5, CAST($6 AS TIMESTAMPTZ)) \
         ON CONFLICT (id) DO NOTHING",
        "INSERT INTO community_responses \
         (id, request_id, expert_user_id, summary, answer, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
    );
    write
        .bind(response.id)
        .bind(response.request_id)
        .bind(response.expert_id)
        .bind(response.summary)
        .bind(response.answer)
        .bind(text(response.at))
}

/// Notes that a request has an answer. There has to be such a request.
pub fn answered(request_id: Uuid) -> Write {
    let write = Write::of(
        "UPDATE community_requests SET status = CASE WHEN status IN ('open', 'no_experts') \
         THEN 'answered' ELSE status END WHERE id = CAST($1 AS UUID)",
        "UPDATE community_requests SET status = CASE WHEN status IN ('open', 'no_experts') \
         THEN 'answered' ELSE status END WHERE id = $1",
    );
    write.bind(request_id).expect_rows(1)
}

/// Gives the agent that asked the task to pass an answer on to the user.
pub fn deliver_task(id: Uuid, response_id: &str, event_id: &str) -> Write {
    let write = Write::of(
        "INSERT INTO tasks (id, task_type, agent_type, user_id, context_type, context_id, \
         priority, context, event_id, created_at) \
         SELECT CAST($1 AS UUID), 'deliver_expert_response', requests.requesting_agent_type, \
         requests.requesting_user_id, 'community_request', CAST(requests.id AS TEXT), 'high', \
         jsonb_build_object('responseId', responses.id, 'summary', responses.summary), $3, \
         responses.created_at \
         FROM community_responses AS responses \
         JOIN community_requests AS requests ON requests.id = responses.request_id \
         WHERE responses.id = $2 ON CONFLICT (id) DO NOTHING",
        "INSERT INTO tasks (id, task_type, agent_type, user_id, context_type, context_id, \
         priority, context, event_id, created_at) \
         SELECT $1, 'deliver_expert_response', requests.requesting_agent_type, \
         requests.requesting_user_id, 'community_request', requests.id, 'high', \
         json_object('responseId', responses.id, 'summary', responses.summary), $3, \
         responses.created_at \
         FROM community_responses AS responses \
         JOIN community_requests AS requests ON requests.id = responses.request_id \
         WHERE responses.id = $2 ON CONFLICT (id) DO NOTHING",
    );
    write.bind(id).bind(response_id).bind(event_id)
}

/// Notifies the user on whose behalf was asked, if there is one.
pub fn notify_asker(cause: Uuid, response_id: &str) -> Write {
    let write = Write::of(
        "INSERT INTO notifications (cause, recipient_id, kind, about_id, created_at) \
         SELECT CAST($1 AS UUID), requests.requesting_user_id, 'expert_response', \
         CAST(requests.id AS TEXT), responses.created_at \
         FROM community_responses AS responses \
         JOIN community_requests AS requests ON requests.id = responses.request_id \
         WHERE responses.id = $2 AND requests.requesting_user_id IS NOT NULL \
         ON CONFLICT (cause, recipient_id) DO NOTHING",
        "INSERT INTO notifications (cause, recipient_id, kind, about_id, created_at) \
         SELECT $1, requests.requesting_user_id, 'expert_response', requests.id, \
         responses.created_at \
         FROM community_responses AS responses \
         JOIN community_requests AS requests ON requests.id = responses.request_id \
         WHERE responses.id = $2 AND requests.requesting_user_id IS NOT NULL \
         ON CONFLICT (cause, recipient_id) DO NOTHING",
    );
    write.bind(cause).bind(response_id)
}
