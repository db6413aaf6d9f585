//! What the tests of the outbox share: rows, a relay, and a broker that does as it is told.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hookyard::brokers::{Confirmation, Features, Message, Publisher};
use hookyard::clock::{Deadline, SharedClock};
use hookyard::egress::{Egress, Relay};
use hookyard::error::{Code, Error};
use hookyard::store::outbox::{self, OutboxRow};
use hookyard::store::{Pool, Store};
use hookyard::telemetry::Metrics;
use tokio::sync::Semaphore;

use crate::support::PATIENCE;

/// A row under this id, with its key as the event's subject.
pub(crate) fn row(id: &str, key: Option<&str>) -> OutboxRow {
    OutboxRow {
        message_id: id.to_owned(),
        topic: "events".to_owned(),
        ordering_key: key.map(str::to_owned),
        event_type: "contract.activated".to_owned(),
        cause_id: "cause-1".to_owned(),
        handler: "activate".to_owned(),
        correlation_id: Some("cause-1".to_owned()),
        trace_id: None,
        data: Bytes::from(format!("{{\"id\": \"{id}\"}}")),
        attributes: vec![("ce-id".to_owned(), id.to_owned())],
    }
}

/// Writes rows in one transaction.
pub(crate) async fn commit(store: &Store, rows: &[OutboxRow]) {
    let mut tx = store.begin().await.unwrap();
    outbox::insert(&mut tx, rows, store.now()).await.unwrap();
    tx.commit().await.unwrap();
}

/// Returns a relay of an instance of its own.
pub(crate) fn relay(store: &Store, broker: &Arc<impl Publisher>, clock: &SharedClock) -> Relay {
    let metrics = Metrics::new().unwrap();
    let egress = Egress::new(
        broker.clone(),
        "events".to_owned(),
        "dead-letters".to_owned(),
        metrics.clone(),
    );
    Relay::new(Arc::new(egress), store.clone(), clock.clone(), metrics)
}

/// Returns the ids in a state of the table, in its order.
pub(crate) async fn ids_in_state(store: &Store, state: i16) -> Vec<String> {
    let sql = "SELECT message_id FROM outbox WHERE state = $1 ORDER BY seq";
    match store.pool() {
        Pool::Sqlite { read, .. } => sqlx::query_scalar(sql).bind(state).fetch_all(read).await,
        Pool::Postgres(pool) => sqlx::query_scalar(sql).bind(state).fetch_all(pool).await,
    }
    .unwrap()
}

/// A broker that writes down what reaches it, in the order in which it does.
pub(crate) struct Journal {
    taken: Mutex<Vec<Message>>,
    asked: Mutex<usize>,
    refuse: Mutex<HashSet<String>>,
    /// How often messages of this id shall fail, and whether they arrive all the same.
    fail: Mutex<HashMap<String, (usize, bool)>>,
    panics: Mutex<HashSet<String>>,
    gate: Semaphore,
}

impl Journal {
    const OPEN: usize = Semaphore::MAX_PERMITS >> 2;

    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            asked: Mutex::default(),
            refuse: Mutex::default(),
            fail: Mutex::default(),
            panics: Mutex::default(),
            gate: Semaphore::new(Self::OPEN),
        })
    }

    /// Lets nothing through until [`Journal::let_pass`].
    pub(crate) fn shut(&self) {
        self.gate.forget_permits(Self::OPEN);
    }

    pub(crate) fn let_pass(&self, messages: usize) {
        self.gate.add_permits(messages);
    }

    /// Says that it will never take messages of this id.
    pub(crate) fn refuse(&self, id: &str) {
        self.refuse.lock().unwrap().insert(id.to_owned());
    }

    /// Panics over the next message of this id.
    pub(crate) fn panic_over(&self, id: &str) {
        self.panics.lock().unwrap().insert(id.to_owned());
    }

    /// Fails so many times for this id; with `arrives` only the answer is lost.
    pub(crate) fn fail(&self, id: &str, times: usize, arrives: bool) {
        let mut fail = self.fail.lock().unwrap();
        fail.insert(id.to_owned(), (times, arrives));
    }

    pub(crate) fn fails_no_more(&self) {
        self.fail.lock().unwrap().clear();
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.taken.lock().unwrap().clone()
    }

    /// How many publications were begun.
    pub(crate) fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    /// The ids that arrived, in order, with their repeats.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.messages().iter().map(id_of).collect()
    }

    /// Per ordering key the ids in the order of their first arrivals.
    pub(crate) fn first_by_key(&self) -> HashMap<String, Vec<String>> {
        let mut seen = HashSet::new();
        let mut keys: HashMap<String, Vec<String>> = HashMap::new();
        for message in self.messages() {
            let id = id_of(&message);
            if seen.insert(id.clone()) {
                let key = message.ordering_key.unwrap_or_default();
                keys.entry(key).or_default().push(id);
            }
        }
        keys
    }

    /// Waits until so many have arrived.
    pub(crate) async fn wait_for(&self, messages: usize) {
        self.wait_until(|journal| journal.taken.lock().unwrap().len() >= messages)
            .await;
    }

    /// Waits until a publication was begun.
    pub(crate) async fn wait_for_a_try(&self) {
        self.wait_until(|journal| journal.asked() > 0).await;
    }

    async fn wait_until(&self, there: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !there(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(in_time.is_ok(), "{} have arrived", self.ids().len());
    }

    async fn take(&self, topic: &str, message: Message) -> Result<String, Error> {
        *self.asked.lock().unwrap() += 1;
        self.gate.acquire().await.unwrap().forget();
        let topic = topic.to_owned();
        let id = id_of(&message);
        let panics = self.panics.lock().unwrap().remove(&id);
        assert!(!panics, "told to panic");
        if self.refuse.lock().unwrap().contains(&id) {
            let code = Code::new("invalid_argument");
            return Err(Error::Unpublishable { topic, code });
        }
        let mut fails = false;
        if let Some((times, arrives)) = self.fail.lock().unwrap().get_mut(&id)
            && *times > 0
        {
            *times -= 1;
            fails = true;
            if *arrives {
                self.taken.lock().unwrap().push(message.clone());
            }
        }
        if fails {
            let code = Code::new("unavailable");
            return Err(Error::Unpublished { topic, code });
        }
        let mut taken = self.taken.lock().unwrap();
        taken.push(message);
        Ok(format!("m-{}", taken.len()))
    }
}

fn id_of(message: &Message) -> String {
    let id = message.attributes.iter().find(|(name, _)| name == "ce-id");
    id.unwrap().1.clone()
}

impl Publisher for Journal {
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        message: Message,
        _deadline: &'a Deadline,
    ) -> Confirmation<'a> {
        Box::pin(self.take(topic, message))
    }

    fn flush(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn features(&self) -> Features {
        Features {
            ordered: true,
            persistent: false,
            max_message_bytes: 10_000_000,
        }
    }

    fn check<'a>(
        &'a self,
        _topic: &'a str,
        _deadline: &'a Deadline,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
