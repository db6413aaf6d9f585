//! How runs end in `inbox`, and what is noted beside: failed tries and repeats.

use std::collections::HashSet;

use sqlx::{PgConnection, Row};

use super::commit::{Begun, End, GiveBack, Repeat};
use super::inbox::{DEAD, DONE, RunKey};
use super::{Micros, Store, Tx, failed, on};
use crate::error::Result;

/// `+ 0` hides the state from the planner: it is to find runs by key, not by the index of what runs.
const END_MANY: &str = "UPDATE inbox SET state = u.state, outcome = u.outcome, reason = u.reason, \
    ended_at = $8, lease_until = 0 FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], \
    $5::smallint[], $6::text[], $7::text[]) WITH ORDINALITY \
    AS u (event_id, handler, generation, fence, state, outcome, reason, place) \
    WHERE inbox.event_id = u.event_id AND inbox.handler = u.handler \
    AND inbox.generation = u.generation AND inbox.fence = u.fence AND inbox.state + 0 = 1 \
    RETURNING u.place";

const END_ONE: &str = "UPDATE inbox SET state = $5, outcome = $6, reason = $7, ended_at = $8, \
    lease_until = 0 WHERE event_id = $1 AND handler = $2 AND generation = $3 AND fence = $4 \
    AND state = 1";

/// A run that was not claimed before: whoever inserts it first has run it.
macro_rules! end_new {
    ($insert:literal) => {
        concat!(
            "INSERT INTO inbox (event_id, handler, generation, state, fence, lease_until, \
             attempt, outcome, reason, event_type, body_hash, hasura_id, message_id, \
             hasura_retry, correlation_id, trace_id, instance, created_at, started_at, ended_at) ",
            $insert,
            " ON CONFLICT (event_id, handler, generation) DO UPDATE SET state = excluded.state, \
             fence = inbox.fence + 1, lease_until = 0, attempt = inbox.attempt + 1, \
             outcome = excluded.outcome, reason = excluded.reason, \
             instance = excluded.instance, ended_at = excluded.ended_at \
             WHERE inbox.state = 0 OR (inbox.state = 1 AND inbox.lease_until < excluded.ended_at) \
             RETURNING event_id, handler, generation"
        )
    };
}

/// Answers with their number and, unless all were ended by it, with those that were.
const END_NEW_MANY: &str = concat!(
    "WITH ended AS (",
    end_new!(
        "SELECT u.event_id, u.handler, u.generation, u.state, 1, 0, 1, u.outcome, u.reason, \
         u.event_type, u.body_hash, u.hasura_id, u.message_id, u.hasura_retry, u.correlation_id, \
         u.trace_id, $14, $15, $15, $15 FROM unnest($1::text[], $2::text[], $3::int[], \
         $4::smallint[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::text[], $10::text[], \
         $11::int[], $12::text[], $13::text[]) AS u (event_id, handler, generation, state, outcome, \
         reason, event_type, body_hash, hasura_id, message_id, hasura_retry, correlation_id, \
         trace_id)"
    ),
    ") SELECT NULL::text, NULL::text, COUNT(*)::int FROM ended \
     UNION ALL SELECT * FROM ended WHERE (SELECT COUNT(*) FROM ended) < $16"
);

const END_NEW_ONE: &str = end_new!(
    "VALUES ($1, $2, $3, $4, 1, 0, 1, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $15)"
);

const GIVE_BACK: &str = "UPDATE inbox SET state = 0, lease_until = 0 WHERE event_id = $1 \
    AND handler = $2 AND generation = $3 AND fence = $4 AND state = 1";

const FAILURE: &str = "INSERT INTO failures (event_id, handler, generation, attempt, error_class, \
    error_code, error_message, failed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

const REPEAT: &str = "INSERT INTO repeats (event_id, handler, kind, message_id, hasura_retry, \
    ran_again, came_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// Taken in one order by everybody, so that two batches never wait for each other. Claims are
