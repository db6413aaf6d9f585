//! A broker inside this process, for tests and `hookyard dev`.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use super::limits;
use super::queue::{Queue, Reader};
use super::{Confirmation, Features, Message, Opened, Publisher, Subscriber, Subscription};
use crate::clock::Deadline;
use crate::error::{Code, Error};

/// How many messages are kept for reading back; older ones are forgotten.
const KEPT: usize = 100_000;

/// A message the broker took.
#[derive(Debug, Clone)]
pub struct Published {
    /// The topic it was published to.
    pub topic: String,
    /// The broker's id for it.
    pub message_id: String,
    /// The message.
    pub message: Message,
}

/// A broker that keeps messages in memory and refuses what Pub/Sub would refuse.
#[derive(Debug, Clone)]
pub struct MemoryBroker {
    inner: Arc<Mutex<Inner>>,
    subscribers: broadcast::Sender<Published>,
}

#[derive(Debug, Default)]
struct Inner {
    taken: VecDeque<Published>,
    count: u64,
    failures: VecDeque<Code>,
    down: Option<Code>,
    /// By name, with the topic.
    subscriptions: HashMap<String, (String, Queue)>,
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBroker {
    /// Makes an empty broker.
    pub fn new() -> Self {
        Self {
            inner: Arc::default(),
            subscribers: broadcast::channel(1024).0,
        }
    }

    /// Returns what was published to `topic`, oldest first.
    pub fn published(&self, topic: &str) -> Vec<Published> {
        self.lock()
            .taken
            .iter()
            .filter(|taken| taken.topic == topic)
            .cloned()
            .collect()
    }

    /// Returns every message published from now on, to any topic.
    pub fn subscribe(&self) -> broadcast::Receiver<Published> {
        self.subscribers.subscribe()
    }

    /// Makes a subscription; it gets what is published to `topic` from now on.
    pub fn create_subscription(&self, name: &str, topic: &str) {
        let made = (topic.to_owned(), Queue::default());
        self.lock().subscriptions.insert(name.to_owned(), made);
    }

    /// Returns how many messages of a subscription wait to be received.
    pub fn waiting(&self, subscription: &str) -> usize {
        let inner = self.lock();
        let found = inner.subscriptions.get(subscription);
        found.map_or(0, |(_, queue)| queue.len())
    }

    /// Gives a subscription a message that it has had before, as a broker does whose
    /// acknowledgement was lost.
    pub fn deliver_again(&self, subscription: &str, message: Published) {
        let inner = self.lock();
        if let Some((_, queue)) = inner.subscriptions.get(subscription) {
            queue.push(message, 1);
        }
    }

    /// Lets the next publication fail with `code`, as a broker that is away for a moment.
    pub fn fail_next(&self, code: &'static str) {
        self.lock().failures.push_back(Code::new(code));
    }

    /// Lets every publication fail until [`MemoryBroker::recover`].
    pub fn go_down(&self) {
        self.lock().down = Some(Code::new("unavailable"));
    }

    /// Takes publications again.
    pub fn recover(&self) {
        self.lock().down = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, topic: &str, message: Message) -> Result<String, Error> {
        let message = limits::fit(topic, message)?;
        let mut inner = self.lock();
        let failure = inner.failures.pop_front().or_else(|| inner.down.clone());
        if let Some(code) = failure {
            return Err(Error::Unpublished {
                topic: topic.to_owned(),
                code,
            });
        }
        inner.count += 1;
        let message_id = inner.count.to_string();
        let published = Published {
            topic: topic.to_owned(),
            message_id: message_id.clone(),
            message,
        };
        if inner.taken.len() == KEPT {
            inner.taken.pop_front();
        }
        inner.taken.push_back(published.clone());
        for (of, queue) in inner.subscriptions.values() {
            if of == topic {
                queue.push(published.clone(), 0);
            }
        }
        drop(inner);
        // Nobody listening is fine: the message can still be read back.
        self.subscribers.send(published).ok();
        Ok(message_id)
    }
}

impl Subscriber for MemoryBroker {
    fn subscribe<'a>(&'a self, subscription: &'a str) -> Opened<'a> {
        let inner = self.lock();
        let opened = match inner.subscriptions.get(subscription) {
            Some((_, queue)) => Ok(Box::new(Reader {
                name: subscription.to_owned(),
                queue: queue.clone(),
            }) as Box<dyn Subscription>),
            None => Err(Error::Unavailable {
                service: "memory",
                code: Code::new("subscription_not_found"),
                retry_after: None,
                source: None,
            }),
        };
        Box::pin(std::future::ready(opened))
    }
}

impl Publisher for MemoryBroker {
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        message: Message,
        _deadline: &'a Deadline,
    ) -> Confirmation<'a> {
        Box::pin(std::future::ready(self.take(topic, message)))
    }

    fn flush(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn features(&self) -> Features {
        Features {
            ordered: true,
            persistent: false,
            max_message_bytes: limits::MAX_MESSAGE_BYTES,
        }
    }

    fn check<'a>(
        &'a self,
        topic: &'a str,
        _deadline: &'a Deadline,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        let answer = match self.lock().down.clone() {
            Some(code) => Err(Error::Unpublished {
                topic: topic.to_owned(),
                code,
            }),
            None => Ok(()),
        };
        Box::pin(std::future::ready(answer))
    }
}
