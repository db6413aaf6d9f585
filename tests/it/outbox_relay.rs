//! The relay on both databases: rows W15, U14, U15, P6, X7, X12.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookyard::brokers::MemoryBroker;
use hookyard::clock::{ManualClock, SharedClock};
use hookyard::egress::RelayOptions;
use hookyard::store::lanes::still_ours;
use hookyard::store::outbox::{self, OutboxRow};
use hookyard::store::{LaneKind, Pool, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::outbox_kit::{Journal, commit, ids_in_state, relay, row};
use crate::support::{TestDatabase, both_databases, eventually};

both_databases!(
    w15_a_commit_publishes_exactly_its_rows_and_a_rollback_none,
    w15_a_message_leaves_as_it_was_written,
    w15_a_row_larger_than_the_brokers_limit_is_parked_and_its_key_goes_on,
    w15_a_parked_row_that_is_put_back_is_published,
    w15_a_second_run_of_a_handler_adds_no_second_row,
    w15_rows_are_found_by_polling_alone,
    w15_a_commit_wakes_the_relay_of_its_own_instance,
    u14_rows_wait_while_the_broker_is_away_and_then_leave_in_order,
    u15_a_message_whose_confirmation_was_lost_leaves_again_under_its_id,
    a_panic_over_one_message_does_not_keep_others_back,
    a_key_that_fails_waits_and_the_others_go_on,
    p6_a_thousand_rows_left_by_a_killed_relay_are_published_in_order,
    x7_two_relays_share_the_rows_and_no_key_is_reordered,
    x7_a_relay_whose_lane_was_taken_over_marks_nothing,
    x12_a_relay_without_its_database_publishes_nothing_past_its_lease,
    a_relay_that_is_stopped_gives_its_lanes_back,
    what_waits_is_counted,
);

/// Longer than any test: a relay that polls this seldom has to be woken.
const NEVER: Duration = Duration::from_secs(3600);

const SEEN: RelayOptions = RelayOptions {
    poll: NEVER,
    lanes: 16,
    in_flight: 256,
    count_every: Duration::from_secs(10),
};

struct Stage {
    clock: Arc<ManualClock>,
    store: Store,
    broker: Arc<Journal>,
}

impl Stage {
    async fn on(database: &TestDatabase) -> Self {
        let clock = ManualClock::start();
        Self {
            store: database.store_on(clock.clone()).await,
            broker: Journal::new(),
            clock,
        }
    }

    fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    async fn drain(&self) {
        let relay = relay(&self.store, &self.broker, &self.clock());
        relay.drain().await.unwrap();
    }
}

fn rows_of(key: &str, ids: impl IntoIterator<Item = usize>) -> Vec<OutboxRow> {
    let id = |i| row(&format!("{key}-{i}"), Some(key));
    ids.into_iter().map(id).collect()
}

async fn w15_a_commit_publishes_exactly_its_rows_and_a_rollback_none(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    commit(&stage.store, &rows_of("a", 0..3)).await;
    let mut tx = stage.store.begin().await.unwrap();
    outbox::insert(&mut tx, &rows_of("b", 0..3), stage.store.now())
        .await
        .unwrap();
    drop(tx);
    commit(&stage.store, &[row("c", None)]).await;

    stage.drain().await;
    stage.drain().await;

    let mut ids = stage.broker.ids();
    ids.sort_unstable();
    assert_eq!(ids, ["a-0", "a-1", "a-2", "c"]);
    assert_eq!(ids_in_state(&stage.store, 1).await.len(), 4);
    assert!(ids_in_state(&stage.store, 0).await.is_empty());
}

async fn w15_a_message_leaves_as_it_was_written(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    let mut odd = row("odd", Some("key\0 \u{1f600} '"));
    odd.data = Bytes::from_static(b"\x00\xff{\"big\": 123456789012345678901234567890}");
    odd.attributes
        .push(("name \"\\ \0".to_owned(), "é\n".to_owned()));
    commit(&stage.store, std::slice::from_ref(&odd)).await;

    stage.drain().await;

    let message = stage.broker.messages().remove(0);
    assert_eq!(message.data, odd.data);
    assert_eq!(message.attributes, odd.attributes);
    // PostgreSQL's text has no room for NUL.
    let key = message.ordering_key.unwrap().replace('\u{fffd}', "\0");
    assert_eq!(Some(key), odd.ordering_key);
}

async fn w15_a_row_larger_than_the_brokers_limit_is_parked_and_its_key_goes_on(
    database: TestDatabase,
) {
    let stage = Stage::on(&database).await;
    let broker = Arc::new(MemoryBroker::new());
    let mut rows = rows_of("a", 0..3);
    rows[1].data = Bytes::from(vec![b'x'; 10_000_001]);
    commit(&stage.store, &rows).await;

    let relay = relay(&stage.store, &broker, &stage.clock());
    relay.drain().await.unwrap();

    let sent = broker.published("events");
    let sent: Vec<&str> = sent
        .iter()
        .map(|sent| sent.message.attributes[0].1.as_str())
        .collect();
    assert_eq!(sent, ["a-0", "a-2"]);
    assert_eq!(ids_in_state(&stage.store, 2).await, ["a-1"]);
    assert_eq!(
        dead_letters(&stage.store).await,
        [("a-1".to_owned(), "message_too_large".to_owned())]
    );
}

async fn dead_letters(store: &Store) -> Vec<(String, String)> {
    let sql = "SELECT event_key, error_code FROM event_dead_letters WHERE source = 'outbox'";
    match store.pool() {
        Pool::Sqlite { read, .. } => sqlx::query_as(sql).fetch_all(read).await,
        Pool::Postgres(pool) => sqlx::query_as(sql).fetch_all(pool).await,
    }
    .unwrap()
}

async fn w15_a_parked_row_that_is_put_back_is_published(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    stage.broker.refuse("a-0");
    commit(&stage.store, &rows_of("a", 0..2)).await;
    for _ in 0..2 {
        stage.drain().await;
        assert_eq!(stage.broker.ids(), ["a-1"]);
        let mut tx = stage.store.begin().await.unwrap();
        assert!(outbox::wait_again(&mut tx, "a-0").await.unwrap());
        assert!(!outbox::wait_again(&mut tx, "a-1").await.unwrap());
        tx.commit().await.unwrap();
    }
    assert_eq!(dead_letters(&stage.store).await.len(), 2);
    let broker = Journal::new();
    let relay = relay(&stage.store, &broker, &stage.clock());
    relay.drain().await.unwrap();

    assert_eq!(broker.ids(), ["a-0"]);
}

async fn w15_a_second_run_of_a_handler_adds_no_second_row(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    commit(&stage.store, &rows_of("a", 0..2)).await;
    stage.drain().await;
    commit(&stage.store, &rows_of("a", 0..3)).await;
    stage.drain().await;

    assert_eq!(stage.broker.ids(), ["a-0", "a-1", "a-2"]);
}

async fn w15_rows_are_found_by_polling_alone(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let options = RelayOptions {
        poll: Duration::from_millis(10),
        ..SEEN
    };
    let relay = relay(&stage.store, &stage.broker, &stage.clock()).options(options);
    tasks.spawn(relay.run(stop.clone()));
    for i in 0..3 {
        commit(&stage.store, &rows_of("a", [i])).await;
        stage.broker.wait_for(i + 1).await;
    }

    stop.cancel();
    tasks.join_all().await;
    assert_eq!(stage.broker.ids(), ["a-0", "a-1", "a-2"]);
}

async fn w15_a_commit_wakes_the_relay_of_its_own_instance(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let relay = relay(&stage.store, &stage.broker, &stage.clock()).options(SEEN);
    tasks.spawn(relay.run(stop.clone()));
    for i in 0..20 {
        commit(&stage.store, &rows_of("a", [i])).await;
        stage.store.wakeups().outbox.notify_one();
        stage.broker.wait_for(i + 1).await;
    }

    stop.cancel();
    tasks.join_all().await;
    assert!(ids_in_state(&stage.store, 0).await.is_empty());
}

#[tokio::test]
async fn w15_a_notification_wakes_the_relay_of_another_instance() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let stage = Stage::on(&database).await;
    let other = database.store_on(stage.clock()).await;
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    tasks.spawn(stage.store.clone().listen(stop.clone()));
    tasks.spawn(other.clone().listen(stop.clone()));
    let relay = relay(&stage.store, &stage.broker, &stage.clock()).options(SEEN);
    tasks.spawn(relay.run(stop.clone()));
    for i in 0..5 {
        commit(&other, &rows_of("a", [i])).await;
        other.wakeups().outbox.notify_one();
        stage.broker.wait_for(i + 1).await;
    }

    stop.cancel();
    tasks.join_all().await;
    assert!(ids_in_state(&stage.store, 0).await.is_empty());
}

