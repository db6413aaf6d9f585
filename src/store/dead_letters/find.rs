//! Dead letters looked for.

use sqlx::FromRow;

use super::super::find::{Conditions, Sql, list, number, words};
use super::super::{Micros, Store, Tx, micros_in};
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

/// A dead letter without its bytes.
#[derive(Debug, Clone, FromRow)]
pub struct DeadLetterRow {
    /// Its number, in the order of keeping.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// `open`, `redriven`, `discarded`.
    pub status: String,
    /// Where it came from.
    pub source: String,
    /// The event.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// The handler.
    pub handler: Option<String>,
    /// Which run failed.
    pub generation: i32,
    /// The error's class.
    pub error_class: String,
    /// The error's code.
    pub error_code: String,
    /// The error's message.
    pub error_message: String,
    /// How often it was tried.
    pub retry_count: i32,
    /// The group.
    pub fingerprint: String,
    /// When the event was made.
    pub first_at: Micros,
    /// When it was given up.
    pub kept: Micros,
    /// Pub/Sub's id of the message.
    pub message_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// Trace id.
    pub trace_id: Option<String>,
    /// The redrive that has it in hand.
    pub redrive_id: Option<String>,
    /// Who decided.
    pub decided_by: Option<String>,
    /// When.
    pub decided_at: Option<Micros>,
    /// What was noted.
    pub note: Option<String>,
    /// Length of the original.
    pub size: i64,
}

