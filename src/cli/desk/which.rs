//! Which dead letters a command means.

use clap::Args;

use super::moment::moment;
use crate::desk::DeadLetterFilter;
use crate::error::BoxError;

/// Which dead letters.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Which {
    /// Ids of dead letters.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Those of one group, as `groups` names it.
    #[arg(long, value_name = "FINGERPRINT")]
    group: Option<String>,
    /// Those of an event type.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Those that failed in a handler.
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Those that came by `push`, `events`, `subscription` or `outbox`.
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// `transient` or `permanent`.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Those with an error code, such as resource_not_found.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Those of an event.
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Those of a correlation id.
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Kept at or after this time: 2h (ago), 2026-11-21, 2026-11-21 09:00 (UTC).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Kept before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
}

impl Which {
    /// Refuses to mean everything by accident.
    ///
    /// # Errors
    /// When nothing was given.
    pub(super) fn some(&self, or: &str) -> Result<(), BoxError> {
        match self.filter(None) == DeadLetterFilter::default() {
            true => Err(format!("say which: by id, by --group or another filter{or}").into()),
            false => Ok(()),
        }
    }

    pub(super) fn filter(&self, status: Option<&String>) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: self.ids.clone(),
            fingerprint: self.group.clone(),
            event_type: self.event_type.clone(),
            handler: self.handler.clone(),
            source: self.source.clone(),
            error_class: self.class.clone(),
            error_code: self.code.clone(),
            event_id: self.event.clone(),
            correlation_id: self.correlation.clone(),
            status: status.cloned(),
            since: self.since.clone(),
            until: self.until.clone(),
        }
    }
}
