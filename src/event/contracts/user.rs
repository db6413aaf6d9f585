//! What happened to users of the community.

use serde::Serialize;

use super::DomainEvent;

/// What is known of a user changed: copies of it are stale.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserProfileUpdated {
    /// The user.
    pub user_id: String,
}

impl DomainEvent for UserProfileUpdated {
    const TYPE: &'static str = "user.profile_updated";

    fn subject(&self) -> String {
        self.user_id.clone()
    }
}
