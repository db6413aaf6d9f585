//! Receives messages of a Pub/Sub subscription over one stream, whose leases the library renews.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use google_cloud_auth::credentials::anonymous;
use google_cloud_pubsub::client::Subscriber as Client;
use google_cloud_pubsub::model::Message;
use google_cloud_pubsub::subscriber::handler::Handler;
use google_cloud_pubsub::subscriber::{MessageStream, ShutdownBehavior};

use super::{PubsubBroker, failure};
use crate::brokers::{Incoming, Next, Subscription};
use crate::error::{Code, Error};
use crate::event::Delivery;

/// Messages held at once; each may have 10 MB.
const MAX_HELD: i64 = 200;
const MAX_HELD_BYTES: i64 = 32 << 20;

/// How soon others get what a process that was killed held.
const LEASE: Duration = Duration::from_secs(30);

/// The shortest there is. The emulator goes on handing messages to streams that have been closed,
/// several times over, and each time the message is lost until its lease ends.
const EMULATOR_LEASE: Duration = Duration::from_secs(10);

/// How long closing waits for the last acknowledgements to leave.
const FAREWELL: Duration = Duration::from_secs(3);

struct Stream {
    /// Keeps the connection.
    _client: Client,
    name: String,
    messages: MessageStream,
}

pub(super) async fn open(
    broker: &PubsubBroker,
    name: &str,
) -> Result<Box<dyn Subscription>, Error> {
    let full = broker.full_name_of("subscriptions", name);
    let full = full.ok_or_else(|| unavailable("invalid_subscription_name"))?;
    let mut builder = Client::builder();
    let mut lease = LEASE;
    if let Some(endpoint) = &broker.emulator {
        builder = builder
            .with_endpoint(endpoint)
            .with_credentials(anonymous::Builder::new().build());
        lease = EMULATOR_LEASE;
    }
    let client = builder.build().await.map_err(|_| failure::no_client())?;
    let messages = client
        .subscribe(&full)
        .set_max_outstanding_messages(MAX_HELD)
        .set_max_outstanding_bytes(MAX_HELD_BYTES)
        .set_max_lease_extension(lease)
        .set_shutdown_behavior(ShutdownBehavior::NackImmediately)
        .build();
    Ok(Box::new(Stream {
        _client: client,
        name: full,
        messages,
    }))
}

impl Subscription for Stream {
    fn next(&mut self) -> Next<'_> {
        Box::pin(async {
            match self.messages.next().await {
                Some(Ok((message, handler))) => Ok(incoming(message, handler, &self.name)),
                Some(Err(error)) => Err(failure::of_subscription(&error)),
                None => Err(unavailable("stream_ended")),
            }
        })
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let token = self.messages.shutdown_token();
            // Before the messages are handed back, or they would come again by this stream.
            drop(self.messages);
            // What did not leave in time comes again, which does no harm.
            tokio::time::timeout(FAREWELL, token.shutdown()).await.ok();
        })
    }
}

fn unavailable(code: &'static str) -> Error {
    Error::Unavailable {
        service: "pubsub",
        code: Code::new(code),
        retry_after: None,
        source: None,
    }
}

fn incoming(message: Message, handler: Handler, subscription: &str) -> Incoming {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let attempt = handler.delivery_attempt();
    let mut attributes: Vec<_> = message.attributes.into_iter().collect();
    attributes.sort(); // a map has no order, and equal messages are to be kept alike
    let delivery = Delivery {
        data: message.data,
        message_id: some(message.message_id),
        publish_time: message
            .publish_time
            .and_then(|time| SystemTime::try_from(time).ok()),
        attempt: attempt.and_then(|attempt| u32::try_from(attempt).ok()),
        ordering_key: some(message.ordering_key),
        attributes,
        subscription: Some(subscription.to_owned()),
        request_trace: None,
    };
    Incoming::new(delivery, move |done| {
        if done {
            handler.ack();
        } else {
            handler.nack();
        }
    })
}
