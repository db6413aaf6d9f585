//! A team's own service: its own two handlers, everything else from the library.
//!
//! Run it with the variables of the reference service: `cargo run --example own_handlers`.

use hookyard::app::{App, AppBuilder};
use hookyard::error::{BoxError, Result};
use hookyard::event::contracts::DomainEvent;
use hookyard::event::{Change, Scheduled};
use hookyard::pipeline::{Completion, Context, Handler, When};
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

/// The service: its handlers, and the library for the rest.
pub(crate) fn service() -> AppBuilder {
    App::builder()
        .handler(AnnouncePaidInvoice)
        .handler(Heartbeat)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    service().run().await
}
