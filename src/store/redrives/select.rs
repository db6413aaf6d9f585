//! Processed events looked for, to be run again.

use sqlx::FromRow;

use super::super::find::{Conditions, Sql, list, number, words};
use super::super::{Micros, Store, micros_in, timestamp};
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

/// A processed event, for a preview.
#[derive(Debug, Clone, FromRow)]
pub struct EventRow {
    /// The row's id.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// Its aggregate.
    pub aggregate_id: Option<String>,
    /// When it was made.
    pub created: Micros,
    /// How it ended.
    pub status: String,
}

/// What a selection of events holds.
#[derive(Debug, Clone, Default)]
pub struct EventsSummary {
    /// How many.
    pub count: i64,
    /// When the oldest was made.
    pub first: Option<Micros>,
    /// When the newest was made.
    pub last: Option<Micros>,
    /// By type, largest first.
    pub event_types: Vec<(String, i64)>,
}

/// When a row was made.
macro_rules! created {
    (postgres) => {
        concat!("COALESCE(", micros_in!("created_at"), ", 0)")
    };
    (sqlite) => {
        "COALESCE(CAST(ROUND((julianday(created_at) - 2440587.5) * 86400000) AS INTEGER) * 1000, 0)"
    };
}

impl WantedEvents {
    pub(super) fn conditions(&self, is_postgres: bool) -> Conditions {
        let mut all = Conditions::default();
        let either = |postgres, sqlite| if is_postgres { postgres } else { sqlite };
        all.plain("processed");
        if !self.ids.is_empty() {
            let ids = either(
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
        let aggregate = either("aggregate_id = CAST(? AS UUID)", "aggregate_id = ?");
        all.and_text(aggregate, self.aggregate_id.as_deref());
        if let Some(since) = self.since {
            let text = either("created_at >= CAST(? AS TIMESTAMPTZ)", "created_at >= ?");
            all.and(text, words(&timestamp(since)));
        }
        if let Some(until) = self.until {
            let text = either("created_at < CAST(? AS TIMESTAMPTZ)", "created_at < ?");
            all.and(text, words(&timestamp(until)));
        }
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
) -> Result<Vec<EventRow>> {
    let mut sql = Sql::of(
        store.is_postgres(),
        concat!(
            "SELECT CAST(id AS TEXT) AS id, event_type, CAST(aggregate_id AS TEXT) AS \
             aggregate_id, status, ",
            created!(postgres),
            " AS created FROM events"
        ),
        concat!(
            "SELECT id, event_type, aggregate_id, status, ",
            created!(sqlite),
            " AS created FROM events"
        ),
    );
    sql.part(&wanted.conditions(store.is_postgres()));
    sql.with(" ORDER BY created_at, seq LIMIT ?", number(limit));
    sql.all(store).await
}

/// Sums up a selection of events.
///
/// # Errors
/// When the database is away.
pub async fn events_summary(store: &Store, wanted: &WantedEvents) -> Result<EventsSummary> {
    let conditions = wanted.conditions(store.is_postgres());
    let mut all = Sql::of(
        store.is_postgres(),
        concat!(
            "SELECT COUNT(*), MIN(",
            created!(postgres),
            "), MAX(",
            created!(postgres),
            ") FROM events"
        ),
        concat!(
            "SELECT COUNT(*), MIN(",
            created!(sqlite),
            "), MAX(",
            created!(sqlite),
            ") FROM events"
        ),
    );
    all.part(&conditions);
    let (count, first, last): (i64, Option<Micros>, Option<Micros>) =
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
