//! Dead letters looked for.

use serde::Serialize;
use sqlx::FromRow;

use super::super::find::{BY_ID, Conditions, Sql, Text, list, number, text, words};
use super::super::{At, Micros, Store, Tx};
use crate::error::Result;

/// Counts in lists stop here.
pub const COUNTED: i64 = 10_000;

/// Which dead letters; everything given has to hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Ids, each a UUID.
    pub ids: Vec<String>,
    /// The group.
    pub fingerprint: Option<String>,
    /// The event type.
    pub event_type: Option<String>,
    /// The handler.
    pub handler: Option<String>,
    /// Where it came from.
    pub source: Option<String>,
    /// The error's class.
    pub error_class: Option<String>,
    /// The error's code.
    pub error_code: Option<String>,
    /// The event.
    pub event_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// `open`, `redriven`, `discarded`; `None` for all.
    pub status: Option<String>,
    /// Kept at or after.
    pub since: Option<Micros>,
    /// Kept before.
    pub until: Option<Micros>,
}

/// A failed event that will not be tried again by itself. Holds no value of the event.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize)]
pub struct DeadLetter {
    /// Its number, in the order of keeping.
    #[serde(skip)]
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// `open`, `redriven` or `discarded`.
    pub status: String,
    /// `push`, `events`, `subscription` or `outbox`.
    pub source: String,
    /// Id of the event.
    pub event_id: String,
    /// The event type, empty when the delivery could not be decoded.
    pub event_type: String,
    /// The handler that failed; none when it did not come so far.
    pub handler: Option<String>,
    /// Which run failed: 0 the first, more after redrives and replays.
    pub generation: i32,
    /// `transient` or `permanent`.
    pub error_class: String,
    /// Machine-readable.
    pub error_code: String,
    /// For people.
    pub error_message: String,
    /// How often it was tried.
    pub retry_count: i32,
    /// The group it belongs to.
    pub fingerprint: String,
    /// When the event was made or first seen.
    pub first_at: At,
    /// When it was given up.
    pub kept_at: At,
    /// Pub/Sub's id of the message.
    pub message_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// Trace id.
    pub trace_id: Option<String>,
    /// The redrive that has it in hand, or had.
    pub redrive_id: Option<String>,
    /// Who decided.
    pub decided_by: Option<String>,
    /// When it was decided.
    pub decided_at: Option<At>,
    /// What was noted with it.
    pub note: Option<String>,
    /// Length of the original in bytes.
    pub size_bytes: i64,
}

/// Dead letters that failed for one reason.
#[derive(Debug, Clone, PartialEq, FromRow, Serialize)]
pub struct Group {
    /// Names the group in a [`Wanted`].
    pub fingerprint: String,
    /// The handler.
    pub handler: Option<String>,
    /// `transient` or `permanent`.
    pub error_class: String,
    /// Machine-readable.
    pub error_code: String,
    /// The newest one's message.
    pub error_message: String,
    /// The newest one's event type.
    pub event_type: String,
    /// How many.
    pub count: i64,
    /// When the oldest was kept.
    pub first_at: At,
    /// When the newest was kept.
    pub last_at: At,
    /// The newest one's id.
    pub newest_id: String,
}

/// What is needed to run a dead letter again.
#[derive(Debug, Clone, FromRow)]
pub struct OriginalRow {
    /// The bytes; what others put into the table has none.
    pub original: Option<Vec<u8>>,
    /// The payload column.
    pub payload: String,
    /// What came beside the bytes.
    pub delivery: Option<String>,
}

const SELECT: Text = text!(
    "SELECT seq, CAST(id AS TEXT) AS id, status, source, \
     COALESCE(event_key, CAST(event_id AS TEXT)) AS event_id, event_type, handler, generation, \
     error_class, error_code, error_message, retry_count, fingerprint, \
     COALESCE(" ["original_created_at"] ", 0) AS first_at, " kept " AS kept_at, message_id, \
     correlation_id, trace_id, redrive_id, decided_by, decided_at, NULLIF(note, '') AS note, \
     CAST(COALESCE(octet_length(original), octet_length(CAST(payload AS TEXT))) AS BIGINT) AS size_bytes \
     FROM event_dead_letters"
);

/// No redrive has it in hand.
const FREE: &str = "(redrive_id IS NULL OR NOT EXISTS (SELECT 1 FROM redrives AS r WHERE \
    r.id = redrive_id AND (r.state = 'running' OR r.lease_until > ?)))";

