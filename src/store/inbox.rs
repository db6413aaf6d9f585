//! `inbox`: who has run what. A claim is a lease with a fence; only its holder can end it.

use std::collections::HashMap;

use sqlx::Row;

use super::commit::{MAX_REPETITIONS, asks_to_repeat};
use super::{Micros, Pool, Store, Tx, failed, on, read};
use crate::error::Result;

/// Being run, until its lease ends.
pub(super) const RUNNING: i16 = 1;
/// Ended well.
pub(super) const DONE: i16 = 2;
/// Ended as a dead letter.
pub(super) const DEAD: i16 = 3;

/// Which run of an event by a handler.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunKey {
    /// The event.
    pub event_id: String,
    /// The handler.
    pub handler: &'static str,
    /// 0, and one more for every run somebody asked for after it had ended.
    pub generation: i32,
}

/// Which run a claim is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// This one, the first unless somebody asked for more.
    Generation(i32),
    /// The latest, also when it ended as a dead letter; not when it ended well.
    IfNotDone,
    /// A new one, whatever became of those before.
    Force,
}

/// What is known of an event when it is claimed; kept with the claim.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The event's type.
    pub event_type: String,
    /// A hash of what it says; `None` where it cannot be compared.
    pub body_hash: Option<i64>,
    /// Hasura's id, when it is Hasura's.
    pub hasura_id: Option<String>,
    /// Pub/Sub's id of the message.
    pub message_id: Option<String>,
    /// Hasura's own retry counter.
    pub hasura_retry: Option<i32>,
    /// What it belongs to, when that is not the event itself.
    pub correlation_id: Option<String>,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
}

/// Somebody asks for the right to run.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The event.
    pub event_id: String,
    /// The handler.
    pub handler: &'static str,
    /// Which run.
    pub mode: Mode,
    /// What is known of the event.
    pub facts: Facts,
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The caller runs it, and ends it with this fence.
    Ours {
        /// Which run.
        generation: i32,
        /// Proves the right to end it.
        fence: i64,
        /// Which try of this run, from 1.
        attempt: i32,
    },
    /// It has ended.
    Ended(Ended),
    /// Somebody else runs it.
    Running {
        /// When its lease ends unless it is renewed.
        until: Micros,
    },
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which run.
    pub generation: i32,
    /// Whether it ended as a dead letter.
    pub dead: bool,
    /// When.
    pub at: Micros,
    /// After how many tries.
    pub attempt: i32,
    /// What the event said.
    pub body_hash: Option<i64>,
    /// Under which message it came.
    pub message_id: Option<String>,
    /// Hasura's retry counter then.
    pub hasura_retry: Option<i32>,
}

/// Takes over what is free or whose holder has not renewed its lease, and counts the try.
macro_rules! take_over {
    ($insert:literal) => {
        concat!(
            $insert,
            " ON CONFLICT (event_id, handler, generation) DO UPDATE SET state = 1, \
             fence = inbox.fence + 1, lease_until = excluded.lease_until, \
             attempt = inbox.attempt + 1, body_hash = excluded.body_hash, \
             message_id = excluded.message_id, hasura_retry = excluded.hasura_retry, \
             trace_id = excluded.trace_id, \
             instance = excluded.instance, started_at = excluded.started_at \
             WHERE inbox.state = 0 OR (inbox.state = 1 AND inbox.lease_until < excluded.started_at) \
             RETURNING event_id, handler, generation, fence, attempt"
        )
    };
}

/// The commit does not wait for the disk. Should PostgreSQL crash just then, a claim is forgotten
/// and somebody else may begin the same run: of the two, one can end it.
const CLAIM_MANY: &str = take_over!(
    "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, attempt, \
     event_type, body_hash, hasura_id, message_id, hasura_retry, correlation_id, trace_id, \
     instance, created_at, started_at) \
     SELECT u.event_id, u.handler, u.generation, 1, 1, $11, 1, u.event_type, u.body_hash, \
     u.hasura_id, u.message_id, u.hasura_retry, u.correlation_id, u.trace_id, $12, $13, $13 \
     FROM set_config('synchronous_commit', 'off', true), unnest($1::text[], $2::text[], \
     $3::int[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::int[], $9::text[], \
     $10::text[]) AS u (event_id, handler, generation, event_type, body_hash, hasura_id, \
     message_id, hasura_retry, correlation_id, trace_id)"
);

