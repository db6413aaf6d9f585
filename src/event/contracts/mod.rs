//! Domain events this service emits: typed, named in the past tense, one file per entity.

mod community;
mod contract;
mod credits;
mod customer;
mod user;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use community::CommunityRequestCreated;
pub use contract::{ContractActivated, ContractCancelled};
pub use credits::CreditsAwarded;
pub use customer::{CustomerCreated, CustomerDeleted, CustomerUpdated};
pub use user::UserProfileUpdated;

/// An event that other services may subscribe to.
///
/// Its type and the names of its members are a contract with them: renaming one breaks them.
pub trait DomainEvent: Serialize {
    /// The event type, past tense: `contract.activated`.
    const TYPE: &'static str;

    /// Returns what the event is about; events of one subject stay in order.
    fn subject(&self) -> String;
}

/// A JSON value that leaves digit for digit as it came.
///
/// An amount of `29700.10` or an id above 2^53 would change on its way through a float.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verbatim(Box<RawValue>);

impl Verbatim {
    /// Returns the JSON text.
    pub fn json(&self) -> &str {
        self.0.get()
    }
}
