//! Why the desk did not do what it was asked.

use crate::error::Error;

/// Why the desk did not do what it was asked. No text holds a value of an event.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The question makes no sense: 400.
    #[error("`{field}` {what}")]
    Invalid {
        /// Which member of the request.
        field: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is no such thing: 404.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// It cannot be done any more, or not now: 409.
    #[error("{what}")]
    Conflict {
        /// Machine-readable.
        code: &'static str,
        /// For people.
        what: &'static str,
    },
    /// The database is away, or something broke: 503.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl DeskError {
    pub(super) fn invalid(field: &'static str, what: &'static str) -> Self {
        Self::Invalid { field, what }
    }

    /// Returns the machine-readable reason.
    pub fn code(&self) -> &str {
        match self {
            Self::Invalid { .. } => "invalid_request",
            Self::NotFound(_) => "not_found",
            Self::Conflict { code, .. } => code,
            Self::Failed(_) => "database_unavailable",
        }
    }
}

/// What the desk's methods return.
pub type DeskResult<T> = Result<T, DeskError>;