async fn u14_rows_wait_while_the_broker_is_away_and_then_leave_in_order(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    let rows: Vec<OutboxRow> = (0..40)
        .flat_map(|key| rows_of(&format!("k{key}"), 0..5))
        .collect();
    for row in &rows {
        stage.broker.fail(&row.message_id, usize::MAX, false);
    }
    commit(&stage.store, &rows).await;

    stage.drain().await;
    let tried = stage.broker.asked();
    assert!(stage.broker.ids().is_empty());
    assert!(tried < 300, "it goes on trying: {tried}");
    assert_eq!(ids_in_state(&stage.store, 0).await.len(), 200);

    stage.broker.fails_no_more();
    stage.drain().await;
    assert_eq!(stage.broker.ids().len(), 200);
    for (key, ids) in stage.broker.first_by_key() {
        let wanted: Vec<String> = (0..5).map(|i| format!("{key}-{i}")).collect();
        assert_eq!(ids, wanted);
    }
}

async fn u15_a_message_whose_confirmation_was_lost_leaves_again_under_its_id(
    database: TestDatabase,
) {
    let stage = Stage::on(&database).await;
    stage.broker.fail("a-1", 1, true);
    commit(&stage.store, &rows_of("a", 0..3)).await;

    stage.drain().await;
    assert_eq!(stage.broker.ids(), ["a-0", "a-1"]);
    stage.drain().await;

    assert_eq!(stage.broker.ids(), ["a-0", "a-1", "a-1", "a-2"]);
    let messages = stage.broker.messages();
    assert_eq!(messages[1].data, messages[2].data);
    assert_eq!(messages[1].attributes, messages[2].attributes);
}

