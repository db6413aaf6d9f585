//! Rows P4, P5, P13 and X3's ground: a process that dies or sleeps in the middle of its work.

use std::time::Duration;

use hookyard::sandbox::{Fault, Hold, Instance};
use hookyard::store::{Pool, Store};

use crate::support::{
    LEASE, TestDatabase, Town, both_databases, contract_event, count, eventually, execute,
};

both_databases!(
    p4_killed_before_the_claim,
    p4_killed_after_the_claim,
    p4_killed_after_chargebee,
    p4_killed_after_hasura,
    p4_killed_before_the_commit,
    p4_killed_after_the_commit,
    p4_killed_after_publishing,
    p4_killed_after_marking,
    p4_killed_after_the_acknowledgement,
    p5_a_claim_of_a_dead_process_is_taken_over_after_its_lease_and_not_before,
    p13_a_process_that_slept_past_its_lease_does_not_commit,
);

/// Kills a process at a point, starts another, delivers again, and looks at what became of it.
async fn die_at(database: TestDatabase, point: &str) {
    let town = Town::on(database).await;
    let event = contract_event(point, "signed", "active");
    let mut first = town.start_to_fail_at(&format!("{point}:1")).await;

    let answer = town.push(&first, &event).await;
    let ended = first.wait().await.unwrap();
    assert!(!ended.success(), "it was not killed at {point}: {answer:?}");

    let second = town.start().await;
    town.push_until_taken(&second, &event).await;
    applied_once(&town).await;
}

/// One effect upstream each, one event downstream, nothing left over.
async fn applied_once(town: &Town) {
    town.wait_for_published(1).await;
    town.wait_until_relayed().await;
    assert_eq!(town.effects(), (1, 1));
    let open = "SELECT COUNT(*) FROM inbox WHERE state <> 2";
    assert_eq!(town.count(open).await, 0);
    // The one that activates contracts, and the one that cancels them and had nothing to do.
    assert_eq!(town.count("SELECT COUNT(*) FROM inbox").await, 2);
    assert_eq!(
        town.count("SELECT COUNT(*) FROM event_dead_letters").await,
        0
    );
}

async fn p4_killed_before_the_claim(database: TestDatabase) {
    die_at(database, "before_claim").await;
}

async fn p4_killed_after_the_claim(database: TestDatabase) {
    die_at(database, "after_claim").await;
}

async fn p4_killed_after_chargebee(database: TestDatabase) {
    die_at(database, "after_chargebee").await;
}

async fn p4_killed_after_hasura(database: TestDatabase) {
    die_at(database, "after_hasura").await;
}

async fn p4_killed_before_the_commit(database: TestDatabase) {
    die_at(database, "before_commit").await;
}

async fn p4_killed_after_the_commit(database: TestDatabase) {
    die_at(database, "after_commit").await;
}

async fn p4_killed_after_publishing(database: TestDatabase) {
    die_at(database, "after_publish").await;
}

async fn p4_killed_after_marking(database: TestDatabase) {
    die_at(database, "after_mark").await;
}

async fn p4_killed_after_the_acknowledgement(database: TestDatabase) {
    let town = Town::on(database).await;
    let event = contract_event("acked", "signed", "active");
    let mut first = town.start().await;
    assert_eq!(town.push(&first, &event).await, Some(200));
    first.kill().await;

    // Acknowledged is kept: nothing is delivered again, what is owed is paid all the same.
    let second = town.start().await;
    applied_once(&town).await;
    assert_eq!(town.push(&second, &event).await, Some(200));
    applied_once(&town).await;
}

async fn p5_a_claim_of_a_dead_process_is_taken_over_after_its_lease_and_not_before(
    database: TestDatabase,
) {
    let town = Town::on(database).await;
    let town = town.variable("LEASE_MS", "3000");
    let event = contract_event("p5", "signed", "active");
    let second = town.start().await;
    let mut first = town.start_to_fail_at("after_claim:1").await;
    let begun = tokio::time::Instant::now();
    town.push(&first, &event).await;
    first.wait().await.unwrap();

    // It waits for the other's lease to end as long as its own budget lasts.
    town.push_until_taken(&second, &event).await;

    // Two processes' clocks may differ a little.
    assert!(begun.elapsed() >= Duration::from_millis(2900));
    applied_once(&town).await;
    let attempt = "SELECT COUNT(*) FROM inbox WHERE attempt > 1 AND fence > 1";
    assert!(town.count(attempt).await >= 1);
}

/// Stops a process, but not in the middle of a transaction: SQLite's only lock would sleep with it,
/// and on PostgreSQL what it has locked, so that nobody could overtake it.
async fn put_to_sleep(process: &Instance, store: &Store) {
    let what = || "whenever it is stopped it holds a lock".to_owned();
    eventually(what, async || {
        process.signal("STOP").await.unwrap();
        let holds_nothing = holds_nothing(store);
        let free = tokio::time::timeout(Duration::from_secs(1), holds_nothing);
        let free = free.await.is_ok();
        if !free {
            process.signal("CONT").await.unwrap();
        }
        free
    })
    .await;
}

/// Ends when no other process is in the middle of a transaction.
async fn holds_nothing(store: &Store) {
    match store.pool() {
        Pool::Sqlite { .. } => execute(store, "UPDATE lanes SET lane = lane WHERE 1 = 0").await,
        Pool::Postgres(_) => {
            let open = "SELECT COUNT(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL \
                AND datname = current_database() AND pid <> pg_backend_pid()";
            while count(store, open).await > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn p13_a_process_that_slept_past_its_lease_does_not_commit(database: TestDatabase) {
    let town = Town::on(database).await;
    let event = contract_event("p13", "signed", "active");
    let (sleeper, other) = (town.start().await, town.start().await);
    let store = town.store().await;
    let hold = Hold::default();
    let faults = town.sandbox.chargebee().faults();
    faults.pass(); // its question
    faults.next(Fault::Held(hold.clone())); // its write

    let slept = town.push(&sleeper, &event);
    let overtaken = async {
        hold.held(1).await;
        put_to_sleep(&sleeper, &store).await;
        tokio::time::sleep(LEASE).await;
        town.push_until_taken(&other, &event).await;
        hold.release();
        sleeper.signal("CONT").await.unwrap();
    };
    let (answer, ()) = tokio::join!(slept, overtaken);

    // Whatever it answers, it has not ended what it does not hold any longer.
    assert!(matches!(answer, Some(200 | 503)), "{answer:?}");
    applied_once(&town).await;
    let fence = "SELECT COUNT(*) FROM inbox WHERE attempt > 1 AND fence > 1";
    assert!(
        town.count(fence).await >= 1,
        "the one that was held was taken over"
    );
    assert_eq!(town.count("SELECT COUNT(*) FROM outbox").await, 1);
}
