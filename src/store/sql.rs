//! What the two databases share: a transaction of either, and the macro that runs on both.

use sqlx::{Postgres, Sqlite, Transaction};

use super::failed;
use crate::error::Result;

/// A write transaction. Dropped without [`Tx::commit`] it is rolled back.
pub enum Tx {
    /// Of the embedded database.
    Sqlite(Transaction<'static, Sqlite>),
    /// Of PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    /// Makes everything done in it last.
    ///
    /// # Errors
    /// When the database did not confirm it; whether it was kept is not known then.
    pub async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
        .map_err(failed)
    }

    /// Tells whether this is PostgreSQL, where the two speak differently.
    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

/// Runs one expression on whichever database it is; `$c` is the connection in it.
///
/// The expression is compiled twice, so it holds only what both drivers can bind and read: `i16`,
/// `i32`, `i64`, `bool`, `&str`, `String`, `&[u8]`, `Vec<u8>` and options of these.
macro_rules! on {
    ($tx:expr, $c:ident => $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(tx) => {
                let $c = &mut **tx;
                $body
            }
            $crate::store::Tx::Postgres(tx) => {
                let $c = &mut **tx;
                $body
            }
        }
    };
}

/// As [`on`], outside a transaction, for reads: `$c` is a pool.
macro_rules! read {
    ($store:expr, $c:ident => $body:expr) => {
        match $store.pool() {
            $crate::store::Pool::Sqlite { read: $c, .. } => $body,
            $crate::store::Pool::Postgres($c) => $body,
        }
    };
}

/// PostgreSQL's expression for a time in microseconds; null for one that is no year of four
/// digits. Such times are mistakes, of milliseconds taken for seconds for example, but the columns
/// are others' and take them, `infinity` as well.
macro_rules! micros_in {
    ($time:literal) => {
        concat!(
            "(extract(epoch FROM CASE WHEN ",
            $time,
            " BETWEEN '0001-01-02' AND '9999-12-30' THEN ",
            $time,
            " END) * 1000000)::BIGINT"
        )
    };
}

pub(crate) use {micros_in, on, read};
