//! Statements of a test's own.

use hookyard::store::{Pool, Store};
use sqlx::AssertSqlSafe;

/// Runs statements, separated by semicolons.
pub(crate) async fn execute(store: &Store, sql: &str) {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    match store.pool() {
        Pool::Sqlite { write, .. } => sql.execute(write).await.map(|_| ()),
        Pool::Postgres(pool) => sql.execute(pool).await.map(|_| ()),
    }
    .unwrap();
}

/// Returns the only column of a query, which has to be text.
pub(crate) async fn texts(store: &Store, sql: &str) -> Vec<String> {
    let sql = AssertSqlSafe(sql.to_owned());
    match store.pool() {
        Pool::Sqlite { write, .. } => sqlx::query_scalar(sql).fetch_all(write).await,
        Pool::Postgres(pool) => sqlx::query_scalar(sql).fetch_all(pool).await,
    }
    .unwrap()
}
