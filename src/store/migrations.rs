//! Which changes to the tables this program knows, and which the database has.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::migrate::MigrateError;

use super::{Pool, Store, advice, away, failed, read};
use crate::error::{Error, Result};

/// How often a migration is begun again that others stand in the way of, and the pause before it:
/// meanwhile those who wait for the same tables have their turn.
const TRIES: usize = 60;
const PAUSE: Duration = Duration::from_millis(500);

/// One change to the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// What it is about.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// What this program knows, beside what the database has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrations {
    /// What this program knows, oldest first.
    pub known: Vec<Migration>,
    /// How many the database has that this program does not know: a newer one was here.
    pub newer: usize,
}

impl Migrations {
    /// Tells whether the tables are those of an older program. Where nothing is known of
    /// migrations, somebody made the tables in another way.
    pub fn is_outdated(&self) -> bool {
        let applied = self.known.iter().filter(|it| it.applied).count();
        applied > 0 && applied < self.known.len()
    }
}

impl Store {
    /// Brings the tables up to date. May be run by several instances at once; a database that is
    /// newer than this program is left as it is.
    ///
    /// # Errors
    /// When the database is away or refuses.
    pub async fn migrate(&self) -> Result<(), Unmigrated> {
        self.check_session().await?;
        let mut tries = 0;
        loop {
            let outcome = match self.pool() {
                Pool::Sqlite { write, .. } => {
                    let mut all = sqlx::migrate!("migrations/sqlite");
                    all.set_ignore_missing(true).run(write).await
                }
                Pool::Postgres(pool) => migrate_postgres(pool).await,
            };
            match outcome {
                Ok(()) => return Ok(()),
                // Another instance is at it, or somebody has a table in use.
                Err(error) if is_in_the_way(&error) && tries < TRIES => {
                    tokio::time::sleep(PAUSE).await;
                }
                // SQLite has no lock that spans migrations: another process may have been faster.
                Err(_) if !self.is_postgres() && tries < 20 => {}
                Err(error) => return Err(error.into()),
            }
            tries += 1;
        }
    }

    /// Compares the tables with what this program needs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn migrations(&self) -> Result<Migrations> {
        let sql = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
        let found: Result<Vec<i64>, _> =
            read!(self, pool => sqlx::query_scalar(sql).fetch_all(pool).await);
        let applied: BTreeSet<i64> = match found.map_err(failed) {
            Ok(versions) => versions.into_iter().collect(),
            Err(Error::Unavailable { code, .. }) if code.as_str() == "tables_missing" => {
                BTreeSet::new()
            }
            Err(error) => return Err(error),
        };
        let all = match self.pool() {
            Pool::Sqlite { .. } => sqlx::migrate!("migrations/sqlite"),
            Pool::Postgres(_) => sqlx::migrate!("migrations/postgres"),
        };
        let known: Vec<Migration> = all
            .iter()
            .map(|migration| Migration {
                version: migration.version,
                name: migration.description.to_string(),
                applied: applied.contains(&migration.version),
            })
            .collect();
        let newer = applied
            .iter()
            .filter(|version| known.iter().all(|it| it.version != **version));
        Ok(Migrations {
            newer: newer.count(),
            known,
        })
    }
}

/// Why the tables could not be brought up to date.
#[derive(Debug)]
pub struct Unmigrated {
    /// What is wrong.
    pub error: Error,
    /// The database's own words where they name tables and columns; others may quote rows.
    detail: Option<String>,
}

impl std::error::Error for Unmigrated {}

impl fmt::Display for Unmigrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        match advice(self.error.code().as_str()) {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

impl From<Error> for Unmigrated {
    fn from(error: Error) -> Self {
        Self {
            error,
            detail: None,
        }
    }
}

impl From<MigrateError> for Unmigrated {
    fn from(error: MigrateError) -> Self {
        let error = match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error,
            MigrateError::VersionMismatch(_) => return away("migration_was_changed").into(),
            _ => return away("migration_failed").into(),
        };
        let given = error.as_database_error();
        let code = given.and_then(|given| given.code()).unwrap_or_default();
        // Class 42: what our statements ask for and what is there do not fit together.
        let detail = given.filter(|_| code.len() == 5 && code.starts_with("42"));
        let detail = detail.map(|given| given.message().to_owned());
        let misfit = detail.is_some() && !matches!(code.as_ref(), "42501" | "42P01");
        Self {
            error: match misfit {
                true => away("tables_of_others"),
                false => failed(error),
            },
            detail,
        }
    }
}

/// On a connection that is closed afterwards: with it goes the lock that keeps other instances
/// off, also after a failure.
async fn migrate_postgres(pool: &PgPool) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    connection.close_on_drop();
    // A table of others that is taken over is written anew, however large it is. What waits for
    // a lock holds up everybody behind it, so that stays limited.
    sqlx::query("SET statement_timeout = 0")
        .execute(&mut *connection)
        .await?;
    let mut all = sqlx::migrate!("migrations/postgres");
    let outcome = all
        .set_ignore_missing(true)
        .run_direct(None, &mut *connection, false)
        .await;
    connection.close().await.ok();
    outcome
}

/// Tells whether a lock was waited for in vain.
fn is_in_the_way(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some("55P03")
}