const CLAIM_ONE: &str = take_over!(
    "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, attempt, \
     event_type, body_hash, hasura_id, message_id, hasura_retry, correlation_id, trace_id, \
     instance, created_at, started_at) \
     VALUES ($1, $2, $3, 1, 1, $11, 1, $4, $5, $6, $7, $8, $9, $10, $12, $13, $13)"
);

const OF_ONE: &str = "SELECT generation, state, fence, lease_until, attempt, body_hash, message_id, \
    hasura_retry, ended_at FROM inbox WHERE event_id = $1 AND handler = $2 \
    ORDER BY generation DESC LIMIT 20";

/// One generation of one handler's runs for one event.
struct Known {
    generation: i32,
    state: i16,
    lease_until: Micros,
    ended: Ended,
}

/// Asks for many claims at once. Answers come in the order of the asks.
///
/// # Errors
/// When the database did not answer: what was claimed all the same is free again after its lease.
pub async fn claim(store: &Store, asks: &[Ask]) -> Result<Vec<Claimed>> {
    let now = store.now();
    let mut answers: Vec<Option<Claimed>> = vec![None; asks.len()];
    let mut plain = Vec::new();
    for (index, ask) in asks.iter().enumerate() {
        match ask.mode {
            Mode::Generation(generation) => plain.push((index, generation)),
            Mode::IfNotDone | Mode::Force => {
                let again = store.in_time(claim_again(store, ask, now));
                answers[index] = Some(again.await?);
            }
        }
    }
    // Two instances that ask for the same runs lock them in the same order.
    plain.sort_by(|a, b| {
        let key = |(index, generation): &(usize, i32)| {
            let ask = &asks[*index];
            (ask.event_id.as_str(), ask.handler, *generation)
        };
        key(a).cmp(&key(b))
    });
    // Whoever asked first gave up waiting; of two asks for one run one is answered.
    let twice = |one: &(usize, i32), other: &(usize, i32)| {
        let key = |(index, generation): &(usize, i32)| {
            let ask = &asks[*index];
            (ask.event_id.as_str(), ask.handler, *generation)
        };
        key(one) == key(other)
    };
    plain.dedup_by(|later, one| {
        let same = twice(later, one);
        if same {
            answers[later.0] = Some(Claimed::Running { until: now });
        }
        same
    });
    let mut repetitions = 0;
    let taken = loop {
        match store.in_time(take(store, asks, &plain, now)).await {
            // A completion may lock the same runs in another order.
            Err(error) if repetitions < MAX_REPETITIONS && asks_to_repeat(&error) => {
                repetitions += 1;
            }
            other => break other?,
        }
    };
    for (index, generation) in plain {
        let ask = &asks[index];
        let key = (ask.event_id.clone(), ask.handler.to_owned(), generation);
        answers[index] = Some(match taken.get(&key) {
            Some(&(fence, attempt)) => Claimed::Ours {
                generation,
                fence,
                attempt,
            },
            None => not_ours(&store.in_time(known(store, ask)).await?, generation),
        });
    }
    Ok(answers.into_iter().flatten().collect())
}

type Taken = HashMap<(String, String, i32), (i64, i32)>;