impl Wanted {
    pub(in crate::store) fn conditions(&self) -> Conditions {
        let mut all = Conditions::default();
        if !self.ids.is_empty() {
            let ids = Text::each(
                "id IN (SELECT CAST(value AS UUID) FROM \
                 jsonb_array_elements_text(CAST(? AS JSONB)))",
                "id IN (SELECT value FROM json_each(?))",
            );
            all.and(ids, list(&self.ids));
        }
        all.and_text("fingerprint = ?", self.fingerprint.as_deref());
        all.and_text("event_type = ?", self.event_type.as_deref());
        all.and_text("handler = ?", self.handler.as_deref());
        all.and_text("source = ?", self.source.as_deref());
        all.and_text("error_class = ?", self.error_class.as_deref());
        all.and_text("error_code = ?", self.error_code.as_deref());
        all.and_text("correlation_id = ?", self.correlation_id.as_deref());
        match self.status.as_deref() {
            // A constant, so that the index of open ones is seen to fit.
            Some("open") => all.plain("status = 'open'"),
            status => all.and_text("status = ?", status),
        }
        if let Some(id) = &self.event_id {
            // The column is indexed; the key tells apart what it cannot hold.
            all.and(text!("event_id = " uuid), words(&super::event_column(id)));
            let key = "COALESCE(event_key, CAST(event_id AS TEXT)) = ?";
            all.and(key, words(id));
        }
        all.and_number(text!(kept " >= ?"), self.since);
        all.and_number(text!(kept " < ?"), self.until);
        all
    }
}

/// Lists dead letters, newest first, from before the number `before`.
///
/// # Errors
/// When the database is away.
pub async fn page(
    store: &Store,
    wanted: &Wanted,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<DeadLetter>> {
    let mut conditions = wanted.conditions();
    conditions.and_number("seq < ?", before);
    let mut sql = Sql::new(SELECT);
    sql.part(&conditions);
    sql.with(" ORDER BY seq DESC LIMIT ?", number(limit));
    sql.all(store).await
}

/// Returns the first dead letters in the order in which they would run again.
///
/// # Errors
/// When the database is away.
pub async fn first(store: &Store, wanted: &Wanted, limit: i64) -> Result<Vec<DeadLetter>> {
    let mut sql = Sql::new(SELECT);
    sql.part(&wanted.conditions());
    sql.with(" ORDER BY seq LIMIT ?", number(limit));
    sql.all(store).await
}

/// Counts dead letters, up to one more than [`COUNTED`].
///
/// # Errors
/// When the database is away.
pub async fn count_some(store: &Store, wanted: &Wanted) -> Result<i64> {
    let mut sql = Sql::new("SELECT COUNT(*) FROM (SELECT 1 FROM event_dead_letters");
    sql.part(&wanted.conditions());
    sql.with(" LIMIT ?) AS counted", number(COUNTED + 1));
    let count: Option<(i64,)> = sql.one(store).await?;
    Ok(count.map_or(0, |(count,)| count))
}

/// Groups dead letters, largest group first.
///
/// # Errors
/// When the database is away.
pub async fn groups(store: &Store, wanted: &Wanted, limit: i64) -> Result<Vec<Group>> {
    let mut sql = Sql::new(text!(
        "SELECT g.fingerprint, g.count, g.first_at, g.last_at, CAST(d.id AS TEXT) AS newest_id, d.handler, \
         d.event_type, d.error_class, d.error_code, d.error_message FROM (SELECT fingerprint, \
         COUNT(*) AS count, MIN(" kept ") AS first_at, MAX(" kept ") AS last_at, MAX(seq) AS newest \
         FROM event_dead_letters"
    ));
    sql.part(&wanted.conditions());
    sql.with(
        " GROUP BY fingerprint ORDER BY COUNT(*) DESC LIMIT ?) AS g \
         JOIN event_dead_letters AS d ON d.seq = g.newest ORDER BY g.count DESC, d.seq DESC",
        number(limit),
    );
    sql.all(store).await
}

/// What a selection holds, for a preview.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How many.
    pub count: i64,
    /// How many of them have ended well since.
    pub done_since: i64,
    /// When the oldest was kept.
    pub first: Option<At>,
    /// When the newest was kept.
    pub last: Option<At>,
    /// By handler, largest first.
    pub handlers: Vec<(String, i64)>,
    /// By event type, largest first.
    pub event_types: Vec<(String, i64)>,
}

