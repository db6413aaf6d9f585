//! The database of one contestant: rows in, and when they are worked off.

use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::runtime::Runtime;

use super::meter::{Meter, Spent};

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A database of the cluster, asked from outside of any runtime.
pub(crate) struct Database {
    runtime: Runtime,
    pool: PgPool,
    pub(crate) url: String,
}

impl Database {
    /// Makes an empty database in the cluster.
    pub(crate) fn create(cluster: &str, name: &str) -> Self {
        let (server, _) = cluster.rsplit_once('/').unwrap();
        let cluster = Self::connect(cluster.to_owned());
        cluster.execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        cluster.execute(&format!("CREATE DATABASE {name}"));
        Self::connect(format!("{server}/{name}"))
    }

    fn connect(url: String) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let options = PgPoolOptions::new().max_connections(2);
        let pool = runtime.block_on(options.connect(&url)).unwrap();
        Self { runtime, pool, url }
    }

    /// Runs statements, one transaction for all of them.
    pub(crate) fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        let done = sqlx::raw_sql(sql).execute(&self.pool);
        self.runtime.block_on(done).unwrap();
    }

    /// Asks for one number.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        self.runtime.block_on(query.fetch_one(&self.pool)).unwrap()
    }

    /// Waits until the statement says true.
    pub(crate) fn wait_until(&self, sql: &str) {
        let started = Instant::now();
        loop {
            let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
            let met: bool = self.runtime.block_on(query.fetch_one(&self.pool)).unwrap();
            if met {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "it takes too long: {sql}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Adds rows in one transaction and waits until a process has worked them off. Tells what that
    /// took from the commit on.
    pub(crate) fn drain(&self, insert: &str, done: &str, process: u32) -> Spent {
        let tx = self.runtime.block_on(async {
            let mut tx = self.pool.begin().await.unwrap();
            let insert = sqlx::raw_sql(AssertSqlSafe(insert.to_owned()));
            insert.execute(&mut *tx).await.unwrap();
            tx
        });
        let meter = Meter::start(self, process);
        let started = Instant::now();
        self.runtime.block_on(tx.commit()).unwrap();
        self.wait_until(done);
        meter.stop(started.elapsed().as_secs_f64())
    }
}
