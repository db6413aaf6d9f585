//! Keeps deliveries in `events`, so that a door may answer before they are run.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

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

/// Keeps deliveries; those that come at the same time go into one transaction.
#[derive(Debug, Default)]
pub struct Keeper {
    waiting: Mutex<Vec<(NewEvent, Answer)>>,
    /// Held by whoever writes for all.
    writing: tokio::sync::Mutex<()>,
}

impl Keeper {
    /// Keeps an event with its original bytes, in the order of its ordering key.
    ///
    /// # Errors
    /// When the database did not confirm it: the event must not be acknowledged then.
    pub async fn keep(&self, store: &Store, event: &Event) -> Result<()> {
        let (answer, mut kept) = oneshot::channel();
        self.waiting().push((NewEvent::of(event), answer));
        loop {
            let _turn = self.writing.lock().await;
            match kept.try_recv() {
                Ok(written) => return written,
                // Whoever wrote for all was cut off.
                Err(TryRecvError::Closed) => return Err(away("cut_off")),
                Err(TryRecvError::Empty) => {}
            }
            let (events, answers): (Vec<_>, Vec<_>) = self.take_batch().into_iter().unzip();
            let written = insert(store, &events).await;
            for answer in answers {
                answer
                    .send(written.as_ref().map_or_else(again, |()| Ok(())))
                    .ok();
            }
            store.wakeups().events.notify_one();
        }
    }

    fn take_batch(&self) -> Vec<(NewEvent, Answer)> {
        let mut waiting = self.waiting();
        let mut bytes = 0;
        let fits = |(event, _): &&(NewEvent, Answer)| {
            bytes += event.original.len();
            bytes <= BATCH_BYTES
        };
        let count = waiting.iter().take_while(fits).count().max(1);
        let count = count.min(waiting.len());
        waiting.drain(..count).collect()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<(NewEvent, Answer)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
                .bind(all().map(|e| kind(e)).collect::<Vec<_>>())
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
