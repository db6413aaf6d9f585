//! The APIs this service calls, all through one HTTP client that times out, retries and rests.

use uuid::Uuid;

use crate::clock::Deadline;
use crate::event::{EventId, TraceContext, derived_id};

/// On whose behalf a call is made: one run of one handler for one event.
#[derive(Debug, Clone)]
pub struct Call {
    /// The event that is handled.
    pub event_id: EventId,
    /// The handler's name.
    pub handler: &'static str,
    /// When everything has to be over.
    pub deadline: Deadline,
    /// The trace to continue.
    pub trace: TraceContext,
}

impl Call {
    /// Returns the id of one step of this run, the same on every retry and redelivery.
    ///
    /// 36 characters, so it fits Chargebee's idempotency key (at most 100) whatever the length of
    /// the event's own id.
    pub fn idempotency_key(&self, step: &str) -> Uuid {
        derived_id(&[self.event_id.as_str(), self.handler, step])
    }
}
