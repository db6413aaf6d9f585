//! Row P19 and the ground under the other rows: connecting, migrating, checking.

use std::time::Duration;

use futures_util::future::join_all;
use hookyard::clock::{ManualClock, SystemClock};
use hookyard::store::Store;
use hookyard::store::inbox::{self, Ask, Facts, Mode};

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

/// Claims as many runs, one after the other.
async fn claim(store: &Store, runs: std::ops::Range<usize>) {
    for run in runs {
        let ask = Ask {
            event_id: format!("steady-{run}"),
            handler: "steady",
            mode: Mode::Generation(0),
            facts: Facts::default(),
        };
        inbox::claim(store, &[ask]).await.unwrap();
    }
}

#[tokio::test]
async fn connections_kept_between_batches_are_not_in_the_way_of_the_end() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    for connections in [1, 8] {
        let clock = ManualClock::start();
        let store = database.connect_with(clock.clone(), |config| {
            config.max_connections = connections;
        });
        store.migrate().await.unwrap();
        claim(&store, 0..20).await;
        clock.advance(Duration::from_secs(60));
        claim(&store, 20..40).await;

        let closed = tokio::time::timeout(Duration::from_secs(60), store.close()).await;
        assert!(closed.is_ok(), "it waits for a connection that is kept");
    }
}
