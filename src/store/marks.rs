//! What became of rows of `events`: many of them marked in one transaction.
//!
//! A mark counts only for the run it was made for (`generation`): an instance that was asleep
//! while another one took its lane over changes nothing that happened since.

use sqlx::SqliteConnection;

use super::crashes::{self, Tries, WORKER_CRASHED};
use super::dead_letters::{self, NewDeadLetter};
use super::outbox::{self, OutboxRow};
use super::{Micros, Store, Tx, failed, on};
use crate::error::Result;

/// How a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventStatus {
    /// At least one handler did its work.
    Done,
    /// It had ended before; the inbox knows how.
    Repeated,
    /// There was nothing to do.
    Skipped,
    /// No handler takes it.
    Unrouted,
    /// It is kept as a dead letter.
    DeadLettered,
}

impl EventStatus {
    /// Returns the word in the column `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done | Self::Repeated => "done",
            Self::Skipped => "skipped",
            Self::Unrouted => "unrouted",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// Which run of which row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRun {
    /// The row's id.
    pub id: String,
    /// The run.
    pub generation: i32,
}

/// What became of a row.
#[derive(Debug, Clone)]
pub enum Mark {
    /// It has ended.
    Settled {
        /// Which.
        run: RowRun,
        /// How.
        status: EventStatus,
        /// Why, when it is kept as a dead letter.
        failure: Option<TryFailure>,
        /// Whether rows may wait behind it.
        was_held: bool,
    },
    /// It is to be tried again; the rest of its aggregate waits for it.
    PutOff {
        /// Which.
        run: RowRun,
        /// Not before this.
        until: Micros,
        /// The failed try, when it was one.
        failure: Option<TryFailure>,
    },
    /// A try that was counted ahead was none; the rest of its aggregate waits for it.
    NoTry(Tries),
    /// It is given up, and kept as a dead letter.
    GivenUp {
        /// Which.
        run: RowRun,
        /// What is kept of it.
        letter: Box<NewDeadLetter>,
        /// Its copy for the dead-letter topic.
        outbox: Vec<OutboxRow>,
    },
}

/// Why a try failed, in words that hold no values of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TryFailure {
    /// How many tries have failed with this one.
    pub attempts: i32,
    /// The class.
    pub class: String,
    /// The code.
    pub code: String,
    /// For people.
    pub message: String,
}

impl TryFailure {
    /// The one a row is given up for.
    fn of(letter: &NewDeadLetter) -> Self {
        Self {
            attempts: letter.retry_count,
            class: letter.error_class.clone(),
            code: letter.error_code.clone(),
            message: letter.error_message.clone(),
        }
    }

    /// Returns what is kept of it in the row's metadata.
    fn note(&self, now: Micros) -> String {
        serde_json::json!({
            "retry_count": self.attempts,
            "last_error": {
                "class": self.class,
                "code": self.code,
                "message": self.message,
                "at": super::timestamp(now),
            },
        })
        .to_string()
    }
}

const SETTLE_POSTGRES: &str = "\
    UPDATE events e SET processed = TRUE, status = m.status, generation = e.generation + 1,
        attempts = 0, next_attempt_at = 0, processed_at = $4
    FROM unnest($1::TEXT[], $2::INTEGER[], $3::TEXT[]) AS m (id, generation, status)
    WHERE e.id = CAST(m.id AS UUID) AND e.generation = m.generation AND e.processed IS DISTINCT FROM TRUE";

const SETTLE_SQLITE: &str = "\
    UPDATE events SET processed = TRUE, status = $3, generation = generation + 1,
        attempts = 0, next_attempt_at = 0, processed_at = $4
    WHERE id = $1 AND generation = $2 AND processed IS NOT TRUE";

/// Of a run that had ended before, the inbox knows how.
const REPEATED_POSTGRES: &str = "\
    UPDATE events e SET status = 'dead_lettered'
    FROM unnest($1::TEXT[], $2::INTEGER[]) AS m (id, generation)
    WHERE e.id = CAST(m.id AS UUID) AND e.generation = m.generation + 1 AND e.processed
        AND EXISTS (SELECT 1 FROM inbox i WHERE i.state = 3 AND i.generation = m.generation
            AND i.event_id = COALESCE(e.event_key, CAST(e.id AS TEXT)))";

