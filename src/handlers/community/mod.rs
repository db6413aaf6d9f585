//! The community's events, which its services insert into the `events` table: what its agents
//! have to do, and what is to be known of its users, requests and introductions.
//!
//! Every effect is a statement in the transaction that completes the run, so nothing happens
//! twice, whichever way an event comes and however often.

mod conversations;
mod requests;
mod system;
mod users;

use std::time::SystemTime;

use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::event::derived_id;
use crate::pipeline::{Context, Registry, RegistryError};

pub use conversations::{KeepUserResponse, NoteIntent, NoteUserMessage};
pub use requests::{DeliverExpertResponse, OpenCommunityRequest};
pub use system::{KeepAccountManagerRun, PresentFindings, SettleIntro};
pub use users::{FollowUpIntro, RequestResearch, WelcomeUser};

/// Registers all of them.
///
/// # Errors
/// [`RegistryError`] when two handlers would hide each other.
pub(super) fn register(registry: &mut Registry) -> Result<(), RegistryError> {
    registry.register(RequestResearch)?;
    registry.register(OpenCommunityRequest)?;
    registry.register(FollowUpIntro)?;
    registry.register(WelcomeUser)?;

    registry.register(NoteUserMessage)?;
    registry.register(KeepUserResponse)?;
    registry.register(NoteIntent)?;

    registry.register(PresentFindings)?;
    registry.register(SettleIntro)?;
    registry.register(DeliverExpertResponse)?;
    registry.register(KeepAccountManagerRun)?;
    Ok(())
}

/// How urgent something is; what the sender calls otherwise is of medium urgency.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Urgency {
    Low,
    High,
    Urgent,
    #[default]
    #[serde(other)]
    Medium,
}

impl Urgency {
    fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

/// The id of a row that follows from the event: the same for every run, also for those that somebody
/// asks for again, which is to mend what is there and not to add to it.
fn row_id(cx: &Context, step: &str) -> Uuid {
    derived_id(&[cx.event().id.as_str(), cx.call().handler, step])
}

/// When the event happened, the same on every run if anybody said so.
fn happened(cx: &Context) -> SystemTime {
    let event = cx.event();
    let told = event.created_at.or(event.delivery.publish_time);
    told.unwrap_or_else(|| cx.now())
}

/// Reads a time with its zone.
fn moment<'de, D: Deserializer<'de>>(value: D) -> Result<SystemTime, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(value)?;
    OffsetDateTime::parse(&text, &Rfc3339)
        .map(SystemTime::from)
        .map_err(|_| serde::de::Error::custom("not a time"))
}
