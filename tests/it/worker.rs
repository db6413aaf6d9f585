//! The worker of the `events` table: what is due is run once, in order, and marked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookyard::clock::{ManualClock, SystemClock};
use hookyard::error::Code;
use hookyard::ingress::Turn;
use hookyard::pipeline::Outcome;
use hookyard::store::events::DueEvent;
use hookyard::store::{Pool, Store};

use crate::support::hands::{
    Running, done, ended, failed, hands, left, orders, ran, settings, until, worker,
};
use crate::support::rows::{EventRow, count, execute, insert_rows, row_state, uuid};
use crate::support::{TestDatabase, both_databases};

both_databases!(
    a_turn_runs_what_is_due_and_marks_it,
    x4_a_poison_row_holds_nobody_up_and_becomes_a_dead_letter,
    x5_events_of_one_aggregate_run_one_after_the_other_in_order,
    rows_too_large_to_be_had_at_once_are_all_run_in_order,
    x5_a_failed_event_holds_the_later_ones_of_its_aggregate,
    x2_two_workers_run_each_of_5000_rows_once,
    x6_rows_that_commit_late_are_not_skipped,
    rows_are_found_and_marked_by_index,
);

async fn a_turn_runs_what_is_due_and_marks_it(database: TestDatabase) {
    let store = database.store().await;
    let outcomes = [
        ("done", Outcome::Done),
        ("skipped", Outcome::Skipped("nothing to do")),
        ("unrouted", Outcome::Unrouted),
        ("dead_lettered", Outcome::DeadLettered(Code::new("bad"))),
    ];
    let by_type: HashMap<&str, Outcome> = outcomes.iter().cloned().collect();
    let (rows, journal) = hands(move |row| {
        let outcome = by_type[row.event_type.as_str()].clone();
        async { ended(outcome) }
    });
    let mut ids = Vec::new();
    for (kind, _) in &outcomes {
        ids.push((EventRow::new(kind).insert(&store).await, *kind));
    }
    let worker = worker(&store, rows, settings());
    let turn = worker.turn().await.unwrap();
    let all_settled = Turn {
        settled: 4,
        ..Turn::default()
    };
    assert_eq!(turn, all_settled);
    for (id, status) in ids {
        let state = row_state(&store, &id).await;
        assert_eq!((state.processed, state.status.as_str()), (true, status));
    }
    assert_eq!(worker.turn().await.unwrap(), Turn::default());
    assert_eq!(ran(&journal).len(), 4);
    let held = "SELECT COUNT(*) FROM lanes WHERE lease_until > 0";
    assert_eq!(count(&store, held).await, 0, "lanes are given back");
}