async fn a_panic_over_one_message_does_not_keep_others_back(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    stage.broker.panic_over("a-0");
    commit(&stage.store, &rows_of("a", 0..2)).await;
    commit(&stage.store, &rows_of("b", 0..2)).await;

    stage.drain().await;
    assert_eq!(stage.broker.ids(), ["b-0", "b-1"]);
    stage.drain().await;

    assert_eq!(stage.broker.ids(), ["b-0", "b-1", "a-0", "a-1"]);
}

async fn a_key_that_fails_waits_and_the_others_go_on(database: TestDatabase) {
    let mut stage = Stage::on(&database).await;
    // However far the clock is moved below, the relay keeps its lanes.
    stage.store = database.connect_with(stage.clock(), |config| {
        config.lease = Duration::from_secs(24 * 3600);
    });
    stage.broker.fail("bad-0", 2, false);
    // More of it than is held in memory.
    commit(&stage.store, &rows_of("bad", 0..600)).await;
    for key in 0..100 {
        commit(&stage.store, &rows_of(&format!("k{key}"), 0..2)).await;
    }
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let options = RelayOptions {
        poll: Duration::from_millis(20),
        ..SEEN
    };
    let relay = relay(&stage.store, &stage.broker, &stage.clock()).options(options);
    tasks.spawn(relay.run(stop.clone()));
    stage.broker.wait_for(200).await;
    assert!(!stage.broker.first_by_key().contains_key("bad"));

    let what = || format!("{} of 800 have arrived", stage.broker.ids().len());
    eventually(what, async || {
        stage.clock.advance(Duration::from_secs(1));
        stage.broker.ids().len() >= 800
    })
    .await;
    stop.cancel();
    tasks.join_all().await;

    let wanted: Vec<String> = (0..600).map(|i| format!("bad-{i}")).collect();
    assert_eq!(stage.broker.first_by_key()["bad"], wanted);
    assert_eq!(stage.broker.ids().len(), 800);
}

async fn p6_a_thousand_rows_left_by_a_killed_relay_are_published_in_order(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    for batch in 0..50 {
        let rows: Vec<OutboxRow> = (0..20)
            .flat_map(|key| rows_of(&format!("k{key}"), [batch]))
            .collect();
        commit(&stage.store, &rows).await;
    }
    stage.broker.shut();
    stage.broker.let_pass(300);
    let mut tasks = JoinSet::new();
    let killed = relay(&stage.store, &stage.broker, &stage.clock());
    tasks.spawn(async move { killed.drain().await });
    stage.broker.wait_for(300).await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    stage.broker.let_pass(2000);

    // Its lanes are held until their leases end.
    stage.clock.advance(Duration::from_secs(31));
    stage.drain().await;

    for (key, ids) in stage.broker.first_by_key() {
        let wanted: Vec<String> = (0..50).map(|i| format!("{key}-{i}")).collect();
        assert_eq!(ids, wanted);
    }
    assert_eq!(ids_in_state(&stage.store, 1).await.len(), 1000);
}

