//! The table `event_dead_letters`: what will not be tried again by itself.

mod find;

use std::borrow::Cow;

use uuid::Uuid;

pub(super) use find::decided;
pub use find::{
    COUNTED, DeadLetter, Group, OriginalRow, Summary, Wanted, by_id, close, count_some, discard,
    first, groups, of_event, original, page, summary,
};

use super::{Micros, Tx, failed, on};
use crate::error::Result;
use crate::event::{MAX_CORRELATION_BYTES, derived_id};

/// A failure to be kept.
#[derive(Debug, Clone, Default)]
pub struct NewDeadLetter {
    /// Id the event is claimed under; for a delivery without one, something that is the same
    /// every time it comes (its message id).
    pub event_key: String,
    /// The event type; empty when it is not known.
    pub event_type: String,
    /// `push`, `events`, `subscription` or `outbox`.
    pub source: &'static str,
    /// The handler that failed.
    pub handler: Option<String>,
    /// Which run failed.
    pub generation: i32,
    /// `transient` or `permanent`.
    pub error_class: String,
    /// Machine-readable.
    pub error_code: String,
    /// For people; never a value of a row.
    pub error_message: String,
    /// How often it was tried.
    pub retry_count: i32,
    /// Pub/Sub's id of the message.
    pub message_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// Trace id.
    pub trace_id: Option<String>,
    /// The original bytes.
    pub original: Vec<u8>,
    /// What came beside them: a `DeliveryNote` as JSON.
    pub delivery: String,
    /// When the event was made or first seen.
    pub first_at: Micros,
}

const INSERT_POSTGRES: &str = "\
    INSERT INTO event_dead_letters
        (id, event_id, event_type, payload, error_message, retry_count, original_created_at,
         created_at, event_key, source, handler, generation, error_class, error_code, fingerprint,
         message_id, correlation_id, trace_id, original, delivery, kept_at)
    VALUES (CAST($1 AS UUID), CAST($2 AS UUID), $3, CAST($4 AS JSONB), $5, $6,
        TIMESTAMPTZ 'epoch' + $7 * INTERVAL '1 microsecond',
        TIMESTAMPTZ 'epoch' + $8 * INTERVAL '1 microsecond',
        $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $8)
    ON CONFLICT (id) DO UPDATE SET status = 'open', kept_at = $8,
        retry_count = event_dead_letters.retry_count + excluded.retry_count,
        redrive_id = CASE WHEN event_dead_letters.status = 'open'
            THEN event_dead_letters.redrive_id END,
        decided_by = NULL, decided_at = NULL, note = NULL
    WHERE event_dead_letters.status = 'redriven'
        OR (event_dead_letters.status = 'open' AND event_dead_letters.redrive_id IS NOT NULL)";

const INSERT_SQLITE: &str = "\
    INSERT INTO event_dead_letters
        (id, event_id, event_type, payload, error_message, retry_count, original_created_at,
         created_at, event_key, source, handler, generation, error_class, error_code, fingerprint,
         message_id, correlation_id, trace_id, original, delivery, kept_at)
    VALUES ($1, $2, $3, $4, $5, $6,
        strftime('%Y-%m-%dT%H:%M:%fZ', $7 / 1000000.0, 'unixepoch'),
        strftime('%Y-%m-%dT%H:%M:%fZ', $8 / 1000000.0, 'unixepoch'),
        $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $8)
    ON CONFLICT (id) DO UPDATE SET status = 'open', kept_at = $8,
        retry_count = event_dead_letters.retry_count + excluded.retry_count,
        redrive_id = CASE WHEN event_dead_letters.status = 'open'
            THEN event_dead_letters.redrive_id END,
        decided_by = NULL, decided_at = NULL, note = NULL
    WHERE event_dead_letters.status = 'redriven'
        OR (event_dead_letters.status = 'open' AND event_dead_letters.redrive_id IS NOT NULL)";

/// Keeps a failure. One failure of one run is kept once, however often it is handed in; one that
/// was redriven and has failed in the same way is open again, and counts its tries on.
///
/// # Errors
/// When the database is away or refuses.
pub async fn insert(tx: &mut Tx, row: &NewDeadLetter, now: Micros) -> Result<()> {
    let sql = if tx.is_postgres() {
        INSERT_POSTGRES
    } else {
        INSERT_SQLITE
    };
    let id = row.id().to_string();
    let event_id = event_column(&row.event_key);
    let event_type: String = clean(&row.event_type).chars().take(100).collect();
    let key = clean(&row.event_key);
    let message_id = row.message_id.as_deref().filter(fits).map(clean);
    let correlation_id = row.correlation_id.as_deref().filter(fits).map(clean);
    let payload = jsonb(&row.original).unwrap_or("{}");
    on!(tx, c => sqlx::query(sql)
        .bind(&id)
        .bind(&event_id)
        .bind(&event_type)
        .bind(payload)
        .bind(&*clean(&row.error_message))
        .bind(row.retry_count)
        .bind(row.first_at)
        .bind(now)
        .bind(&*key)
        .bind(row.source)
        .bind(row.handler.as_deref())
        .bind(row.generation)
        .bind(&row.error_class)
        .bind(&row.error_code)
        .bind(row.fingerprint())
        .bind(message_id.as_deref())
        .bind(correlation_id.as_deref())
        .bind(row.trace_id.as_deref())
        .bind(row.original.as_slice())
        .bind(&row.delivery)
        .execute(&mut *c)
        .await
        .map(|_| ()))
    .map_err(failed)
}

