//! Pub/Sub push in small: topics, push subscriptions, signed tokens, redelivery, dead letters.
//!
//! What it copies: <https://cloud.google.com/pubsub/docs/push>,
//! <https://cloud.google.com/pubsub/docs/handling-failures>.

mod delivery;
mod lanes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::delivery::TokenCache;
pub use self::delivery::envelope;
use self::lanes::Lanes;
use super::http::loopback_client;
use super::issuer::Issuer;
use super::lock;
use crate::clock::SharedClock;
use crate::error::BoxError;

/// Largest message in bytes (<https://cloud.google.com/pubsub/quotas>).
const MAX_MESSAGE_BYTES: usize = 10_000_000;

/// Messages and records kept for reading back.
const KEPT: usize = 50_000;

/// A message on a topic.
#[derive(Debug, Clone)]
pub struct PubsubMessage {
    /// Pub/Sub's id.
    pub message_id: String,
    /// When it was published.
    pub publish_time: SystemTime,
    /// The bytes.
    pub data: Bytes,
    /// Names and values beside the bytes.
    pub attributes: BTreeMap<String, String>,
    /// Messages with the same key are delivered one after the other, if the subscription says so.
    pub ordering_key: Option<String>,
}

impl PubsubMessage {
    /// Returns an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

/// A push subscription.
#[derive(Debug, Clone)]
pub struct PushSubscription {
    /// Short name.
    pub name: String,
    /// Short name of its topic.
    pub topic: String,
    /// Where to push.
    pub endpoint: String,
    /// `aud` of the tokens.
    pub audience: String,
    /// `email` of the tokens.
    pub service_account: String,
    /// How long an answer may take.
    pub ack_deadline: Duration,
    /// Wait before the second delivery; doubled for each further one.
    pub min_backoff: Duration,
    /// Longest wait between deliveries.
    pub max_backoff: Duration,
    /// Deliveries before the message goes to the dead-letter topic; `None` for no such policy.
    pub max_delivery_attempts: Option<u32>,
    /// Short name of the dead-letter topic.
    pub dead_letter_topic: Option<String>,
    /// Whether messages with an ordering key are delivered one after the other.
    pub ordered: bool,
    /// How many deliveries are on their way at once.
    pub window: usize,
}

/// How one delivery ended.
#[derive(Debug, Clone, Serialize)]
pub struct Delivered {
    /// Counted from 1.
    pub attempt: u32,
    /// The endpoint's status; `None` when it did not answer.
    pub status: Option<u16>,
    /// Why there is no status: `deadline`, `connection`.
    pub error: Option<&'static str>,
    /// The answer's `x-request-id`.
    pub request_id: Option<String>,
    /// How long it took.
    pub ms: f64,
}

/// Where a message stands with one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is being delivered, or waits for its next delivery.
    Pending,
    /// The endpoint has acknowledged it.
    Acked,
    /// It went to the dead-letter topic of the subscription.
    DeadLettered,
}

/// All deliveries of one message to one subscription.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// The message.
    pub message_id: String,
    /// The subscription.
    pub subscription: String,
    /// The deliveries that have ended, oldest first.
    pub deliveries: Vec<Delivered>,
    /// Where it stands.
    pub standing: Standing,
}

/// A message that a topic does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no topic of this name.
    #[error("there is no such topic")]
    NoSuchTopic,
    /// It has neither data nor attributes.
    #[error("the message is empty")]
    Empty,
    /// It is over 10 MB.
    #[error("the message is larger than 10 MB")]
    TooLarge,
}

/// Pub/Sub in small. Cheap to clone; all clones share the topics.
#[derive(Clone)]
pub struct Pusher {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    lanes: Lanes,
    tokens: TokenCache,
    client: reqwest::Client,
    clock: SharedClock,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Deliveries under way or waiting.
    pending: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, VecDeque<PubsubMessage>>,
    subscriptions: Vec<Arc<Subscribed>>,
    /// By number of opening, so that the oldest are forgotten first.
    records: BTreeMap<u64, Record>,
    opened: u64,
    published: u64,
}

/// A subscription with its window.
struct Subscribed {
    options: PushSubscription,
    window: tokio::sync::Semaphore,
}

impl PushSubscription {
    /// Makes a subscription of `topic` that pushes to `endpoint`, with short waits fit for one
    /// machine: 10 s ack deadline, 0.5 s to 10 s backoff, no dead-letter policy.
    pub fn new(name: &str, topic: &str, endpoint: &str) -> Self {
        Self {
            name: name.to_owned(),
            topic: topic.to_owned(),
            endpoint: endpoint.to_owned(),
            audience: endpoint.to_owned(),
            service_account: "push@sandbox.iam.gserviceaccount.com".to_owned(),
            ack_deadline: Duration::from_secs(10),
            min_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(10),
            max_delivery_attempts: None,
            dead_letter_topic: None,
            ordered: false,
            window: 64,
        }
    }

    /// Returns how long to wait after the `attempt`-th delivery has failed.
    pub fn backoff(&self, attempt: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempt.saturating_sub(1).min(20));
        self.min_backoff
            .saturating_mul(factor)
            .min(self.max_backoff)
    }
}

