//! Beginning a redrive: its items are chosen and written down in one transaction.

use super::super::audit::{self, Author};
use super::super::dead_letters::{self, NewDeadLetter, Wanted};
use super::super::find::{Sql, number, words};
use super::super::{Store, Tx};
use super::{DEAD_LETTERS, REPLAY, RedriveRow, WantedEvents, by_id};
use crate::error::Result;

/// A redrive to be begun.
#[derive(Debug, Clone)]
pub struct NewRedrive<'a> {
    /// Its id; the same for the same request.
    pub id: String,
    /// What was asked for, as JSON.
    pub query: String,
    /// `if_not_done` or `force`.
    pub mode: &'static str,
    /// Its pace.
    pub per_second: i32,
    /// Who begins it, and why.
    pub by: Author<'a>,
    /// What it is to run.
    pub what: What<'a>,
    /// How many items it may have at most.
    pub most: i64,
    /// How many the caller saw; more is refused.
    pub expected: Option<i64>,
}

/// What a redrive is to run.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// Dead letters.
    DeadLetters(&'a Wanted),
    /// Processed events, by one handler or by all.
    Events(&'a WantedEvents, Option<&'a str>),
}

/// Why nothing was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There are more items than a redrive may have.
    TooMany,
    /// There are more items than the caller saw.
    MoreThanExpected,
    /// The id is taken by a request for something else.
    OtherRequest,
}

/// What became of the wish to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is written down and will run.
    New(RedriveRow),
    /// The same request began it before.
    Before(RedriveRow),
    /// Nothing was changed.
    Refused(Refusal),
}

/// Begins a redrive.
///
/// # Errors
/// When the database is away.
pub async fn begin(store: &Store, new: &NewRedrive<'_>) -> Result<Begun> {
    let mut tx = store.begin().await?;
    if let Some(refused) = begin_in(store, &mut tx, new).await? {
        drop(tx);
        return Ok(match refused {
            Some(refusal) => Begun::Refused(refusal),
            None => match by_id(store, &new.id).await? {
                Some(before) if before.query == new.query => Begun::Before(before),
                Some(_) | None => Begun::Refused(Refusal::OtherRequest),
            },
        });
    }
    tx.commit().await?;
    let missing = || super::super::away("redrive_vanished");
    Ok(Begun::New(
        by_id(store, &new.id).await?.ok_or_else(missing)?,
    ))
}

/// Begins a redrive within a transaction: `None` when it has, `Some(None)` when it was there.
async fn begin_in(
    store: &Store,
    tx: &mut Tx,
    new: &NewRedrive<'_>,
) -> Result<Option<Option<Refusal>>> {
    let now = store.now();
    if tx.is_postgres() {
        // Choosing a million rows takes longer than anything else the service does.
        Sql::new("SET LOCAL statement_timeout = '120s'")
            .run(tx)
            .await?;
    }
    let kind = match new.what {
        What::DeadLetters(_) => DEAD_LETTERS,
        What::Events(..) => REPLAY,
    };
    let mut row = Sql::new(
        "INSERT INTO redrives (last_seq, next_seq, total, state, created_at, updated_at, id, kind, \
         query, mode, per_second, actor, reason) VALUES (0, 0, 0, 'running'",
    );
    row.with(", ?, ?", number(now));
    for text in [&new.id, kind, &new.query, new.mode] {
        row.with(", ?", words(text));
    }
    row.with(", ?", number(new.per_second));
    row.with(", ?", words(new.by.actor));
    row.with(", ?) ON CONFLICT (id) DO NOTHING", words(new.by.reason));
    if row.run(tx).await? == 0 {
        return Ok(Some(None));
    }
    let total = choose(tx, new, now).await?;
    if total > new.most {
        return Ok(Some(Some(Refusal::TooMany)));
    }
    if new.expected.is_some_and(|expected| total > expected) {
        return Ok(Some(Some(Refusal::MoreThanExpected)));
    }
    let mut sql = Sql::new("UPDATE redrives SET");
    sql.with(" total = ?, last_seq = ?", number(total));
    sql.push(if total == 0 {
        ", state = 'finished'"
    } else {
        ""
    });
    sql.with(" WHERE id = ?", words(&new.id));
    sql.run(tx).await?;
    let action = match new.what {
        What::DeadLetters(_) => "redrive.start",
        What::Events(..) => "replay.start",
    };
    let detail = format!(
        r#"{{"query":{},"mode":"{}","per_second":{},"total":{total}}}"#,
        new.query, new.mode, new.per_second
    );
    audit::insert(tx, action, &new.id, new.by, &detail, now).await?;
    Ok(None)
}

