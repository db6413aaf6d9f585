//! Customers: Chargebee knows them under the same id and with the same details.

use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::event::contracts::{CustomerCreated, CustomerDeleted, CustomerUpdated};
use crate::event::{Change, Op};
use crate::pipeline::{Completion, Context, Effects, Handler, Stale};

/// The columns of `customers` that Chargebee has as well.
#[derive(Debug, Clone, Deserialize)]
pub struct CustomerRow {
    id: String,
    #[serde(default, deserialize_with = "null_removes")]
    email: Option<String>,
    #[serde(default, deserialize_with = "null_removes")]
    first_name: Option<String>,
    #[serde(default, deserialize_with = "null_removes")]
    last_name: Option<String>,
    #[serde(default, deserialize_with = "null_removes")]
    company: Option<String>,
    #[serde(default, deserialize_with = "null_removes")]
    phone: Option<String>,
}

/// Creates or updates the Chargebee customer.
pub struct SyncCustomer;

impl Handler for SyncCustomer {
    const NAME: &'static str = "sync_customer";
    const EVENTS: &'static [&'static str] =
        &["customers.insert", "customers.update", "customers.delete"];
    const ABOUT: &'static str =
        "creates or updates the Chargebee customer, emits customer.created, .updated or .deleted";
    // The newest details win, in whatever order the changes come.
    const STALE: Stale = Stale::Skip;
    const EFFECTS: Effects = Effects::Calls;
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
        put_customer(cx, row).await
    }
}

/// Brings the Chargebee customer to the row's details, whatever an earlier run has done of it.
async fn put_customer(cx: &Context, row: &CustomerRow) -> Result<Completion> {
    let chargebee = cx.chargebee();
    let mut details = chargebee.blank_details();
    details.email.clone_from(&row.email);
    details.first_name.clone_from(&row.first_name);
    details.last_name.clone_from(&row.last_name);
    details.company.clone_from(&row.company);
    details.phone.clone_from(&row.phone);

    let mut present = chargebee.customer(&row.id).await?;
    if present.is_none() {
        match chargebee.create_customer(&row.id, &details).await {
            Ok(_) => return Ok(Completion::Done),
            // Created between the two calls, by an earlier run or by somebody else.
            Err(Error::Rejected { code, .. }) if code.as_str() == "duplicate_entry" => {
                present = chargebee.customer(&row.id).await?;
            }
            Err(error) => return Err(error),
        }
    }
    if present.is_some_and(|customer| customer.has(&details)) {
        return Ok(Completion::Skipped("Chargebee has these details already"));
    }
    chargebee.update_customer(&row.id, &details).await?;
    Ok(Completion::Done)
}

/// A null in the row removes the detail in Chargebee too; a column the trigger leaves out does
/// not reach this function, and the detail stays as it is.
fn null_removes<'de, D: Deserializer<'de>>(column: D) -> Result<Option<String>, D::Error> {
    Ok(Some(Option::deserialize(column)?.unwrap_or_default()))
}
