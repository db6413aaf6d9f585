//! A team's own service: its own two handlers, everything else from the library.
//!
//! `cargo run --example own_handlers -- dev` tries it out, `… -- handlers` lists its handlers.

use std::process::ExitCode;

use hookyard::error::Result;
use hookyard::event::contracts::DomainEvent;
use hookyard::event::{Change, Scheduled};
use hookyard::pipeline::{Completion, Context, Handler, Registry, RegistryError, When};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Invoice {
    id: String,
    state: String,
}

#[derive(Serialize)]
struct InvoicePaid {
    invoice_id: String,
}

impl DomainEvent for InvoicePaid {
    const TYPE: &'static str = "invoice.paid";

    fn subject(&self) -> String {
        self.invoice_id.clone()
    }
}

/// Tells other services that an invoice was paid.
struct AnnouncePaidInvoice;

impl Handler for AnnouncePaidInvoice {
    const NAME: &'static str = "announce_paid_invoice";
    const EVENTS: &'static [&'static str] = &["billing.invoices.update"];
    const ABOUT: &'static str = "emits invoice.paid";
    type Payload = Change<Invoice>;

    fn when(&self) -> When {
        When::always().changed(&["state"])
    }

    async fn handle(&self, cx: &Context, change: Change<Invoice>) -> Result<Completion> {
        let invoice = change.row()?;
        if invoice.state != "paid" {
            return Ok(Completion::Skipped("the invoice is not paid"));
        }
        cx.emit(&InvoicePaid {
            invoice_id: invoice.id.clone(),
        })?;
        Ok(Completion::Done)
    }
}

/// Answers Hasura's cron trigger `heartbeat`.
struct Heartbeat;

impl Handler for Heartbeat {
    const NAME: &'static str = "heartbeat";
    const EVENTS: &'static [&'static str] = &["cron.heartbeat"];
    const ABOUT: &'static str = "logs that the schedule is alive";
    type Payload = Scheduled<Option<serde_json::Value>>;

    async fn handle(&self, _: &Context, tick: Self::Payload) -> Result<Completion> {
        tracing::info!(
            on_time = tick.scheduled_time.is_some(),
            "the schedule is alive"
        );
        Ok(Completion::Done)
    }
}

/// The list of handlers.
pub(crate) fn register(registry: &mut Registry) -> std::result::Result<(), RegistryError> {
    registry.register(AnnouncePaidInvoice)?;
    registry.register(Heartbeat)
}

/// The whole command line, over these handlers: `serve`, `dev`, `check`, `hasura metadata diff`,
/// `dead-letters`, `replay` and all others.
fn main() -> ExitCode {
    hookyard::cli::main(register)
}
