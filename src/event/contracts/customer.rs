//! What happened to customers.

use serde::Serialize;

use super::DomainEvent;

/// A customer exists in Chargebee from now on.
#[derive(Debug, Clone, Serialize)]
pub struct CustomerCreated {
    /// The customer, in Chargebee under the same id.
    pub customer_id: String,
}

impl DomainEvent for CustomerCreated {
    const TYPE: &'static str = "customer.created";

    fn subject(&self) -> String {
        self.customer_id.clone()
    }
}

/// A customer's details changed, in Chargebee too.
#[derive(Debug, Clone, Serialize)]
pub struct CustomerUpdated {
    /// The customer.
    pub customer_id: String,
}

impl DomainEvent for CustomerUpdated {
    const TYPE: &'static str = "customer.updated";

    fn subject(&self) -> String {
        self.customer_id.clone()
    }
}

/// A customer was deleted here; Chargebee keeps its record for the invoices.
#[derive(Debug, Clone, Serialize)]
pub struct CustomerDeleted {
    /// The customer.
    pub customer_id: String,
}

impl DomainEvent for CustomerDeleted {
    const TYPE: &'static str = "customer.deleted";

    fn subject(&self) -> String {
        self.customer_id.clone()
    }
}
