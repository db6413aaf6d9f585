//! From a row to an event, and through the pipeline.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use crate::clock::Deadline;
use crate::error::{Class, Code};
use crate::event::{Delivery, Event, TableRow, Undecodable};
use crate::pipeline::{Failed, Outcome, Pipeline, Settled, Terms};
use crate::store::dead_letters::NewDeadLetter;
use crate::store::events::DueEvent;
use crate::store::inbox::Mode;
use crate::store::outbox::OutboxRow;
use crate::store::{DeliveryNote, time_of};

/// Runs a row to its end.
pub trait RunRow: Send + Sync + 'static {
    /// Runs it; must not panic.
    fn run(&self, row: Arc<DueEvent>) -> BoxFuture<'static, Settled>;

    /// Takes note that a row is given up after this failure, and tells its dead letter what the
    /// event says of itself; returns what is to be published then.
    fn given_up(
        &self,
        row: &DueEvent,
        failed: &Failed,
        letter: &mut NewDeadLetter,
    ) -> Vec<OutboxRow>;
}

/// Runs rows through the pipeline.
pub struct PipelineRows {
    pipeline: Arc<Pipeline>,
}

impl PipelineRows {
    /// Takes the pipeline.
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        Self { pipeline }
    }
}

impl RunRow for PipelineRows {
    fn run(&self, row: Arc<DueEvent>) -> BoxFuture<'static, Settled> {
        let pipeline = Arc::clone(&self.pipeline);
        async move { run(&pipeline, &row).await }.boxed()
    }

    fn given_up(
        &self,
        row: &DueEvent,
        failed: &Failed,
        letter: &mut NewDeadLetter,
    ) -> Vec<OutboxRow> {
        let held = event_of(row, &metadata(row));
        let event = held.ok().flatten();
        if let Some(event) = &event {
            letter.correlation_id = Some(event.correlation_id().to_owned());
            letter.trace_id = event.trace.map(|trace| trace.trace_id());
        }
        let delivery = match &event {
            Some(event) => &event.delivery,
            None => &delivery_of(row),
        };
        self.pipeline.given_up(event.as_ref(), delivery, failed)
    }
}

async fn run(pipeline: &Arc<Pipeline>, row: &DueEvent) -> Settled {
    let mut budget = pipeline.budget();
    // A run of somebody else is looked for again later, with the place free meanwhile.
    budget.claim = Deadline::after(budget.work.clock(), Duration::ZERO);
    let metadata = metadata(row);
    let pushed = row.original.is_some();
    let terms = Terms {
        mode: Mode::Generation(row.generation),
        source: if pushed { "push" } else { "events" },
        handler: None,
        replay: metadata.get("replayed") == Some(&Value::Bool(true)),
    };
    match event_of(row, &metadata) {
        Ok(Some(event)) => pipeline.run_on(Arc::new(event), terms, budget).await,
        Ok(None) => no_event(),
        Err(undecodable) => Settled {
            outcome: pipeline.bury_undecodable(undecodable, budget).await,
            failure: None,
        },
    }
}

/// Returns the event a row holds, `None` when its id is no event's.
fn event_of(
    row: &DueEvent,
    metadata: &Map<String, Value>,
) -> Result<Option<Event>, Box<Undecodable>> {
    match row.original {
        None => Ok(Event::of_row(table_row(row, metadata))),
        Some(_) => Event::of_kept(delivery_of(row)).map(Some),
    }
}

fn delivery_of(row: &DueEvent) -> Delivery {
    let note = row.delivery.as_deref().map(DeliveryNote::parse);
    let bytes = row.original.as_ref().unwrap_or(&row.payload);
    note.unwrap_or_default().with(bytes.clone())
}

/// Returns what a row says it belongs to.
pub(super) fn correlation_id(row: &DueEvent) -> Option<String> {
    Some(metadata(row).get("correlation_id")?.as_str()?.to_owned())
}

fn metadata(row: &DueEvent) -> Map<String, Value> {
    let parse = |text: &str| serde_json::from_str(text).ok();
    row.metadata.as_deref().and_then(parse).unwrap_or_default()
}

fn table_row(row: &DueEvent, metadata: &Map<String, Value>) -> TableRow {
    let said = TableRow {
        id: row.key().to_owned(),
        event_type: row.event_type.clone(),
        subject: row.aggregate.clone(),
        payload: String::from_utf8_lossy(&row.payload).into_owned(),
        created_at: row.created_at.map(time_of),
        ..TableRow::default()
    };
    said.noted(metadata)
}

/// The row's id is no event's.
fn no_event() -> Settled {
    Settled {
        outcome: Outcome::Retry(Outcome::SOON),
        failure: Some(Failed {
            handler: "undecodable",
            class: Class::Permanent,
            code: Code::new("bad_event_id"),
            message: "the row's id cannot be an event's".to_owned(),
            no_try: false,
        }),
    }
}
