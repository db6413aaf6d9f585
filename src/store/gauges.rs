//! What the alerts look at: how much waits, and for how long, counted cheaply.

use std::sync::Arc;
use std::time::Duration;

use sqlx::FromRow;
use tokio_util::sync::CancellationToken;

use super::find::{Sql, Text, number, text};
use super::{LaneKind, Micros, Store};
use crate::error::Result;
use crate::telemetry::Metrics;

/// Time between two measurements.
const EVERY: Duration = Duration::from_secs(10);

/// Numbers of the whole database, the same for all instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, FromRow)]
struct Gauges {
    /// Open dead letters, counted up to 10,000.
    open: i64,
    /// When the oldest due event of the table was made.
    oldest_due: Option<Micros>,
    events_paused: i64,
    outbox_paused: i64,
}

/// The first due row of each lane, so that a long queue costs no more than a short one.
const GAUGES: Text = text!(
    "SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM event_dead_letters \
     WHERE status = 'open' LIMIT 10000) AS counted) AS open, MIN((SELECT "
    ["e.created_at"]
    " FROM events e WHERE l.kind = 0 AND e.lane = l.lane AND e.processed IS NOT TRUE \
     AND e.next_attempt_at <= ? ORDER BY e.created_at, e.seq LIMIT 1)) AS oldest_due, \
     COUNT(CASE WHEN l.kind = 0 AND l.paused_until > ? THEN 1 END) AS events_paused, \
     COUNT(CASE WHEN l.kind = 1 AND l.paused_until > ? THEN 1 END) AS outbox_paused \
     FROM lanes l"
);

impl Store {
    /// Measures what waits, for the metrics.
    ///
    /// # Errors
    /// When the database is away; the metrics stay as they were.
    pub async fn measure(&self, metrics: &Metrics) -> Result<()> {
        let now = self.now();
        let mut sql = Sql::default();
        sql.with(GAUGES, number(now));
        let gauges: Gauges = sql.one(self).await?.unwrap_or_default();
        let age = gauges.oldest_due.map_or(0, |then| now.saturating_sub(then));
        let age = Duration::from_micros(u64::try_from(age).unwrap_or_default());
        metrics.database.show(
            gauges.open,
            age,
            [
                (LaneKind::Events, gauges.events_paused),
                (LaneKind::Outbox, gauges.outbox_paused),
            ]
            .map(|(kind, paused)| (kind.name(), paused)),
        );
        Ok(())
    }

    /// Measures every ten seconds until `stop`.
    pub async fn keep_measured(self, metrics: Arc<Metrics>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                // That the database is away is told by the watch.
                _ = self.measure(&metrics) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}