/// Dead letters of one kind of failure.
#[derive(Debug, Clone, FromRow)]
pub struct GroupRow {
    /// The group.
    pub fingerprint: String,
    /// How many.
    pub count: i64,
    /// When the oldest was kept.
    pub first: Micros,
    /// When the newest was kept.
    pub last: Micros,
    /// The newest one's id.
    pub id: String,
    /// The newest one's handler.
    pub handler: Option<String>,
    /// The newest one's event type.
    pub event_type: String,
    /// The error's class.
    pub error_class: String,
    /// The error's code.
    pub error_code: String,
    /// The newest one's message.
    pub error_message: String,
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

/// When it was kept; rows that other services add only say so in a column of their own.
macro_rules! kept {
    (postgres) => {
        concat!(
            "CASE WHEN kept_at > 0 THEN kept_at ELSE COALESCE(",
            micros_in!("created_at"),
            ", 0) END"
        )
    };
    (sqlite) => {
        "CASE WHEN kept_at > 0 THEN kept_at ELSE COALESCE(CAST(ROUND((julianday(created_at) \
         - 2440587.5) * 86400000) AS INTEGER) * 1000, 0) END"
    };
}

const SELECT_POSTGRES: &str = concat!(
    "SELECT seq, CAST(id AS TEXT) AS id, status, source, \
     COALESCE(event_key, CAST(event_id AS TEXT)) AS event_id, event_type, handler, generation, \
     error_class, error_code, error_message, retry_count, fingerprint, COALESCE(",
    micros_in!("original_created_at"),
    ", 0) AS first_at, ",
    kept!(postgres),
    " AS kept, message_id, correlation_id, trace_id, redrive_id, decided_by, decided_at, note, \
     COALESCE(octet_length(original), octet_length(CAST(payload AS TEXT)))::BIGINT AS size \
     FROM event_dead_letters"
);

const SELECT_SQLITE: &str = concat!(
    "SELECT seq, id, status, source, COALESCE(event_key, event_id) AS event_id, event_type, \
     handler, generation, error_class, error_code, error_message, retry_count, fingerprint, \
     COALESCE(CAST(ROUND((julianday(original_created_at) - 2440587.5) * 86400000) AS INTEGER) \
     * 1000, 0) AS first_at, ",
    kept!(sqlite),
    " AS kept, message_id, correlation_id, trace_id, redrive_id, decided_by, decided_at, note, \
     length(COALESCE(original, CAST(payload AS BLOB))) AS size FROM event_dead_letters"
);

impl Wanted {
    pub(in crate::store) fn conditions(&self, is_postgres: bool) -> Conditions {
        let mut all = Conditions::default();
        let either = |postgres, sqlite| if is_postgres { postgres } else { sqlite };
        if !self.ids.is_empty() {
            let ids = either(
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
            let column = either("event_id = CAST(? AS UUID)", "event_id = ?");
            all.and(column, words(&super::event_column(id)));
            let key = either(
                "COALESCE(event_key, CAST(event_id AS TEXT)) = ?",
                "COALESCE(event_key, event_id) = ?",
            );
            all.and(key, words(id));
        }
        if let Some(since) = self.since {
            let text = either(
                concat!(kept!(postgres), " >= ?"),
                concat!(kept!(sqlite), " >= ?"),
            );
            all.and(text, number(since));
        }
        if let Some(until) = self.until {
            let text = either(
                concat!(kept!(postgres), " < ?"),
                concat!(kept!(sqlite), " < ?"),
            );
            all.and(text, number(until));
        }
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
) -> Result<Vec<DeadLetterRow>> {
    let mut conditions = wanted.conditions(store.is_postgres());
    if let Some(before) = before {
        conditions.and("seq < ?", number(before));
    }
    let mut sql = Sql::of(store.is_postgres(), SELECT_POSTGRES, SELECT_SQLITE);
    sql.part(&conditions);
    sql.with(" ORDER BY seq DESC LIMIT ?", number(limit));
    sql.all(store).await
}

/// Returns the first dead letters in the order in which they would run again.
///
/// # Errors
/// When the database is away.
pub async fn first(store: &Store, wanted: &Wanted, limit: i64) -> Result<Vec<DeadLetterRow>> {
    let mut sql = Sql::of(store.is_postgres(), SELECT_POSTGRES, SELECT_SQLITE);
    sql.part(&wanted.conditions(store.is_postgres()));
    sql.with(" ORDER BY seq LIMIT ?", number(limit));
    sql.all(store).await
}

/// Counts dead letters, up to one more than [`COUNTED`].
///
/// # Errors
/// When the database is away.
pub async fn count_some(store: &Store, wanted: &Wanted) -> Result<i64> {
    let mut sql = Sql::new("SELECT COUNT(*) FROM (SELECT 1 FROM event_dead_letters");
    sql.part(&wanted.conditions(store.is_postgres()));
    sql.with(" LIMIT ?) AS counted", number(COUNTED + 1));
    let count: Option<(i64,)> = sql.one(store).await?;
    Ok(count.map_or(0, |(count,)| count))
}

/// Groups dead letters, largest group first.
///
/// # Errors
/// When the database is away.
pub async fn groups(store: &Store, wanted: &Wanted, limit: i64) -> Result<Vec<GroupRow>> {
    let mut sql = Sql::of(
        store.is_postgres(),
        concat!(
            "SELECT g.fingerprint, g.count, g.first, g.last, CAST(d.id AS TEXT) AS id, d.handler, \
             d.event_type, d.error_class, d.error_code, d.error_message FROM (SELECT fingerprint, \
             COUNT(*) AS count, MIN(",
            kept!(postgres),
            ") AS first, MAX(",
            kept!(postgres),
            ") AS last, MAX(seq) AS newest FROM event_dead_letters"
        ),
        concat!(
            "SELECT g.fingerprint, g.count, g.first, g.last, d.id, d.handler, d.event_type, \
             d.error_class, d.error_code, d.error_message FROM (SELECT fingerprint, \
             COUNT(*) AS count, MIN(",
            kept!(sqlite),
            ") AS first, MAX(",
            kept!(sqlite),
            ") AS last, MAX(seq) AS newest FROM event_dead_letters"
        ),
    );
    sql.part(&wanted.conditions(store.is_postgres()));
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
    pub first: Option<Micros>,
    /// When the newest was kept.
    pub last: Option<Micros>,
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
    let conditions = wanted.conditions(store.is_postgres());
    let counted = |mut sql: Sql, end: &'static str| {
        sql.part(&conditions);
        sql.push(end);
        sql
    };
    let all = counted(
        Sql::of(
            store.is_postgres(),
            concat!(
                "SELECT COUNT(*), MIN(",
                kept!(postgres),
                "), MAX(",
                kept!(postgres),
                ") FROM event_dead_letters"
            ),
            concat!(
                "SELECT COUNT(*), MIN(",
                kept!(sqlite),
                "), MAX(",
                kept!(sqlite),
                ") FROM event_dead_letters"
            ),
        ),
        "",
    );
    let (count, first, last): (i64, Option<Micros>, Option<Micros>) =
        all.one(store).await?.unwrap_or_default();
    let by_handler = counted(
        Sql::new("SELECT COALESCE(handler, '(none)'), COUNT(*) FROM event_dead_letters"),
        " GROUP BY COALESCE(handler, '(none)') ORDER BY COUNT(*) DESC LIMIT 50",
    );
    let by_type = counted(
        Sql::new("SELECT event_type, COUNT(*) FROM event_dead_letters"),
        " GROUP BY event_type ORDER BY COUNT(*) DESC LIMIT 50",
    );
    let done = counted(
        Sql::of(
            store.is_postgres(),
            "SELECT COUNT(*) FROM (SELECT COALESCE(event_key, CAST(event_id AS TEXT)) AS event_id, \
             handler, generation FROM event_dead_letters",
            "SELECT COUNT(*) FROM (SELECT COALESCE(event_key, event_id) AS event_id, \
             handler, generation FROM event_dead_letters",
        ),
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
pub async fn by_id(store: &Store, id: &str) -> Result<Option<DeadLetterRow>> {
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
pub async fn of_event(store: &Store, event_id: &str) -> Result<Vec<DeadLetterRow>> {
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
    let text = if store.is_postgres() {
        " WHERE id = CAST(? AS UUID)"
    } else {
        " WHERE id = ?"
    };
    sql.with(text, words(id));
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
    sql.with(", decided_by = ?", words(by));
    sql.with(", decided_at = ?", number(now));
    sql.with(", note = ?", words(note));
    sql.part(&wanted.conditions(tx.is_postgres()));
    sql.with(
        " AND (redrive_id IS NULL OR NOT EXISTS (SELECT 1 FROM redrives AS r WHERE \
         r.id = redrive_id AND (r.state = 'running' OR r.lease_until > ?)))",
        number(now),
    );
    sql.run(tx).await
}

/// Closes one dead letter that no redrive has in hand; tells whether it did.
///
/// # Errors
/// When the database is away.
pub async fn close(tx: &mut Tx, id: &str, by: &str, note: &str, now: Micros) -> Result<bool> {
    let mut sql = Sql::new("UPDATE event_dead_letters SET status = 'redriven'");
    sql.with(", decided_by = ?", words(by));
    sql.with(", decided_at = ?", number(now));
    sql.with(", note = ?", words(note));
    let text = if tx.is_postgres() {
        " WHERE id = CAST(? AS UUID) AND status = 'open'"
    } else {
        " WHERE id = ? AND status = 'open'"
    };
    sql.with(text, words(id));
    sql.with(
        " AND (redrive_id IS NULL OR NOT EXISTS (SELECT 1 FROM redrives AS r WHERE \
         r.id = redrive_id AND (r.state = 'running' OR r.lease_until > ?)))",
        number(now),
    );
    Ok(sql.run(tx).await? > 0)
}