/// Writes down the items and returns how many there are, at most one more than allowed.
async fn choose(tx: &mut Tx, new: &NewRedrive<'_>, now: i64) -> Result<i64> {
    let mut sql = Sql::new(
        "INSERT INTO redrive_items (redrive_id, n, item_id, event_id, aggregate, handler, at) \
         SELECT",
    );
    sql.with(
        " CAST(? AS TEXT), row_number() OVER (ORDER BY ",
        words(&new.id),
    );
    match new.what {
        What::DeadLetters(wanted) => {
            sql.push(
                "seq), CAST(id AS TEXT), COALESCE(event_key, CAST(event_id AS TEXT)), \
                 CAST(event_id AS TEXT), handler",
            );
            sql.with(", CAST(? AS BIGINT) FROM event_dead_letters", number(now));
            let open = Wanted {
                status: Some("open".to_owned()),
                ..wanted.clone()
            };
            sql.part(&open.conditions());
            sql.with(" ORDER BY seq LIMIT ?", number(new.most + 1));
        }
        What::Events(wanted, handler) => {
            sql.push(
                "created_at, seq), CAST(id AS TEXT), COALESCE(event_key, CAST(id AS TEXT)), \
                 CAST(COALESCE(aggregate_id, id) AS TEXT)",
            );
            match handler {
                Some(handler) => sql.with(", CAST(? AS TEXT)", words(handler)),
                None => sql.push(", NULL"),
            }
            sql.with(", CAST(? AS BIGINT) FROM events", number(now));
            sql.part(&wanted.conditions());
            sql.with(" ORDER BY created_at, seq LIMIT ?", number(new.most + 1));
        }
    }
    sql.run(tx).await
}

/// What became of a corrected copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// It is kept and will run.
    New,
    /// The same request made it before.
    Before,
    /// The dead letter is not open any more; nothing was changed.
    Decided,
}

/// Keeps a corrected copy of the dead letter `old` and begins the redrive that runs it.
///
/// # Errors
/// When the database is away.
pub async fn copy(
    store: &Store,
    old: &str,
    letter: &NewDeadLetter,
    new: &NewRedrive<'_>,
) -> Result<Copied> {
    if by_id(store, &new.id).await?.is_some() {
        return Ok(Copied::Before);
    }
    let now = store.now();
    let mut tx = store.begin().await?;
    let note = format!("corrected copy {}: {}", letter.event_key, new.by.reason);
    if !dead_letters::close(&mut tx, old, new.by.actor, &note, now).await? {
        drop(tx);
        // The same request may have been faster.
        let before = by_id(store, &new.id).await?.is_some();
        return Ok(if before {
            Copied::Before
        } else {
            Copied::Decided
        });
    }
    dead_letters::insert(&mut tx, letter, now).await?;
    let detail = format!(r#"{{"redrive":"{}"}}"#, new.id);
    audit::insert(&mut tx, "dead_letter.edit", old, new.by, &detail, now).await?;
    match begin_in(store, &mut tx, new).await? {
        None => tx.commit().await.map(|()| Copied::New),
        Some(_) => Ok(Copied::Before),
    }
}
