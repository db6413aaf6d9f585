//! What happened to contracts.

use serde::Serialize;

use super::{DomainEvent, Verbatim};

/// A contract became active and its Chargebee subscription knows it.
#[derive(Debug, Clone, Serialize)]
pub struct ContractActivated {
    /// The contract.
    pub contract_id: String,
    /// The Chargebee subscription that carries the contract's id from now on.
    pub subscription_id: String,
    /// The contract's amount in cents, as the row had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_cents: Option<Verbatim>,
}

impl DomainEvent for ContractActivated {
    const TYPE: &'static str = "contract.activated";

    fn subject(&self) -> String {
        self.contract_id.clone()
    }
}

/// A contract was cancelled and its Chargebee subscription ends with its term.
#[derive(Debug, Clone, Serialize)]
pub struct ContractCancelled {
    /// The contract.
    pub contract_id: String,
    /// The Chargebee subscription that ends.
    pub subscription_id: String,
}

impl DomainEvent for ContractCancelled {
    const TYPE: &'static str = "contract.cancelled";

    fn subject(&self) -> String {
        self.contract_id.clone()
    }
}
