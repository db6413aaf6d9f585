//! The worker of the `events` table: rows that take the process along, and what is counted of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::pending;
use hookyard::clock::ManualClock;
use hookyard::pipeline::{Outcome, Settled};
use hookyard::store::{LaneKind, Store};
use tokio::sync::Semaphore;

use crate::support::hands::{
    Hands, done, ended, failed, hands, left, ran, settings, until, worker,
};
use crate::support::rows::{EventRow, RowState, count, insert_rows, row_state, uuid};
use crate::support::{TestDatabase, Town, both_databases, customer_event, eventually};

both_databases!(
    x4_a_row_that_ends_the_process_becomes_a_dead_letter_and_takes_nobody_along,
    a_try_is_counted_ahead_only_after_a_lane_was_never_given_back,
    a_row_that_fails_in_a_lane_never_given_back_has_failed_once,
    what_is_no_try_is_none_after_a_crash_either,
    a_row_that_may_end_the_process_runs_beside_the_others_but_no_second_one,
    a_row_that_may_end_the_process_begins_when_the_one_before_is_marked,
    x4_a_pushed_event_that_kills_every_process_is_given_up_while_the_others_run,
);

/// Longer than a lease and any pause after it.
const LATER: Duration = Duration::from_secs(60);

const LETTERS: &str = "SELECT COUNT(*) FROM event_dead_letters";

/// A process that dies as soon as `deadly` holds: what runs in it never ends.
async fn die(store: &Store, rows: Arc<Hands>, deadly: impl AsyncFnMut() -> bool) {
    let dying = worker(store, rows, settings());
    tokio::select! {
        turn = dying.turn() => panic!("it lives: {turn:?}"),
        () = until("it dies", deadly) => {}
    }
}

/// Leaves every lane with due rows behind, as a process does that dies.
async fn abandon(store: &Store, clock: &Arc<ManualClock>) {
    let leases = store.claim_lanes(LaneKind::Events, 64).await.unwrap();
    assert!(!leases.is_empty());
    clock.advance(LATER);
}