/// Tells whether a failure that some instance announces on the dead-letter topic is kept here
/// already, because that instance has this database too.
///
/// # Errors
/// When the database is away.
pub async fn is_kept(tx: &mut Tx, row: &NewDeadLetter) -> Result<bool> {
    let sql = if tx.is_postgres() {
        "SELECT COUNT(*) FROM event_dead_letters WHERE event_id = CAST($1 AS UUID) \
         AND COALESCE(handler, '') = $2 AND error_code = $3 AND source <> 'subscription'"
    } else {
        "SELECT COUNT(*) FROM event_dead_letters WHERE event_id = $1 \
         AND COALESCE(handler, '') = $2 AND error_code = $3 AND source <> 'subscription'"
    };
    let count: i64 = on!(tx, c => sqlx::query_scalar(sql)
        .bind(event_column(&row.event_key))
        .bind(row.handler.as_deref().unwrap_or_default())
        .bind(&row.error_code)
        .fetch_one(&mut *c)
        .await)
    .map_err(failed)?;
    Ok(count > 0)
}

/// What stands for an event in the column, which is a UUID; others' ids need not be one.
pub(super) fn event_column(event_key: &str) -> String {
    Uuid::parse_str(event_key)
        .unwrap_or_else(|_| derived_id(&["event", event_key]))
        .to_string()
}

impl NewDeadLetter {
    /// Returns the id: the same for the same failure of the same run.
    pub fn id(&self) -> Uuid {
        derived_id(&[
            "dead_letter",
            self.source,
            &self.event_key,
            self.handler.as_deref().unwrap_or_default(),
            &self.generation.to_string(),
            &self.error_code,
            // Pub/Sub gives up on an event again under another message id.
            match (self.source, &self.message_id) {
                ("subscription", Some(id)) => id,
                _ => "",
            },
            // An id that came again with other content is another failure.
            &format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&self.original)),
        ])
    }

    /// Returns what groups it with others that failed for the same reason.
    pub fn fingerprint(&self) -> String {
        let normal = normalised(&self.error_message);
        let handler = self.handler.as_deref().unwrap_or_default();
        let all = derived_id(&[handler, &self.error_class, &self.error_code, &normal]);
        all.simple().to_string().chars().take(16).collect()
    }
}

/// Takes out of a message what differs between failures of one kind: numbers and ids.
fn normalised(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for word in message.split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')) {
        let body = word.trim_end_matches(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'));
        if body.bytes().any(|b| b.is_ascii_digit()) {
            text.push('#');
            text.push_str(&word[body.len()..]);
        } else {
            text.push_str(word);
        }
    }
    text
}

/// Returns the bytes as JSON text that PostgreSQL's JSONB takes too.
///
/// It takes no `\u0000`, no lone surrogates, no numbers beyond its NUMERIC and no endless depth;
/// the bytes themselves are kept beside it, so whatever is unusual need not be tried.
fn jsonb(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let json = !text.contains("\\u")
        && !too_deep(text)
        && !has_huge_number(text)
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    json.then_some(text)
}

/// Counts brackets, those inside strings as well: too careful is fine here.
fn too_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > 200
    })
}

/// Tells whether a number may be beyond NUMERIC: 131,072 digits, or an exponent of six.
fn has_huge_number(text: &str) -> bool {
    let mut digits = 0_usize;
    let mut exponent = false;
    text.bytes().any(|byte| {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'e' | b'E' if digits > 0 && !exponent => (exponent, digits) = (true, 0),
            b'+' | b'-' if exponent && digits == 0 => {}
            _ => (exponent, digits) = (false, 0),
        }
        digits > 100_000 || (exponent && digits > 4)
    })
}

/// Tells whether a text fits into an index.
fn fits(text: &&str) -> bool {
    text.len() <= MAX_CORRELATION_BYTES
}

/// Leaves out the one character that PostgreSQL's text does not take.
fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{2400}"))
    } else {
        Cow::Borrowed(text)
    }
}
