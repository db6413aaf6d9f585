//! The right to work on a lane: a lease that ends by itself, and a fence that tells who came last.
//!
//! A lane is worked on by one instance at a time, so what is in it stays in order. Whoever marks
//! rows calls [`still_ours`] first in the transaction: after a pause the lane may have moved on.

use super::{LANES, Micros, Pool, Store, Tx, failed};
use crate::error::Result;

/// What a lane is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneKind {
    /// Rows of `events`, by aggregate.
    Events = 0,
    /// Rows of `outbox`, by ordering key.
    Outbox = 1,
}

/// The right to work on one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which lane.
    pub lane: i16,
    /// Counts the leases of this lane; only the highest may mark rows.
    pub fence: i64,
    /// When it ends, by the store's clock, unless it is renewed.
    pub until: Micros,
    /// Whether the last holder never gave the lane back: it may have died of a row in it.
    pub left: bool,
}

/// Lanes nobody has a lease of: `$1` kind, `$2` now, `$3` how many. In no order, so that no lane
/// waits for ever behind busier ones.
macro_rules! free {
    ($and:expr) => {
        concat!(
            "SELECT l.lane FROM lanes l WHERE l.kind = $1 AND l.lease_until <= $2 \
             AND l.paused_until <= $2 AND ",
            $and,
            " ORDER BY random() LIMIT $3"
        )
    };
}

/// `OFFSET` keeps PostgreSQL from turning the question into a join over the whole table, and the
/// order makes it look at the first row of the partial index.
macro_rules! events_due {
    () => {
        "EXISTS (SELECT 1 FROM events e WHERE e.lane = l.lane AND e.processed IS NOT TRUE \
         AND e.next_attempt_at <= $2 ORDER BY e.created_at, e.seq LIMIT 1 OFFSET 0)"
    };
}

macro_rules! outbox_due {
    () => {
        "EXISTS (SELECT 1 FROM outbox o WHERE o.lane = l.lane AND o.state = 0 \
         ORDER BY o.seq LIMIT 1 OFFSET 0)"
    };
}

/// Counts the holders in a row that went without giving the lane back. Whoever gives it back sets
/// it to 0.
macro_rules! take {
    () => {
        "UPDATE lanes SET fence = lanes.fence + 1, lease_until = $4, holder = $5, \
         failures = CASE WHEN lanes.holder IS NULL THEN 0 ELSE lanes.failures + 1 END"
    };
}

/// Takes free lanes: `$4` end of the lease, `$5` holder.
macro_rules! claim {
    ($free:expr) => {
        concat!(
            // Materialized, or a join might ask for free lanes more than once.
            "WITH free AS MATERIALIZED (",
            $free,
            " FOR UPDATE OF l SKIP LOCKED) ",
            take!(),
            " FROM free WHERE lanes.kind = $1 AND lanes.lane = free.lane \
             RETURNING lanes.lane, lanes.fence, lanes.failures"
        )
    };
}

const FREE_WITH_EVENTS: &str = free!(events_due!());
const FREE_WITH_OUTBOX: &str = free!(outbox_due!());
const CLAIM_WITH_EVENTS: &str = claim!(free!(events_due!()));
const CLAIM_WITH_OUTBOX: &str = claim!(free!(outbox_due!()));
const CLAIM_THESE: &str = claim!(free!("l.lane = ANY($6)"));

const CLAIM_ONE: &str = concat!(
    take!(),
    " WHERE kind = $1 AND lease_until <= $2 AND paused_until <= $2 AND lane = $3 \
     RETURNING lane, fence, failures"
);

/// Locks the lanes in one order everywhere, so that two transactions never wait for each other.
macro_rules! mine {
    () => {
        "SELECT l.lane FROM lanes l JOIN unnest($2::SMALLINT[], $3::BIGINT[]) AS mine (lane, fence) \
         ON l.lane = mine.lane AND l.fence = mine.fence WHERE l.kind = $1 \
         ORDER BY l.lane FOR UPDATE OF l"
    };
}

const LOCK_MINE: &str = mine!();
const RENEW_MINE: &str = concat!(
    "WITH held AS MATERIALIZED (",
    mine!(),
    ") UPDATE lanes SET lease_until = $4, holder = $5 FROM held WHERE lanes.kind = $1 AND lanes.lane = held.lane RETURNING lanes.lane"
);
const RELEASE_MINE: &str = concat!(
    "WITH held AS MATERIALIZED (",
    mine!(),
    ") UPDATE lanes SET lease_until = 0, holder = NULL, failures = 0 FROM held WHERE lanes.kind = $1 AND lanes.lane = held.lane"
);

