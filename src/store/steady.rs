//! Connections kept from one batch to the next.
//!
//! The pool has each connection that is given back show that it is alive, which takes longer than
//! many a batch. One that works off batch after batch shows it all the time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use super::{Micros, Store, failed};
use crate::error::Result;

/// A connection that has not worked for so long is given back.
const LATELY: Micros = 500_000;

/// One of so many connections of a pool is kept at most: the others are everybody's.
const SHARE: u32 = 4;

/// The connections that are kept, and since when.
#[derive(Default)]
pub(super) struct Steady(Mutex<Vec<(PoolConnection<Postgres>, Micros)>>);

impl Steady {
    fn kept(&self) -> MutexGuard<'_, Vec<(PoolConnection<Postgres>, Micros)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back those that have not worked lately; all of them from a time in the future on.
    pub(super) fn give_back(&self, now: Micros) {
        self.kept()
            .retain(|(_, since)| now.saturating_sub(*since) < LATELY);
    }
}

impl Store {
    /// Returns a connection for single statements, to be handed to [`Store::keep`] when they went
    /// well. Dropped, it goes to the pool.
    pub(super) async fn steady(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>> {
        self.inner.steady.give_back(self.now());
        let kept = self.inner.steady.kept().pop();
        match kept {
            Some((connection, _)) => Ok(connection),
            None => pool.acquire().await.map_err(failed),
        }
    }

    /// Gives connections back that have not worked lately.
    pub(super) fn give_steady_back(&self) {
        self.inner.steady.give_back(self.now());
    }

    /// Keeps a connection for the next batch, if there is room.
    pub(super) fn keep(&self, pool: &PgPool, connection: PoolConnection<Postgres>) {
        let most = pool.options().get_max_connections() / SHARE;
        let mut kept = self.inner.steady.kept();
        if !pool.is_closed() && kept.len() < usize::try_from(most).unwrap_or(0) {
            kept.push((connection, self.now()));
        }
    }
}
