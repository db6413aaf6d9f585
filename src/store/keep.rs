//! Keeps deliveries in `events`, so that a door may answer before they are run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::{DeliveryNote, Store, Tx, away, failed, timestamp};
use crate::error::{Error, Result};
use crate::event::{Event, derived_id};

/// Who has "created" the rows of deliveries.
const CREATED_BY: &str = "hookyard";

/// So many bytes of deliveries go into one transaction at most.
const BATCH_BYTES: usize = 16 << 20;

/// A delivery to be kept.
#[derive(Debug, Clone)]
struct NewEvent {
    id: String,
    event_type: String,
    aggregate: Option<String>,
    event_key: String,
    original: Bytes,
    delivery: String,
}

impl NewEvent {
    fn of(event: &Event) -> Self {
        let delivery = &event.delivery;
        let key = event.claim_id();
        // One row for each message: when Pub/Sub delivers it again it is here already. The same
        // event under another message is for the inbox to judge, which sees both.
        let message = delivery.message_id.as_deref().unwrap_or_default();
        let aggregate = delivery.ordering_key.as_deref().filter(|k| !k.is_empty());
        Self {
            id: derived_id(&["kept", &key, message]).to_string(),
            // The column's limit; the original has all of it.
            event_type: clean(event.event_type.as_str()).chars().take(100).collect(),
            aggregate: aggregate.map(|key| derived_id(&["ordering_key", key]).to_string()),
            event_key: clean(event.id.as_str()),
            original: delivery.data.clone(),
            delivery: DeliveryNote::of(delivery).to_json(),
        }
    }
}

/// PostgreSQL's text takes every character but this one.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{2400}")
}

type Answer = oneshot::Sender<Result<()>>;

/// Keeps deliveries; those that come while the database is busy go into the next transaction
/// together.
pub struct Keeper {
    store: Store,
    tasks: TaskTracker,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(NewEvent, Answer)>,
    /// Whether somebody writes, who also sees to what comes meanwhile.
    writing: bool,
}

impl Keeper {
    /// Makes one that writes on `tasks`: a caller that goes away takes nobody else along.
    pub fn new(store: Store, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            store,
            tasks,
            queue: Mutex::default(),
        })
    }

    /// Keeps an event with its original bytes, in the order of its ordering key.
    ///
    /// # Errors
    /// When the database did not confirm it: the event must not be acknowledged then.
    pub async fn keep(self: &Arc<Self>, event: &Event) -> Result<()> {
        let (answer, kept) = oneshot::channel();
        let begins = {
            let mut queue = self.queue();
            queue.waiting.push((NewEvent::of(event), answer));
            !std::mem::replace(&mut queue.writing, true)
        };
        if begins {
            self.tasks.spawn(Writer(Arc::clone(self)).write());
        }
        kept.await.unwrap_or_else(|_| Err(away("cut_off")))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what waits until nothing does.
struct Writer(Arc<Keeper>);

impl Writer {
    async fn write(self) {
        loop {
            let (events, answers): (Vec<_>, Vec<_>) = self.batch().into_iter().unzip();
            if events.is_empty() {
                return;
            }
            let store = &self.0.store;
            let mut written = store.in_time(insert(store, &events)).await;
            // Another instance kept the same events in another order.
            if written
                .as_ref()
                .is_err_and(|error| error.code().as_str() == "deadlock")
            {
                written = store.in_time(insert(store, &events)).await;
            }
            for answer in answers {
                let result = written.as_ref().map_or_else(again, |()| Ok(()));
                answer.send(result).ok();
            }
            store.wakeups().events.notify_one();
        }
    }

    /// Takes a batch; the writing is over when there is none.
    fn batch(&self) -> Vec<(NewEvent, Answer)> {
        let mut queue = self.0.queue();
        let mut bytes = 0;
        let fits = |(event, _): &&(NewEvent, Answer)| {
            bytes += event.original.len();
            bytes <= BATCH_BYTES
        };
        let count = queue.waiting.iter().take_while(fits).count().max(1);
        let count = count.min(queue.waiting.len());
        queue.writing = count > 0;
        queue.waiting.drain(..count).collect()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        // Cut off with the process or by a panic: what waits is answered, and comes again.
        if std::mem::take(&mut queue.writing) {
            queue.waiting.clear();
        }
    }
}

/// The same failure, for each of those it concerns.
fn again(error: &Error) -> Result<()> {
    match error {
        Error::Rejected { service, code } => Err(Error::Rejected {
            service,
            code: code.clone(),
        }),
        other => Err(Error::Unavailable {
            service: "database",
            code: other.code(),
            retry_after: other.retry_after(),
            source: None,
        }),
    }
}

const INSERT_POSTGRES: &str = "\
    INSERT INTO events (id, event_type, aggregate_id, aggregate_type, payload, created_at,
        created_by, event_key, original, delivery)
    SELECT CAST(k.id AS UUID), k.event_type, CAST(k.aggregate AS UUID), k.aggregate_type, '{}',
        CAST($7 AS TIMESTAMPTZ), $8, k.event_key, k.original, k.delivery
    FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::BYTEA[], $6::TEXT[], $9::TEXT[])
        AS k (id, event_type, aggregate, event_key, original, delivery, aggregate_type)
    ON CONFLICT (id) DO NOTHING";

const INSERT_SQLITE: &str = "\
    INSERT INTO events (id, event_type, aggregate_id, aggregate_type, payload, created_at,
        created_by, event_key, original, delivery)
    VALUES ($1, $2, $3, $9, '{}', $7, $8, $4, $5, $6) ON CONFLICT (id) DO NOTHING";

async fn insert(store: &Store, events: &[NewEvent]) -> Result<()> {
    let now = timestamp(store.now());
    let kind = |event: &NewEvent| event.aggregate.as_ref().map(|_| "ordering_key");
    let mut tx = store.begin().await?;
    match &mut tx {
        Tx::Postgres(tx) => {
            let all = || events.iter();
            sqlx::query(INSERT_POSTGRES)
                .bind(all().map(|e| e.id.as_str()).collect::<Vec<_>>())
                .bind(all().map(|e| e.event_type.as_str()).collect::<Vec<_>>())
                .bind(all().map(|e| e.aggregate.as_deref()).collect::<Vec<_>>())
                .bind(all().map(|e| e.event_key.as_str()).collect::<Vec<_>>())
                .bind(all().map(|e| &*e.original).collect::<Vec<&[u8]>>())
                .bind(all().map(|e| e.delivery.as_str()).collect::<Vec<_>>())
                .bind(&now)
                .bind(CREATED_BY)
                .bind(all().map(kind).collect::<Vec<_>>())
                .execute(&mut **tx)
                .await
                .map_err(failed)?;
        }
        Tx::Sqlite(tx) => {
            for event in events {
                sqlx::query(INSERT_SQLITE)
                    .bind(&event.id)
                    .bind(&event.event_type)
                    .bind(&event.aggregate)
                    .bind(&event.event_key)
                    .bind(&*event.original)
                    .bind(&event.delivery)
                    .bind(&now)
                    .bind(CREATED_BY)
                    .bind(kind(event))
                    .execute(&mut **tx)
                    .await
                    .map_err(failed)?;
            }
        }
    }
    tx.commit().await
}
