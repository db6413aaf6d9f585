//! Keeps an eye on the database: brings its tables up to date once it is there, and tells whether
//! it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Pool, Store};
use crate::error::{BoxError, Error};
use crate::telemetry::Metrics;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// How long a look may take; a dead network does not answer at all.
const PATIENCE: Duration = Duration::from_secs(5);

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const AWAY: u8 = 2;
const WITHOUT_TABLES: u8 = 3;

/// What is known about the database.
///
/// Nothing waits for it at the start: a service whose database is away starts, says so in
/// `/ready`, and hands back what it cannot keep.
pub struct StoreWatch {
    store: Store,
    migrate: bool,
    state: AtomicU8,
    metrics: Arc<Metrics>,
}

impl StoreWatch {
    /// Makes a watch over `store`, which migrates it first if `migrate` says so.
    pub fn new(store: Store, migrate: bool, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            store,
            migrate,
            state: AtomicU8::new(UNKNOWN),
            metrics,
        })
    }

    /// Tells whether work can be kept, and if not, why.
    ///
    /// # Errors
    /// The reason, in words for `/ready`.
    pub fn ready(&self) -> Result<(), &'static str> {
        match self.state.load(Ordering::Relaxed) {
            UP => Ok(()),
            AWAY => Err("the database does not answer"),
            WITHOUT_TABLES => Err("the database has no tables; run `hookyard migrate`"),
            _ => Err("the database was not reached yet"),
        }
    }

    /// Looks every two seconds until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut migrated = !self.migrate;
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look(&mut migrated) => looked,
            };
            self.note(looked);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Looks once; the tables are brought up to date the first time this succeeds.
    ///
    /// # Errors
    /// Why it does not answer.
    pub async fn look(&self, migrated: &mut bool) -> Result<(), Error> {
        if !*migrated {
            // A migration may take long, and cutting it off helps nobody.
            self.store.migrate().await.map_err(unmigrated)?;
            *migrated = true;
        }
        let check = tokio::time::timeout(PATIENCE, self.store.check()).await;
        check.unwrap_or_else(|_| Err(super::away("no_answer")))
    }

    /// Brings the metrics up to date, before they are read.
    pub fn refresh_metrics(&self) {
        let (size, idle) = match self.store.pool() {
            Pool::Postgres(pool) => (pool.size() as usize, pool.num_idle()),
            Pool::Sqlite { write, read } => (
                (write.size() + read.size()) as usize,
                write.num_idle() + read.num_idle(),
            ),
        };
        let set = |state, number: usize| {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            let connections = &self.metrics.database.connections;
            connections.with_label_values(&[state]).set(number);
        };
        set("idle", idle);
        set("busy", size.saturating_sub(idle));
    }

    fn note(&self, looked: Result<(), Error>) {
        let before = self.state.load(Ordering::Relaxed);
        let now = match &looked {
            Ok(()) => UP,
            // It is there, and all of our connections are at work.
            Err(error) if before == UP && error.code().as_str() == "no_connection_free" => UP,
            Err(error) if error.code().as_str() == "tables_missing" => WITHOUT_TABLES,
            Err(_) => AWAY,
        };
        self.state.store(now, Ordering::Relaxed);
        let kind = if self.store.is_postgres() {
            "postgres"
        } else {
            "sqlite"
        };
        let up = self.metrics.database.up.with_label_values(&[kind]);
        up.set(i64::from(now == UP));
        if before == now {
            return;
        }
        match looked {
            Err(error) if now != UP => tracing::error!(
                alert = "database",
                error.code = error.code().as_str(),
                error.message = %error,
                "database does not answer; nothing is taken in until it does"
            ),
            _ => tracing::info!("database answers"),
        }
    }
}

/// Says why the tables could not be brought up to date. The library's text names a migration or
/// quotes the database, which may quote rows.
fn unmigrated(error: BoxError) -> Error {
    let migration = match error.downcast::<sqlx::migrate::MigrateError>() {
        Ok(migration) => *migration,
        Err(_) => return super::away("migration_failed"),
    };
    match migration {
        sqlx::migrate::MigrateError::Execute(error)
        | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => super::failed(error),
        sqlx::migrate::MigrateError::VersionMismatch(_) => super::away("migration_was_changed"),
        _ => super::away("migration_failed"),
    }
}
