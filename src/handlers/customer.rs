//! Customers: Chargebee knows them under the same id and with the same details.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::event::contracts::{CustomerCreated, CustomerDeleted, CustomerUpdated};
use crate::event::{Change, Op};
use crate::pipeline::{Completion, Context, Handler};

/// The columns of `customers` that Chargebee has as well.
#[derive(Debug, Clone, Deserialize)]
pub struct CustomerRow {
    id: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    first_name: Option<String>,
    #[serde(default)]
    last_name: Option<String>,
    #[serde(default)]
    company: Option<String>,
    #[serde(default)]
    phone: Option<String>,
}

/// A customer's details by Chargebee's names.
type Details = BTreeMap<&'static str, String>;

/// Creates or updates the Chargebee customer.
pub struct SyncCustomer;

impl Handler for SyncCustomer {
    const NAME: &'static str = "sync_customer";
    const EVENTS: &'static [&'static str] =
        &["customers.insert", "customers.update", "customers.delete"];
    const ABOUT: &'static str =
        "creates or updates the Chargebee customer, emits customer.created, .updated or .deleted";
    type Payload = Change<CustomerRow>;

    async fn handle(&self, cx: &Context, change: Change<CustomerRow>) -> Result<Completion> {
        let row = change.row()?;
        let customer_id = row.id.clone();
        match change.op {
            Op::Delete => {
                // Chargebee's customer stays: its invoices refer to it.
                cx.emit(&CustomerDeleted { customer_id })?;
                return Ok(Completion::Done);
            }
            Op::Insert => cx.emit(&CustomerCreated { customer_id })?,
            Op::Update | Op::Manual => cx.emit(&CustomerUpdated { customer_id })?,
        }
        put_customer(cx, &row.id, &row.details()).await
    }
}

/// Brings the Chargebee customer to these details, whatever an earlier run has done of it.
async fn put_customer(cx: &Context, id: &str, details: &Details) -> Result<Completion> {
    let chargebee = cx.chargebee();
    let mut present = chargebee.customer(id).await?;
    if present.is_none() {
        match chargebee.create_customer(id, details).await {
            Ok(_) => return Ok(Completion::Done),
            // Created between the two calls, by an earlier run or by somebody else.
            Err(Error::Rejected { code, .. }) if code.as_str() == "duplicate_entry" => {
                present = chargebee.customer(id).await?;
            }
            Err(error) => return Err(error),
        }
    }
    if present.is_some_and(|customer| customer.has(details)) {
        return Ok(Completion::Skipped("Chargebee has these details already"));
    }
    chargebee.update_customer(id, details).await?;
    Ok(Completion::Done)
}

impl CustomerRow {
    /// Returns the details by Chargebee's names; a column that is null is left alone there.
    fn details(&self) -> Details {
        [
            ("email", &self.email),
            ("first_name", &self.first_name),
            ("last_name", &self.last_name),
            ("company", &self.company),
            ("phone", &self.phone),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)))
        .collect()
    }
}
