//! Erasure: what was kept about somebody is taken out of every table; that it was there stays.

use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::find::{Sql, number, words};
use super::{Micros, Tx};
use crate::error::Result;
use crate::event::derived_id;

/// What is to be erased.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// One event, by the id it is claimed under.
    Event(&'a str),
    /// Everything whose content mentions a text.
    Mention(&'a str),
}

/// How many rows lost their content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Rows of `events`; what waited there is not run any more.
    pub events: i64,
    /// Dead letters; those that were open are discarded.
    pub dead_letters: i64,
    /// Published events in the outbox.
    pub outbox: i64,
    /// Rows that events are compared with by age.
    pub subjects: i64,
    /// Events that still have to be published, and keep their content until then. Ask again.
    pub waiting: i64,
    /// Whether they were only counted.
    pub dry_run: bool,
}

#[derive(FromRow)]
struct Count {
    count: i64,
}

/// Erases a subject, whatever state its rows are in. The whole of each table is read for a
/// mention, so this takes a while, and locks only what it changes.
///
/// # Errors
/// When the database is away.
pub async fn erase(tx: &mut Tx, subject: Subject<'_>, actor: &str, now: Micros) -> Result<Erased> {
    let postgres = tx.is_postgres();
    if postgres {
        // Reading a large table takes longer than any statement of the service may.
        Sql::new("SET LOCAL statement_timeout = 0").run(tx).await?;
    }
    let mut erased = Erased::default();

    let mut sql = Sql::new("SELECT COUNT(*) AS count FROM outbox WHERE state = 0 AND ");
    outbox(&mut sql, postgres, subject);
    erased.waiting = sql.one_in::<Count>(tx).await?.map_or(0, |row| row.count);

    let mut sql = Sql::new("UPDATE outbox SET ordering_key = NULL, attributes = '[]', data = ");
    sql.push(if postgres { "''" } else { "x''" });
    sql.push(" WHERE state <> 0 AND ");
    outbox(&mut sql, postgres, subject);
    erased.outbox = sql.run(tx).await?;

    let mut sql = Sql::new("UPDATE event_dead_letters SET original = NULL, delivery = NULL, ");
    sql.push("payload = '{}', note = CASE WHEN status = 'open' THEN 'erased' ELSE note END, ");
    sql.with(
        "decided_by = CASE WHEN status = 'open' THEN ? ELSE decided_by END, ",
        words(actor),
    );
    sql.with(
        "decided_at = CASE WHEN status = 'open' THEN ? ELSE decided_at END, ",
        number(now),
    );
    sql.push("status = CASE WHEN status = 'open' THEN 'discarded' ELSE status END WHERE ");
    dead_letters(&mut sql, postgres, subject);
    erased.dead_letters = sql.run(tx).await?;

    let mut sql = Sql::new("UPDATE events SET payload = '{}', metadata = '{\"erased\": true}', ");
    sql.push("original = NULL, delivery = NULL, aggregate_id = NULL, ");
    sql.push("status = CASE WHEN processed IS TRUE THEN status ELSE 'skipped' END, ");
    sql.with("processed_at = COALESCE(processed_at, ?), ", number(now));
    sql.push("processed = TRUE WHERE ");
    events(&mut sql, postgres, subject);
    erased.events = sql.run(tx).await?;

    let mut sql = Sql::new("DELETE FROM subjects WHERE ");
    match subject {
        Subject::Event(id) => sql.with("event_id = ?", words(id)),
        Subject::Mention(text) => mention(&mut sql, postgres, text, &["subject"], None),
    }
    erased.subjects = sql.run(tx).await?;

    if let Subject::Event(id) = subject {
        let sql = "UPDATE inbox SET body_hash = NULL WHERE event_id = ?";
        let mut hash = Sql::default();
        hash.with(sql, words(id));
        hash.run(tx).await?;
    }
    Ok(erased)
}

fn outbox(sql: &mut Sql, postgres: bool, subject: Subject<'_>) {
    match subject {
        Subject::Event(id) => sql.with("(cause_id = ? OR message_id = ?)", words(id)),
        Subject::Mention(text) => {
            let texts = ["attributes", "ordering_key"];
            mention(sql, postgres, text, &texts, Some("data"));
        }
    }
}

fn dead_letters(sql: &mut Sql, postgres: bool, subject: Subject<'_>) {
    match subject {
        Subject::Event(id) => by_event_id(sql, postgres, id, "event_id = ", "event_key = ?"),
        Subject::Mention(text) => {
            let texts = ["CAST(payload AS TEXT)", "delivery", "event_key"];
            mention(sql, postgres, text, &texts, Some("original"));
        }
    }
}

fn events(sql: &mut Sql, postgres: bool, subject: Subject<'_>) {
    match subject {
        Subject::Event(id) => by_event_id(sql, postgres, id, "id = ", "event_key = ?"),
        Subject::Mention(text) => {
            let texts = [
                "CAST(payload AS TEXT)",
                "CAST(metadata AS TEXT)",
                "CAST(aggregate_id AS TEXT)",
                "delivery",
                "event_key",
            ];
            mention(sql, postgres, text, &texts, Some("original"));
        }
    }
}

/// The column takes UUIDs only; other ids have one derived from them, and are in the key.
fn by_event_id(sql: &mut Sql, postgres: bool, id: &str, column: &'static str, key: &'static str) {
    let uuid = Uuid::parse_str(id).unwrap_or_else(|_| derived_id(&["event", id]));
    sql.push("(");
    sql.push(column);
    let value = if postgres { "CAST(? AS UUID)" } else { "?" };
    sql.with(value, words(&uuid.to_string()));
    sql.push(" OR ");
    sql.with(key, words(id));
    sql.push(")");
}

/// Adds the condition that one of `texts` or the bytes of `bytes` mention `text`, as it is or as
/// JSON writes it.
fn mention(
    sql: &mut Sql,
    postgres: bool,
    text: &str,
    texts: &[&'static str],
    bytes: Option<&'static str>,
) {
    sql.push("(FALSE");
    for spelling in spellings(text) {
        for column in texts {
            sql.push(if postgres {
                " OR strpos("
            } else {
                " OR instr("
            });
            sql.push(*column);
            sql.with(", CAST(? AS TEXT)) > 0", words(&spelling));
        }
        if let Some(column) = bytes {
            if postgres {
                let text = " OR position(convert_to(CAST(? AS TEXT), 'UTF8') IN ";
                sql.with(text, words(&spelling));
                sql.push(column);
                sql.push(") > 0");
            } else {
                sql.push(" OR instr(");
                sql.push(column);
                sql.with(", CAST(? AS BLOB)) > 0", words(&spelling));
            }
        }
    }
    sql.push(")");
}

/// The ways in which JSON may write a text: with and without escapes of what is not ASCII, and
/// of slashes.
fn spellings(text: &str) -> Vec<String> {
    let quoted = serde_json::Value::from(text).to_string();
    let written = quoted[1..quoted.len() - 1].to_owned();
    let mut all = vec![text.to_owned()];
    for plain in [ascii(&written, false), ascii(&written, true), written] {
        all.push(plain.replace('/', "\\/"));
        all.push(plain);
    }
    all.sort();
    all.dedup();
    all
}

fn ascii(text: &str, upper: bool) -> String {
    let unit = |unit: u16| match u8::try_from(unit) {
        Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
        _ if upper => format!("\\u{unit:04X}"),
        _ => format!("\\u{unit:04x}"),
    };
    text.encode_utf16().map(unit).collect()
}
