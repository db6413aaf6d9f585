//! Keeps an eye on the database: brings its tables up to date once it is there, and tells whether
//! it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Pool, Store, Unmigrated, advice};
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
const OUTDATED: u8 = 4;
const READ_ONLY: u8 = 5;
const REFUSES: u8 = 6;

/// What is known about the database.
///
/// Nothing waits for it at the start: a service whose database is away starts, says so in
/// `/ready`, and hands back what it cannot keep.
pub struct StoreWatch {
    store: Store,
    /// Whether the tables have still to be brought up to date.
    migrate: AtomicBool,
    /// Whether the tables have still to be compared with what this program needs.
    compare: AtomicBool,
    /// Whether leases go by the database's clock; a test's own clock stays as it is.
    keep_time: bool,
    state: AtomicU8,
    metrics: Arc<Metrics>,
}

impl StoreWatch {
    /// Makes a watch over `store`, which migrates it first if `migrate` says so, and sets its
    /// clock by the database's if `keep_time` does.
    pub fn new(store: Store, migrate: bool, keep_time: bool, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            store,
            migrate: AtomicBool::new(migrate),
            compare: AtomicBool::new(!migrate),
            keep_time,
            state: AtomicU8::new(UNKNOWN),
            metrics,
        })
    }

    /// Returns the database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the metrics it keeps up to date.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
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
            OUTDATED => Err("the database has older tables; run `hookyard migrate`"),
            READ_ONLY => Err("the database cannot be written to"),
            REFUSES => Err("the database refuses; the log says why"),
            _ => Err("the database was not reached yet"),
        }
    }

    /// Looks for the first time, before anything is taken in.
    ///
    /// # Errors
    /// What waiting does not mend: the database refuses our login or the migration. One that does
    /// not answer is no error; [`StoreWatch::run`] goes on looking.
    pub async fn begin(&self) -> Result<(), BoxError> {
        let looked = self.look().await;
        let hopeless = |error: &Error| {
            let codes = [
                "no_such_database",
                "pooler_in_between",
                "tables_of_others",
                "migration_failed",
                "migration_was_changed",
            ];
            error.needs_operator() || codes.contains(&error.code().as_str())
        };
        match looked {
            Err(trouble) if hopeless(&trouble.error) => Err(trouble.into()),
            looked => {
                self.note(looked.map_err(|trouble| trouble.error));
                Ok(())
            }
        }
    }

    /// Looks every two seconds until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            self.store.give_steady_back();
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look() => looked,
            };
            self.note(looked.map_err(|trouble| trouble.error));
        }
    }

    /// Looks once; the tables are brought up to date the first time this succeeds.
    async fn look(&self) -> Result<(), Unmigrated> {
        if self.migrate.load(Ordering::Relaxed) {
            // It may take long, and cutting it off helps nobody.
            Box::pin(self.store.migrate()).await?;
            self.migrate.store(false, Ordering::Relaxed);
        }
        let ask = async {
            self.store.check().await?;
            if self.compare.load(Ordering::Relaxed) {
                if self.store.migrations().await?.is_outdated() {
                    return Err(super::away("tables_outdated"));
                }
                self.compare.store(false, Ordering::Relaxed);
            }
            if self.keep_time {
                self.store.sync_clock().await?;
            }
            Ok(())
        };
        let asked = tokio::time::timeout(PATIENCE, ask).await;
        Ok(asked.unwrap_or_else(|_| Err(super::away("no_answer")))?)
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
            Err(error) => match error.code().as_str() {
                "tables_missing" => WITHOUT_TABLES,
                "tables_outdated" => OUTDATED,
                "read_only" => READ_ONLY,
                "pooler_in_between" | "database_error" | "driver_error" => REFUSES,
                _ if error.needs_operator() => REFUSES,
                _ => AWAY,
            },
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
                advice = advice(error.code().as_str()),
                "database cannot be worked with; nothing is taken in until it can"
            ),
            _ => tracing::info!("database answers"),
        }
    }
}
