//! Contracts: what their Chargebee subscriptions have to know.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::event::contracts::{ContractActivated, ContractCancelled, Verbatim};
use crate::event::{Change, Op};
use crate::pipeline::{Completion, Context, Effects, Handler, When};

/// The columns of `contracts` that matter here.
#[derive(Debug, Clone, Deserialize)]
pub struct Contract {
    id: String,
    subscription_id: String,
    status: Status,
    #[serde(default)]
    amount_cents: Option<Verbatim>,
}

/// Where a contract stands. A status this service does not know concerns none of its handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Active,
    Cancelled,
    #[serde(other)]
    Other,
}

/// Tells whether the change moved the contract to `status`.
fn moved_to(status: Status, change: &Change<Contract>) -> bool {
    let before = change.old.as_ref().map(|old| old.status);
    change.new.as_ref().is_some_and(|new| new.status == status) && before != Some(status)
}

/// Puts the contract's id on its Chargebee subscription, and the subscription on the contract,
/// once the contract is active.
pub struct ActivateContract;

impl Handler for ActivateContract {
    const NAME: &'static str = "activate_contract";
    const EVENTS: &'static [&'static str] = &["contracts.insert", "contracts.update"];
    const ABOUT: &'static str =
        "links an active contract and its Chargebee subscription, emits contract.activated";
    const EFFECTS: Effects = Effects::Calls;
    type Payload = Change<Contract>;

    fn when(&self) -> When {
        When::always().changed(&["status"])
    }

    async fn handle(&self, cx: &Context, change: Change<Contract>) -> Result<Completion> {
        if !moved_to(Status::Active, &change) {
            return Ok(Completion::Skipped("the contract did not become active"));
        }
        let contract = change.row()?;
        let hasura = cx.hasura();
        let chargebee = cx.chargebee();
        let (link, subscription) = futures_util::try_join!(
            hasura.contract(&contract.id),
            chargebee.subscription(&contract.subscription_id),
        )?;
        let link = link.ok_or(Error::NotFound {
            service: "hasura",
            what: "contract",
        })?;

        let in_chargebee = subscription.cf_contract_id.as_deref() == Some(&contract.id);
        let in_hasura =
            link.chargebee_subscription_id.as_deref() == Some(&contract.subscription_id);
        // Cancelled before anything was done for this event, which is late then. If something was
        // done, an earlier run was cut off, and this one finishes what it began.
        if link.status.as_deref() == Some("cancelled") && !in_chargebee && !in_hasura {
            return Ok(Completion::Skipped("the contract was cancelled meanwhile"));
        }
        // Emitted even if everything is linked already: an earlier run may have been cut off
        // just before it published, and a second copy carries the same id.
        cx.emit(&ContractActivated {
            contract_id: contract.id.clone(),
            subscription_id: contract.subscription_id.clone(),
            amount_cents: contract.amount_cents.clone(),
        })?;
        if in_chargebee && in_hasura {
            return Ok(Completion::Skipped("already linked"));
        }
        if !in_chargebee {
            chargebee
                .link_contract(&contract.subscription_id, &contract.id)
                .await?;
        }
        if !in_hasura {
            hasura
                .link_subscription(&contract.id, &contract.subscription_id)
                .await?;
        }
        Ok(Completion::Done)
    }
}

/// Ends the Chargebee subscription with its term once the contract is cancelled.
pub struct CancelContract;

impl Handler for CancelContract {
    const NAME: &'static str = "cancel_contract";
    const EVENTS: &'static [&'static str] = &["contracts.update"];
    const ABOUT: &'static str = "ends a cancelled contract's Chargebee subscription with its term, emits contract.cancelled";
    const EFFECTS: Effects = Effects::Calls;
    type Payload = Change<Contract>;

    fn when(&self) -> When {
        When::always().op(&[Op::Update]).changed(&["status"])
    }

    async fn handle(&self, cx: &Context, change: Change<Contract>) -> Result<Completion> {
        if !moved_to(Status::Cancelled, &change) {
            return Ok(Completion::Skipped("the contract was not cancelled"));
        }
        let contract = change.row()?;
        cx.emit(&ContractCancelled {
            contract_id: contract.id.clone(),
            subscription_id: contract.subscription_id.clone(),
        })?;

        let chargebee = cx.chargebee();
        if chargebee
            .subscription(&contract.subscription_id)
            .await?
            .is_ending()
        {
            return Ok(Completion::Skipped("already cancelled"));
        }
        match chargebee
            .cancel_at_term_end(&contract.subscription_id)
            .await
        {
            Ok(_) => Ok(Completion::Done),
            // Somebody may have cancelled it between the two calls; that is what was wanted.
            Err(Error::Rejected { code, .. })
                if code.as_str() == "invalid_state_for_request"
                    && chargebee
                        .subscription(&contract.subscription_id)
                        .await?
                        .is_ending() =>
            {
                Ok(Completion::Skipped("already cancelled"))
            }
            Err(error) => Err(error),
        }
    }
}
