//! Statements put together from constant pieces, for questions whose conditions vary.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow};

use super::write::{bind_postgres, bind_sqlite};
use super::{Pool, Store, Tx, Value, failed};
use crate::error::Result;

/// A row that can be read from either database.
pub(super) trait Found:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Found for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

/// A statement's text with its values. Only constants become text; what came from outside is
/// always a value.
#[derive(Debug, Clone, Default)]
pub(super) struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    /// Begins with a text in which each `?` stands for the value given with it.
    pub(super) fn new(text: &'static str) -> Self {
        let mut sql = Self::default();
        sql.push(text);
        sql
    }

    /// Begins with one text for each database.
    pub(super) fn of(is_postgres: bool, postgres: &'static str, sqlite: &'static str) -> Self {
        Self::new(if is_postgres { postgres } else { sqlite })
    }

    /// Adds text without values.
    pub(super) fn push(&mut self, text: &'static str) {
        self.text.push_str(text);
    }

    /// Adds text; every `?` in it stands for the one value.
    pub(super) fn with(&mut self, text: &'static str, value: Value) {
        self.values.push(value);
        let place = format!("${}", self.values.len());
        self.text.push_str(&text.replace('?', &place));
    }

    /// Adds another statement's text and values, as a part of this one.
    pub(super) fn part(&mut self, part: &Conditions) {
        self.text.push_str(" WHERE TRUE");
        for (text, value) in &part.0 {
            self.text.push_str(" AND ");
            match value {
                Some(value) => self.with(text, value.clone()),
                None => self.push(text),
            }
        }
    }

    /// Reads all rows, outside a transaction.
    pub(super) async fn all<T: Found>(&self, store: &Store) -> Result<Vec<T>> {
        let text = AssertSqlSafe(self.text.clone());
        match store.pool() {
            Pool::Sqlite { read, .. } => {
                let query = self.values.iter().fold(sqlx::query(text), bind_sqlite);
                let rows = query.fetch_all(read).await.map_err(failed)?;
                rows.iter().map(T::from_row).collect::<sqlx::Result<_>>()
            }
            Pool::Postgres(pool) => {
                let query = self.values.iter().fold(sqlx::query(text), bind_postgres);
                let rows = query.fetch_all(pool).await.map_err(failed)?;
                rows.iter().map(T::from_row).collect::<sqlx::Result<_>>()
            }
        }
        .map_err(failed)
    }

    /// Reads at most one row, outside a transaction.
    pub(super) async fn one<T: Found>(&self, store: &Store) -> Result<Option<T>> {
        Ok(self.all(store).await?.pop())
    }

    /// Reads all rows, in a transaction.
    pub(super) async fn all_in<T: Found>(&self, tx: &mut Tx) -> Result<Vec<T>> {
        let text = AssertSqlSafe(self.text.clone());
        match tx {
            Tx::Sqlite(tx) => {
                let query = self.values.iter().fold(sqlx::query(text), bind_sqlite);
                let rows = query.fetch_all(&mut **tx).await.map_err(failed)?;
                rows.iter().map(T::from_row).collect::<sqlx::Result<_>>()
            }
            Tx::Postgres(tx) => {
                let query = self.values.iter().fold(sqlx::query(text), bind_postgres);
                let rows = query.fetch_all(&mut **tx).await.map_err(failed)?;
                rows.iter().map(T::from_row).collect::<sqlx::Result<_>>()
            }
        }
        .map_err(failed)
    }

    /// Reads at most one row, in a transaction.
    pub(super) async fn one_in<T: Found>(&self, tx: &mut Tx) -> Result<Option<T>> {
        Ok(self.all_in(tx).await?.pop())
    }

    /// Changes rows and returns how many.
    pub(super) async fn run(&self, tx: &mut Tx) -> Result<i64> {
        let text = AssertSqlSafe(self.text.clone());
        let rows = match tx {
            Tx::Sqlite(tx) => {
                let query = self.values.iter().fold(sqlx::query(text), bind_sqlite);
                query
                    .execute(&mut **tx)
                    .await
                    .map(|done| done.rows_affected())
            }
            Tx::Postgres(tx) => {
                let query = self.values.iter().fold(sqlx::query(text), bind_postgres);
                query
                    .execute(&mut **tx)
                    .await
                    .map(|done| done.rows_affected())
            }
        }
        .map_err(failed)?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }
}

/// Conditions that all have to hold; in each `?` stands for its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions(Vec<(&'static str, Option<Value>)>);

impl Conditions {
    /// Adds one.
    pub(super) fn and(&mut self, text: &'static str, value: Value) {
        self.0.push((text, Some(value)));
    }

    /// Adds one that has no value.
    pub(super) fn plain(&mut self, text: &'static str) {
        self.0.push((text, None));
    }

    /// Adds `text` when there is a value.
    pub(super) fn and_text(&mut self, text: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.and(text, words(value));
        }
    }
}

/// A text as a value.
pub(super) fn words(text: &str) -> Value {
    Value::Text(Some(text.to_owned()))
}

/// A number as a value.
pub(super) fn number(number: impl Into<i64>) -> Value {
    Value::Int(Some(number.into()))
}

/// A list of texts as one value: a JSON array.
pub(super) fn list(texts: &[String]) -> Value {
    Value::Text(Some(serde_json::Value::from(texts).to_string()))
}