async fn x4_a_row_that_ends_the_process_becomes_a_dead_letter_and_takes_nobody_along(
    database: TestDatabase,
) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let deaths = Arc::new(AtomicUsize::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let (dies, counted) = (Arc::clone(&deaths), Arc::clone(&begun));
    let (rows, journal) = hands(move |row| {
        // Slow ones are taken along by the first two deaths.
        let ends = match row.event_type.as_str() {
            "poison" => false,
            "slow" => dies.load(Ordering::SeqCst) >= 2,
            _ => true,
        };
        let counted = Arc::clone(&counted);
        async move {
            if row.event_type == "poison" {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            match ends {
                true => done(),
                false => pending().await,
            }
        }
    });
    let aggregate = uuid();
    let poison = EventRow::new("poison").of(&aggregate).at(0);
    let poison = poison.insert(&store).await;
    let behind = EventRow::new("good").of(&aggregate).at(1);
    let behind = behind.insert(&store).await;
    let slow: Vec<EventRow> = (0..10).map(|n| EventRow::new("slow").at(n)).collect();
    insert_rows(&store, &slow).await;
    let good: Vec<EventRow> = (0..40).map(|n| EventRow::new("good").at(n)).collect();
    insert_rows(&store, &good).await;

    // The first death cannot be told from any other.
    for death in 0..6 {
        die(&store, Arc::clone(&rows), async || {
            begun.load(Ordering::SeqCst) == death + 1 && left(&store).await <= 12
        })
        .await;
        deaths.fetch_add(1, Ordering::SeqCst);
        let state = row_state(&store, &poison).await;
        assert_eq!(state.attempts, i32::try_from(death).unwrap());
        clock.advance(LATER);
    }
    let turn = worker(&store, rows, settings()).turn().await.unwrap();

    assert_eq!((turn.given_up, turn.put_off), (1, 0));
    assert_eq!(left(&store).await, 0, "what waited behind it goes on");
    assert_eq!(
        begun.load(Ordering::SeqCst),
        6,
        "it is not run to be given up"
    );
    let behind = ran(&journal).iter().filter(|id| **id == behind).count();
    assert_eq!(behind, 1);
    let state = row_state(&store, &poison).await;
    assert_eq!((state.processed, &*state.status), (true, "dead_lettered"));
    assert_eq!(count(&store, LETTERS).await, 1);
    let letters = "SELECT COUNT(*) FROM event_dead_letters WHERE retry_count = 5 \
        AND event_type = 'poison' AND error_code = 'worker_crashed' AND handler IS NULL";
    assert_eq!(count(&store, letters).await, 1);
    let well = "SELECT COUNT(*) FROM events WHERE status = 'done' AND attempts = 0";
    assert_eq!(count(&store, well).await, 51);
    let held = "SELECT COUNT(*) FROM held_aggregates";
    assert_eq!(count(&store, held).await, 0);
}

type Seen = Arc<Mutex<Vec<RowState>>>;

/// Hands that note how the row stands while it runs, and settle it so.
fn watching(
    store: &Store,
    settled: impl Fn() -> Settled + Send + Sync + 'static,
) -> (Arc<Hands>, Seen) {
    let seen = Seen::default();
    let (notes, store) = (Arc::clone(&seen), store.clone());
    let (rows, _) = hands(move |row| {
        let (notes, store, settled) = (Arc::clone(&notes), store.clone(), settled());
        async move {
            let state = row_state(&store, &row.id).await;
            notes.lock().unwrap().push(state);
            settled
        }
    });
    (rows, seen)
}

async fn a_try_is_counted_ahead_only_after_a_lane_was_never_given_back(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let (rows, seen) = watching(&store, done);
    let worker = worker(&store, rows, settings());

    EventRow::new("a").insert(&store).await;
    worker.turn().await.unwrap();
    clock.advance(LATER);
    EventRow::new("a").insert(&store).await;
    worker.turn().await.unwrap();
    let states = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(states.len(), 2);
    assert!(
        states
            .iter()
            .all(|s| s.attempts == 0 && s.error_code.is_none())
    );

    let id = EventRow::new("a").insert(&store).await;
    abandon(&store, &clock).await;
    worker.turn().await.unwrap();
    let state = seen.lock().unwrap().pop().unwrap();
    assert_eq!(state.error_code.as_deref(), Some("worker_crashed"));
    assert_eq!(
        (state.attempts, state.next_attempt_at > store.now()),
        (1, true)
    );
    let state = row_state(&store, &id).await;
    assert_eq!((state.attempts, &*state.status), (0, "done"));
    let left = "SELECT COUNT(*) FROM lanes WHERE failures > 0 OR holder IS NOT NULL";
    assert_eq!(
        count(&store, left).await,
        0,
        "it is given back as any other"
    );
}

async fn a_row_that_fails_in_a_lane_never_given_back_has_failed_once(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let (rows, seen) = watching(&store, || failed("timeout", Duration::from_secs(1), false));
    let id = EventRow::new("a").insert(&store).await;
    abandon(&store, &clock).await;

    let turn = worker(&store, rows, settings()).turn().await.unwrap();

    assert_eq!((turn.put_off, seen.lock().unwrap()[0].attempts), (1, 1));
    let state = row_state(&store, &id).await;
    assert_eq!(
        (state.attempts, state.error_code.as_deref()),
        (1, Some("timeout"))
    );
    assert!(state.next_attempt_at < store.now() + 2_000_000);
}

async fn what_is_no_try_is_none_after_a_crash_either(database: TestDatabase) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let second = Duration::from_secs(1);
    let soon = move || ended(Outcome::Retry(second));
    let rests = move || failed("breaker_open", second, true);
    let aggregate = uuid();
    let id = EventRow::new("a").of(&aggregate).insert(&store).await;
    for no_try in [
        Box::new(soon) as Box<dyn Fn() -> Settled + Send + Sync>,
        Box::new(rests),
    ] {
        let (rows, seen) = watching(&store, no_try);
        abandon(&store, &clock).await;
        worker(&store, rows, settings()).turn().await.unwrap();
        assert_eq!(seen.lock().unwrap()[0].attempts, 1);
        assert_eq!(row_state(&store, &id).await.attempts, 0);
        clock.advance(2 * second);
    }
    let (rows, seen) = watching(&store, done);
    let turn = worker(&store, rows, settings()).turn().await.unwrap();
    assert_eq!((turn.settled, seen.lock().unwrap()[0].attempts), (1, 1));
    let held = "SELECT COUNT(*) FROM held_aggregates";
    assert_eq!(count(&store, held).await, 0);
}

