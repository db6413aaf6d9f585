//! How events leave: what handlers emit, and what is kept as a dead letter.

mod emitter;

use std::sync::Arc;

use bytes::Bytes;

pub use emitter::{Emitted, Emitter};

use crate::brokers::{Message, Publisher};
use crate::clock::Deadline;
use crate::error::Error;
use crate::event::{Event, TraceContext};
use crate::telemetry::Metrics;

/// The way out: two topics of one broker.
pub struct Egress {
    publisher: Arc<dyn Publisher>,
    events_topic: String,
    dead_letter_topic: String,
    metrics: Arc<Metrics>,
}

impl Egress {
    /// Makes the way out to these topics.
    pub fn new(
        publisher: Arc<dyn Publisher>,
        events_topic: String,
        dead_letter_topic: String,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            publisher,
            events_topic,
            dead_letter_topic,
            metrics,
        }
    }

    /// Publishes what a handler emitted, one after the other, each confirmed.
    ///
    /// # Errors
    /// The first failure; what was confirmed before it is published again next time under the
    /// same ids.
    pub async fn publish_emitted(
        &self,
        emitted: Vec<Emitted>,
        cause: &Event,
        trace: &TraceContext,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        for event in emitted {
            let event_type = event.event_type;
            let message = event.into_message(cause, trace);
            let message_id = self.publish(&self.events_topic, message, deadline).await?;
            tracing::debug!(
                target: "hookyard::step",
                step = "published",
                detail = %format_args!("{event_type} as message {message_id}"),
            );
        }
        Ok(())
    }

    /// Publishes a dead letter and waits until it is kept.
    ///
    /// # Errors
    /// When the broker did not confirm it; the event must not be acknowledged then.
    pub async fn publish_dead_letter(
        &self,
        data: Bytes,
        attributes: Vec<(String, String)>,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        let message = Message {
            data,
            attributes,
            ordering_key: None,
        };
        let message_id = self
            .publish(&self.dead_letter_topic, message, deadline)
            .await?;
        tracing::debug!(
            target: "hookyard::step",
            step = "published",
            detail = %format_args!("dead letter as message {message_id}"),
        );
        Ok(())
    }

    /// Returns how large a message may be in bytes, attributes included.
    pub fn max_message_bytes(&self) -> usize {
        self.publisher.features().max_message_bytes
    }

    /// Waits until everything handed to the broker is confirmed or has failed.
    pub async fn flush(&self) {
        self.publisher.flush().await;
    }

    async fn publish(
        &self,
        topic: &str,
        message: Message,
        deadline: &Deadline,
    ) -> Result<String, Error> {
        let answer = self.publisher.publish(topic, message, deadline).await;
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(error) => error.class().as_str(),
        };
        self.metrics
            .published
            .with_label_values(&[topic, outcome])
            .inc();
        answer
    }
}