const REPEATED_SQLITE: &str = "\
    UPDATE events SET status = 'dead_lettered'
    WHERE id = $1 AND generation = $2 + 1 AND processed
        AND EXISTS (SELECT 1 FROM inbox i WHERE i.state = 3 AND i.generation = $2
            AND i.event_id = COALESCE(events.event_key, events.id))";

/// What is left of the metadata, whose other members are not ours.
macro_rules! noted_postgres {
    () => {
        "CASE WHEN m.note IS NULL
                OR jsonb_typeof(CAST(e.metadata AS JSONB)) NOT IN ('object', 'null')
            THEN CAST(e.metadata AS JSONB)
            ELSE COALESCE(NULLIF(CAST(e.metadata AS JSONB), 'null'), '{}')
                || CAST(m.note AS JSONB) END"
    };
}

macro_rules! noted_sqlite {
    ($note:literal) => {
        concat!(
            "CASE WHEN ",
            $note,
            " IS NULL THEN metadata WHEN metadata IS NULL THEN ",
            $note,
            " WHEN NOT json_valid(metadata) THEN metadata
            WHEN json_type(metadata) = 'null' THEN ",
            $note,
            " WHEN json_type(metadata) = 'object' THEN json_patch(metadata, ",
            $note,
            ") ELSE metadata END"
        )
    };
}

const PUT_OFF_POSTGRES: &str = concat!(
    "WITH put_off AS (
        UPDATE events e SET next_attempt_at = m.until,
            attempts = COALESCE(m.attempts, e.attempts),
            last_error_class = COALESCE(m.class, e.last_error_class),
            last_error_code = COALESCE(m.code, e.last_error_code),
            metadata = ",
    noted_postgres!(),
    "
        FROM unnest($1::TEXT[], $2::INTEGER[], $3::BIGINT[], $4::INTEGER[], $5::TEXT[], $6::TEXT[],
            $7::TEXT[]) AS m (id, generation, until, attempts, class, code, note)
        WHERE e.id = CAST(m.id AS UUID) AND e.generation = m.generation
            AND e.processed IS DISTINCT FROM TRUE
        RETURNING e.id, e.aggregate_id, e.next_attempt_at
    )
    INSERT INTO held_aggregates (aggregate, event_id, until)
    SELECT DISTINCT ON (aggregate_id) aggregate_id, id, next_attempt_at FROM put_off
    WHERE aggregate_id IS NOT NULL ORDER BY aggregate_id, next_attempt_at DESC
    ON CONFLICT (aggregate) DO UPDATE SET event_id = excluded.event_id, until = excluded.until"
);

const PUT_OFF_SQLITE: &str = concat!(
    "UPDATE events SET next_attempt_at = $3, attempts = COALESCE($4, attempts),
        last_error_class = COALESCE($5, last_error_class),
        last_error_code = COALESCE($6, last_error_code),
        metadata = ",
    noted_sqlite!("$7"),
    " WHERE id = $1 AND generation = $2 AND processed IS NOT TRUE"
);

/// Why a row ended as a dead letter; the run was the one before the generation it has now.
const TELL_POSTGRES: &str = concat!(
    "UPDATE events e SET last_error_class = m.class, last_error_code = m.code, metadata = ",
    noted_postgres!(),
    " FROM unnest($1::TEXT[], $2::INTEGER[], $3::TEXT[], $4::TEXT[], $5::TEXT[])
        AS m (id, generation, class, code, note)
    WHERE e.id = CAST(m.id AS UUID) AND e.generation = m.generation + 1 AND e.processed"
);

const TELL_SQLITE: &str = concat!(
    "UPDATE events SET last_error_class = $3, last_error_code = $4, metadata = ",
    noted_sqlite!("$5"),
    " WHERE id = $1 AND generation = $2 + 1 AND processed"
);

const HOLD_SQLITE: &str = "\
    INSERT INTO held_aggregates (aggregate, event_id, until)
    SELECT aggregate_id, id, next_attempt_at FROM events
    WHERE id = $1 AND aggregate_id IS NOT NULL AND processed IS NOT TRUE
    ON CONFLICT (aggregate) DO UPDATE SET event_id = excluded.event_id, until = excluded.until";

const FREE_POSTGRES: &str = "DELETE FROM held_aggregates WHERE event_id = ANY \
    (SELECT CAST(freed.id AS UUID) FROM unnest($1::TEXT[]) AS freed (id))";
