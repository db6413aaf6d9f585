//! A broker that now and then fails, for chaos, and the way to it from another process.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::faults::{Fault, Faults};
use super::http::{Reply, Request, loopback_client};
use crate::brokers::{Confirmation, Features, MemoryBroker, Message, Publisher};
use crate::clock::{Deadline, SharedClock};
use crate::error::{BoxError, Code, Error};

/// Path of the broker in the sandbox.
const PATH: &str = "/broker";

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

/// A publication on its way to the sandbox.
#[derive(Serialize, Deserialize)]
struct Posted {
    topic: String,
    data: String,
    attributes: Vec<(String, String)>,
    ordering_key: Option<String>,
}

impl FlakyBroker {
    /// Takes what another process publishes through a [`RemoteBroker`].
    pub(super) async fn answer(&self, request: &Request, clock: &SharedClock) -> Reply {
        let Ok(posted) = serde_json::from_slice::<Posted>(&request.body) else {
            return Reply::text(400, "not a publication");
        };
        let message = Message {
            data: STANDARD.decode(&posted.data).unwrap_or_default().into(),
            attributes: posted.attributes,
            ordering_key: posted.ordering_key,
        };
        let deadline = Deadline::after(clock, Duration::from_secs(10));
        // Drawn by what is published, not by its wrapping.
        let fault = self.faults.draw(&message.data);
        if let Some(fault) = &fault
            && let Some(reply) = fault.before(clock).await
        {
            return reply;
        }
        let taken = self.broker.publish(&posted.topic, message, &deadline).await;
        let reply = match taken {
            Ok(id) => Reply::json(200, &json!({"message_id": id})),
            Err(Error::Unpublishable { code, .. }) => {
                Reply::json(422, &json!({"code": code.as_str()}))
            }
            Err(error) => Reply::json(503, &json!({"code": error.code().as_str()})),
        };
        match fault {
            None => reply,
            Some(fault) => fault.after(reply, clock).await,
        }
    }
}

/// The sandbox's broker as another process sees it.
#[derive(Debug, Clone)]
pub struct RemoteBroker {
    url: String,
    client: reqwest::Client,
}

impl RemoteBroker {
    /// Publishes to the sandbox at `sandbox`, its base URL.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(sandbox: &str) -> Result<Self, BoxError> {
        Ok(Self {
            url: format!("{}{PATH}", sandbox.trim_end_matches('/')),
            client: loopback_client(Duration::from_secs(2))?,
        })
    }

    async fn post(&self, topic: &str, message: Message) -> Result<String, Error> {
        let posted = Posted {
            topic: topic.to_owned(),
            data: STANDARD.encode(&message.data),
            attributes: message.attributes,
            ordering_key: message.ordering_key,
        };
        let body = serde_json::to_vec(&posted).map_err(|_| unconfirmed(topic))?;
        let sent = self.client.post(&self.url).body(body).send().await;
        let answer = sent.map_err(|_| unconfirmed(topic))?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.map_err(|_| unconfirmed(topic))?;
        let said: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match (status, said["message_id"].as_str()) {
            (200, Some(id)) => Ok(id.to_owned()),
            (422, _) => Err(Error::Unpublishable {
                topic: topic.to_owned(),
                code: Code::from_upstream(said["code"].as_str().unwrap_or_default()),
            }),
            _ => Err(unconfirmed(topic)),
        }
    }
}

impl Publisher for RemoteBroker {
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        message: Message,
        deadline: &'a Deadline,
    ) -> Confirmation<'a> {
        Box::pin(async move {
            let posted = deadline.run(self.post(topic, message)).await;
            posted.unwrap_or_else(|_| Err(unconfirmed(topic)))
        })
    }

    fn flush(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn features(&self) -> Features {
        Features {
            persistent: true, // as seen from the process that publishes
            ..MemoryBroker::new().features()
        }
    }

    fn check<'a>(
        &'a self,
        _topic: &'a str,
        _deadline: &'a Deadline,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(())))
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