async fn x4_a_poison_row_holds_nobody_up_and_becomes_a_dead_letter(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let (rows, journal) = hands(|row| async move {
        match row.event_type.as_str() {
            "poison" => failed("timeout", Duration::from_secs(1), false),
            _ => done(),
        }
    });
    let poison = EventRow::new("poison").payload(r#"{"n":1}"#).at(0);
    let poison = poison.insert(&store).await;
    let others: Vec<EventRow> = (0..40).map(|n| EventRow::new("good").at(1 + n)).collect();
    insert_rows(&store, &others).await;
    let worker = worker(&store, rows, settings());

    let first = worker.turn().await.unwrap();
    assert_eq!((first.settled, first.put_off), (40, 1));
    for attempt in 1..5 {
        let state = row_state(&store, &poison).await;
        assert_eq!((state.attempts, state.processed), (attempt, false));
        let wait =
            Duration::from_micros(u64::try_from(state.next_attempt_at - store.now()).unwrap());
        let full = Duration::from_secs(1 << (attempt - 1));
        assert!(
            wait >= full / 2 && wait <= full.max(Duration::from_secs(1)),
            "{wait:?}"
        );
        let none = Turn::default();
        assert_eq!(worker.turn().await.unwrap(), none, "not before its time");
        clock.advance(wait + Duration::from_millis(1));
        let turn = worker.turn().await.unwrap();
        assert_eq!(turn.put_off + turn.given_up, 1);
    }
    let state = row_state(&store, &poison).await;
    assert_eq!((state.processed, &*state.status), (true, "dead_lettered"));
    let metadata: serde_json::Value = serde_json::from_str(&state.metadata.unwrap()).unwrap();
    assert_eq!(metadata["retry_count"], 5);
    let letters = "SELECT COUNT(*) FROM event_dead_letters WHERE retry_count = 5 \
        AND event_type = 'poison' AND error_code = 'timeout' AND handler = 'probe'";
    assert_eq!(count(&store, letters).await, 1);
    let tries = ran(&journal).iter().filter(|id| **id == poison).count();
    assert_eq!(tries, 5);
}

async fn x5_events_of_one_aggregate_run_one_after_the_other_in_order(database: TestDatabase) {
    let (one, two) = (database.store().await, database.store().await);
    let (rows, journal) = hands(|_| async {
        tokio::task::yield_now().await;
        done()
    });
    let aggregates: Vec<String> = (0..30).map(|_| uuid()).collect();
    let mut expected: HashMap<String, Vec<String>> = HashMap::new();
    let mut batch = Vec::new();
    for n in 0..20 {
        for aggregate in &aggregates {
            let row = EventRow::new("a").of(aggregate).at(n);
            expected
                .entry(aggregate.clone())
                .or_default()
                .push(row.id.clone());
            batch.push(row);
        }
    }
    // The last half first, so that the order of insertion is not the order of events.
    batch.rotate_left(300);
    insert_rows(&one, &batch).await;
    let workers = [
        Running::start(&one, Arc::clone(&rows), settings()),
        Running::start(&two, rows, settings()),
    ];
    until("all done", async || left(&one).await == 0).await;
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(orders(&journal), expected);
}

async fn rows_too_large_to_be_had_at_once_are_all_run_in_order(database: TestDatabase) {
    let store = database.store().await;
    let (rows, journal) = hands(|row| async move {
        assert_eq!(row.payload.len(), 3_000_002);
        done()
    });
    if database.is_postgres() {
        // Not compressed: they weigh what they say.
        let sql = "ALTER TABLE events ALTER COLUMN payload SET STORAGE EXTERNAL";
        execute(&store, sql).await;
    }
    let (mine, other) = (uuid(), uuid());
    let mut batch = Vec::new();
    for n in 0..8 {
        batch.push(EventRow::new("a").of(&mine).at(n).payload("1"));
        batch.push(EventRow::new("a").of(&other).at(n).payload("1"));
    }
    insert_rows(&store, &batch).await;
    // More than is taken in hand altogether.
    execute(
        &store,
        match database.is_postgres() {
            true => "UPDATE events SET payload = to_jsonb(repeat('x', 3000000))",
            false => "UPDATE events SET payload = '\"' || hex(zeroblob(1500000)) || '\"'",
        },
    )
    .await;
    let turn = worker(&store, rows, settings()).turn().await.unwrap();

    assert_eq!(turn.settled, batch.len());
    let ran = ran(&journal);
    for of_one in [0, 1] {
        let rows = batch.iter().skip(of_one).step_by(2);
        let inserted: Vec<&String> = rows.map(|row| &row.id).collect();
        let order: Vec<&String> = ran.iter().filter(|id| inserted.contains(id)).collect();
        assert_eq!(order, inserted);
    }
}

async fn x5_a_failed_event_holds_the_later_ones_of_its_aggregate(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let failures = Arc::new(Mutex::new(2));
    let (rows, journal) = hands(move |row| {
        let mut left = failures.lock().unwrap();
        let fails = row.event_type == "first" && *left > 0;
        *left -= i32::from(fails);
        async move {
            match fails {
                true => failed("timeout", Duration::from_secs(1), false),
                false => done(),
            }
        }
    });
    let aggregate = uuid();
    let mut expected = Vec::new();
    for (n, kind) in ["first", "later", "later"].into_iter().enumerate() {
        let row = EventRow::new(kind).of(&aggregate).at(n as i64);
        expected.push(row.insert(&store).await);
    }
    let worker = worker(&store, rows, settings());
    for _ in 0..3 {
        worker.turn().await.unwrap();
        clock.advance(Duration::from_secs(5));
    }
    let first = expected[0].clone();
    let order: Vec<String> = [first.clone(), first].into_iter().chain(expected).collect();
    assert_eq!(ran(&journal), order);
    assert_eq!(left(&store).await, 0);
    assert_eq!(
        count(&store, "SELECT COUNT(*) FROM held_aggregates").await,
        0
    );
}

async fn x2_two_workers_run_each_of_5000_rows_once(database: TestDatabase) {
    let (one, two) = (database.store().await, database.store().await);
    let (rows, journal) = hands(|_| async {
        tokio::task::yield_now().await;
        done()
    });
    let batch: Vec<EventRow> = (0..5000).map(|n| EventRow::new("a").at(n)).collect();
    insert_rows(&one, &batch).await;
    let workers = [
        Running::start(&one, Arc::clone(&rows), settings()),
        Running::start(&two, rows, settings()),
    ];
    until("all done", async || left(&one).await == 0).await;
    for worker in workers {
        worker.stop().await;
    }
    let ran = ran(&journal);
    let once: HashSet<&String> = ran.iter().collect();
    assert_eq!((ran.len(), once.len()), (5000, 5000));
}

async fn x6_rows_that_commit_late_are_not_skipped(database: TestDatabase) {
    let store = database.store().await;
    let (rows, journal) = hands(|_| async { done() });
    let worker = Running::start(&store, rows, settings());
    // PostgreSQL's writers overlap; SQLite's take turns, in another order than their times.
    let writers = (0..200_u64).map(|n| {
        let store = store.clone();
        async move {
            let row = EventRow::new("a").at(i64::try_from(n * 7919 % 200).unwrap());
            for _ in 0..(n * 31 % 17) {
                tokio::task::yield_now().await;
            }
            row.insert(&store).await
        }
    });
    let ids = futures_util::future::join_all(writers).await;
    if let Pool::Postgres(pool) = store.pool() {
        let mut slow = pool.begin().await.unwrap();
        let sql = "INSERT INTO events (event_type, payload, created_at) \
                   VALUES ('a', '{}', TIMESTAMPTZ '2026-01-05 09:00:00Z')";
        sqlx::query(sql).execute(&mut *slow).await.unwrap();
        until("the others are done", async || left(&store).await == 0).await;
        slow.commit().await.unwrap();
    }
    until("all done", async || left(&store).await == 0).await;
    worker.stop().await;
    let ran = ran(&journal);
    assert_eq!(ran.len(), 200 + usize::from(database.is_postgres()));
    let once: HashSet<&String> = ran.iter().collect();
    assert!(once.len() == ran.len() && ids.iter().all(|id| once.contains(id)));
}

/// Rows of a table that PostgreSQL has read one by one.
async fn read_one_by_one(store: &Store, table: &str) -> i64 {
    let Pool::Postgres(pool) = store.pool() else {
        return 0;
    };
    let flush = "SELECT pg_stat_force_next_flush()";
    sqlx::query(flush).execute(pool).await.unwrap();
    let sql = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = $1";
    let read = sqlx::query_scalar(sql).bind(table).fetch_one(pool);
    read.await.unwrap()
}

async fn rows_are_found_and_marked_by_index(database: TestDatabase) {
    drop(database.store().await);
    // One connection, whose counts are there as soon as it says so.
    let clock = SystemClock::shared();
    let store = database.connect_with(clock, |config| config.max_connections = 1);
    let old: Vec<EventRow> = (0..20_000).map(|n| EventRow::new("old").at(n)).collect();
    insert_rows(&store, &old).await;
    execute(
        &store,
        "UPDATE events SET processed = TRUE, status = 'done'",
    )
    .await;
    if database.is_postgres() {
        // Or the server might find out meanwhile that a table is still so small that it is best
        // read from end to end.
        for table in ["events", "inbox"] {
            let alone = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
            crate::support::execute(&store, &alone).await;
        }
        execute(&store, "VACUUM ANALYZE events").await;
    }
    let outcomes = |row: Arc<DueEvent>| async move {
        match row.seq % 4 {
            0 => failed("timeout", Duration::from_secs(9), false),
            1 => ended(Outcome::Duplicate(None)),
            2 => ended(Outcome::Retry(Duration::from_secs(9))),
            _ => done(),
        }
    };
    let (rows, journal) = hands(outcomes);
    let worker = worker(&store, rows, settings());
    let tables = ["events", "inbox"];
    let mut before = Vec::new();
    for table in tables {
        before.push(read_one_by_one(&store, table).await);
    }
    for round in 0..10 {
        let few: Vec<EventRow> = (0..60)
            .map(|n| EventRow::new("a").of(&uuid()).at(n))
            .collect();
        insert_rows(&store, &few).await;
        worker.process_event(&few[0].id).await.unwrap();
        worker.turn().await.unwrap();
        until("all have run", async || {
            ran(&journal).len() >= 60 * (round + 1)
        })
        .await;
    }
    for (table, before) in tables.into_iter().zip(before) {
        let read = read_one_by_one(&store, table).await - before;
        assert_eq!(read, 0, "{table} was read from end to end");
    }
}
