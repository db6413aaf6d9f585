//! The Prometheus metrics. Labels are bounded: nothing a publisher sends becomes a label.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

use super::database::DatabaseMetrics;

/// Seconds; from a skipped event to the longest handler.
const DURATIONS: [f64; 12] = [
    0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0,
];

/// Seconds; from a fresh event to one that has waited for a week.
const AGES: [f64; 10] = [
    0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 86400.0, 604_800.0,
];

/// Every metric of one service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Outcomes, by handler; `unrouted` and `undecodable` stand in where no handler ran.
    pub events: IntCounterVec,
    /// When the last event ended, in seconds since 1970; 0 before the first.
    last_event: Gauge,
    /// Time a handler took, by handler.
    pub handler_duration: HistogramVec,
    /// Tries, by upstream and outcome (`ok`, `transient`, `permanent`, `credentials`, …).
    pub upstream_requests: IntCounterVec,
    /// Time one try took, by upstream.
    pub upstream_duration: HistogramVec,
    /// Publications, by topic and outcome.
    pub published: IntCounterVec,
    /// From the event's creation to its arrival here.
    pub event_age: Histogram,
    /// Push requests answered without looking at the event, by reason.
    pub push_rejected: IntCounterVec,
    /// Finished ids remembered at present.
    pub inbox_entries: IntGauge,
    /// Rows of the outbox that wait to be published; 0 without a database.
    pub outbox_pending: IntGauge,
    /// Age of the oldest of them in seconds.
    pub outbox_oldest_age: Gauge,
    /// Spans that left for the collector or did not, by outcome (`exported`, `failed`,
    /// `dropped`); none when traces are not exported.
    pub spans: IntCounterVec,
    /// Of the database, when there is one.
    pub database: DatabaseMetrics,
}

impl Metrics {
    /// Makes a registry of its own with every metric in it.
    ///
    /// # Errors
    /// None in practice: the names are constants and distinct.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let histograms = |name: &str, help: &str, label: &str| {
            let options = HistogramOpts::new(name, help).buckets(DURATIONS.to_vec());
            let histograms = HistogramVec::new(options, &[label])?;
            registry.register(Box::new(histograms.clone()))?;
            Ok::<_, prometheus::Error>(histograms)
        };
        let events = counters(
            "hookyard_events_total",
            "Events by handler and outcome.",
            &["handler", "outcome"],
        )?;
        let last_event = Gauge::new(
            "hookyard_last_event_timestamp_seconds",
            "When the last event ended, since 1970; 0 before the first.",
        )?;
        registry.register(Box::new(last_event.clone()))?;
        let handler_duration = histograms(
            "hookyard_handler_duration_seconds",
            "Time from claim to settled outcome.",
            "handler",
        )?;
        let upstream_requests = counters(
            "hookyard_upstream_requests_total",
            "Tries by upstream and outcome.",
            &["upstream", "outcome"],
        )?;
        let upstream_duration = histograms(
            "hookyard_upstream_duration_seconds",
            "Time of one try.",
            "upstream",
        )?;
        let published = counters(
            "hookyard_published_total",
            "Publications by topic and outcome.",
            &["topic", "outcome"],
        )?;
        let push_rejected = counters(
            "hookyard_push_rejected_total",
            "Push requests refused before the event was looked at.",
            &["reason"],
        )?;
        let spans = counters(
            "hookyard_spans_total",
            "Spans of exported traces by outcome.",
            &["outcome"],
        )?;
        let age = HistogramOpts::new(
            "hookyard_event_age_seconds",
            "From the event's creation to its arrival here.",
        );
        let event_age = Histogram::with_opts(age.buckets(AGES.to_vec()))?;
        registry.register(Box::new(event_age.clone()))?;
        let inbox_entries = IntGauge::new(
            "hookyard_inbox_entries",
            "Finished ids remembered at present.",
        )?;
        registry.register(Box::new(inbox_entries.clone()))?;
        let database = DatabaseMetrics::new(&registry)?;
        let outbox_pending = IntGauge::new(
            "hookyard_outbox_pending",
            "Rows of the outbox that wait to be published.",
        )?;
        registry.register(Box::new(outbox_pending.clone()))?;
        let outbox_oldest_age = Gauge::new(
            "hookyard_outbox_oldest_age_seconds",
            "Age of the oldest row of the outbox that waits.",
        )?;
        registry.register(Box::new(outbox_oldest_age.clone()))?;
        Ok(Arc::new(Self {
            registry,
            events,
            last_event,
            handler_duration,
            upstream_requests,
            upstream_duration,
            published,
            event_age,
            push_rejected,
            inbox_entries,
            outbox_pending,
            outbox_oldest_age,
            spans,
            database,
        }))
    }

    /// Counts what became of an event in a handler, at this time.
    pub fn count(&self, handler: &str, outcome: &str, now: SystemTime) {
        self.events.with_label_values(&[handler, outcome]).inc();
        if let Ok(since) = now.duration_since(UNIX_EPOCH) {
            self.last_event.set(since.as_secs_f64());
        }
    }

    /// Returns how many events ended in each way, over all handlers.
    pub fn outcomes(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for family in prometheus::core::Collector::collect(&self.events) {
            for metric in family.get_metric() {
                let labels = metric.get_label().iter();
                let outcome = labels.filter(|label| label.name() == "outcome");
                for label in outcome {
                    let count = metric.get_counter().get_value() as u64;
                    *counts.entry(label.value().to_owned()).or_insert(0) += count;
                }
            }
        }
        counts
    }

    /// Returns when the last event ended.
    pub fn last_event(&self) -> Option<SystemTime> {
        let seconds = self.last_event.get();
        let since = Duration::try_from_secs_f64(seconds).ok()?;
        (seconds > 0.0).then_some(UNIX_EPOCH + since)
    }

    /// Renders all metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Encoding fails only for a family without metrics, which is then left out.
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .ok();
        String::from_utf8(text).unwrap_or_default()
    }
}