impl Pusher {
    /// Makes a Pub/Sub without topics whose tokens `issuer` signs.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(issuer: Issuer, clock: SharedClock) -> Result<Self, BoxError> {
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                lanes: Lanes::default(),
                tokens: TokenCache::new(issuer, clock.clone()),
                // The ack deadline of each subscription cuts first.
                client: loopback_client(Duration::from_secs(610))?,
                clock,
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
                pending: watch::channel(0).0,
            }),
        })
    }

    /// Makes a topic, unless it is there.
    pub fn create_topic(&self, topic: &str) {
        lock(&self.shared.state)
            .topics
            .entry(topic.to_owned())
            .or_default();
    }

    /// Adds a push subscription, and its topics if they are missing. Like a real one it gets what
    /// is published from now on.
    pub fn subscribe(&self, subscription: PushSubscription) {
        self.create_topic(&subscription.topic);
        if let Some(topic) = &subscription.dead_letter_topic {
            self.create_topic(topic);
        }
        let subscribed = Subscribed {
            window: tokio::sync::Semaphore::new(subscription.window.max(1)),
            options: subscription,
        };
        lock(&self.shared.state)
            .subscriptions
            .push(Arc::new(subscribed));
    }

    /// Publishes a message and starts delivering it; returns its id.
    ///
    /// # Errors
    /// [`PublishError`] when the topic does not take it.
    pub fn publish(
        &self,
        topic: &str,
        data: impl Into<Bytes>,
        attributes: &[(&str, &str)],
        ordering_key: Option<&str>,
    ) -> Result<String, PublishError> {
        let attributes = attributes
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let (data, key) = (data.into(), ordering_key.map(str::to_owned));
        self.shared.publish(topic, data, attributes.collect(), key)
    }

    /// Delivers a message once more although it may be acknowledged already, as Pub/Sub does now
    /// and then. Returns whether the message is known.
    pub fn redeliver(&self, topic: &str, message_id: &str) -> bool {
        let state = lock(&self.shared.state);
        let message = state.topics.get(topic).and_then(|messages| {
            messages
                .iter()
                .find(|message| message.message_id == message_id)
                .cloned()
        });
        let Some(message) = message else {
            return false;
        };
        let subscriptions = state.subscribers(topic);
        drop(state);
        for subscription in subscriptions {
            self.shared.start(subscription, message.clone());
        }
        true
    }

    /// Returns what was published to a topic, oldest first.
    pub fn messages(&self, topic: &str) -> Vec<PubsubMessage> {
        let state = lock(&self.shared.state);
        state
            .topics
            .get(topic)
            .map(|all| all.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Returns the deliveries of one message, one record for each subscription and redelivery.
    pub fn records_of(&self, message_id: &str) -> Vec<Record> {
        let state = lock(&self.shared.state);
        let records = state.records.values();
        records
            .filter(|record| record.message_id == message_id)
            .cloned()
            .collect()
    }

    /// Returns the deliveries of all messages.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.shared.state).records.values().cloned().collect()
    }

    /// Returns how many messages are being delivered or wait for their next delivery.
    pub fn pending(&self) -> usize {
        *self.shared.pending.borrow()
    }

    /// Waits until every message is acknowledged or has become a dead letter.
    pub async fn idle(&self) {
        // Fails only when the sender is gone, and this holds it.
        self.shared
            .pending
            .subscribe()
            .wait_for(|pending| *pending == 0)
            .await
            .ok();
    }

    /// Stops delivering. What is pending stays undelivered.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }
}

impl State {
    fn subscribers(&self, topic: &str) -> Vec<Arc<Subscribed>> {
        let to_topic = |subscribed: &&Arc<Subscribed>| subscribed.options.topic == topic;
        self.subscriptions
            .iter()
            .filter(to_topic)
            .cloned()
            .collect()
    }
}

impl Shared {
    fn publish(
        self: &Arc<Self>,
        topic: &str,
        data: Bytes,
        attributes: BTreeMap<String, String>,
        ordering_key: Option<String>,
    ) -> Result<String, PublishError> {
        if data.is_empty() && attributes.is_empty() {
            return Err(PublishError::Empty);
        }
        let size: usize = attributes
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if data.len() + size > MAX_MESSAGE_BYTES {
            return Err(PublishError::TooLarge);
        }
        let mut state = lock(&self.state);
        state.published += 1;
        // Digits, as many as a real one has.
        let message_id = (10_000_000_000_000_000 + state.published).to_string();
        let message = PubsubMessage {
            message_id: message_id.clone(),
            publish_time: self.clock.now(),
            data,
            attributes,
            ordering_key,
        };
        let kept = state
            .topics
            .get_mut(topic)
            .ok_or(PublishError::NoSuchTopic)?;
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(message.clone());
        let subscribers = state.subscribers(topic);
        drop(state);
        for subscription in subscribers {
            self.start(subscription, message.clone());
        }
        Ok(message_id)
    }
}
