//! A handler's own statement, run in the transaction that completes its run.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Postgres, Sqlite};
use uuid::Uuid;

use super::failure::refused_statement;
use super::{Micros, Tx};
use crate::error::{Error, Result};

/// A value bound to a statement, or a null of its type: PostgreSQL wants to know the type of a null.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// True or false.
    Bool(Option<bool>),
    /// A whole number.
    Int(Option<i64>),
    /// A floating-point number.
    Float(Option<f64>),
    /// Text, also for UUIDs, times and JSON: in PostgreSQL's statement write `CAST($1 AS UUID)`.
    Text(Option<String>),
    /// Bytes.
    Bytes(Option<Vec<u8>>),
}

/// What can be bound to a statement of a [`Write`].
pub trait IntoValue {
    /// Returns a value, or a null of its type.
    fn into_value(value: Option<Self>) -> Value
    where
        Self: Sized;
}

macro_rules! into_value {
    ($($from:ty, $kind:ident, $convert:expr;)*) => {
        $(impl IntoValue for $from {
            fn into_value(value: Option<Self>) -> Value {
                Value::$kind(value.map($convert))
            }
        })*
    };
}

into_value! {
    bool, Bool, |value| value;
    i64, Int, |value| value;
    i32, Int, i64::from;
    f64, Float, |value| value;
    String, Text, |value| value;
    &str, Text, str::to_owned;
    Uuid, Text, |id| id.to_string();
    Vec<u8>, Bytes, |value| value;
}

/// A statement with its values: an upsert, an update; run when the handler has succeeded, in the
/// transaction that completes its run, so that it happens once or not at all.
#[derive(Debug, Clone)]
pub struct Write {
    postgres: &'static str,
    sqlite: &'static str,
    values: Vec<Value>,
    rows: Option<u64>,
}

impl Write {
    /// Takes a statement that both databases understand, with `$1`, `$2`, … for its values.
    pub fn new(sql: &'static str) -> Self {
        Self::of(sql, sql)
    }

    /// Takes one statement for each database, with the same values.
    pub fn of(postgres: &'static str, sqlite: &'static str) -> Self {
        Self {
            postgres,
            sqlite,
            values: Vec::new(),
            rows: None,
        }
    }

    /// Binds the next value.
    #[must_use]
    pub fn bind(mut self, value: impl IntoValue) -> Self {
        self.values.push(IntoValue::into_value(Some(value)));
        self
    }

    /// Binds the next value, which may be null.
    #[must_use]
    pub fn bind_some(mut self, value: Option<impl IntoValue>) -> Self {
        self.values.push(IntoValue::into_value(value));
        self
    }

    /// Fails for good, with everything of this run undone, unless so many rows are changed.
    #[must_use]
    pub fn expect_rows(mut self, rows: u64) -> Self {
        self.rows = Some(rows);
        self
    }
}

/// Runs the statements in order.
///
/// # Errors
/// [`Error::Rejected`] when a statement can never succeed, [`Error::NotFound`] when it changed
/// another number of rows than it has to.
pub(super) async fn apply(tx: &mut Tx, writes: &[Write]) -> Result<()> {
    for write in writes {
        let changed = match tx {
            Tx::Sqlite(tx) => {
                let query = sqlx::query(write.sqlite);
                let query = write.values.iter().fold(query, bind_sqlite);
                let done = query.execute(&mut **tx).await;
                done.map(|done| done.rows_affected())
            }
            Tx::Postgres(tx) => {
                let query = sqlx::query(write.postgres);
                let query = write.values.iter().fold(query, bind_postgres);
                let done = query.execute(&mut **tx).await;
                done.map(|done| done.rows_affected())
            }
        }
        .map_err(refused_statement)?;
        if write.rows.is_some_and(|rows| rows != changed) {
            return Err(Error::NotFound {
                service: "database",
                what: "row to change",
            });
        }
    }
    Ok(())
}

pub(super) type SqliteQuery<'q> = Query<'q, Sqlite, SqliteArguments>;

pub(super) fn bind_sqlite<'q>(query: SqliteQuery<'q>, value: &'q Value) -> SqliteQuery<'q> {
    match value {
        Value::Bool(value) => query.bind(*value),
        Value::Int(value) => query.bind(*value),
        Value::Float(value) => query.bind(*value),
        Value::Text(value) => query.bind(value.as_deref()),
        Value::Bytes(value) => query.bind(value.as_deref()),
    }
}

pub(super) type PostgresQuery<'q> = Query<'q, Postgres, PgArguments>;

pub(super) fn bind_postgres<'q>(query: PostgresQuery<'q>, value: &'q Value) -> PostgresQuery<'q> {
    match value {
        Value::Bool(value) => query.bind(*value),
        Value::Int(value) => query.bind(*value),
        Value::Float(value) => query.bind(*value),
        Value::Text(value) => query.bind(value.as_deref()),
        Value::Bytes(value) => query.bind(value.as_deref()),
    }
}

/// A time as both databases write it in a `CAST($1 AS TIMESTAMPTZ)` or a text column.
pub fn timestamp(at: Micros) -> String {
    use time::OffsetDateTime;
    use time::macros::format_description;
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1000)
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_default()
}