async fn x7_two_relays_share_the_rows_and_no_key_is_reordered(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    for _ in 0..2 {
        let store = database.store_on(stage.clock()).await;
        let options = RelayOptions {
            poll: Duration::from_millis(5),
            lanes: 4,
            ..SEEN
        };
        let relay = relay(&store, &stage.broker, &stage.clock()).options(options);
        tasks.spawn(relay.run(stop.clone()));
    }
    for batch in 0..20 {
        let rows: Vec<OutboxRow> = (0..30)
            .flat_map(|key| rows_of(&format!("k{key}"), [batch]))
            .collect();
        commit(&stage.store, &rows).await;
    }
    stage.broker.wait_for(600).await;
    stop.cancel();
    tasks.join_all().await;

    for (key, ids) in stage.broker.first_by_key() {
        let wanted: Vec<String> = (0..20).map(|i| format!("{key}-{i}")).collect();
        assert_eq!(ids, wanted);
    }
    assert_eq!(stage.broker.ids().len(), 600, "published twice");
    assert!(ids_in_state(&stage.store, 0).await.is_empty());
}

async fn x7_a_relay_whose_lane_was_taken_over_marks_nothing(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    commit(&stage.store, &rows_of("a", 0..1)).await;
    let first = stage.store.claim_lanes(LaneKind::Outbox, 64).await.unwrap();
    let other = database.store_on(stage.clock()).await;
    assert_eq!(first.len(), 1);
    assert!(
        other
            .claim_lanes(LaneKind::Outbox, 64)
            .await
            .unwrap()
            .is_empty()
    );

    stage.clock.advance(Duration::from_secs(31));
    let second = other.claim_lanes(LaneKind::Outbox, 64).await.unwrap();
    assert_eq!(second[0].fence, first[0].fence + 1);

    let mut tx = stage.store.begin().await.unwrap();
    let ours = still_ours(&mut tx, LaneKind::Outbox, &first).await.unwrap();
    assert!(ours.is_empty());
    let theirs = still_ours(&mut tx, LaneKind::Outbox, &second)
        .await
        .unwrap();
    assert_eq!(theirs, [second[0].lane]);
    drop(tx);
    let renewed = stage.store.renew_lanes(LaneKind::Outbox, &first).await;
    assert!(renewed.unwrap().is_empty());
    stage
        .store
        .release_lanes(LaneKind::Outbox, &first)
        .await
        .unwrap();
    let third = stage.store.claim_lanes(LaneKind::Outbox, 64).await.unwrap();
    assert!(third.is_empty(), "gave back what was not its own");
    assert!(
        !stage
            .store
            .pause_lane(LaneKind::Outbox, &first[0], 0)
            .await
            .unwrap()
    );
}

async fn x12_a_relay_without_its_database_publishes_nothing_past_its_lease(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    commit(&stage.store, &rows_of("a", 0..5)).await;
    stage.broker.shut();
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let cut_off = database.store_on(stage.clock()).await;
    let options = RelayOptions {
        poll: Duration::from_millis(5),
        ..SEEN
    };
    let relay = relay(&cut_off, &stage.broker, &stage.clock()).options(options);
    tasks.spawn(relay.run(stop.clone()));
    stage.broker.wait_for_a_try().await;

    cut_off.close().await;
    stage.clock.advance(Duration::from_secs(31));
    stage.broker.let_pass(100);
    stage.broker.wait_for(1).await;
    stop.cancel();
    tasks.join_all().await;
    assert_eq!(stage.broker.ids(), ["a-0"]);

    stage.drain().await;
    assert_eq!(stage.broker.first_by_key()["a"].len(), 5);
}

async fn a_relay_that_is_stopped_gives_its_lanes_back(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    stage.broker.fail("a-0", usize::MAX, false);
    commit(&stage.store, &rows_of("a", 0..3)).await;
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let stopped = relay(&stage.store, &stage.broker, &stage.clock()).options(SEEN);
    tasks.spawn(stopped.run(stop.clone()));
    stage.broker.wait_for_a_try().await;
    stop.cancel();
    tasks.join_all().await;
    stage.broker.fails_no_more();

    let other = database.store_on(stage.clock()).await;
    let relay = relay(&other, &stage.broker, &stage.clock());
    relay.drain().await.unwrap();

    assert_eq!(stage.broker.ids(), ["a-0", "a-1", "a-2"]);
}

async fn what_waits_is_counted(database: TestDatabase) {
    let stage = Stage::on(&database).await;
    let before = stage.store.outbox_backlog().await.unwrap();
    assert_eq!((before.rows, before.oldest), (0, None));
    let written = stage.store.now();
    commit(&stage.store, &rows_of("a", 0..2)).await;
    stage.clock.advance(Duration::from_secs(7));
    commit(&stage.store, &rows_of("b", 0..1)).await;

    let backlog = stage.store.outbox_backlog().await.unwrap();

    assert_eq!((backlog.rows, backlog.oldest), (3, Some(written)));
}
