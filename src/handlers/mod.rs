//! The reference service's business logic: the visible list of all handlers.

mod community;
mod contract;
mod customer;

pub use community::{
    DeliverExpertResponse, FollowUpIntro, KeepAccountManagerRun, KeepUserResponse, NoteIntent,
    NoteUserMessage, OpenCommunityRequest, PresentFindings, RequestResearch, SettleIntro,
    WelcomeUser,
};
pub use contract::{ActivateContract, CancelContract};
pub use customer::SyncCustomer;

use crate::pipeline::{Registry, RegistryError};

/// Registers every handler of the reference service.
///
/// # Errors
/// [`RegistryError`] when two of them would hide each other.
pub fn register(registry: &mut Registry) -> Result<(), RegistryError> {
    registry.register(ActivateContract)?;
    registry.register(CancelContract)?;
    registry.register(SyncCustomer)?;
    community::register(registry)?;
    Ok(())
}
