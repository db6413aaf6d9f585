//! Whatever writers, relays, kills and failures come together: every committed row is published,
//! every key in the order of its commits, and a repeat has the id of the first.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookyard::clock::{ManualClock, SharedClock};
use hookyard::egress::RelayOptions;
use hookyard::store::outbox::{self, OutboxRow};
use hookyard::store::{Pool, Store};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::outbox_kit::{Journal, commit, ids_in_state, relay, row};
use crate::support::{PATIENCE, TestDatabase, both_databases};

both_databases!(
    x7_order_is_kept_however_commits_and_kills_fall,
    a_row_whose_id_was_drawn_early_and_committed_late_is_not_overtaken,
    the_outbox_is_read_by_its_indexes_however_large_it_is,
);

const WRITERS: usize = 8;
const TRANSACTIONS: usize = 25;
const KEYS: usize = 12;

/// What the writers did.
#[derive(Default)]
struct Ledger {
    committed: Mutex<HashSet<String>>,
    /// Per writer and key, in the order of its own commits.
    by_writer: Mutex<HashMap<(usize, String), Vec<String>>>,
}

async fn x7_order_is_kept_however_commits_and_kills_fall(database: TestDatabase) {
    // One clock: leases that killed relays leave behind must not be from the next history's future.
    let clock = ManualClock::start();
    for _ in 0..3 {
        history(&database, &clock, rand::random()).await;
    }
}

async fn history(database: &TestDatabase, clock: &Arc<ManualClock>, seed: u64) {
    let broker = Journal::new();
    let ledger = Arc::new(Ledger::default());
    let mut random = StdRng::seed_from_u64(seed);

    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = database.store_on(clock.clone()).await;
        let (ledger, broker) = (ledger.clone(), broker.clone());
        let random = StdRng::seed_from_u64(random.random());
        writers.spawn(write(store, writer, seed, ledger, broker, random));
    }
    let mut relays = JoinSet::new();
    let stop = CancellationToken::new();
    while !writers.is_empty() {
        let store = database.store_on(clock.clone()).await;
        let shared: SharedClock = clock.clone();
        let options = RelayOptions {
            poll: Duration::from_millis(2),
            lanes: random.random_range(1..20),
            in_flight: random.random_range(1..50),
            ..RelayOptions::default()
        };
        let relay = relay(&store, &broker, &shared).options(options);
        relays.spawn(relay.run(stop.clone()));
        for _ in 0..random.random_range(1..4) {
            if let Some(done) = writers.join_next().await {
                done.unwrap();
            }
        }
        if random.random_bool(0.5) {
            relays.abort_all();
        }
        // Some leases end while their holders are alive, and some wait for the next try is over.
        clock.advance(Duration::from_secs(random.random_range(0..40)));
    }
    relays.abort_all();
    while relays.join_next().await.is_some() {}
    broker.fails_no_more();
    clock.advance(Duration::from_secs(60));
    let store = database.store_on(clock.clone()).await;
    let shared: SharedClock = clock.clone();
    relay(&store, &broker, &shared).drain().await.unwrap();

    let published: HashSet<String> = broker.ids().into_iter().collect();
    let committed = std::mem::take(&mut *ledger.committed.lock().unwrap());
    let differing: Vec<&String> = published.symmetric_difference(&committed).collect();
    assert!(differing.is_empty(), "{differing:?}, seed {seed}");
    assert!(ids_in_state(&store, 0).await.is_empty(), "seed {seed}");
    let table = ids_in_state(&store, 1).await;
    let first = broker.first_by_key();
    for (key, ids) in &first {
        let of_key: Vec<&String> = table.iter().filter(|id| ids.contains(id)).collect();
        assert_eq!(
            ids.iter().collect::<Vec<_>>(),
            of_key,
            "key {key}, seed {seed}"
        );
    }
    for ((_, key), ids) in ledger.by_writer.lock().unwrap().iter() {
        let mut published = first[key].iter();
        // Each is found behind the one before.
        let in_order = ids.iter().all(|id| published.any(|other| other == id));
        assert!(in_order, "key {key}, seed {seed}");
    }
}

async fn write(
    store: Store,
    writer: usize,
    seed: u64,
    ledger: Arc<Ledger>,
    broker: Arc<Journal>,
    mut random: StdRng,
) {
    for number in 0..TRANSACTIONS {
        let rows: Vec<OutboxRow> = (0..random.random_range(1..5))
            .map(|place| {
                let key = format!("{seed}-k{}", random.random_range(0..KEYS));
                row(&format!("{seed}-{writer}-{number}-{place}"), Some(&key))
            })
            .collect();
        for row in &rows {
            if random.random_bool(0.05) {
                let (times, arrives) = (random.random_range(1..3), random.random());
                broker.fail(&row.message_id, times, arrives);
            }
        }
        let mut tx = store.begin().await.unwrap();
        outbox::insert(&mut tx, &rows, store.now()).await.unwrap();
        // Between the ids and the commit there is time for others.
        for _ in 0..random.random_range(0..200) {
            tokio::task::yield_now().await;
        }
        if random.random_bool(0.2) {
            drop(tx);
            continue;
        }
        {
            // Noted first: a relay may be faster than this task.
            let mut committed = ledger.committed.lock().unwrap();
            let mut by_writer = ledger.by_writer.lock().unwrap();
            for row in rows {
                let key = (writer, row.ordering_key.unwrap());
                by_writer
                    .entry(key)
                    .or_default()
                    .push(row.message_id.clone());
                committed.insert(row.message_id);
            }
        }
        tx.commit().await.unwrap();
        store.wakeups().outbox.notify_one();
    }
}