const ONE_IS_MINE: &str = "SELECT 1 FROM lanes WHERE kind = $1 AND lane = $2 AND fence = $3";
const RENEW_ONE: &str = "UPDATE lanes SET lease_until = $4, holder = $5 \
     WHERE kind = $1 AND lane = $2 AND fence = $3";
const RELEASE_ONE: &str = "UPDATE lanes SET lease_until = 0, holder = NULL, failures = 0 \
     WHERE kind = $1 AND lane = $2 AND fence = $3";
const PAUSE_ONE: &str = "UPDATE lanes SET lease_until = 0, holder = NULL, failures = 0, \
     paused_until = $4 WHERE kind = $1 AND lane = $2 AND fence = $3";

impl LaneKind {
    fn number(self) -> i16 {
        self as i16
    }
}

impl Store {
    /// Takes at most `max` lanes that hold due work and that nobody has a lease of.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn claim_lanes(&self, kind: LaneKind, max: usize) -> Result<Vec<Lease>> {
        let most = i64::try_from(max).unwrap_or(i64::MAX).min(LANES.into());
        let (free, claim) = match kind {
            LaneKind::Events => (FREE_WITH_EVENTS, CLAIM_WITH_EVENTS),
            LaneKind::Outbox => (FREE_WITH_OUTBOX, CLAIM_WITH_OUTBOX),
        };
        let now = self.now();
        let until = now.saturating_add(self.lease());
        match self.pool() {
            Pool::Postgres(pool) => {
                let rows = sqlx::query_as(claim)
                    .bind(kind.number())
                    .bind(now)
                    .bind(most)
                    .bind(until)
                    .bind(self.instance())
                    .fetch_all(pool)
                    .await
                    .map_err(failed)?;
                Ok(leases(rows, until))
            }
            Pool::Sqlite { read, .. } => {
                // Idle instances only read: the one writer is not kept busy by them.
                let lanes: Vec<i16> = sqlx::query_scalar(free)
                    .bind(kind.number())
                    .bind(now)
                    .bind(most)
                    .fetch_all(read)
                    .await
                    .map_err(failed)?;
                self.claim_one_by_one(kind, &lanes).await
            }
        }
    }

    /// Takes those of `lanes` that nobody has a lease of.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn claim_these_lanes(&self, kind: LaneKind, lanes: &[i16]) -> Result<Vec<Lease>> {
        if lanes.is_empty() {
            return Ok(Vec::new());
        }
        let Pool::Postgres(pool) = self.pool() else {
            return self.claim_one_by_one(kind, lanes).await;
        };
        let now = self.now();
        let until = now.saturating_add(self.lease());
        let rows = sqlx::query_as(CLAIM_THESE)
            .bind(kind.number())
            .bind(now)
            .bind(i64::from(LANES))
            .bind(until)
            .bind(self.instance())
            .bind(lanes)
            .fetch_all(pool)
            .await
            .map_err(failed)?;
        Ok(leases(rows, until))
    }

    async fn claim_one_by_one(&self, kind: LaneKind, lanes: &[i16]) -> Result<Vec<Lease>> {
        if lanes.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin().await?;
        let now = self.now();
        let until = now.saturating_add(self.lease());
        let mut rows = Vec::new();
        for lane in lanes {
            let row: Option<Taken> = super::on!(&mut tx, c => sqlx::query_as(CLAIM_ONE)
                .bind(kind.number())
                .bind(now)
                .bind(*lane)
                .bind(until)
                .bind(self.instance())
                .fetch_optional(&mut *c)
                .await)
            .map_err(failed)?;
            rows.extend(row);
        }
        tx.commit().await?;
        Ok(leases(rows, until))
    }

    /// Makes leases last from now; returns those that are still ours.
    ///
    /// One that has run out is renewed as well when nobody has taken the lane since.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn renew_lanes(&self, kind: LaneKind, leases: &[Lease]) -> Result<Vec<Lease>> {
        let until = self.now().saturating_add(self.lease());
        let renewed: Vec<i16> = match self.pool() {
            Pool::Postgres(pool) => {
                let (lanes, fences) = columns(leases);
                sqlx::query_scalar(RENEW_MINE)
                    .bind(kind.number())
                    .bind(lanes)
                    .bind(fences)
                    .bind(until)
                    .bind(self.instance())
                    .fetch_all(pool)
                    .await
                    .map_err(failed)?
            }
            Pool::Sqlite { .. } => {
                let mut tx = self.begin().await?;
                let mut renewed = Vec::new();
                for lease in leases {
                    if self.set(&mut tx, RENEW_ONE, kind, lease, until).await? {
                        renewed.push(lease.lane);
                    }
                }
                tx.commit().await?;
                renewed
            }
        };
        let ours = leases.iter().filter(|lease| renewed.contains(&lease.lane));
        Ok(ours.map(|lease| Lease { until, ..*lease }).collect())
    }

    /// Gives lanes back before their leases end.
    ///
    /// Rows that were committed before this returns are to be looked for once more afterwards:
    /// whoever wrote them may have found the lane taken.
    ///
    /// # Errors
    /// When the database is away; the leases end by themselves then.
    pub async fn release_lanes(&self, kind: LaneKind, leases: &[Lease]) -> Result<()> {
        if leases.is_empty() {
            return Ok(());
        }
        match self.pool() {
            Pool::Postgres(pool) => {
                let (lanes, fences) = columns(leases);
                sqlx::query(RELEASE_MINE)
                    .bind(kind.number())
                    .bind(lanes)
                    .bind(fences)
                    .execute(pool)
                    .await
                    .map_err(failed)?;
            }
            Pool::Sqlite { .. } => {
                let mut tx = self.begin().await?;
                for lease in leases {
                    super::on!(&mut tx, c => sqlx::query(RELEASE_ONE)
                        .bind(kind.number())
                        .bind(lease.lane)
                        .bind(lease.fence)
                        .execute(&mut *c)
                        .await
                        .map(drop))
                    .map_err(failed)?;
                }
                tx.commit().await?;
            }
        }
        Ok(())
    }

    /// Gives a lane back and keeps everybody off it until `until`; returns whether it was ours.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn pause_lane(&self, kind: LaneKind, lease: &Lease, until: Micros) -> Result<bool> {
        let mut tx = self.begin().await?;
        let ours = super::on!(&mut tx, c => sqlx::query(PAUSE_ONE)
            .bind(kind.number())
            .bind(lease.lane)
            .bind(lease.fence)
            .bind(until)
            .execute(&mut *c)
            .await
            .map(|done| done.rows_affected() == 1))
        .map_err(failed)?;
        tx.commit().await?;
        Ok(ours)
    }

    async fn set(
        &self,
        tx: &mut Tx,
        sql: &'static str,
        kind: LaneKind,
        lease: &Lease,
        until: Micros,
    ) -> Result<bool> {
        super::on!(tx, c => sqlx::query(sql)
            .bind(kind.number())
            .bind(lease.lane)
            .bind(lease.fence)
            .bind(until)
            .bind(self.instance())
            .execute(&mut *c)
            .await
            .map(|done| done.rows_affected() == 1))
        .map_err(failed)
    }
}

