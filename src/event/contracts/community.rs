//! What happened to requests to the community.

use serde::Serialize;

use super::DomainEvent;

/// A question was put to the community; the experts on its topics are notified.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommunityRequestCreated {
    /// The request; an expert's answer names it.
    pub request_id: String,
    /// The question.
    pub question: String,
    /// Its field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Who could answer: topics in lower case.
    pub expertise_needed: Vec<String>,
}

impl DomainEvent for CommunityRequestCreated {
    const TYPE: &'static str = "community.request_created";

    fn subject(&self) -> String {
        self.request_id.clone()
    }
}