/// made in this order, too.
const LOCK_MANY: &str = "SELECT 1 FROM inbox AS i JOIN unnest($1::text[], $2::text[], $3::int[]) \
    AS u (event_id, handler, generation) ON i.event_id = u.event_id AND i.handler = u.handler \
    AND i.generation = u.generation \
    ORDER BY i.event_id COLLATE \"C\", i.handler COLLATE \"C\", i.generation FOR UPDATE OF i";

/// Locks runs that are going to be ended or given back.
pub(super) async fn lock(tx: &mut Tx, keys: &[&RunKey]) -> Result<()> {
    if let Tx::Postgres(tx) = tx
        && keys.len() > 1
    {
        let all = || keys.iter();
        sqlx::query(LOCK_MANY)
            .bind(all().map(|key| key.event_id.as_str()).collect::<Vec<_>>())
            .bind(all().map(|key| key.handler).collect::<Vec<_>>())
            .bind(all().map(|key| key.generation).collect::<Vec<_>>())
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

impl End {
    fn state(&self) -> i16 {
        if self.dead_letter.is_some() {
            DEAD
        } else {
            DONE
        }
    }
}

/// Ends runs that hold claims. Sets `true` in `ended` for those whose fence was still good.
pub(super) async fn end_claimed(
    tx: &mut Tx,
    ends: &[(usize, &End, i64)],
    now: Micros,
    ended: &mut [bool],
) -> Result<()> {
    let mut mark = |index: usize| {
        if let Some(ended) = ended.get_mut(index) {
            *ended = true;
        }
    };
    if ends.len() > 1
        && let Tx::Postgres(tx) = tx
    {
        let all = || ends.iter().map(|(_, end, _)| *end);
        let rows = sqlx::query(END_MANY)
            .bind(all().map(|e| e.key.event_id.as_str()).collect::<Vec<_>>())
            .bind(all().map(|e| e.key.handler).collect::<Vec<_>>())
            .bind(all().map(|e| e.key.generation).collect::<Vec<_>>())
            .bind(ends.iter().map(|(_, _, fence)| *fence).collect::<Vec<_>>())
            .bind(all().map(End::state).collect::<Vec<_>>())
            .bind(all().map(|e| e.outcome).collect::<Vec<_>>())
            .bind(all().map(|e| e.reason.as_deref()).collect::<Vec<_>>())
            .bind(now)
            .fetch_all(&mut **tx)
            .await
            .map_err(failed)?;
        for row in rows {
            let place: i64 = row.get(0);
            let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
            if let Some((index, _, _)) = ends.get(place) {
                mark(*index);
            }
        }
        return Ok(());
    }
    for (index, end, fence) in ends {
        let done = on!(tx, c => sqlx::query(END_ONE)
            .bind(end.key.event_id.as_str())
            .bind(end.key.handler)
            .bind(end.key.generation)
            .bind(*fence)
            .bind(end.state())
            .bind(end.outcome)
            .bind(end.reason.as_deref())
            .bind(now)
            .execute(&mut *c)
            .await
            .map(|done| done.rows_affected()))
        .map_err(failed)?;
        if done == 1 {
            mark(*index);
        }
    }
    Ok(())
}

/// Ends runs that were not claimed. Sets `true` in `ended` for those that nobody ended before.
pub(super) async fn end_unclaimed(
    store: &Store,
    tx: &mut Tx,
    ends: &[(usize, &End, &Begun)],
    now: Micros,
    ended: &mut [bool],
) -> Result<()> {
    if ends.len() > 1
        && let Tx::Postgres(tx) = tx
    {
        return end_unclaimed_together(store, tx, ends, now, ended).await;
    }
    for (index, end, begun) in ends {
        let facts = &begun.facts;
        let row = on!(tx, c => sqlx::query(END_NEW_ONE)
            .bind(end.key.event_id.as_str())
            .bind(end.key.handler)
            .bind(end.key.generation)
            .bind(end.state())
            .bind(end.outcome)
            .bind(end.reason.as_deref())
            .bind(facts.event_type.as_str())
            .bind(facts.body_hash)
            .bind(facts.hasura_id.as_deref())
            .bind(facts.message_id.as_deref())
            .bind(facts.hasura_retry)
            .bind(facts.correlation_id.as_deref())
            .bind(facts.trace_id.as_deref())
            .bind(store.instance())
            .bind(now)
            .fetch_optional(&mut *c)
            .await
            .map(|row| row.is_some()))
        .map_err(failed)?;
        if row && let Some(ended) = ended.get_mut(*index) {
            *ended = true;
        }
    }
    Ok(())
}

/// Ends runs that were not claimed, by one statement: in a transaction, or as one.
pub(super) async fn end_unclaimed_together(
    store: &Store,
    connection: &mut PgConnection,
    ends: &[(usize, &End, &Begun)],
    now: Micros,
    ended: &mut [bool],
) -> Result<()> {
    let all = || ends.iter().map(|(_, end, _)| *end);
    let facts = || ends.iter().map(|(_, _, begun)| &begun.facts);
    let rows = sqlx::query(END_NEW_MANY)
        .bind(all().map(|e| e.key.event_id.as_str()).collect::<Vec<_>>())
        .bind(all().map(|e| e.key.handler).collect::<Vec<_>>())
        .bind(all().map(|e| e.key.generation).collect::<Vec<_>>())
        .bind(all().map(End::state).collect::<Vec<_>>())
        .bind(all().map(|e| e.outcome).collect::<Vec<_>>())
        .bind(all().map(|e| e.reason.as_deref()).collect::<Vec<_>>())
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
        .bind(store.instance())
        .bind(now)
        .bind(i64::try_from(ends.len()).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let inserted: HashSet<(Option<&str>, Option<&str>, i32)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let all = i32::try_from(ends.len()).is_ok_and(|all| inserted.contains(&(None, None, all)));
    for (index, end, _) in ends {
        let RunKey {
            event_id,
            handler,
            generation,
        } = &end.key;
        let this = all || inserted.contains(&(Some(event_id), Some(handler), *generation));
        if let Some(ended) = ended.get_mut(*index) {
            *ended |= this;
        }
    }
    Ok(())
}

/// Gives a claim back, and notes why the try failed.
pub(super) async fn give_back(tx: &mut Tx, back: &GiveBack, now: Micros) -> Result<()> {
    let key = &back.key;
    if let Some(fence) = back.fence {
        on!(tx, c => sqlx::query(GIVE_BACK)
            .bind(key.event_id.as_str())
            .bind(key.handler)
            .bind(key.generation)
            .bind(fence)
            .execute(&mut *c)
            .await
            .map(|_| ()))
        .map_err(failed)?;
    }
    let Some(failure) = &back.failure else {
        return Ok(());
    };
    on!(tx, c => sqlx::query(FAILURE)
        .bind(key.event_id.as_str())
        .bind(key.handler)
        .bind(key.generation)
        .bind(failure.attempt)
        .bind(failure.class)
        .bind(failure.code.as_str())
        .bind(failure.message.as_str())
        .bind(now)
        .execute(&mut *c)
        .await
        .map(|_| ()))
    .map_err(failed)
}

/// Notes that an event came again.
pub(super) async fn repeat(tx: &mut Tx, repeat: &Repeat, now: Micros) -> Result<()> {
    on!(tx, c => sqlx::query(REPEAT)
        .bind(repeat.event_id.as_str())
        .bind(repeat.handler)
        .bind(repeat.kind)
        .bind(repeat.message_id.as_deref())
        .bind(repeat.hasura_retry)
        .bind(repeat.ran_again)
        .bind(now)
        .execute(&mut *c)
        .await
        .map(|_| ()))
    .map_err(failed)
}