/// Sums up a selection.
///
/// # Errors
/// When the database is away.
pub async fn summary(store: &Store, wanted: &Wanted) -> Result<Summary> {
    let conditions = wanted.conditions();
    let counted = |begin: Text, end: &'static str| {
        let mut sql = Sql::new(begin);
        sql.part(&conditions);
        sql.push(end);
        sql
    };
    let all = text!("SELECT COUNT(*), MIN(" kept "), MAX(" kept ") FROM event_dead_letters");
    let (count, first, last): (i64, Option<At>, Option<At>) =
        counted(all, "").one(store).await?.unwrap_or_default();
    let by_handler = counted(
        "SELECT COALESCE(handler, '(none)'), COUNT(*) FROM event_dead_letters".into(),
        " GROUP BY COALESCE(handler, '(none)') ORDER BY COUNT(*) DESC LIMIT 50",
    );
    let by_type = counted(
        "SELECT event_type, COUNT(*) FROM event_dead_letters".into(),
        " GROUP BY event_type ORDER BY COUNT(*) DESC LIMIT 50",
    );
    let done = counted(
        "SELECT COUNT(*) FROM (SELECT COALESCE(event_key, CAST(event_id AS TEXT)) AS event_id, \
         handler, generation FROM event_dead_letters"
            .into(),
        ") AS d WHERE EXISTS (SELECT 1 FROM inbox AS i WHERE i.event_id = d.event_id AND \
         i.handler = d.handler AND i.state = 2 AND i.generation >= d.generation)",
    );
    let (done_since,): (i64,) = done.one(store).await?.unwrap_or_default();
    Ok(Summary {
        count,
        done_since,
        first,
        last,
        handlers: by_handler.all(store).await?,
        event_types: by_type.all(store).await?,
    })
}

/// Finds one dead letter.
///
/// # Errors
/// When the database is away.
pub async fn by_id(store: &Store, id: &str) -> Result<Option<DeadLetter>> {
    let wanted = Wanted {
        ids: vec![id.to_owned()],
        ..Wanted::default()
    };
    Ok(first(store, &wanted, 1).await?.pop())
}

/// Returns all dead letters of one event, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn of_event(store: &Store, event_id: &str) -> Result<Vec<DeadLetter>> {
    let wanted = Wanted {
        event_id: Some(event_id.to_owned()),
        ..Wanted::default()
    };
    first(store, &wanted, 100).await
}

/// Returns the bytes of a dead letter and what came beside them.
///
/// # Errors
/// When the database is away.
pub async fn original(store: &Store, id: &str) -> Result<Option<OriginalRow>> {
    let mut sql = Sql::new(
        "SELECT original, CAST(payload AS TEXT) AS payload, delivery FROM event_dead_letters",
    );
    sql.with(BY_ID, words(id));
    sql.one(store).await
}

/// Gives up open dead letters and returns how many.
///
/// # Errors
/// When the database is away.
pub async fn discard(
    tx: &mut Tx,
    wanted: &Wanted,
    by: &str,
    note: &str,
    now: Micros,
) -> Result<i64> {
    let mut sql = Sql::new("UPDATE event_dead_letters SET status = 'discarded'");
    decided(&mut sql, by, note, now);
    let mut conditions = wanted.conditions();
    conditions.and(FREE, number(now));
    sql.part(&conditions);
    sql.run(tx).await
}

/// Closes one dead letter that no redrive has in hand; tells whether it did.
///
/// # Errors
/// When the database is away.
pub async fn close(tx: &mut Tx, id: &str, by: &str, note: &str, now: Micros) -> Result<bool> {
    let mut sql = Sql::new("UPDATE event_dead_letters SET status = 'redriven'");
    decided(&mut sql, by, note, now);
    let wanted = Wanted {
        ids: vec![id.to_owned()],
        status: Some("open".to_owned()),
        ..Wanted::default()
    };
    let mut conditions = wanted.conditions();
    conditions.and(FREE, number(now));
    sql.part(&conditions);
    Ok(sql.run(tx).await? > 0)
}

/// Adds who has decided, when, and why.
pub(in crate::store) fn decided(sql: &mut Sql, by: &str, note: &str, now: Micros) {
    sql.with(", decided_by = ?", words(by));
    sql.with(", decided_at = ?", number(now));
    sql.with(", note = ?", words(note));
}
