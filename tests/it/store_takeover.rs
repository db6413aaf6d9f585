//! Row P19: databases that were there before, and migrations that cannot be made at once.

use std::time::Duration;

use hookyard::clock::SystemClock;
use hookyard::store::Pool;
use sqlx::AssertSqlSafe;

use crate::support::hands::{done, failed, hands, settings, worker};
use crate::support::{TestDatabase, execute};

/// The tables of the services that were there before.
const TABLES: &str = "
    CREATE TABLE events (
        id UUID PRIMARY KEY, event_type VARCHAR(100) NOT NULL, aggregate_id UUID,
        aggregate_type VARCHAR(50), payload JSONB NOT NULL, metadata JSONB,
        processed BOOLEAN DEFAULT FALSE, version INTEGER DEFAULT 1,
        created_at TIMESTAMPTZ DEFAULT now(), created_by VARCHAR(100));
    CREATE TABLE event_dead_letters (
        id UUID PRIMARY KEY, event_id UUID NOT NULL, event_type VARCHAR(100) NOT NULL,
        payload JSONB NOT NULL, error_message TEXT NOT NULL, retry_count INTEGER NOT NULL,
        original_created_at TIMESTAMPTZ NOT NULL, created_at TIMESTAMPTZ DEFAULT now());";

#[tokio::test]
async fn p19_a_migration_that_failed_stands_in_nobodys_way() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (one, two) = (
        database.connect(SystemClock::shared()),
        database.connect_with(SystemClock::shared(), |config| {
            config.statement_timeout = Duration::from_secs(2);
        }),
    );
    execute(&one, "CREATE TABLE inbox (theirs INTEGER)").await;
    assert!(one.migrate().await.is_err());
    execute(&one, "DROP TABLE inbox").await;

    // Another instance first, and then the one that failed.
    two.migrate().await.unwrap();
    one.migrate().await.unwrap();
    two.check().await.unwrap();
}

#[tokio::test]
async fn p19_a_large_table_that_is_taken_over_may_take_longer_than_a_statement() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let store = database.connect(SystemClock::shared());
    execute(&store, TABLES).await;
    let rows = "INSERT INTO events (id, event_type, payload, processed) \
        SELECT gen_random_uuid(), 'a.happened', '{}', TRUE FROM generate_series(1, 60000)";
    execute(&store, rows).await;
    let hasty = database.connect_with(SystemClock::shared(), |config| {
        config.statement_timeout = Duration::from_millis(50);
    });

    hasty.migrate().await.unwrap();

    hasty.check().await.unwrap();
}

#[tokio::test]
async fn p19_a_second_instance_waits_for_the_first_ones_migration() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let first = database.connect(SystemClock::shared());
    execute(&first, TABLES).await;
    let Pool::Postgres(pool) = first.pool() else {
        panic!("this is PostgreSQL");
    };
    // Somebody reads `events` for longer than a statement may wait for its lock.
    let mut reader = pool.begin().await.unwrap();
    sqlx::query(AssertSqlSafe("SELECT 1 FROM events"))
        .execute(&mut *reader)
        .await
        .unwrap();
    let hasty = |_| {
        database.connect_with(SystemClock::shared(), |config| {
            config.statement_timeout = Duration::from_millis(300);
        })
    };
    let instances: Vec<_> = (0..2).map(hasty).collect();
    let migrations = futures_util::future::join_all(instances.iter().map(|it| it.migrate()));
    let (done, ()) = tokio::join!(migrations, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        reader.commit().await.unwrap();
    });

    assert!(done.iter().all(Result::is_ok), "{done:?}");
}

/// What an operator is told about tables that were there before.
async fn told(tables: &str) -> Option<String> {
    let database = TestDatabase::postgres().await?;
    let store = database.connect(SystemClock::shared());
    execute(&store, tables).await;
    Some(store.migrate().await.unwrap_err().to_string())
}

#[tokio::test]
async fn p19_tables_that_do_not_fit_are_named() {
    let text_ids = TABLES.replace("UUID", "TEXT");
    for (tables, word) in [
        ("CREATE TABLE inbox (theirs INTEGER)", "\"inbox\""),
        (
            "CREATE TABLE events (id UUID PRIMARY KEY)",
            "\"aggregate_id\"",
        ),
        (text_ids.as_str(), "text"),
    ] {
        let Some(told) = told(tables).await else {
            return;
        };
        assert!(told.contains("tables_of_others"), "{told}");
        assert!(told.contains(word), "{told}");
    }
}

#[tokio::test]
async fn p19_tables_of_slightly_other_types_are_taken_over_and_worked_off() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let store = database.connect(SystemClock::shared());
    let tables = TABLES
        .replace("TIMESTAMPTZ", "TIMESTAMP")
        .replace("VARCHAR(100)", "TEXT")
        .replace("payload JSONB NOT NULL", "payload JSON")
        .replace("JSONB", "JSON");
    execute(&store, &tables).await;
    let rows = "INSERT INTO events (id, event_type, aggregate_id, payload, created_at) \
        SELECT gen_random_uuid(), 'a.happened', gen_random_uuid(), '{\"n\": 1}', now() \
        FROM generate_series(1, 5); \
        INSERT INTO events (id, event_type) SELECT gen_random_uuid(), 'a.happened'";
    execute(&store, rows).await;
    store.migrate().await.unwrap();

    let (hands, _) = hands(|row| async move {
        match row.aggregate {
            Some(_) => failed("timeout", Duration::from_secs(1), false),
            None => done(),
        }
    });
    let worker = worker(&store, hands, settings());
    let turn = worker.turn().await.unwrap();

    assert_eq!((turn.settled, turn.put_off), (1, 5));
}
