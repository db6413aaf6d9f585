//! What wakes the workers: signals inside this process, and PostgreSQL's NOTIFY between several.
//!
//! A signal only saves waiting. Nothing relies on one to come: the tables are looked at from time
//! to time anyway.

use std::convert::Infallible;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Pool, Store, failed};
use crate::error::Result;

const EVENTS: &str = "hookyard_events";
const OUTBOX: &str = "hookyard_outbox";

/// Between two tries to listen when the database is away.
const RETRY: Duration = Duration::from_secs(1);
/// After so long without a signal it is asked whether the connection is still one.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two words to the other instances: each costs the database a commit.
const PACE: Duration = Duration::from_millis(20);

/// The signals of one process.
#[derive(Debug, Default)]
pub struct Wakeups {
    /// There may be due rows in `events`.
    pub events: Signal,
    /// There may be rows in `outbox`.
    pub outbox: Signal,
}

/// A signal; one that nobody waits for is kept for the next who does.
#[derive(Debug, Default)]
pub struct Signal {
    here: Notify,
    to_tell: Notify,
}

impl Signal {
    /// Waits for the signal.
    pub async fn notified(&self) {
        self.here.notified().await;
    }

    /// Wakes whoever waits here, and soon the other instances. To be called after the commit.
    pub fn notify_one(&self) {
        self.here.notify_one();
        self.to_tell.notify_one();
    }
}

impl Store {
    /// Returns the signals.
    pub fn wakeups(&self) -> &Wakeups {
        &self.inner.wakeups
    }

    /// Passes signals on between the instances until `stop`; a background task of every instance.
    ///
    /// With SQLite there is nothing to pass on.
    pub async fn listen(self, stop: CancellationToken) {
        let Pool::Postgres(pool) = self.pool() else {
            return;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            never = self.hear_on(pool) => match never {},
            never = self.tell_on(pool) => match never {},
        }
    }

    async fn hear_on(&self, pool: &PgPool) -> Infallible {
        let mut told = false;
        loop {
            if let Err(error) = self.hear(pool, &mut told).await
                && !std::mem::replace(&mut told, true)
            {
                let code = error.code();
                tracing::warn!(
                    error.code = code.as_str(),
                    "the database's signals are not heard; tables are polled meanwhile"
                );
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn hear(&self, pool: &PgPool, told: &mut bool) -> Result<Infallible> {
        let mut listener = PgListener::connect_with(pool).await.map_err(failed)?;
        listener
            .listen_all([EVENTS, OUTBOX])
            .await
            .map_err(failed)?;
        *told = false;
        loop {
            // What came before it listened is not repeated, so everybody has a look.
            self.wakeups().events.here.notify_one();
            self.wakeups().outbox.here.notify_one();
            loop {
                let Ok(heard) = tokio::time::timeout(SILENCE, listener.try_recv()).await else {
                    // Nothing to hear, or nobody to hear it from.
                    let ask = async {
                        let asked = sqlx::query("SELECT 1").execute(&mut listener).await;
                        asked.map(drop).map_err(failed)
                    };
                    self.in_time(ask).await?;
                    continue;
                };
                let Some(heard) = heard.map_err(failed)? else {
                    break;
                };
                if heard.payload() == self.instance() {
                    continue;
                }
                match heard.channel() {
                    EVENTS => self.wakeups().events.here.notify_one(),
                    _ => self.wakeups().outbox.here.notify_one(),
                }
            }
        }
    }

    /// Not in the transactions themselves: those that notify commit one after the other.
    async fn tell_on(&self, pool: &PgPool) -> Infallible {
        loop {
            // Rows of `events` are told by a trigger, whoever inserts them.
            self.wakeups().outbox.to_tell.notified().await;
            // Nobody has to hear it: the others poll.
            let tell = async {
                let told = sqlx::query("SELECT pg_notify($1, $2)")
                    .bind(OUTBOX)
                    .bind(self.instance())
                    .execute(pool)
                    .await;
                told.map(drop).map_err(failed)
            };
            self.in_time(tell).await.ok();
            tokio::time::sleep(PACE).await;
        }
    }
}