const FREE_SQLITE: &str = "DELETE FROM held_aggregates WHERE event_id = $1";

/// Marks rows.
///
/// # Errors
/// When the database is away; nothing is marked then.
pub async fn mark(store: &Store, marks: &[Mark]) -> Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let now = store.now();
    let mut tx = store.begin().await?;
    let mut settled = Vec::new();
    let mut put_off = Vec::new();
    let mut uncounted = Vec::new();
    let mut freed = Vec::new();
    let mut ended = Vec::new();
    for mark in marks {
        match mark {
            Mark::Settled {
                run,
                status,
                failure,
                was_held,
            } => {
                settled.push((run, *status));
                ended.extend(failure.as_ref().map(|failure| (run, failure.clone())));
                if *was_held {
                    freed.push(run.id.as_str());
                }
            }
            Mark::PutOff {
                run,
                until,
                failure,
            } => put_off.push((run, *until, failure.as_ref())),
            Mark::NoTry(tries) => uncounted.push(tries.clone()),
            Mark::GivenUp { run, .. } => freed.push(run.id.as_str()),
        }
    }
    settle(&mut tx, &settled, now).await?;
    settled.retain(|(_, status)| *status == EventStatus::Repeated);
    look_up(&mut tx, &settled).await?;
    hold(&mut tx, &put_off, now).await?;
    crashes::uncount(&mut tx, &uncounted).await?;
    let mut outbox = Vec::new();
    for mark in marks {
        if let Mark::GivenUp {
            run,
            letter,
            outbox: copy,
        } = mark
        {
            // Kept by whoever ends the run, and by nobody else.
            let dead = [(run, EventStatus::DeadLettered)];
            if settle(&mut tx, &dead, now).await? == 1 {
                ended.push((run, TryFailure::of(letter)));
                dead_letters::insert(&mut tx, letter, now).await?;
                if letter.error_code == WORKER_CRASHED {
                    crashes::end_claims(&mut tx, &letter.event_key, run.generation, now).await?;
                }
                outbox.extend(copy.iter().cloned());
            }
        }
    }
    tell(&mut tx, &ended, now).await?;
    free(&mut tx, &freed).await?;
    outbox::insert(&mut tx, &outbox, now).await?;
    tx.commit().await?;
    if !outbox.is_empty() {
        store.wakeups().outbox.notify_one();
    }
    Ok(())
}

async fn settle(tx: &mut Tx, rows: &[(&RowRun, EventStatus)], now: Micros) -> Result<u64> {
    match tx {
        _ if rows.is_empty() => Ok(0),
        Tx::Postgres(tx) => {
            let ids: Vec<&str> = rows.iter().map(|(run, _)| run.id.as_str()).collect();
            let generations: Vec<i32> = rows.iter().map(|(run, _)| run.generation).collect();
            let statuses: Vec<&str> = rows.iter().map(|(_, status)| status.as_str()).collect();
            let done = sqlx::query(SETTLE_POSTGRES)
                .bind(ids)
                .bind(generations)
                .bind(statuses)
                .bind(now)
                .execute(&mut **tx)
                .await
                .map_err(failed)?;
            Ok(done.rows_affected())
        }
        Tx::Sqlite(tx) => {
            let mut changed = 0;
            for (run, status) in rows {
                let done = sqlx::query(SETTLE_SQLITE)
                    .bind(run.id.as_str())
                    .bind(run.generation)
                    .bind(status.as_str())
                    .bind(now)
                    .execute(&mut **tx)
                    .await
                    .map_err(failed)?;
                changed += done.rows_affected();
            }
            Ok(changed)
        }
    }
}

async fn look_up(tx: &mut Tx, rows: &[(&RowRun, EventStatus)]) -> Result<()> {
    match tx {
        _ if rows.is_empty() => {}
        Tx::Postgres(tx) => {
            let ids: Vec<&str> = rows.iter().map(|(run, _)| run.id.as_str()).collect();
            let generations: Vec<i32> = rows.iter().map(|(run, _)| run.generation).collect();
            sqlx::query(REPEATED_POSTGRES)
                .bind(ids)
                .bind(generations)
                .execute(&mut **tx)
                .await
                .map_err(failed)?;
        }
        Tx::Sqlite(tx) => {
            for (run, _) in rows {
                sqlx::query(REPEATED_SQLITE)
                    .bind(run.id.as_str())
                    .bind(run.generation)
                    .execute(&mut **tx)
                    .await
                    .map_err(failed)?;
            }
        }
    }
    Ok(())
}