async fn take(store: &Store, asks: &[Ask], plain: &[(usize, i32)], now: Micros) -> Result<Taken> {
    let until = now.saturating_add(store.lease());
    let mut taken = Taken::new();
    match store.pool() {
        _ if plain.is_empty() => {}
        Pool::Postgres(pool) => {
            let asked = || plain.iter().map(|(index, _)| &asks[*index]);
            let facts = || asked().map(|ask| &ask.facts);
            let mut connection = store.steady(pool).await?;
            let rows = sqlx::query(CLAIM_MANY)
                .bind(asked().map(|a| a.event_id.as_str()).collect::<Vec<_>>())
                .bind(asked().map(|a| a.handler).collect::<Vec<_>>())
                .bind(plain.iter().map(|(_, g)| *g).collect::<Vec<_>>())
                .bind(facts().map(|f| f.event_type.as_str()).collect::<Vec<_>>())
                .bind(facts().map(|f| f.body_hash).collect::<Vec<_>>())
                .bind(facts().map(|f| f.hasura_id.as_deref()).collect::<Vec<_>>())
                .bind(facts().map(|f| f.message_id.as_deref()).collect::<Vec<_>>())
                .bind(facts().map(|f| f.hasura_retry).collect::<Vec<_>>())
                .bind(
                    facts()
                        .map(|f| f.correlation_id.as_deref())
                        .collect::<Vec<_>>(),
                )
                .bind(facts().map(|f| f.trace_id.as_deref()).collect::<Vec<_>>())
                .bind(until)
                .bind(store.instance())
                .bind(now)
                .fetch_all(&mut *connection)
                .await
                .map_err(failed)?;
            store.keep(pool, connection);
            for row in rows {
                let key = (row.get(0), row.get(1), row.get(2));
                taken.insert(key, (row.get(3), row.get(4)));
            }
        }
        Pool::Sqlite { .. } => {
            let mut tx = store.begin().await?;
            for (index, generation) in plain {
                let ask = &asks[*index];
                if let Some(got) = take_one(store, &mut tx, ask, *generation, now).await? {
                    let key = (ask.event_id.clone(), ask.handler.to_owned(), *generation);
                    taken.insert(key, got);
                }
            }
            tx.commit().await?;
        }
    }
    Ok(taken)
}

async fn take_one(
    store: &Store,
    tx: &mut Tx,
    ask: &Ask,
    generation: i32,
    now: Micros,
) -> Result<Option<(i64, i32)>> {
    let until = now.saturating_add(store.lease());
    let facts = &ask.facts;
    on!(tx, c => sqlx::query(CLAIM_ONE)
        .bind(ask.event_id.as_str())
        .bind(ask.handler)
        .bind(generation)
        .bind(facts.event_type.as_str())
        .bind(facts.body_hash)
        .bind(facts.hasura_id.as_deref())
        .bind(facts.message_id.as_deref())
        .bind(facts.hasura_retry)
        .bind(facts.correlation_id.as_deref())
        .bind(facts.trace_id.as_deref())
        .bind(until)
        .bind(store.instance())
        .bind(now)
        .fetch_optional(&mut *c)
        .await
        .map(|row| row.map(|row| (row.get(3), row.get(4)))))
    .map_err(failed)
}

async fn known(store: &Store, ask: &Ask) -> Result<Vec<Known>> {
    read!(store, pool => sqlx::query(OF_ONE)
        .bind(ask.event_id.as_str())
        .bind(ask.handler)
        .fetch_all(pool)
        .await
        .map(|rows| rows.iter().map(|row| Known {
            generation: row.get(0),
            state: row.get(1),
            lease_until: row.get(3),
            ended: Ended {
                generation: row.get(0),
                dead: row.get::<i16, _>(1) == DEAD,
                attempt: row.get(4),
                body_hash: row.get(5),
                message_id: row.get(6),
                hasura_retry: row.get(7),
                at: row.get::<Option<i64>, _>(8).unwrap_or_default(),
            },
        }).collect()))
    .map_err(failed)
}

/// Says why a run could not be taken.
fn not_ours(known: &[Known], generation: i32) -> Claimed {
    // What counts for a duplicate is the latest run, which may be a later one.
    let asked = known.iter().find(|run| run.generation == generation);
    let running = asked.filter(|run| run.state == RUNNING);
    let latest = known.iter().find(|run| matches!(run.state, DONE | DEAD));
    match (running, latest) {
        (Some(run), _) => Claimed::Running {
            until: run.lease_until,
        },
        (None, Some(run)) => Claimed::Ended(run.ended.clone()),
        // It was given back a moment ago.
        (None, None) => Claimed::Running { until: 0 },
    }
}