/// Tells which leases are still the last ones of their lanes, and keeps it so until `tx` ends.
///
/// # Errors
/// When the database is away.
pub async fn still_ours(tx: &mut Tx, kind: LaneKind, leases: &[Lease]) -> Result<Vec<i16>> {
    match tx {
        Tx::Postgres(tx) => {
            let (lanes, fences) = columns(leases);
            sqlx::query_scalar(LOCK_MINE)
                .bind(kind.number())
                .bind(lanes)
                .bind(fences)
                .fetch_all(&mut **tx)
                .await
                .map_err(failed)
        }
        // Nobody else writes while this transaction lasts.
        Tx::Sqlite(tx) => {
            let mut ours = Vec::new();
            for lease in leases {
                let held = sqlx::query(ONE_IS_MINE)
                    .bind(kind.number())
                    .bind(lease.lane)
                    .bind(lease.fence)
                    .fetch_optional(&mut **tx)
                    .await
                    .map_err(failed)?;
                ours.extend(held.map(|_| lease.lane));
            }
            Ok(ours)
        }
    }
}

/// Lane, fence, and how many holders in a row have left it behind.
type Taken = (i16, i64, i32);

fn leases(rows: Vec<Taken>, until: Micros) -> Vec<Lease> {
    let lease = |(lane, fence, failures)| Lease {
        lane,
        fence,
        until,
        left: failures > 0,
    };
    rows.into_iter().map(lease).collect()
}

fn columns(leases: &[Lease]) -> (Vec<i16>, Vec<i64>) {
    leases.iter().map(|lease| (lease.lane, lease.fence)).unzip()
}
