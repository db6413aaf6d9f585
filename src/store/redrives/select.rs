//! Processed events looked for, to be run again.

use serde::Serialize;
use sqlx::FromRow;

use super::super::find::{Conditions, Sql, Text, list, number, text};
use super::super::{At, Micros, Store, timestamp};
use crate::error::Result;

/// Which processed events; everything given has to hold.
#[derive(Debug, Clone, Default)]
pub struct WantedEvents {
    /// Ids of rows or of events.
    pub ids: Vec<String>,
    /// The event type.
    pub event_type: Option<String>,
    /// The aggregate; a UUID with PostgreSQL.
    pub aggregate_id: Option<String>,
    /// Made at or after.
    pub since: Option<Micros>,
    /// Made before.
    pub until: Option<Micros>,
}

/// An event in a replay.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize)]
pub struct ReplayedEvent {
    /// Its id.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// Its aggregate.
    pub aggregate_id: Option<String>,
    /// When it was made.
    pub created_at: At,
    /// How it ended.
    pub status: String,
}

/// What a selection of events holds.
#[derive(Debug, Clone, Default)]
pub struct EventsSummary {
    /// How many.
    pub count: i64,
    /// When the oldest was made.
    pub first: Option<At>,
    /// When the newest was made.
    pub last: Option<At>,
    /// By type, largest first.
    pub event_types: Vec<(String, i64)>,
}

impl WantedEvents {
    pub(super) fn conditions(&self) -> Conditions {
        let mut all = Conditions::default();
        all.plain("processed");
        if !self.ids.is_empty() {
            let ids = Text::each(
                "id IN (SELECT CASE WHEN value ~ \
                 '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN CAST(value AS UUID) END \
                 FROM jsonb_array_elements_text(CAST(? AS JSONB)) UNION SELECT e.id FROM \
                 jsonb_array_elements_text(CAST(? AS JSONB)) AS v JOIN events AS e \
                 ON e.event_key = v.value)",
                "id IN (SELECT value FROM json_each(?) UNION SELECT e.id FROM json_each(?) AS v \
                 JOIN events AS e ON e.event_key = v.value)",
            );
            all.and(ids, list(&self.ids));
        }
        all.and_text("event_type = ?", self.event_type.as_deref());
        all.and_text(text!("aggregate_id = " uuid), self.aggregate_id.as_deref());
        let since = self.since.map(timestamp);
        let after = Text::each("created_at >= CAST(? AS TIMESTAMPTZ)", "created_at >= ?");
        all.and_text(after, since.as_deref());
        let until = self.until.map(timestamp);
        let before = Text::each("created_at < CAST(? AS TIMESTAMPTZ)", "created_at < ?");
        all.and_text(before, until.as_deref());
        all
    }
}

/// Returns the first events in the order in which they would run.
///
/// # Errors
/// When the database is away.
pub async fn first_events(
    store: &Store,
    wanted: &WantedEvents,
    limit: i64,
) -> Result<Vec<ReplayedEvent>> {
    let mut sql = Sql::new(text!(
        "SELECT CAST(id AS TEXT) AS id, event_type, CAST(aggregate_id AS TEXT) AS aggregate_id, \
         status, COALESCE(" ["created_at"] ", 0) AS created_at FROM events"
    ));
    sql.part(&wanted.conditions());
    sql.with(" ORDER BY created_at, seq LIMIT ?", number(limit));
    sql.all(store).await
}

/// Sums up a selection of events.
///
/// # Errors
/// When the database is away.
pub async fn events_summary(store: &Store, wanted: &WantedEvents) -> Result<EventsSummary> {
    let conditions = wanted.conditions();
    let mut all = Sql::new(text!(
        "SELECT COUNT(*), MIN(COALESCE(" ["created_at"] ", 0)), MAX(COALESCE(" ["created_at"]
         ", 0)) FROM events"
    ));
    all.part(&conditions);
    let (count, first, last): (i64, Option<At>, Option<At>) =
        all.one(store).await?.unwrap_or_default();
    let mut types = Sql::new("SELECT event_type, COUNT(*) FROM events");
    types.part(&conditions);
    types.push(" GROUP BY event_type ORDER BY COUNT(*) DESC LIMIT 50");
    Ok(EventsSummary {
        count,
        first,
        last,
        event_types: types.all(store).await?,
    })
}
