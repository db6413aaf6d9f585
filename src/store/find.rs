//! Statements put together from constant pieces, for questions whose conditions vary.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, FromRow, Postgres, Sqlite};
use uuid::Uuid;

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

/// A piece of a statement: the same for both databases, or one for each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    postgres: &'static str,
    sqlite: &'static str,
}

impl From<&'static str> for Text {
    fn from(both: &'static str) -> Self {
        Self::each(both, both)
    }
}

impl Text {
    /// A text for each database.
    pub(super) const fn each(postgres: &'static str, sqlite: &'static str) -> Self {
        Self { postgres, sqlite }
    }
}

/// Makes a [`Text`] of literals and of what the databases spell differently: `uuid` is a value that
/// is compared with a UUID, `[time]` a time as microseconds since 1970, `kept` when a dead letter was
/// kept, which rows that other services add only say in a column of their own.
macro_rules! text {
    (@$database:ident kept) => {
        concat!(
            "CASE WHEN kept_at > 0 THEN kept_at ELSE COALESCE(",
            text!(@$database ["created_at"]),
            ", 0) END"
        )
    };
    (@postgres uuid) => { "CAST(? AS UUID)" };
    (@postgres [$time:literal]) => {
        $crate::store::micros_in!($time)
    };
    (@sqlite uuid) => { "?" };
    (@sqlite [$time:literal]) => {
        concat!("CAST(ROUND((julianday(", $time, ") - 2440587.5) * 86400000) AS INTEGER) * 1000")
    };
    (@$database:ident $both:literal) => { $both };
    ($($part:tt)+) => {
        $crate::store::find::Text::each(
            concat!($(text!(@postgres $part)),+),
            concat!($(text!(@sqlite $part)),+),
        )
    };
}
pub(super) use text;

/// The row with an id.
pub(super) const BY_ID: Text = text!(" WHERE id = " uuid);

/// A statement's text with its values. Only constants become text; what came from outside is
/// always a value.
#[derive(Debug, Clone, Default)]
pub(super) struct Sql {
    postgres: Statement,
    sqlite: Statement,
}

/// How a statement reads for one database.
#[derive(Debug, Clone, Default)]
struct Statement {
    text: String,
    values: Vec<Value>,
}

impl Statement {
    fn push(&mut self, text: &str, value: Option<&Value>) {
        match value {
            Some(value) if text.contains('?') => {
                self.values.push(value.clone());
                let place = format!("${}", self.values.len());
                self.text.push_str(&text.replace('?', &place));
            }
            _ => self.text.push_str(text),
        }
    }
}

impl Sql {
    /// Begins with a text without values.
    pub(super) fn new(text: impl Into<Text>) -> Self {
        let mut sql = Self::default();
        sql.push(text);
        sql
    }

    /// Adds text without values.
    pub(super) fn push(&mut self, text: impl Into<Text>) {
        self.add(text.into(), None);
    }

    /// Adds text; every `?` in it stands for the one value.
    pub(super) fn with(&mut self, text: impl Into<Text>, value: Value) {
        self.add(text.into(), Some(&value));
    }

    fn add(&mut self, text: Text, value: Option<&Value>) {
        self.postgres.push(text.postgres, value);
        self.sqlite.push(text.sqlite, value);
    }

    /// Adds conditions.
    pub(super) fn part(&mut self, part: &Conditions) {
        self.push(" WHERE TRUE");
        for (text, value) in &part.0 {
            self.push(" AND ");
            self.add(*text, value.as_ref());
        }
    }

    /// Adds the condition for the row of `events` that holds an event.
    pub(super) fn row_of_event(&mut self, event_id: &str) {
        let by_key = Text::each(
            " WHERE (event_key = ?",
            " WHERE (event_key = ? OR (event_key IS NULL AND id = ?))",
        );
        self.with(by_key, words(event_id));
        match Uuid::parse_str(event_id) {
            Ok(id) => {
                let text = " OR (event_key IS NULL AND id = CAST(? AS UUID)))";
                self.with(Text::each(text, ""), words(&id.to_string()));
            }
            Err(_) => self.push(Text::each(")", "")),
        }
    }

    /// Reads all rows, outside a transaction.
    pub(super) async fn all<T: Found>(&self, store: &Store) -> Result<Vec<T>> {
        match store.pool() {
            Pool::Sqlite { read, .. } => {
                let rows = self.for_sqlite().fetch_all(read).await.map_err(failed)?;
                rows.iter().map(T::from_row).collect::<sqlx::Result<_>>()
            }
            Pool::Postgres(pool) => {
                let rows = self.for_postgres().fetch_all(pool).await.map_err(failed)?;
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
        match tx {
            Tx::Sqlite(tx) => {
                let rows = self.for_sqlite().fetch_all(&mut **tx).await;
                let rows = rows.map_err(failed)?;
                rows.iter().map(T::from_row).collect::<sqlx::Result<_>>()
            }
            Tx::Postgres(tx) => {
                let rows = self.for_postgres().fetch_all(&mut **tx).await;
                let rows = rows.map_err(failed)?;
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
        let rows = match tx {
            Tx::Sqlite(tx) => {
                let done = self.for_sqlite().execute(&mut **tx).await;
                done.map(|done| done.rows_affected())
            }
            Tx::Postgres(tx) => {
                let done = self.for_postgres().execute(&mut **tx).await;
                done.map(|done| done.rows_affected())
            }
        }
        .map_err(failed)?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    fn for_sqlite(&self) -> Query<'_, Sqlite, SqliteArguments> {
        let query = sqlx::query(AssertSqlSafe(self.sqlite.text.clone()));
        self.sqlite.values.iter().fold(query, bind_sqlite)
    }

    fn for_postgres(&self) -> Query<'_, Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(self.postgres.text.clone()));
        self.postgres.values.iter().fold(query, bind_postgres)
    }
}

/// Conditions that all have to hold; in each `?` stands for its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions(Vec<(Text, Option<Value>)>);

impl Conditions {
    /// Adds one.
    pub(super) fn and(&mut self, text: impl Into<Text>, value: Value) {
        self.0.push((text.into(), Some(value)));
    }

    /// Adds one that has no value.
    pub(super) fn plain(&mut self, text: &'static str) {
        self.0.push((text.into(), None));
    }

    /// Adds `text` when there is a value.
    pub(super) fn and_text(&mut self, text: impl Into<Text>, value: Option<&str>) {
        if let Some(value) = value {
            self.and(text, words(value));
        }
    }

    /// Adds `text` when there is a number.
    pub(super) fn and_number(&mut self, text: impl Into<Text>, value: Option<i64>) {
        if let Some(value) = value {
            self.and(text, number(value));
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
