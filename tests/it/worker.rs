//! The worker of the `events` table: order, fairness, tries, leases.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hookyard::clock::{ManualClock, SystemClock};
use hookyard::error::{Class, Code};
use hookyard::ingress::{Asked, RunRow, Turn, Worker, WorkerSettings};
use hookyard::pipeline::{Failed, Outcome, Settled};
use hookyard::store::events::DueEvent;
use hookyard::store::{LaneKind, Pool, Store};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::rows::{EventRow, count, execute, insert_rows, row_state, uuid};
use crate::support::{TestDatabase, both_databases};

both_databases!(
    a_turn_runs_what_is_due_and_marks_it,
    x4_a_poison_row_holds_nobody_up_and_becomes_a_dead_letter,
    x5_events_of_one_aggregate_run_one_after_the_other_in_order,
    x5_a_failed_event_holds_the_later_ones_of_its_aggregate,
    x2_two_workers_run_each_of_5000_rows_once,
    x6_rows_that_commit_late_are_not_skipped,
    an_open_breaker_rests_the_lane_and_is_no_try,
    a_run_of_somebody_else_is_no_try,
    a_slow_row_holds_up_nobody_else,
    a_busy_aggregate_leaves_room_for_others,
    an_insert_wakes_an_idle_worker,
    a_row_that_failed_is_tried_again_without_being_polled,
    a_stopped_worker_ends_what_runs_and_gives_its_lanes_back,
    what_has_not_started_stays_when_the_lane_is_lost,
    no_more_rows_run_at_once_than_allowed,
    a_waiting_row_can_be_hurried,
    every_lane_has_its_turn_with_small_hands,
    rows_are_found_and_marked_by_index,
);

type Behaviour = dyn Fn(Arc<DueEvent>) -> BoxFuture<'static, Settled> + Send + Sync;

/// Runs rows as a test says, and writes down what ran.
struct Hands {
    behaviour: Box<Behaviour>,
    journal: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Begun(String, Option<String>),
    Ended(String, Option<String>),
}

type Journal = Arc<Mutex<Vec<Entry>>>;

impl RunRow for Hands {
    fn run(&self, row: Arc<DueEvent>) -> BoxFuture<'static, Settled> {
        let journal = Arc::clone(&self.journal);
        let work = (self.behaviour)(Arc::clone(&row));
        async move {
            let entry = |make: fn(String, Option<String>) -> Entry| {
                let entry = make(row.id.clone(), row.aggregate.clone());
                journal.lock().unwrap().push(entry);
            };
            entry(Entry::Begun);
            let settled = work.await;
            entry(Entry::Ended);
            settled
        }
        .boxed()
    }
}

fn hands<F, W>(behaviour: F) -> (Arc<Hands>, Journal)
where
    F: Fn(Arc<DueEvent>) -> W + Send + Sync + 'static,
    W: Future<Output = Settled> + Send + 'static,
{
    let journal = Journal::default();
    let hands = Hands {
        behaviour: Box::new(move |row| behaviour(row).boxed()),
        journal: Arc::clone(&journal),
    };
    (Arc::new(hands), journal)
}

fn settings() -> WorkerSettings {
    WorkerSettings {
        poll_interval: Duration::from_secs(3600),
        batch_size: 20,
        concurrency: 100,
        max_retries: 5,
    }
}

fn ended(outcome: Outcome) -> Settled {
    Settled {
        outcome,
        failure: None,
    }
}

fn done() -> Settled {
    ended(Outcome::Done)
}

fn failed(code: &'static str, after: Duration, no_try: bool) -> Settled {
    Settled {
        outcome: Outcome::Retry(after),
        failure: Some(Failed {
            handler: "probe",
            class: Class::Transient,
            code: Code::new(code),
            message: format!("not possible now ({code})"),
            no_try,
        }),
    }
}

fn ran(journal: &Journal) -> Vec<String> {
    let begun = |entry: &Entry| match entry {
        Entry::Begun(id, _) => Some(id.clone()),
        Entry::Ended(..) => None,
    };
    journal.lock().unwrap().iter().filter_map(begun).collect()
}

