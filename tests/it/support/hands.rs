//! Hands for a worker under test: rows are run as the test says, and written down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hookyard::error::{Class, Code};
use hookyard::ingress::{RunRow, Worker, WorkerSettings};
use hookyard::pipeline::{Failed, Outcome, Settled};
use hookyard::store::Store;
use hookyard::store::dead_letters::NewDeadLetter;
use hookyard::store::events::DueEvent;
use hookyard::store::outbox::OutboxRow;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::rows::count;
use super::{PATIENCE, eventually};

pub(crate) type Behaviour = dyn Fn(Arc<DueEvent>) -> BoxFuture<'static, Settled> + Send + Sync;

/// Runs rows as a test says, and writes down what ran.
pub(crate) struct Hands {
    behaviour: Box<Behaviour>,
    journal: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Begun(String, Option<String>),
    Ended(String, Option<String>),
}

pub(crate) type Journal = Arc<Mutex<Vec<Entry>>>;

impl RunRow for Hands {
    fn given_up(&self, _: &DueEvent, _: &Failed, _: &mut NewDeadLetter) -> Vec<OutboxRow> {
        Vec::new()
    }

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

pub(crate) fn hands<F, W>(behaviour: F) -> (Arc<Hands>, Journal)
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

pub(crate) fn settings() -> WorkerSettings {
    WorkerSettings {
        poll_interval: Duration::from_secs(3600),
        batch_size: 20,
        concurrency: 100,
        max_retries: 5,
    }
}

pub(crate) fn ended(outcome: Outcome) -> Settled {
    Settled {
        outcome,
        failure: None,
    }
}

pub(crate) fn done() -> Settled {
    ended(Outcome::Done)
}

pub(crate) fn failed(code: &'static str, after: Duration, no_try: bool) -> Settled {
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

pub(crate) fn ran(journal: &Journal) -> Vec<String> {
    let begun = |entry: &Entry| match entry {
        Entry::Begun(id, _) => Some(id.clone()),
        Entry::Ended(..) => None,
    };
    journal.lock().unwrap().iter().filter_map(begun).collect()
}

/// Waits until something holds, a long time at most.
pub(crate) async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    eventually(|| format!("never: {what}"), holds).await;
}

pub(crate) async fn left(store: &Store) -> i64 {
    count(
        store,
        "SELECT COUNT(*) FROM events WHERE processed IS NOT TRUE",
    )
    .await
}

pub(crate) fn worker(store: &Store, rows: Arc<Hands>, settings: WorkerSettings) -> Worker {
    Worker::new(store.clone(), rows, settings, TaskTracker::new())
}

/// A worker that runs by itself.
pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    pub(crate) fn start(store: &Store, rows: Arc<Hands>, settings: WorkerSettings) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let worker = worker(store, rows, settings);
        tasks.spawn(worker.run(stop.clone()));
        tasks.spawn(store.clone().listen(stop.clone()));
        tasks.close();
        Self { stop, tasks }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.tasks.wait());
        ended.await.expect("the worker does not end");
    }
}

/// Checks that within an aggregate nothing overlaps, and returns the order of each.
pub(crate) fn orders(journal: &Journal) -> HashMap<String, Vec<String>> {
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
