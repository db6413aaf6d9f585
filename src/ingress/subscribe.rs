//! Drains the subscription of Pub/Sub's dead-letter topic: what Pub/Sub gave up on is kept where
//! our own failures are, so that an operator finds both in one place.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::brokers::{Incoming, Subscriber, Subscription};
use crate::error::{Class, Error};
use crate::event::{Delivery, Event};
use crate::pipeline::ATTRIBUTE_PREFIX;
use crate::store::dead_letters::{self, NewDeadLetter};
use crate::store::{DeliveryNote, Micros, Store, micros_of};
use crate::telemetry::Metrics;

/// Messages of one transaction, and their bytes.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 16 << 20;

/// How long a batch that is not full waits for more.
const GATHER: Duration = Duration::from_millis(20);

/// First and longest wait before what failed is tried again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The door that only keeps.
pub struct DeadLetterDrain {
    /// Where messages come from.
    pub subscriber: Arc<dyn Subscriber>,
    /// Which subscription (`DEAD_LETTER_SUBSCRIPTION`).
    pub subscription: String,
    /// Where they are kept.
    pub store: Store,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl DeadLetterDrain {
    /// Drains until `stop`. Broker and database may go away and come back meanwhile.
    pub async fn run(self, stop: CancellationToken) {
        let mut wait = FIRST_WAIT;
        loop {
            let failure = tokio::select! {
                () = stop.cancelled() => return,
                opened = self.subscriber.subscribe(&self.subscription) => match opened {
                    Ok(stream) => self.drain(stream, &stop, &mut wait).await,
                    Err(error) => Some(error),
                },
            };
            let Some(error) = failure else { return };
            tracing::warn!(
                subscription = self.subscription.as_str(),
                error.code = error.code().as_str(),
                error.message = %error,
                wait_ms = wait.as_millis() as u64,
                "dead-letter subscription cannot be read"
            );
            if !pause(&mut wait, &stop).await {
                return;
            }
        }
    }

    /// Keeps what comes until `stop` or until the stream fails with the error returned.
    async fn drain(
        &self,
        mut stream: Box<dyn Subscription>,
        stop: &CancellationToken,
        wait: &mut Duration,
    ) -> Option<Error> {
        let failure = loop {
            let first = tokio::select! {
                () = stop.cancelled() => break None,
                first = stream.next() => first,
            };
            let batch = match first {
                Ok(first) => gather(first, stream.as_mut()).await,
                Err(error) => break Some(error),
            };
            *wait = FIRST_WAIT;
            if !self.keep(batch, stop).await {
                break None;
            }
        };
        stream.close().await;
        failure
    }

    /// Keeps a batch, however long the database is away; `false` when stopped before it was kept.
    async fn keep(&self, batch: Vec<Incoming>, stop: &CancellationToken) -> bool {
        let now = self.store.now();
        let mut left: Vec<(Incoming, NewDeadLetter)> = batch
            .into_iter()
            .map(|incoming| {
                let row = row_of(&incoming.delivery, now);
                (incoming, row)
            })
            .collect();
        let mut wait = FIRST_WAIT;
        while !left.is_empty() {
            let error = match self.store.in_time(self.insert(&left)).await {
                Ok(()) => {
                    self.done(left);
                    return true;
                }
                Err(error) => error,
            };
            // One that the database refuses must not hold up the others.
            if error.class() == Class::Permanent && left.len() > 1 {
                left = self.one_by_one(left).await;
            }
            self.count("failed", left.len());
            tracing::warn!(
                messages = left.len(),
                error.code = error.code().as_str(),
                error.message = %error,
                "undelivered messages could not be kept"
            );
            // They stay ours meanwhile: handed back they would only go round.
            if !pause(&mut wait, stop).await {
                return false;
            }
            if error.class() == Class::Permanent {
                return true; // handed back after the pause
            }
        }
        true
    }

    /// Returns what cannot be kept.
    async fn one_by_one(
        &self,
        all: Vec<(Incoming, NewDeadLetter)>,
    ) -> Vec<(Incoming, NewDeadLetter)> {
        let mut left = Vec::new();
        for one in all {
            let one = vec![one];
            match self.store.in_time(self.insert(&one)).await {
                Ok(()) => self.done(one),
                Err(_) => left.extend(one),
            }
        }
        left
    }

    async fn insert(&self, rows: &[(Incoming, NewDeadLetter)]) -> Result<(), Error> {
        let mut tx = self.store.begin().await?;
        let now = self.store.now();
        for (incoming, row) in rows {
            let ours = is_ours(&incoming.delivery);
            if !(ours && dead_letters::is_kept(&mut tx, row).await?) {
                dead_letters::insert(&mut tx, row, now).await?;
            }
        }
        tx.commit().await
    }

    /// Acknowledges what is kept.
    fn done(&self, rows: Vec<(Incoming, NewDeadLetter)>) {
        self.count("kept", rows.len());
        for (incoming, row) in rows {
            tracing::warn!(
                event.id = row.event_key.as_str(),
                event.r#type = row.event_type.as_str(),
                message.id = row.message_id.as_deref(),
                error.code = row.error_code.as_str(),
                deliveries = row.retry_count,
                "undelivered message kept as a dead letter"
            );
            incoming.ack();
        }
    }

    fn count(&self, outcome: &str, messages: usize) {
        let drained = &self.metrics.database.drained;
        let counter = drained.with_label_values(&[outcome]);
        counter.inc_by(messages as u64);
    }
}

/// Takes what comes right behind the first message.
async fn gather(first: Incoming, stream: &mut dyn Subscription) -> Vec<Incoming> {
    let mut bytes = first.delivery.data.len();
    let mut batch = vec![first];
    let end = tokio::time::Instant::now() + GATHER;
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        // An error shows again with the next wait.
        let Ok(Ok(next)) = tokio::time::timeout_at(end, stream.next()).await else {
            break;
        };
        bytes += next.delivery.data.len();
        batch.push(next);
    }
    batch
}

