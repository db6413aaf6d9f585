//! The dead-letter subscription: what Pub/Sub gave up on is kept beside our own failures.

use std::sync::Arc;

use hookyard::brokers::{MemoryBroker, Message, Publisher, PubsubBroker, Subscriber};
use hookyard::clock::{Deadline, SystemClock};
use hookyard::ingress::DeadLetterDrain;
use hookyard::store::dead_letters::{self, NewDeadLetter};
use hookyard::store::{Pool, Store};
use hookyard::telemetry::Metrics;
use serde_json::json;
use sqlx::Row as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::emulator::Emulator;
use crate::support::{
    Behaviour, DESK, PATIENCE, Probe, TestApp, TestDatabase, both_databases, contract_event,
    eventually, probe_event,
};

both_databases!(
    what_pubsub_gave_up_on_is_kept_with_its_bytes,
    a_message_that_comes_again_is_kept_once,
    given_up_again_it_is_kept_again,
    what_holds_no_event_is_kept_too,
    our_own_dead_letters_keep_their_reason,
    what_this_database_has_already_is_not_kept_twice,
    nothing_is_acknowledged_while_the_database_cannot_keep_it,
    what_is_not_kept_when_the_service_stops_is_handed_back,
    a_service_that_drains_its_own_topic_keeps_each_failure_once,
);

const TOPIC: &str = "undelivered";
const SUBSCRIPTION: &str = "undelivered-desk";
const BYTES: &[u8] = br#"{"a": 12345678901234567890.10}"#;

/// A drain at work.
struct Drain {
    broker: MemoryBroker,
    store: Store,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A row as the tests look at it.
#[derive(Debug, PartialEq, Eq)]
struct Letter {
    key: String,
    event_type: String,
    source: String,
    handler: Option<String>,
    class: String,
    code: String,
    message: String,
    tries: i32,
    original: Vec<u8>,
}

impl Drain {
    fn start(store: Store) -> Self {
        let broker = MemoryBroker::new();
        broker.create_subscription(SUBSCRIPTION, TOPIC);
        Self::of(store, broker.clone(), Arc::new(broker))
    }

    fn of(store: Store, broker: MemoryBroker, subscriber: Arc<dyn Subscriber>) -> Self {
        let metrics = Metrics::new().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let drain = DeadLetterDrain {
            subscriber,
            subscription: SUBSCRIPTION.to_owned(),
            store: store.clone(),
            metrics: metrics.clone(),
        };
        tasks.spawn(drain.run(stop.clone()));
        tasks.close();
        Self {
            broker,
            store,
            metrics,
            stop,
            tasks,
        }
    }

    async fn publish(&self, data: &[u8], attributes: &[(&str, &str)]) {
        let attributes = attributes.iter();
        let message = Message {
            data: data.to_vec().into(),
            attributes: attributes
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ordering_key: None,
        };
        let deadline = Deadline::after(&SystemClock::shared(), PATIENCE);
        let published = self.broker.publish(TOPIC, message, &deadline).await;
        published.unwrap();
    }

    fn count(&self, outcome: &str) -> u64 {
        let drained = &self.metrics.database.drained;
        drained.with_label_values(&[outcome]).get()
    }

    /// Waits until so many messages have been kept or were kept already.
    async fn wait_for_kept(&self, count: u64) {
        let kept = || self.count("kept");
        let what = || format!("{} kept of {count}", kept());
        eventually(what, async || kept() >= count).await;
    }

    /// Waits until the database has refused something.
    async fn wait_for_a_failure(&self) {
        let what = || "nothing has failed".to_owned();
        eventually(what, async || self.count("failed") >= 1).await;
    }