/// Takes a run that an operator asked for.
async fn claim_again(store: &Store, ask: &Ask, now: Micros) -> Result<Claimed> {
    let known = known(store, ask).await?;
    let mut tx = store.begin().await?;
    let latest = known.first();
    let alive = |run: &Known| run.state == RUNNING && run.lease_until >= now;
    let generation = match latest {
        None => 0,
        Some(run) if alive(run) => {
            return Ok(Claimed::Running {
                until: run.lease_until,
            });
        }
        Some(run) if ask.mode == Mode::Force && matches!(run.state, DONE | DEAD) => {
            run.generation + 1
        }
        Some(run) if run.state == DONE => return Ok(Claimed::Ended(run.ended.clone())),
        Some(run) => {
            free(&mut tx, ask, run.generation).await?;
            run.generation
        }
    };
    let taken = take_one(store, &mut tx, ask, generation, now).await?;
    tx.commit().await?;
    Ok(match taken {
        Some((fence, attempt)) => Claimed::Ours {
            generation,
            fence,
            attempt,
        },
        // Somebody else was faster by a moment.
        None => Claimed::Running { until: now },
    })
}

/// Opens a run that ended as a dead letter.
async fn free(tx: &mut Tx, ask: &Ask, generation: i32) -> Result<()> {
    let sql = "UPDATE inbox SET state = 0, attempt = 0 WHERE event_id = $1 AND handler = $2 \
               AND generation = $3 AND state = 3";
    on!(tx, c => sqlx::query(sql)
        .bind(ask.event_id.as_str())
        .bind(ask.handler)
        .bind(generation)
        .execute(&mut *c)
        .await
        .map(|_| ()))
    .map_err(failed)
}

/// Locks nothing that somebody else is just ending or taking over, and waits for nobody: what is
/// left out is renewed next time.
const RENEW_MANY: &str = "WITH seen AS (SELECT i.event_id, i.handler, i.generation, u.place, \
    (i.fence = u.fence AND i.state = 1) AS still FROM unnest($1::text[], $2::text[], $3::int[], \
    $4::bigint[]) WITH ORDINALITY AS u (event_id, handler, generation, fence, place) \
    JOIN inbox AS i ON i.event_id = u.event_id AND i.handler = u.handler \
    AND i.generation = u.generation FOR UPDATE OF i SKIP LOCKED), \
    renewed AS (UPDATE inbox SET lease_until = $5 FROM seen WHERE seen.still \
    AND inbox.event_id = seen.event_id AND inbox.handler = seen.handler \
    AND inbox.generation = seen.generation) \
    SELECT place FROM seen WHERE NOT still";

/// Prolongs leases; returns which of them are still held as far as is known, in the order given.
///
/// # Errors
/// When the database did not answer.
pub async fn renew(store: &Store, held: &[(RunKey, i64)]) -> Result<Vec<bool>> {
    let until = store.now().saturating_add(store.lease());
    let mut still = vec![true; held.len()];
    match store.pool() {
        Pool::Postgres(pool) => {
            let keys = || held.iter().map(|(key, _)| key);
            let lost: Vec<i64> = sqlx::query_scalar(RENEW_MANY)
                .bind(keys().map(|k| k.event_id.as_str()).collect::<Vec<_>>())
                .bind(keys().map(|k| k.handler).collect::<Vec<_>>())
                .bind(keys().map(|k| k.generation).collect::<Vec<_>>())
                .bind(held.iter().map(|(_, fence)| *fence).collect::<Vec<_>>())
                .bind(until)
                .fetch_all(pool)
                .await
                .map_err(failed)?;
            for place in lost {
                let index = usize::try_from(place - 1).unwrap_or(usize::MAX);
                if let Some(held) = still.get_mut(index) {
                    *held = false;
                }
            }
        }
        Pool::Sqlite { .. } => {
            let sql = "UPDATE inbox SET lease_until = $5 WHERE event_id = $1 AND handler = $2 \
                AND generation = $3 AND fence = $4 AND state = 1";
            let mut tx = store.begin().await?;
            for ((key, fence), still) in held.iter().zip(&mut still) {
                let done = on!(&mut tx, c => sqlx::query(sql)
                    .bind(key.event_id.as_str())
                    .bind(key.handler)
                    .bind(key.generation)
                    .bind(*fence)
                    .bind(until)
                    .execute(&mut *c)
                    .await
                    .map(|done| done.rows_affected()))
                .map_err(failed)?;
                *still = done == 1;
            }
            tx.commit().await?;
        }
    }
    Ok(still)
}