type PutOff<'a> = (&'a RowRun, Micros, Option<&'a TryFailure>);

async fn hold(tx: &mut Tx, rows: &[PutOff<'_>], now: Micros) -> Result<()> {
    let note = |failure: Option<&TryFailure>| failure.map(|failure| failure.note(now));
    match tx {
        _ if rows.is_empty() => {}
        Tx::Postgres(tx) => {
            let failures = || rows.iter().map(|(_, _, failure)| *failure);
            sqlx::query(PUT_OFF_POSTGRES)
                .bind(rows.iter().map(|r| r.0.id.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|r| r.0.generation).collect::<Vec<_>>())
                .bind(rows.iter().map(|r| r.1).collect::<Vec<_>>())
                .bind(
                    failures()
                        .map(|f| f.map(|f| f.attempts))
                        .collect::<Vec<_>>(),
                )
                .bind(
                    failures()
                        .map(|f| f.map(|f| f.class.as_str()))
                        .collect::<Vec<_>>(),
                )
                .bind(
                    failures()
                        .map(|f| f.map(|f| f.code.as_str()))
                        .collect::<Vec<_>>(),
                )
                .bind(failures().map(note).collect::<Vec<_>>())
                .execute(&mut **tx)
                .await
                .map_err(failed)?;
        }
        Tx::Sqlite(tx) => {
            for (run, until, failure) in rows {
                let done = sqlx::query(PUT_OFF_SQLITE)
                    .bind(run.id.as_str())
                    .bind(run.generation)
                    .bind(until)
                    .bind(failure.map(|failure| failure.attempts))
                    .bind(failure.map(|failure| failure.class.as_str()))
                    .bind(failure.map(|failure| failure.code.as_str()))
                    .bind(note(*failure))
                    .execute(&mut **tx)
                    .await
                    .map_err(failed)?;
                if done.rows_affected() > 0 {
                    hold_behind(tx, &run.id).await?;
                }
            }
        }
    }
    Ok(())
}

/// Notes why rows ended as dead letters.
async fn tell(tx: &mut Tx, rows: &[(&RowRun, TryFailure)], now: Micros) -> Result<()> {
    match tx {
        _ if rows.is_empty() => {}
        Tx::Postgres(tx) => {
            let all = || rows.iter();
            sqlx::query(TELL_POSTGRES)
                .bind(all().map(|r| r.0.id.as_str()).collect::<Vec<_>>())
                .bind(all().map(|r| r.0.generation).collect::<Vec<_>>())
                .bind(all().map(|r| r.1.class.as_str()).collect::<Vec<_>>())
                .bind(all().map(|r| r.1.code.as_str()).collect::<Vec<_>>())
                .bind(all().map(|r| r.1.note(now)).collect::<Vec<_>>())
                .execute(&mut **tx)
                .await
                .map_err(failed)?;
        }
        Tx::Sqlite(tx) => {
            for (run, failure) in rows {
                sqlx::query(TELL_SQLITE)
                    .bind(run.id.as_str())
                    .bind(run.generation)
                    .bind(failure.class.as_str())
                    .bind(failure.code.as_str())
                    .bind(failure.note(now))
                    .execute(&mut **tx)
                    .await
                    .map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Lets wait what comes after a row in its aggregate. PostgreSQL does so in the same statement.
pub(super) async fn hold_behind(connection: &mut SqliteConnection, id: &str) -> Result<()> {
    let held = sqlx::query(HOLD_SQLITE).bind(id).execute(connection).await;
    held.map(drop).map_err(failed)
}

/// Lets go what waited behind these rows.
async fn free(tx: &mut Tx, ids: &[&str]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    if let Tx::Postgres(tx) = tx {
        let done = sqlx::query(FREE_POSTGRES)
            .bind(ids)
            .execute(&mut **tx)
            .await;
        return done.map(drop).map_err(failed);
    }
    for id in ids {
        on!(tx, c => sqlx::query(FREE_SQLITE).bind(*id).execute(&mut *c).await.map(|_| ()))
            .map_err(failed)?;
    }
    Ok(())
}