    async fn end(self) -> Vec<Letter> {
        self.stop.cancel();
        self.tasks.wait().await;
        letters(&self.store).await
    }
}

async fn letters(store: &Store) -> Vec<Letter> {
    let sql = "SELECT event_key, event_type, source, handler, error_class, error_code, \
               error_message, retry_count, original FROM event_dead_letters ORDER BY seq";
    macro_rules! rows {
        ($pool:expr) => {
            sqlx::query(sql)
                .fetch_all($pool)
                .await
                .unwrap()
                .into_iter()
                .map(|row| Letter {
                    key: row.get(0),
                    event_type: row.get(1),
                    source: row.get(2),
                    handler: row.get(3),
                    class: row.get(4),
                    code: row.get(5),
                    message: row.get(6),
                    tries: row.get(7),
                    original: row.get(8),
                })
                .collect()
        };
    }
    match store.pool() {
        Pool::Sqlite { read, .. } => rows!(read),
        Pool::Postgres(pool) => rows!(pool),
    }
}

async fn what_pubsub_gave_up_on_is_kept_with_its_bytes(database: TestDatabase) {
    let drain = Drain::start(database.store().await);
    let event = contract_event("given-up", "signed", "active");
    let given_up = [
        ("CloudPubSubDeadLetterSourceDeliveryCount", "7"),
        ("CloudPubSubDeadLetterSourceSubscription", "push"),
    ];

    drain.publish(event.as_bytes(), &given_up).await;
    drain.wait_for_kept(1).await;

    assert_eq!(drain.broker.waiting(SUBSCRIPTION), 0);
    let letters = drain.end().await;
    let kept = Letter {
        key: "given-up".to_owned(),
        event_type: "contracts.update".to_owned(),
        source: "subscription".to_owned(),
        handler: None,
        class: "transient".to_owned(),
        code: "deliveries_used_up".to_owned(),
        message: "Pub/Sub gave up after 7 deliveries".to_owned(),
        tries: 7,
        original: event.into_bytes(),
    };
    assert_eq!(letters, [kept]);
}

async fn a_message_that_comes_again_is_kept_once(database: TestDatabase) {
    let drain = Drain::start(database.store().await);
    drain.publish(BYTES, &[]).await;
    drain.wait_for_kept(1).await;

    // The acknowledgement was lost: another reader gets the same message.
    let message = drain.broker.published(TOPIC).remove(0);
    drain.broker.deliver_again(SUBSCRIPTION, message);
    drain.wait_for_kept(2).await;

    assert_eq!(drain.end().await.len(), 1);
}

async fn given_up_again_it_is_kept_again(database: TestDatabase) {
    let drain = Drain::start(database.store().await);
    let event = contract_event("again", "signed", "active");
    let given_up = [("CloudPubSubDeadLetterSourceDeliveryCount", "5")];

    drain.publish(event.as_bytes(), &given_up).await;
    drain.publish(event.as_bytes(), &given_up).await;
    drain.wait_for_kept(2).await;

    assert_eq!(drain.end().await.len(), 2, "two messages, two decisions");
}

async fn what_holds_no_event_is_kept_too(database: TestDatabase) {
    let drain = Drain::start(database.store().await);
    let all: [&[u8]; 4] = [BYTES, b"\xff\xfe", b"{\"id\":\"\\u0000\"}", b"not json"];
    for data in all {
        drain.publish(data, &[("k", "v")]).await;
    }
    drain.wait_for_kept(4).await;

    let letters = drain.end().await;

    let kept: Vec<_> = letters.iter().map(|l| l.original.as_slice()).collect();
    assert_eq!(kept, all);
    let codes: Vec<_> = letters.iter().map(|l| l.code.as_str()).collect();
    assert_eq!(codes[1..], ["not_utf8", "not_an_event", "not_json"]);
    assert!(letters.iter().all(|l| l.class == "permanent"));
}

const OURS: [(&str, &str); 5] = [
    ("hookyard-event-id", "ours"),
    ("hookyard-error-class", "permanent"),
    ("hookyard-error-code", "resource_not_found"),
    ("hookyard-handler", "activate_contract"),
    ("hookyard-reason", "chargebee has no such subscription"),
];

async fn our_own_dead_letters_keep_their_reason(database: TestDatabase) {
    let drain = Drain::start(database.store().await);
    let event = contract_event("ours", "signed", "active");
    drain.publish(event.as_bytes(), &OURS).await;
    drain.wait_for_kept(1).await;

    let letter = drain.end().await.remove(0);

    assert_eq!(letter.code, "resource_not_found");
    assert_eq!(letter.class, "permanent");
    assert_eq!(letter.handler.as_deref(), Some("activate_contract"));
    assert_eq!(letter.message, "chargebee has no such subscription");
}

async fn what_this_database_has_already_is_not_kept_twice(database: TestDatabase) {
    let drain = Drain::start(database.store().await);
    let event = contract_event("ours", "signed", "active");
    let row = NewDeadLetter {
        event_key: "ours".to_owned(),
        source: "push",
        handler: Some("activate_contract".to_owned()),
        error_code: "resource_not_found".to_owned(),
        original: event.clone().into_bytes(),
        ..NewDeadLetter::default()
    };
    let mut tx = drain.store.begin().await.unwrap();
    let now = drain.store.now();
    dead_letters::insert(&mut tx, &row, now).await.unwrap();
    tx.commit().await.unwrap();

    drain.publish(event.as_bytes(), &OURS).await;
    drain.wait_for_kept(1).await;

    let sources: Vec<_> = drain.end().await.into_iter().map(|l| l.source).collect();
    assert_eq!(sources, ["push"]);
}

async fn nothing_is_acknowledged_while_the_database_cannot_keep_it(database: TestDatabase) {
    // Without its tables yet: to the drain that is a database that is away.
    let store = database.connect(SystemClock::shared());
    let drain = Drain::start(store.clone());
    drain.publish(BYTES, &[]).await;
    drain.wait_for_a_failure().await;
    assert_eq!(drain.count("kept"), 0);

    store.migrate().await.unwrap();
    drain.wait_for_kept(1).await;

    assert_eq!(drain.end().await.len(), 1);
}

async fn what_is_not_kept_when_the_service_stops_is_handed_back(database: TestDatabase) {
    let drain = Drain::start(database.connect(SystemClock::shared()));
    drain.publish(BYTES, &[]).await;
    drain.wait_for_a_failure().await;

    drain.stop.cancel();
    drain.tasks.wait().await;

    assert_eq!(drain.broker.waiting(SUBSCRIPTION), 1);
}

async fn a_service_that_drains_its_own_topic_keeps_each_failure_once(database: TestDatabase) {
    let app = TestApp::builder()
        .database(&database)
        .variable("DEAD_LETTER_TOPIC", "hookyard-dead-letters")
        .variable("DEAD_LETTER_SUBSCRIPTION", DESK)
        .handler(Probe::that([Behaviour::FailForGood]));
    let app = app.start().await;

    app.push(&probe_event("poison")).await;
    app.push_as("no-event", "not json").await;
    app.push_message(b"\xff\xfe", &[]).await;
    eventually(
        || format!("{} drained", app.broker.waiting(DESK)),
        async || {
            let metrics = app.get("/metrics").await.text();
            metrics.contains("hookyard_drained_total{outcome=\"kept\"} 3")
        },
    )
    .await;

    let letters = letters(&database.store().await).await;
    let sources: Vec<_> = letters
        .iter()
        .map(|letter| letter.source.as_str())
        .collect();
    assert_eq!(sources, ["push"; 3], "{letters:?}");
}

#[tokio::test]
async fn pubsubs_own_dead_letter_policy_ends_at_the_desk() {
    let Some(emulator) = Emulator::find().await else {
        return;
    };
    emulator.create_bare_topic("events").await;
    emulator.create_bare_topic(TOPIC).await;
    emulator.subscribe(SUBSCRIPTION, TOPIC, json!({})).await;
    let policy = json!({"deadLetterPolicy": {
        "deadLetterTopic": emulator.topic(TOPIC), "maxDeliveryAttempts": 5,
    }});
    emulator.subscribe("push", "events", policy).await;
    let bus = emulator.bus("events", "dead");
    let broker = Arc::new(PubsubBroker::connect(&bus).await.unwrap());
    let database = TestDatabase::sqlite();
    let store = database.store().await;
    let drain = Drain::of(store, MemoryBroker::new(), broker.clone());
    let event = contract_event("poison", "signed", "active");
    emulator
        .publish("events", event.as_bytes(), json!({"k": "v"}))
        .await;

    let mut source = broker.subscribe("push").await.unwrap();
    let refuse = async {
        while let Ok(incoming) = source.next().await {
            drop(incoming);
        }
    };
    tokio::select! {
        () = refuse => {}
        () = drain.wait_for_kept(1) => {}
    }

    let letter = drain.end().await.remove(0);
    assert_eq!(letter.key, "poison");
    assert_eq!(letter.code, "deliveries_used_up");
    assert_eq!((letter.tries, letter.original), (5, event.into_bytes()));
}
