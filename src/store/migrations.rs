//! Which changes to the tables this program knows, and which the database has.

use std::collections::BTreeSet;

use super::{Pool, Store, failed, read};
use crate::error::{Error, Result};

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

impl Store {
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
