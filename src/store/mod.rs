//! What Hookyard keeps in its database: the only folder with SQL, one file per table.
//!
//! SQLite and PostgreSQL have the same tables and go through the same functions. Where the two
//! speak differently a function holds both statements, side by side.

pub mod audit;
pub mod commit;
pub mod community;
pub mod crashes;
pub mod dead_letters;
mod ends;
pub mod erasure;
pub mod events;
pub mod explain;
mod failure;
mod find;
mod gauges;
pub mod inbox;
pub mod keep;
pub mod lanes;
pub mod marks;
mod migrations;
mod note;
mod notify;
pub mod outbox;
#[cfg(feature = "sandbox")]
pub mod proof;
pub mod redrives;
mod retention;
mod silence;
mod sql;
pub mod status;
mod steady;
pub mod subjects;
mod time;
mod watch;
mod write;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, Row, SqlitePool};

pub(crate) use failure::{advice, away, failed};
pub use lanes::{LaneKind, Lease};
pub use migrations::{Migration, Migrations, Unmigrated};
pub use note::DeliveryNote;
pub use notify::{Signal, Wakeups};
pub use retention::Swept;
pub use sql::Tx;
pub(crate) use sql::{micros_in, on, read};
pub use time::{At, Micros, StoreClock, micros_of, time_of};
pub use watch::StoreWatch;
pub use write::{Value, Write, timestamp};

use crate::clock::SharedClock;
use crate::config::StoreConfig;
use crate::error::{BoxError, Result};

/// How many lanes work is divided into: as many instances can share it, and no more.
pub const LANES: i16 = 64;

/// Connections to either database.
pub enum Pool {
    /// The embedded database: it has one writer, so writes queue for one connection.
    Sqlite {
        /// For writes.
        write: SqlitePool,
        /// For reads, which do not wait for writes.
        read: SqlitePool,
    },
    /// PostgreSQL.
    Postgres(PgPool),
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    clock: StoreClock,
    lease: Duration,
    patience: Duration,
    instance: String,
    wakeups: Wakeups,
    steady: steady::Steady,
}

impl Store {
    /// Connects. The database need not be there yet: connections are made when they are needed.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn connect(config: &StoreConfig, clock: SharedClock) -> Result<Self, BoxError> {
        let url = config.url.expose_secret();
        let pool = if url.starts_with("sqlite:") {
            sqlite(url, config)?
        } else {
            postgres(url, config)?
        };
        let inner = Inner {
            pool,
            clock: StoreClock::new(clock),
            lease: config.lease,
            patience: silence::patience(config),
            instance: format!("{:08x}-{}", rand::random::<u32>(), std::process::id()),
            wakeups: Wakeups::default(),
            steady: steady::Steady::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Makes sure that a connection is a session of PostgreSQL. Behind a pooler that hands out
    /// another one for each transaction a prepared statement may turn out to be somebody else's.
    async fn check_session(&self) -> Result<()> {
        let Pool::Postgres(pool) = self.pool() else {
            return Ok(());
        };
        // Asked without preparing anything.
        let sql = "SELECT COALESCE(current_setting('hookyard.session', TRUE), '')";
        let row = sqlx::raw_sql(sql).fetch_one(pool).await.map_err(failed)?;
        let session: String = row.try_get(0).map_err(failed)?;
        match session.as_str() {
            "own" => Ok(()),
            _ => Err(away("pooler_in_between")),
        }
    }

    /// Asks whether the database answers, has its tables, and can be written to.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<()> {
        self.check_session().await?;
        let writable = match self.pool() {
            Pool::Postgres(pool) => {
                let sql = "SELECT current_setting('transaction_read_only') = 'off' FROM lanes \
                    LIMIT 1";
                sqlx::query_scalar(sql).fetch_one(pool).await
            }
            Pool::Sqlite { read, .. } => {
                let sql = "SELECT COUNT(*) > 0 FROM lanes";
                sqlx::query_scalar(sql).fetch_one(read).await
            }
        };
        if writable.map_err(failed)? {
            Ok(())
        } else {
            Err(away("read_only"))
        }
    }

