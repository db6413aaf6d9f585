//! Row P19: databases that were there before, and migrations that cannot be made at once.

use std::time::Duration;

use hookyard::app::App;
use hookyard::clock::SystemClock;
use hookyard::sandbox::Sandbox;
use hookyard::store::Pool;
use sqlx::AssertSqlSafe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

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
            config.statement_timeout = Duration::from_secs(5);
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

    store.check().await.unwrap();
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

/// Passes connections on, and leaves out one of the settings they begin with, as poolers do.
async fn pooler(database: &TestDatabase) -> String {
    let mut url = url::Url::parse(database.url()).unwrap();
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port()))
        .unwrap();
    let tasks = TaskTracker::new();
    let each = tasks.clone();
    tasks.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect((server.0.as_str(), server.1))
                .await
                .unwrap();
            each.spawn(async move {
                // With `sslmode=disable` the first message is the one with the settings.
                let mut first = vec![0; 4096];
                let count = client.read(&mut first).await.unwrap();
                first.truncate(count);
                let ours = b"hookyard.session";
                if let Some(at) = first.windows(ours.len()).position(|part| part == ours) {
                    first[at..at + ours.len()].copy_from_slice(b"somebody.session");
                }
                server.write_all(&first).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server)
                    .await
                    .ok();
            });
        }
    });
    url.query_pairs_mut().append_pair("sslmode", "disable");
    url.into()
}

#[tokio::test]
async fn p18_a_pooler_that_leaves_our_settings_out_is_not_worked_with() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    database.store().await;
    for migrate in ["true", "false"] {
        let url = pooler(&database).await;
        let sandbox = Sandbox::builder()
            .variable("DATABASE_URL", url)
            .variable("MIGRATE_ON_START", migrate);
        let sandbox = sandbox.start().await.unwrap();

        let app = App::builder().config(sandbox.config().unwrap());
        let refused = app.build().await.err().unwrap().to_string();

        assert!(refused.contains("pooler_in_between"), "{refused}");
    }
}

#[tokio::test]
async fn p18_a_file_without_a_name_is_no_database() {
    let sandbox = Sandbox::builder().variable("DATABASE_URL", "sqlite://");
    let sandbox = sandbox.start().await.unwrap();
    let app = App::builder().config(sandbox.config().unwrap());
    let refused = app.build().await.err().unwrap().to_string();
    assert!(refused.contains("DATABASE_URL"), "{refused}");
}