/// Waits, longer every time; `false` when stopped.
async fn pause(wait: &mut Duration, stop: &CancellationToken) -> bool {
    let now = wait.mul_f64(0.5 + rand::random::<f64>() * 0.5);
    *wait = (*wait * 2).min(LONGEST_WAIT);
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(now) => true,
    }
}

/// Tells whether this service put the message on the topic, with its reason. One that was
/// published again since and given up by Pub/Sub carries an old reason.
fn is_ours(delivery: &Delivery) -> bool {
    ours(delivery, "error-code").is_some() && delivery.source_deliveries().is_none()
}

fn ours<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a str> {
    delivery.attribute(&format!("{ATTRIBUTE_PREFIX}{name}"))
}

/// Takes what looks like a code or the name of a handler.
fn word(text: &str) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b);
    ((1..=100).contains(&text.len()) && text.bytes().all(plain)).then_some(text)
}

/// Makes a dead letter of what came.
fn row_of(delivery: &Delivery, now: Micros) -> NewDeadLetter {
    let deliveries = delivery.source_deliveries().unwrap_or(1);
    let message_id = delivery.message_id.clone().unwrap_or_default();
    let mut row = NewDeadLetter {
        event_key: message_id,
        source: "subscription",
        error_class: Class::Transient.as_str().to_owned(),
        error_code: "deliveries_used_up".to_owned(),
        error_message: format!("Pub/Sub gave up after {deliveries} deliveries"),
        retry_count: i32::try_from(deliveries).unwrap_or(i32::MAX),
        message_id: delivery.message_id.clone(),
        original: delivery.data.to_vec(),
        delivery: DeliveryNote::of(delivery).to_json(),
        first_at: delivery.first_published().map_or(now, micros_of),
        ..NewDeadLetter::default()
    };
    match Event::decode(delivery.clone()) {
        Ok(event) => {
            row.event_key = event.id.to_string();
            row.event_type = event.event_type.to_string();
            row.trace_id = event.trace.map(|trace| trace.trace_id());
            row.first_at = event.created_at.map_or(row.first_at, micros_of);
        }
        Err(undecodable) => {
            row.error_class = Class::Permanent.as_str().to_owned();
            row.error_code = undecodable.reason.code.to_owned();
            row.error_message = undecodable.reason.what.to_owned();
        }
    }
    let correlation = delivery.attribute("ce-correlationid");
    row.correlation_id = correlation.map(str::to_owned);
    if is_ours(delivery) {
        // Anybody may publish there, so even our own words are taken only where they look so.
        let code = |name| ours(delivery, name).map(|text| word(text).unwrap_or("other").to_owned());
        row.error_class = match ours(delivery, "error-class") {
            Some("transient") => Class::Transient,
            _ => Class::Permanent,
        }
        .as_str()
        .to_owned();
        row.error_code = code("error-code").unwrap_or_default();
        let handler = ours(delivery, "handler").and_then(word);
        row.handler = handler.map(str::to_owned);
        row.error_message = ours(delivery, "reason").unwrap_or_default().to_owned();
        // What held no event is known by the message it came in.
        let key = ours(delivery, "event-id").or_else(|| ours(delivery, "source-message-id"));
        if let Some(key) = key {
            row.event_key = key.to_owned();
        }
        if let Some(part) = ours(delivery, "part") {
            row.error_message.push_str(&format!(" (part {part})"));
        }
    }
    row
}
