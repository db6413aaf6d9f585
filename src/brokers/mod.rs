//! Message brokers behind one small trait, one file per backend.

mod incoming;
mod limits;
mod memory;
mod pubsub;
mod queue;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

pub use incoming::{Incoming, Next, Opened, Subscriber, Subscription};
pub use memory::{MemoryBroker, Published};
pub use pubsub::PubsubBroker;

use crate::clock::Deadline;
use crate::error::Error;

/// A message on its way out.
#[derive(Debug, Clone)]
pub struct Message {
    /// The bytes, passed on as they are.
    pub data: Bytes,
    /// Names and values beside the bytes.
    pub attributes: Vec<(String, String)>,
    /// Messages with the same key stay in order.
    pub ordering_key: Option<String>,
}

/// What a backend can do; the conformance suite reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Messages with one ordering key arrive in the order they were confirmed.
    pub ordered: bool,
    /// A confirmed message survives a restart of this process.
    pub persistent: bool,
    /// Largest message in bytes, attributes included.
    pub max_message_bytes: usize,
}

/// The answer to a publication, when it comes.
pub type Confirmation<'a> = Pin<Box<dyn Future<Output = Result<String, Error>> + Send + 'a>>;

/// Something that takes messages and says when they are kept.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes `message` to `topic` (a short or full name from the configuration) and waits for
    /// the broker's confirmation, at most until `deadline`. Returns the broker's message id.
    ///
    /// # Errors
    /// [`Error::Unpublished`] when it may work later, [`Error::Unpublishable`] when it never will.
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        message: Message,
        deadline: &'a Deadline,
    ) -> Confirmation<'a>;

    /// Waits until everything handed over is confirmed or has failed.
    fn flush(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Returns what this backend can do.
    fn features(&self) -> Features;

    /// Asks the broker whether `topic` can be published to, for `hookyard check`.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    fn check<'a>(
        &'a self,
        topic: &'a str,
        deadline: &'a Deadline,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;
}
