//! Row P19 and the ground under the other rows: connecting, migrating, checking.

use futures_util::future::join_all;
use hookyard::clock::SystemClock;

use crate::support::{TestDatabase, both_databases};

both_databases!(
    p19_migrations_run_twice_and_by_four_instances_at_once,
    a_database_without_tables_is_not_ready,
);

async fn p19_migrations_run_twice_and_by_four_instances_at_once(database: TestDatabase) {
    let instances: Vec<_> = (0..4)
        .map(|_| database.connect(SystemClock::shared()))
        .collect();

    let done = join_all(instances.iter().map(|store| store.migrate())).await;

    assert!(done.iter().all(Result::is_ok), "{done:?}");
    instances[0].migrate().await.unwrap();
    instances[1].check().await.unwrap();
}

async fn a_database_without_tables_is_not_ready(database: TestDatabase) {
    let store = database.connect(SystemClock::shared());

    assert_eq!(
        database.url().starts_with("postgres"),
        database.is_postgres()
    );
    assert!(store.check().await.is_err());
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    assert_eq!(store.is_postgres(), database.is_postgres());
}
