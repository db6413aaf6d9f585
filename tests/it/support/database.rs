//! A database per test, of either kind, dropped when the test has ended.
//!
//! `scripts/test.sh` starts a PostgreSQL for all tests and names it in `TEST_POSTGRES_URL`. Without
//! it tests on PostgreSQL say so and pass, but with `CI=true` they fail.

use std::str::FromStr;
use std::time::Duration;

use hookyard::clock::{SharedClock, SystemClock};
use hookyard::config::StoreConfig;
use hookyard::store::Store;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use url::Url;

/// An empty database that no other test uses.
pub(crate) struct TestDatabase {
    url: String,
    /// Where a database of PostgreSQL can be dropped from, and its name.
    drop_from: Option<(Url, String)>,
    _folder: Option<tempfile::TempDir>,
}

/// Makes two tests of each function, `on_sqlite::…` and `on_postgres::…`; once in a file.
///
/// A function is `async fn sentence(database: TestDatabase)`.
macro_rules! both_databases {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                let database = $crate::support::TestDatabase::sqlite();
                Box::pin(super::$name(database)).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $name() {
                if let Some(database) = $crate::support::TestDatabase::postgres().await {
                    Box::pin(super::$name(database)).await;
                }
            })+
        }
    };
}

pub(crate) use both_databases;

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told where PostgreSQL is, they have no configuration"
)]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl TestDatabase {
    /// Makes a file for SQLite.
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hookyard.db");
        Self {
            url: format!("sqlite://{}", path.display()),
            drop_from: None,
            _folder: Some(folder),
        }
    }

    /// Makes a database in the PostgreSQL of the tests; `None` when there is none and the test is
    /// to be skipped.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub(crate) async fn postgres() -> Option<Self> {
        let Some(server) = variable("TEST_POSTGRES_URL") else {
            let why = "no PostgreSQL: set TEST_POSTGRES_URL or run scripts/test.sh";
            assert!(variable("CI").as_deref() != Some("true"), "{why}");
            eprintln!("skipped: {why}");
            return None;
        };
        Some(Self::postgres_at(&server).await)
    }

    /// Makes a database in this PostgreSQL.
    pub(crate) async fn postgres_at(server: &str) -> Self {
        let server = Url::parse(server).unwrap();
        let name = format!("hookyard_{:016x}", rand::random::<u64>());
        execute(&server, format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        let mut url = server.clone();
        url.set_path(&name);
        Self {
            url: url.into(),
            drop_from: Some((server, name)),
            _folder: None,
        }
    }

    /// Returns what `DATABASE_URL` has to be.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.drop_from.is_some()
    }

    /// Connects, with a lease of 30 s, without making the tables.
    pub(crate) fn connect(&self, clock: SharedClock) -> Store {
        self.connect_with(clock, |_| {})
    }

    /// Connects with settings of the test's own, without making the tables.
    pub(crate) fn connect_with(
        &self,
        clock: SharedClock,
        change: impl FnOnce(&mut StoreConfig),
    ) -> Store {
        let mut config = StoreConfig {
            url: self.url.clone().into(),
            migrate: true,
            max_connections: 8,
            acquire_timeout: Duration::from_secs(20),
            statement_timeout: Duration::from_secs(20),
            lease: Duration::from_secs(30),
            retention: Duration::from_secs(30 * 24 * 3600),
        };
        change(&mut config);
        Store::connect(&config, clock).unwrap()
    }

    /// Connects on the machine's clock and makes the tables. Each call is another instance.
    pub(crate) async fn store(&self) -> Store {
        self.store_on(SystemClock::shared()).await
    }

    /// Connects on a clock of the test's own and makes the tables.
    pub(crate) async fn store_on(&self, clock: SharedClock) -> Store {
        let store = self.connect(clock);
        store.migrate().await.unwrap();
        store
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some((server, name)) = self.drop_from.take() else {
            return;
        };
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            // A PostgreSQL that is gone took the database along.
            runtime.block_on(execute(&server, sql)).ok();
        });
        dropped.join().ok();
    }
}

async fn execute(server: &Url, sql: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnectOptions::from_str(server.as_str())?
        .connect()
        .await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    Ok(())
}
