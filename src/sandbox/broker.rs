//! A broker that now and then fails, for chaos.

use std::future::Future;
use std::pin::Pin;

use super::faults::{Fault, Faults};
use crate::brokers::{Confirmation, Features, MemoryBroker, Message, Publisher};
use crate::clock::Deadline;
use crate::error::{Code, Error};

/// The memory broker behind a bad line: a publication fails, or its confirmation gets lost.
#[derive(Debug, Clone, Default)]
pub struct FlakyBroker {
    broker: MemoryBroker,
    faults: Faults,
}

impl FlakyBroker {
    /// Puts a bad line in front of `broker`.
    pub fn new(broker: MemoryBroker) -> Self {
        Self {
            broker,
            faults: Faults::default(),
        }
    }

    /// Returns the broker itself, to read back what it has taken.
    pub fn broker(&self) -> &MemoryBroker {
        &self.broker
    }

    /// Returns the line's faults. A fault that does the work first loses the confirmation only.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl Publisher for FlakyBroker {
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        message: Message,
        deadline: &'a Deadline,
    ) -> Confirmation<'a> {
        Box::pin(async move {
            let fault = self.faults.draw(&message.data);
            if fault.as_ref().is_some_and(Fault::loses_the_request) {
                return Err(unconfirmed(topic));
            }
            let id = self.broker.publish(topic, message, deadline).await?;
            match fault {
                None => Ok(id),
                Some(_) => Err(unconfirmed(topic)),
            }
        })
    }

    fn flush(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.broker.flush()
    }

    fn features(&self) -> Features {
        self.broker.features()
    }

    fn check<'a>(
        &'a self,
        topic: &'a str,
        deadline: &'a Deadline,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        self.broker.check(topic, deadline)
    }
}

fn unconfirmed(topic: &str) -> Error {
    Error::Unpublished {
        topic: topic.to_owned(),
        code: Code::new("unavailable"),
    }
}
