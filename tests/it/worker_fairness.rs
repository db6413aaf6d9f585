//! The worker of the `events` table: who holds up whom, what wakes it, leases and stops.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookyard::clock::ManualClock;
use hookyard::ingress::{Asked, Turn, WorkerSettings};
use hookyard::pipeline::Outcome;
use hookyard::store::LaneKind;
use tokio::sync::{Semaphore, watch};

use crate::support::hands::{
    Running, done, ended, failed, hands, left, orders, ran, settings, until, worker,
};
use crate::support::rows::{EventRow, count, execute, insert_rows, row_state, uuid};
use crate::support::{TestDatabase, both_databases};

both_databases!(
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
);

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
