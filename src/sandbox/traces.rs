//! Collects the steps of every push request for people to read, whatever the log level is.
//!
//! The service says its steps as debug events with the target `hookyard::step` inside the span
//! `push`; this layer keeps them by trace id.

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::lock;
use crate::clock::SharedClock;

/// Traces kept; older ones are forgotten.
const KEPT: usize = 2_000;

/// Steps kept of one trace; an endless retry must not fill the memory.
const MAX_STEPS: usize = 200;

/// One thing the service did for a push request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds since the request arrived.
    pub at_ms: f64,
    /// What: `token verified`, `upstream`, …
    pub step: String,
    /// More about it: `POST chargebee /subscriptions/{id}/update_for_items -> 200`.
    pub detail: String,
    /// How long it took, if it says so.
    pub ms: Option<f64>,
}

/// What the service did for one push request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// W3C trace id; empty when the body was not decoded.
    pub trace_id: String,
    /// The service's id of the request.
    pub request_id: String,
    /// The event's id.
    pub event_id: String,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// Whether it was answered.
    pub answered: bool,
}

/// Keeps the latest traces. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces {
    kept: Arc<Mutex<VecDeque<Arc<Mutex<Trace>>>>>,
    clock: SharedClock,
}

impl Traces {
    /// Makes an empty collection.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            kept: Arc::default(),
            clock,
        }
    }

    /// Returns the layer that collects; it brings its own filter, so a log level does not matter.
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        Box::new(Collector(self.clone()).with_filter(OnlySteps))
    }

    /// Returns every trace whose trace id, request id or event id is `id`, oldest first.
    pub fn find(&self, id: &str) -> Vec<Trace> {
        let kept: Vec<_> = lock(&self.kept).iter().cloned().collect();
        let traces = kept.iter().map(|trace| lock(trace).clone());
        traces
            .filter(|trace| trace.trace_id == id || trace.request_id == id || trace.event_id == id)
            .collect()
    }
}

/// Lets through the request's span and its steps, nothing else.
struct OnlySteps;

impl<S> Filter<S> for OnlySteps {
    fn enabled(&self, meta: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        match meta.is_span() {
            true => meta.name() == "push",
            false => meta.target() == "hookyard::step",
        }
    }
}

struct Collector(Traces);

/// What the span remembers.
struct Collected {
    trace: Arc<Mutex<Trace>>,
    started: std::time::Instant,
}

impl<S> Layer<S> for Collector
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let mut trace = Trace::default();
        attributes.record(&mut Identity(&mut trace));
        let trace = Arc::new(Mutex::new(trace));
        span.extensions_mut().insert(Collected {
            trace: Arc::clone(&trace),
            started: self.0.clock.monotonic(),
        });
        let mut kept = lock(&self.0.kept);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(trace);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        if let Some(collected) = span.extensions().get::<Collected>() {
            values.record(&mut Identity(&mut lock(&collected.trace)));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        for span in context.event_scope(event).into_iter().flatten() {
            let extensions = span.extensions();
            let Some(collected) = extensions.get::<Collected>() else {
                continue;
            };
            let since = self
                .0
                .clock
                .monotonic()
                .saturating_duration_since(collected.started);
            let mut step = Step {
                at_ms: since.as_secs_f64() * 1000.0,
                step: String::new(),
                detail: String::new(),
                ms: None,
            };
            event.record(&mut Said(&mut step));
            let mut trace = lock(&collected.trace);
            trace.answered |= step.step == "answered";
            if trace.steps.len() < MAX_STEPS {
                trace.steps.push(step);
            }
            return;
        }
    }
}

/// Reads a span's ids.
struct Identity<'a>(&'a mut Trace);

impl Visit for Identity<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "trace_id" => value.clone_into(&mut self.0.trace_id),
            "request_id" => value.clone_into(&mut self.0.request_id),
            "event.id" => value.clone_into(&mut self.0.event_id),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Reads what a step says.
struct Said<'a>(&'a mut Step);

impl Visit for Said<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "ms" {
            self.0.ms = Some(value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "step" => value.clone_into(&mut self.0.step),
            "detail" => value.clone_into(&mut self.0.detail),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps
            .iter()
            .try_for_each(|step| writeln!(f, "{} {}", step.step, step.detail))
    }
}