/// Waits until something holds, a long time at most.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..4000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

async fn left(store: &Store) -> i64 {
    count(
        store,
        "SELECT COUNT(*) FROM events WHERE processed IS NOT TRUE",
    )
    .await
}

fn worker(store: &Store, rows: Arc<Hands>, settings: WorkerSettings) -> Worker {
    Worker::new(store.clone(), rows, settings, TaskTracker::new())
}

/// A worker that runs by itself.
struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    fn start(store: &Store, rows: Arc<Hands>, settings: WorkerSettings) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let worker = worker(store, rows, settings);
        tasks.spawn(worker.run(stop.clone()));
        tasks.spawn(store.clone().listen(stop.clone()));
        tasks.close();
        Self { stop, tasks }
    }

    async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.tasks.wait());
        ended.await.expect("the worker does not end");
    }
}

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
    assert_eq!(metadata["retry_count"], 4);
    let letters = "SELECT COUNT(*) FROM event_dead_letters WHERE retry_count = 5 \
        AND event_type = 'poison' AND error_code = 'timeout' AND handler = 'probe'";
    assert_eq!(count(&store, letters).await, 1);
    let tries = ran(&journal).iter().filter(|id| **id == poison).count();
    assert_eq!(tries, 5);
}

/// Checks that within an aggregate nothing overlaps, and returns the order of each.
fn orders(journal: &Journal) -> HashMap<String, Vec<String>> {
    let mut running: HashMap<String, String> = HashMap::new();
    let mut orders: HashMap<String, Vec<String>> = HashMap::new();
    for entry in journal.lock().unwrap().iter() {
        match entry {
            Entry::Begun(id, Some(aggregate)) => {
                let other = running.insert(aggregate.clone(), id.clone());
                assert_eq!(other, None, "two events of one aggregate at once");
                orders
                    .entry(aggregate.clone())
                    .or_default()
                    .push(id.clone());
            }
            Entry::Ended(_, Some(aggregate)) => drop(running.remove(aggregate)),
            _ => {}
        }
    }
    orders
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

async fn an_open_breaker_rests_the_lane_and_is_no_try(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let open = Arc::new(Mutex::new(true));
    let is_open = Arc::clone(&open);
    let (rows, journal) = hands(move |_| {
        let open = *is_open.lock().unwrap();
        async move {
            match open {
                true => failed("breaker_open", Duration::from_secs(10), true),
                false => done(),
            }
        }
    });
    let aggregate = uuid();
    let id = EventRow::new("a").of(&aggregate).at(1).insert(&store).await;
    EventRow::new("a").of(&aggregate).at(2).insert(&store).await;
    let worker = worker(&store, rows, settings());

    worker.turn().await.unwrap();
    worker.turn().await.unwrap();
    assert_eq!(ran(&journal).len(), 1, "the lane rests");
    let state = row_state(&store, &id).await;
    assert_eq!(
        (state.attempts, state.next_attempt_at, state.metadata),
        (0, 0, None)
    );
    let resting = "SELECT COUNT(*) FROM lanes WHERE kind = 0 AND paused_until > 0";
    assert_eq!(count(&store, resting).await, 1);

    *open.lock().unwrap() = false;
    clock.advance(Duration::from_secs(13));
    worker.turn().await.unwrap();
    assert_eq!((left(&store).await, ran(&journal).len()), (0, 3));
}

async fn a_run_of_somebody_else_is_no_try(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let (rows, journal) = hands(|_| async { ended(Outcome::Retry(Duration::from_secs(1))) });
    let id = EventRow::new("a").insert(&store).await;
    let worker = worker(&store, rows, settings());
    for _ in 0..8 {
        worker.turn().await.unwrap();
        clock.advance(Duration::from_secs(2));
    }
    assert_eq!(ran(&journal).len(), 8);
    let state = row_state(&store, &id).await;
    assert_eq!((state.attempts, state.processed), (0, false));
}

async fn a_slow_row_holds_up_nobody_else(database: TestDatabase) {
    let store = database.store().await;
    let (go, gone) = watch::channel(false);
    let (rows, _) = hands(move |row| {
        let mut gone = gone.clone();
        async move {
            if row.event_type == "slow" {
                gone.wait_for(|gone| *gone).await.unwrap();
            }
            done()
        }
    });
    EventRow::new("slow").at(0).insert(&store).await;
    let worker = Running::start(&store, rows, settings());
    for n in 0..3 {
        let batch: Vec<EventRow> = (0..300)
            .map(|k| EventRow::new("good").at(n * 300 + k))
            .collect();
        insert_rows(&store, &batch).await;
        until("the others are done", async || left(&store).await == 1).await;
    }
    go.send(true).unwrap();
    until("all done", async || left(&store).await == 0).await;
    worker.stop().await;
}

async fn a_busy_aggregate_leaves_room_for_others(database: TestDatabase) {
    let store = database.store().await;
    let steps = Arc::new(Semaphore::new(0));
    let taken = Arc::clone(&steps);
    let (rows, journal) = hands(move |row| {
        let steps = Arc::clone(&taken);
        async move {
            if row.event_type == "busy" {
                steps.acquire().await.unwrap().forget();
            }
            done()
        }
    });
    let busy = uuid();
    let mut batch: Vec<EventRow> = (0..400)
        .map(|n| EventRow::new("busy").of(&busy).at(n))
        .collect();
    let expected: Vec<String> = batch.iter().map(|row| row.id.clone()).collect();
    // As many of its own lane as of any other, all of them younger.
    batch.extend((0..640).map(|n| EventRow::new("good").of(&uuid()).at(1000 + n)));
    insert_rows(&store, &batch).await;
    let worker = Running::start(&store, rows, settings());
    until("the others are done", async || left(&store).await == 400).await;
    steps.add_permits(400);
    until("all done", async || left(&store).await == 0).await;
    worker.stop().await;
    assert_eq!(orders(&journal)[&busy], expected);
}

async fn an_insert_wakes_an_idle_worker(database: TestDatabase) {
    let (store, other) = (database.store().await, database.store().await);
    let (rows, journal) = hands(|_| async { done() });
    let worker = Running::start(&store, rows, settings());
    let writer = if database.is_postgres() {
        &other
    } else {
        &store
    };
    for n in 1..=5 {
        EventRow::new("a").insert(writer).await;
        until("it is done", async || left(&store).await == 0).await;
        assert_eq!(ran(&journal).len(), n);
    }
    worker.stop().await;
}

async fn a_row_that_failed_is_tried_again_without_being_polled(database: TestDatabase) {
    let store = database.store().await;
    let failures = Arc::new(Mutex::new(1));
    let (rows, journal) = hands(move |_| {
        let mut left = failures.lock().unwrap();
        let fails = *left > 0;
        *left -= i32::from(fails);
        async move {
            match fails {
                true => failed("busy", Duration::ZERO, false),
                false => done(),
            }
        }
    });
    let worker = Running::start(&store, rows, settings());
    EventRow::new("a").of(&uuid()).insert(&store).await;
    until("it is done", async || left(&store).await == 0).await;
    assert_eq!(ran(&journal).len(), 2);
    worker.stop().await;
}

async fn a_stopped_worker_ends_what_runs_and_gives_its_lanes_back(database: TestDatabase) {
    let store = database.store().await;
    let (go, gone) = watch::channel(false);
    let (rows, journal) = hands(move |_| {
        let mut gone = gone.clone();
        async move {
            gone.wait_for(|gone| *gone).await.unwrap();
            done()
        }
    });
    let batch: Vec<EventRow> = (0..50).map(|n| EventRow::new("a").at(n)).collect();
    insert_rows(&store, &batch).await;
    let few = WorkerSettings {
        concurrency: 10,
        ..settings()
    };
    let worker = Running::start(&store, rows, few);
    until("ten run", async || ran(&journal).len() == 10).await;
    worker.stop.cancel();
    go.send(true).unwrap();
    worker.stop().await;
    assert_eq!((ran(&journal).len(), left(&store).await), (10, 40));
    let held = "SELECT COUNT(*) FROM lanes WHERE lease_until > 0";
    assert_eq!(count(&store, held).await, 0);
}

async fn what_has_not_started_stays_when_the_lane_is_lost(database: TestDatabase) {
    let clock = ManualClock::start();
    let (store, other) = (
        database.store_on(clock.clone()).await,
        database.store_on(clock.clone()).await,
    );
    let (go, gone) = watch::channel(false);
    let (rows, journal) = hands(move |_| {
        let mut gone = gone.clone();
        async move {
            gone.wait_for(|gone| *gone).await.unwrap();
            done()
        }
    });
    let aggregate = uuid();
    let first = EventRow::new("a").of(&aggregate).at(1).insert(&store).await;
    let second = EventRow::new("a").of(&aggregate).at(2).insert(&store).await;
    let worker = Running::start(&store, rows, settings());
    until("the first runs", async || ran(&journal).len() == 1).await;

    // It sleeps past its lease, and another one takes the lane over.
    until("taken over", async || {
        clock.advance(Duration::from_secs(31));
        let leases = other.claim_lanes(LaneKind::Events, 64).await.unwrap();
        !leases.is_empty()
    })
    .await;
    go.send(true).unwrap();
    until("the first is done", async || left(&store).await == 1).await;
    worker.stop().await;
    assert_eq!(ran(&journal), std::slice::from_ref(&first));
    assert!(!row_state(&store, &second).await.processed);
}

async fn no_more_rows_run_at_once_than_allowed(database: TestDatabase) {
    let store = database.store().await;
    let running = Arc::new(Mutex::new((0, 0)));
    let seen = Arc::clone(&running);
    let (rows, _) = hands(move |_| {
        let seen = Arc::clone(&seen);
        async move {
            {
                let mut seen = seen.lock().unwrap();
                seen.0 += 1;
                seen.1 = seen.1.max(seen.0);
            }
            tokio::task::yield_now().await;
            seen.lock().unwrap().0 -= 1;
            done()
        }
    });
    let batch: Vec<EventRow> = (0..500).map(|n| EventRow::new("a").at(n)).collect();
    insert_rows(&store, &batch).await;
    let few = WorkerSettings {
        concurrency: 7,
        ..settings()
    };
    let worker = Running::start(&store, rows, few);
    until("all done", async || left(&store).await == 0).await;
    worker.stop().await;
    let most = running.lock().unwrap().1;
    assert!(most <= 7, "{most}");
}

async fn a_waiting_row_can_be_hurried(database: TestDatabase) {
    let store = database.store().await;
    let (rows, journal) = hands(|_| async { done() });
    let id = EventRow::new("a").insert(&store).await;
    execute(
        &store,
        "UPDATE events SET next_attempt_at = 9000000000000000",
    )
    .await;
    let worker = worker(&store, rows, settings());
    assert_eq!(worker.turn().await.unwrap(), Turn::default());

    let asked = worker.process_event(&id).await.unwrap();
    assert_eq!(asked, Asked::Started);
    until("it is done", async || left(&store).await == 0).await;
    assert_eq!(ran(&journal), std::slice::from_ref(&id));
    let again = worker.process_event(&id).await.unwrap();
    assert_eq!(again, Asked::Processed);
    let other = worker.process_event(&uuid()).await.unwrap();
    assert_eq!(other, Asked::Unknown);
    EventRow::new("a").insert(&store).await;
    worker.process_batch();
    until("all done", async || left(&store).await == 0).await;
}

async fn every_lane_has_its_turn_with_small_hands(database: TestDatabase) {
    let store = database.store().await;
    let (rows, journal) = hands(|_| async { done() });
    let batch: Vec<EventRow> = (0..640).map(|n| EventRow::new("a").at(n)).collect();
    insert_rows(&store, &batch).await;
    let small = WorkerSettings {
        concurrency: 1,
        batch_size: 1,
        ..settings()
    };
    let worker = Running::start(&store, rows, small);
    until("all done", async || left(&store).await == 0).await;
    worker.stop().await;
    assert_eq!(ran(&journal).len(), 640);
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
