//! What happened to users' credits.

use serde::Serialize;

use super::DomainEvent;

/// A user was credited for an introduction.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreditsAwarded {
    /// Who was credited.
    pub user_id: String,
    /// For which introduction.
    pub intro_id: String,
    /// How much.
    pub amount: i64,
}

impl DomainEvent for CreditsAwarded {
    const TYPE: &'static str = "credits.awarded";

    fn subject(&self) -> String {
        self.user_id.clone()
    }
}