async fn a_row_that_may_end_the_process_runs_beside_the_others_but_no_second_one(
    database: TestDatabase,
) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let suspects: Vec<EventRow> = (0..20).map(|n| EventRow::new("suspect").at(n)).collect();
    insert_rows(&store, &suspects).await;
    let (never, journal) = hands(|_| pending());
    for deaths in 1..=2 {
        die(&store, Arc::clone(&never), async || {
            ran(&journal).len() == 20 * deaths
        })
        .await;
        clock.advance(LATER);
    }
    let charged = "SELECT COUNT(*) FROM events WHERE attempts = 1";
    assert_eq!(count(&store, charged).await, 20);

    let running = Arc::new(AtomicUsize::new(0));
    let good = Arc::new(Semaphore::new(0));
    let (now, goods) = (Arc::clone(&running), Arc::clone(&good));
    let (rows, _) = hands(move |row| {
        let (now, goods) = (Arc::clone(&now), Arc::clone(&goods));
        async move {
            if row.event_type == "good" {
                goods.add_permits(1);
                return done();
            }
            assert_eq!(now.fetch_add(1, Ordering::SeqCst), 0, "two at once");
            // The first one waits until all the others have run.
            drop(goods.acquire_many(100).await.unwrap());
            now.fetch_sub(1, Ordering::SeqCst);
            done()
        }
    });
    let others: Vec<EventRow> = (0..100)
        .map(|n| EventRow::new("good").at(100 + n))
        .collect();
    insert_rows(&store, &others).await;
    let turn = worker(&store, rows, settings()).turn().await.unwrap();
    assert_eq!((turn.settled, left(&store).await), (120, 0));
}

async fn a_row_that_may_end_the_process_begins_when_the_one_before_is_marked(
    database: TestDatabase,
) {
    let clock = ManualClock::start();
    let store = database.store_on(clock.clone()).await;
    let suspects: Vec<EventRow> = (0..5).map(|n| EventRow::new("suspect").at(n)).collect();
    insert_rows(&store, &suspects).await;
    let (never, journal) = hands(|_| pending());
    for deaths in 1..=2 {
        die(&store, Arc::clone(&never), async || {
            ran(&journal).len() == 5 * deaths
        })
        .await;
        clock.advance(LATER);
    }
    let open = Arc::new(Mutex::new(Vec::new()));
    let (seen, looked) = (Arc::clone(&open), store.clone());
    let (rows, _) = hands(move |_| {
        let (seen, store) = (Arc::clone(&seen), looked.clone());
        async move {
            let open = left(&store).await;
            seen.lock().unwrap().push(open);
            done()
        }
    });

    worker(&store, rows, settings()).turn().await.unwrap();

    // Or the next one would take along what is known of the one before.
    assert_eq!(*open.lock().unwrap(), [5, 4, 3, 2, 1]);
}

/// A row with work for a handler.
fn answer(n: i64) -> EventRow {
    let payload =
        r#"{"userId":"5f0c6a7e-1d7a-4a39-9f5e-000000000101","responseType":"t","response":"r"}"#;
    EventRow::new("user.response.recorded")
        .payload(payload)
        .at(n)
}

async fn x4_a_pushed_event_that_kills_every_process_is_given_up_while_the_others_run(
    database: TestDatabase,
) {
    let town = Town::on(database).await;
    let town = town.variable("ENABLE_POLLING", "true");
    let town = town.variable("RETRY_OWNER", "self");
    let town = town.variable("MAX_RETRIES", "3");
    let store = town.store().await;
    let deadly = [("HOOKYARD_FAIL_AT", "handler=customers.delete")];
    let mut instance = town.start_with(&deadly).await;
    let event = customer_event("deadly", "DELETE", "c-1", "A");
    assert_eq!(town.push(&instance, &event).await, Some(200), "it is kept");
    instance.wait().await.unwrap();

    let mut deaths = 1;
    while count(&store, LETTERS).await == 0 {
        let rows: Vec<EventRow> = (0..10).map(answer).collect();
        insert_rows(&store, &rows).await;
        // It may die before it listens.
        let Ok(mut next) = town.fleet.launch(&deadly).await else {
            deaths += 1;
            continue;
        };
        let what = || {
            format!(
                "it neither dies nor lives\n{}",
                town.fleet.logs().join("\n---\n")
            )
        };
        eventually(what, async || {
            next.ended().is_some() || count(&store, LETTERS).await == 1
        })
        .await;
        deaths += i32::from(next.ended().is_some());
        instance = next;
    }
    until("the others are done", async || left(&store).await == 0).await;

    assert_eq!(deaths, 4, "{}", town.fleet.logs().join("\n---\n"));
    assert!(instance.ended().is_none());
    let letters = "SELECT COUNT(*) FROM event_dead_letters WHERE retry_count = 3 \
        AND error_code = 'worker_crashed' AND event_type = 'customers.delete'";
    assert_eq!(count(&store, letters).await, 1);
    let done = "SELECT COUNT(*) FROM events WHERE status = 'done' AND attempts = 0";
    let others = "SELECT COUNT(*) FROM events WHERE event_type = 'user.response.recorded'";
    assert_eq!(count(&store, done).await, count(&store, others).await);
    let running = "SELECT COUNT(*) FROM inbox WHERE state = 1";
    assert_eq!(count(&store, running).await, 0);
}