async fn a_row_whose_id_was_drawn_early_and_committed_late_is_not_overtaken(
    database: TestDatabase,
) {
    let clock = ManualClock::start();
    let shared: SharedClock = clock.clone();
    let (store, broker) = (database.store_on(clock.clone()).await, Journal::new());
    let late = database.store_on(clock.clone()).await;
    let mut tx = late.begin().await.unwrap();
    outbox::insert(&mut tx, &[row("early", Some("a"))], late.now())
        .await
        .unwrap();

    let mut others = JoinSet::new();
    let other = database.store_on(clock.clone());
    let other = if database.is_postgres() {
        Some(other.await)
    } else {
        None
    };
    if let Some(other) = other {
        // SQLite has one writer anyway.
        others.spawn(async move { commit(&other, &[row("late", Some("a"))]).await });
        let waits = async {
            while waiting_for_locks(&store).await == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waits = tokio::time::timeout(PATIENCE, waits).await;
        assert!(waits.is_ok(), "the second writer waits for nobody");
    }
    relay(&store, &broker, &shared).drain().await.unwrap();
    assert!(broker.ids().is_empty(), "it overtook");

    tx.commit().await.unwrap();
    others.join_all().await;
    if !database.is_postgres() {
        commit(&store, &[row("late", Some("a"))]).await;
    }
    relay(&store, &broker, &shared).drain().await.unwrap();
    assert_eq!(broker.ids(), ["early", "late"]);
}

async fn waiting_for_locks(store: &Store) -> i64 {
    let Pool::Postgres(pool) = store.pool() else {
        return 0;
    };
    let sql = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// What a plan reads shows better than the plan: the functions themselves are run, often enough
/// for PostgreSQL to settle on a plan of its own.
async fn the_outbox_is_read_by_its_indexes_however_large_it_is(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.connect_with(clock.clone(), |config| config.max_connections = 1);
    store.migrate().await.unwrap();
    let Pool::Postgres(pool) = store.pool() else {
        return read_by_index_in_sqlite(&store).await;
    };
    let sql = "INSERT INTO outbox (lane, message_id, topic, ordering_key, event_type, cause_id, \
         handler, data, attributes, state, created_at) SELECT n % 64, 'old-' || n, 'events', \
         'k' || n % 1000, 't', 'c', 'h', repeat('x', 300)::bytea, '[]', 1, 1 \
         FROM generate_series(1, 50000) AS n";
    sqlx::query(sql).execute(pool).await.unwrap();
    let shared: SharedClock = clock.clone();
    let broker = Journal::new();
    for analysed in [false, true] {
        if analysed {
            sqlx::query("ANALYZE").execute(pool).await.unwrap();
        }
        let before = read_in_sequence(&store).await;
        for round in 0..8 {
            let rows: Vec<OutboxRow> = (0..300)
                .map(|i| {
                    let id = format!("{analysed}-{round}-{i}");
                    row(&id, Some(&format!("k{}", i % 100)))
                })
                .collect();
            broker.refuse(&format!("{analysed}-{round}-7"));
            broker.fail(&format!("{analysed}-{round}-8"), 1, false);
            commit(&store, &rows).await;
            store.outbox_backlog().await.unwrap();
            relay(&store, &broker, &shared).drain().await.unwrap();
            relay(&store, &broker, &shared).drain().await.unwrap();
        }
        let read = read_in_sequence(&store).await - before;
        assert_eq!(read, 0, "rows were read in sequence, analysed: {analysed}");
    }
    assert!(ids_in_state(&store, 0).await.is_empty());
}

/// Returns how many rows of the outbox were read by going through the table.
async fn read_in_sequence(store: &Store) -> i64 {
    let Pool::Postgres(pool) = store.pool() else {
        return 0;
    };
    sqlx::query("SELECT pg_stat_force_next_flush()")
        .execute(pool)
        .await
        .unwrap();
    let sql = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'outbox'";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

async fn read_by_index_in_sqlite(store: &Store) {
    let Pool::Sqlite { read, .. } = store.pool() else {
        return;
    };
    let due = "EXPLAIN QUERY PLAN SELECT * FROM outbox o WHERE o.lane = 1 AND o.state = 0 \
         AND o.seq > 7 ORDER BY o.seq LIMIT 5";
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(due).fetch_all(read).await.unwrap();
    let plan: Vec<String> = plan.into_iter().map(|(.., line)| line).collect();
    assert!(plan.concat().contains("outbox_waiting"), "{plan:?}");
}
