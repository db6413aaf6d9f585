//! Metrics of the database and of what is kept in it; nothing of them shows without one.

use std::time::Duration;

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Metrics of the database.
#[derive(Debug)]
pub struct DatabaseMetrics {
    /// 1 while it answers, by kind (`postgres`, `sqlite`).
    pub up: IntGaugeVec,
    /// Open connections, by state (`busy`, `idle`).
    pub connections: IntGaugeVec,
    /// Old rows deleted, by table.
    pub swept: IntCounterVec,
    /// Messages of the dead-letter subscription, by outcome (`kept`, `refused`, `failed`).
    pub drained: IntCounterVec,
    /// Dead letters nobody has decided on.
    dead_letters_open: IntGaugeVec,
    /// Age of the oldest event of the table that is due.
    events_oldest_due: GaugeVec,
    /// Lanes that rest, by table.
    lanes_paused: IntGaugeVec,
}

impl DatabaseMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let of_all = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let gauges = |name: &str, help: &str, label: &str| of_all(name, help, &[label]);
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        // Without labels it would show from the start; so it shows when it is first set.
        let events_oldest_due = GaugeVec::new(
            Opts::new(
                "hookyard_events_oldest_due_age_seconds",
                "Age of the oldest due row of the events table.",
            ),
            &[],
        )?;
        registry.register(Box::new(events_oldest_due.clone()))?;
        Ok(Self {
            up: gauges("hookyard_database_up", "1 while it answers.", "kind")?,
            connections: gauges(
                "hookyard_database_connections",
                "Open connections of this instance by state.",
                "state",
            )?,
            swept: counters(
                "hookyard_swept_rows_total",
                "Old rows deleted by table.",
                "table",
            )?,
            drained: counters(
                "hookyard_drained_total",
                "Messages of the dead-letter subscription by outcome.",
                "outcome",
            )?,
            dead_letters_open: of_all(
                "hookyard_dead_letters_open",
                "Dead letters nobody has decided on, counted up to 10000.",
                &[],
            )?,
            events_oldest_due,
            lanes_paused: gauges(
                "hookyard_lanes_paused",
                "Lanes that are not worked on for a while, by table.",
                "table",
            )?,
        })
    }

    /// Shows what waits in the database.
    pub fn show(&self, open: i64, oldest_due: Duration, paused: [(&str, i64); 2]) {
        const NONE: [&str; 0] = [];
        self.dead_letters_open.with_label_values(&NONE).set(open);
        let oldest = self.events_oldest_due.with_label_values(&NONE);
        oldest.set(oldest_due.as_secs_f64());
        for (table, lanes) in paused {
            self.lanes_paused.with_label_values(&[table]).set(lanes);
        }
    }
}
