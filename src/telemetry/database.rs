//! Metrics of the database and of what is kept in it; nothing of them shows without one.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

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
}

impl DatabaseMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
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
        })
    }
}
