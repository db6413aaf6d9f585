//! Connections that have fallen silent: the machine at the other end is gone, and nothing says so.
//!
//! PostgreSQL ends a statement that takes too long, but only we can end one whose answer will never
//! come; the network would try for a quarter of an hour.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPoolOptions};

use super::{Store, away};
use crate::config::StoreConfig;
use crate::error::Result;

/// How long a connection may take to show that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// A connection that was used just now need not be asked.
const LATELY: Duration = Duration::from_secs(1);

/// How long work on the database may take altogether: a connection, and its longest statements.
pub(super) fn patience(config: &StoreConfig) -> Duration {
    let statements = config.statement_timeout.saturating_mul(2);
    config.acquire_timeout.saturating_add(statements)
}

impl Store {
    /// Waits for work on the database, but not for ever.
    ///
    /// # Errors
    /// Those of the work; when there is no answer it is not known whether it was done.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let waited = tokio::time::timeout(self.inner.patience, work).await;
        waited.unwrap_or_else(|_| Err(away("no_answer")))
    }
}

/// Has silent connections thrown away: whoever gave up waiting leaves theirs to the pool, which
/// would wait itself.
pub(super) fn without_silent(options: PgPoolOptions, config: &StoreConfig) -> PgPoolOptions {
    let limit = SIGN_OF_LIFE.min(config.acquire_timeout / 2);
    options
        .before_acquire(move |connection, metadata| {
            Box::pin(async move {
                if metadata.idle_for < LATELY {
                    return Ok(true);
                }
                sign_of_life(connection, limit).await
            })
        })
        .after_release(move |connection, _| Box::pin(sign_of_life(connection, limit)))
}

async fn sign_of_life(connection: &mut PgConnection, limit: Duration) -> sqlx::Result<bool> {
    let silent = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let asked = tokio::time::timeout(limit, connection.ping()).await;
    asked.unwrap_or(Err(silent)).map(|()| true)
}
