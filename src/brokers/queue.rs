//! A subscription of the broker inside this process: what is handed back comes again.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::{Incoming, Next, Published, Subscription};
use crate::event::Delivery;

/// Messages that wait, shared by everybody who reads the subscription.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    waiting: Arc<Mutex<VecDeque<(Published, u32)>>>,
    more: Arc<Notify>,
}

impl Queue {
    /// Adds a message that came `attempts` times before.
    pub(super) fn push(&self, message: Published, attempts: u32) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back((message, attempts));
        drop(waiting);
        self.more.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.len()
    }

    fn pop(&self) -> Option<(Published, u32)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let next = waiting.pop_front();
        if !waiting.is_empty() {
            self.more.notify_one(); // one wake-up may stand for many messages
        }
        next
    }
}

/// One reader of a queue.
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) queue: Queue,
}

impl Reader {
    fn incoming(&self, published: Published, attempts: u32) -> Incoming {
        let message = published.message.clone();
        let delivery = Delivery {
            data: message.data,
            message_id: Some(published.message_id.clone()),
            attempt: Some(attempts + 1),
            ordering_key: message.ordering_key,
            attributes: message.attributes,
            subscription: Some(self.name.clone()),
            ..Delivery::default()
        };
        let queue = self.queue.clone();
        Incoming::new(delivery, move |done| {
            if !done {
                queue.push(published, attempts + 1);
            }
        })
    }
}

impl Subscription for Reader {
    fn next(&mut self) -> Next<'_> {
        Box::pin(async {
            loop {
                let more = self.queue.more.notified();
                if let Some((published, attempts)) = self.queue.pop() {
                    return Ok(self.incoming(published, attempts));
                }
                more.await;
            }
        })
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}