    /// Sets the clock by the database's, so that instances agree on when a lease ends.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sync_clock(&self) -> Result<()> {
        if let Pool::Postgres(pool) = self.pool() {
            let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT";
            let now: i64 = sqlx::query_scalar(sql)
                .fetch_one(pool)
                .await
                .map_err(failed)?;
            self.inner.clock.set(now);
        }
        Ok(())
    }

    /// Begins a write transaction.
    ///
    /// # Errors
    /// When no connection can be had in time.
    pub async fn begin(&self) -> Result<Tx> {
        match self.pool() {
            // Takes the write lock at once: a transaction that reads first and then cannot get
            // it would have to be begun anew.
            Pool::Sqlite { write, .. } => {
                let mut tx = write.begin_with("BEGIN IMMEDIATE").await;
                // When the disk is full SQLite rolls back by itself, of which the driver knows
                // nothing: that connection would never begin again.
                if let Err(sqlx::Error::InvalidSavePointStatement) = tx {
                    let stuck = write.acquire().await.map_err(failed)?;
                    stuck.close().await.map_err(failed)?;
                    tx = write.begin_with("BEGIN IMMEDIATE").await;
                }
                tx.map(Tx::Sqlite).map_err(failed)
            }
            Pool::Postgres(pool) => pool.begin().await.map(Tx::Postgres).map_err(failed),
        }
    }

    /// Begins a write transaction of statements that find their rows by key alone, so that one plan
    /// does for all times and sizes: to plan small batches takes longer than to run them.
    ///
    /// # Errors
    /// When no connection can be had in time.
    pub async fn begin_keyed(&self) -> Result<Tx> {
        const BEGIN: &str = "BEGIN; SET LOCAL plan_cache_mode = force_generic_plan";
        match self.pool() {
            Pool::Sqlite { .. } => self.begin().await,
            Pool::Postgres(pool) => pool
                .begin_with(BEGIN)
                .await
                .map(Tx::Postgres)
                .map_err(failed),
        }
    }

    /// Returns the present time by the database's clock.
    pub fn now(&self) -> Micros {
        self.inner.clock.now()
    }

    /// Returns how long a lease lasts, in microseconds.
    pub fn lease(&self) -> Micros {
        Micros::try_from(self.inner.lease.as_micros()).unwrap_or(Micros::MAX)
    }

    /// Returns this process's name in leases.
    pub fn instance(&self) -> &str {
        &self.inner.instance
    }

    /// Returns the connections.
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// Tells whether this is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        matches!(self.pool(), Pool::Postgres(_))
    }

    /// Closes the connections.
    pub async fn close(&self) {
        match self.pool() {
            Pool::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Pool::Postgres(pool) => {
                let closing = pool.close();
                self.inner.steady.give_back(Micros::MAX);
                closing.await;
            }
        }
    }
}

/// A setting of ours that shows whether those before it have arrived: a pooler may leave them out.
const OWN_SESSION: &str = "hookyard.session";

/// Tells whether the database is a file that is not there yet: to look must not make it.
pub(crate) fn lacks_its_file(config: &StoreConfig) -> bool {
    let url = config.url.expose_secret();
    let of_a_file = url.starts_with("sqlite:") && !url.contains(":memory:");
    let options = of_a_file.then(|| SqliteConnectOptions::from_str(url).ok());
    options.flatten().is_some_and(|options| {
        let file = options.get_filename();
        !file.as_os_str().is_empty() && !file.exists()
    })
}

fn sqlite(url: &str, config: &StoreConfig) -> Result<Pool, BoxError> {
    const NO_FILE: &str = "DATABASE_URL is not a URL of a SQLite file such as sqlite://hookyard.db";
    let options = SqliteConnectOptions::from_str(url).map_err(|_| NO_FILE)?;
    if options.get_filename().as_os_str().is_empty() {
        // SQLite would make a file of its own for each connection.
        return Err(NO_FILE.into());
    }
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Kept through a power cut too; a commit holds many completions, so this costs little.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(config.statement_timeout)
        .foreign_keys(true);
    let pool = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(config.acquire_timeout)
            .test_before_acquire(false)
    };
    Ok(Pool::Sqlite {
        write: pool(1).connect_lazy_with(options.clone()),
        read: pool(4).connect_lazy_with(options),
    })
}

fn postgres(url: &str, config: &StoreConfig) -> Result<Pool, BoxError> {
    let statement = format!("{}", config.statement_timeout.as_millis());
    // A transaction of ours never waits for anything but the database.
    let idle = format!("{}", config.statement_timeout.as_millis().saturating_mul(2));
    let options = PgConnectOptions::from_str(url)
        .map_err(
            |_| "DATABASE_URL is not a URL such as postgres://user:password@host:5432/database",
        )?
        .application_name("hookyard")
        .options([
            ("statement_timeout", statement.as_str()),
            ("lock_timeout", statement.as_str()),
            ("idle_in_transaction_session_timeout", idle.as_str()),
            // A plan made while a table was empty must not outlive its growth: batches are large
            // enough to be planned each time.
            ("plan_cache_mode", "force_custom_plan"),
            ("jit", "off"),
            (OWN_SESSION, "own"),
            // A backlog that came since the last ANALYZE looks to the planner like one row; found by
            // key, it costs the same whatever the statistics say.
            ("enable_seqscan", "off"),
            ("random_page_cost", "1.1"),
        ]);
    let pool = silence::without_silent(PgPoolOptions::new(), config)
        .max_connections(config.max_connections)
        .acquire_timeout(config.acquire_timeout)
        .test_before_acquire(false)
        .connect_lazy_with(options);
    Ok(Pool::Postgres(pool))
}
