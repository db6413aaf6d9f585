//! How messages come in from a broker: a subscription, and messages that are settled once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::error::Error;
use crate::event::Delivery;

/// A message on its way in. Dropped without [`Incoming::ack`] it is handed back and comes again.
pub struct Incoming {
    /// What came.
    pub delivery: Delivery,
    settle: Option<Box<dyn FnOnce(bool) + Send + Sync>>,
}

impl Incoming {
    /// Makes a message; `settle` is told once whether it is done with.
    pub fn new(delivery: Delivery, settle: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        Self {
            delivery,
            settle: Some(Box::new(settle)),
        }
    }

    /// Says that it is done with. It may come again all the same.
    pub fn ack(mut self) {
        if let Some(settle) = self.settle.take() {
            settle(true);
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle(false);
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("message_id", &self.delivery.message_id)
            .finish_non_exhaustive()
    }
}

/// The next message, when there is one.
pub type Next<'a> = Pin<Box<dyn Future<Output = Result<Incoming, Error>> + Send + 'a>>;

/// Messages of one subscription, as they come.
pub trait Subscription: Send {
    /// Waits for the next message. A message that was not returned yet is not lost when the wait
    /// is given up.
    ///
    /// # Errors
    /// When the broker ends the stream; a new one has to be opened then.
    fn next(&mut self) -> Next<'_>;

    /// Waits until the broker knows which messages are done with, and hands back the others.
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A subscription, once it is open.
pub type Opened<'a> =
    Pin<Box<dyn Future<Output = Result<Box<dyn Subscription>, Error>> + Send + 'a>>;

/// Something that messages can be had from.
pub trait Subscriber: Send + Sync + 'static {
    /// Opens `subscription`, a short or full name from the configuration. Whether it exists may
    /// show with the first message only.
    ///
    /// # Errors
    /// When the name cannot be one, or there are no credentials.
    fn subscribe<'a>(&'a self, subscription: &'a str) -> Opened<'a>;
}
