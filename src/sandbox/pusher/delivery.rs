//! Delivers one message to one subscription until it is acknowledged or given up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{
    Delivered, KEPT, PubsubMessage, PushSubscription, Record, Shared, Standing, Subscribed,
};
use crate::clock::SharedClock;
use crate::sandbox::issuer::{HOUR, Issuer};
use crate::sandbox::{lock, rfc3339};

/// Key id, audience and service account of a token.
type TokenKey = (String, String, String);

/// Signs tokens and hands each out for as long as Pub/Sub does, close to an hour.
pub(super) struct TokenCache {
    issuer: Issuer,
    tokens: Mutex<HashMap<TokenKey, (SystemTime, String)>>,
    clock: SharedClock,
}

impl TokenCache {
    pub(super) fn new(issuer: Issuer, clock: SharedClock) -> Self {
        Self {
            issuer,
            tokens: Mutex::default(),
            clock,
        }
    }

    fn token(&self, audience: &str, email: &str) -> String {
        let now = self.clock.now();
        let name = (audience.to_owned(), email.to_owned(), self.issuer.kid());
        let mut tokens = lock(&self.tokens);
        if let Some((until, token)) = tokens.get(&name)
            && now < *until
        {
            return token.clone();
        }
        let token = self.issuer.token(audience, email, HOUR);
        tokens.insert(name, (now + HOUR.mul_f32(0.9), token.clone()));
        token
    }
}

/// A message on its way to one subscription.
#[derive(Clone)]
pub(super) struct Job {
    subscription: Arc<Subscribed>,
    message: PubsubMessage,
    record: u64,
}

impl Job {
    /// Returns the key of the lane it has to wait in.
    fn lane(&self) -> Option<&str> {
        self.message
            .ordering_key
            .as_deref()
            .filter(|_| self.subscription.options.ordered)
    }
}

impl Shared {
    /// Starts delivering a message; the task ends when the message is settled.
    pub(super) fn start(self: &Arc<Self>, subscription: Arc<Subscribed>, message: PubsubMessage) {
        self.pending.send_modify(|pending| *pending += 1);
        let record = self.open_record(&subscription.options, &message);
        let job = Job {
            subscription,
            message,
            record,
        };
        if let Some(key) = job.lane()
            && !self.lanes.enter(&job.subscription.options.name, key, &job)
        {
            return; // the one before it starts it
        }
        self.run(job);
    }

    fn run(self: &Arc<Self>, job: Job) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = shared.deliver_until_settled(&job) => {}
                () = shared.stop.cancelled() => return,
            }
            let name = &job.subscription.options.name;
            if let Some(next) = job.lane().and_then(|key| shared.lanes.leave(name, key)) {
                shared.run(next);
            }
            shared.pending.send_modify(|pending| *pending -= 1);
        });
    }

    async fn deliver_until_settled(self: &Arc<Self>, job: &Job) {
        let (options, message) = (&job.subscription.options, &job.message);
        for attempt in 1.. {
            let delivered = {
                // Closed never; a delivery without a place in the window waits for one.
                let _place = job.subscription.window.acquire().await.ok();
                self.push(options, message, attempt).await
            };
            let acked = delivered.status.is_some_and(is_ack);
            let exhausted = options
                .max_delivery_attempts
                .is_some_and(|max| attempt >= max);
            let standing = match (acked, exhausted) {
                (true, _) => Standing::Acked,
                (false, true) => Standing::DeadLettered,
                (false, false) => Standing::Pending,
            };
            if standing == Standing::DeadLettered {
                self.give_up(options, message, attempt);
            }
            if let Some(record) = lock(&self.state).records.get_mut(&job.record) {
                record.deliveries.push(delivered);
                record.standing = standing;
            }
            if standing != Standing::Pending {
                return;
            }
            self.clock.sleep(options.backoff(attempt)).await;
        }
    }

    async fn push(
        &self,
        options: &PushSubscription,
        message: &PubsubMessage,
        attempt: u32,
    ) -> Delivered {
        let started = self.clock.monotonic();
        let token = self
            .tokens
            .token(&options.audience, &options.service_account);
        let numbered = options.max_delivery_attempts.map(|_| attempt);
        let body = envelope(message, &subscription_path(&options.name), numbered);
        let request = self
            .client
            .post(&options.endpoint)
            .bearer_auth(token)
            .header("content-type", "application/json")
            .header("user-agent", "CloudPubSub-Google")
            .body(body.to_string())
            .send();
        let answer = tokio::time::timeout(options.ack_deadline, request).await;
        let elapsed = self.clock.monotonic().saturating_duration_since(started);
        let (status, error, request_id) = match answer {
            Ok(Ok(response)) => {
                let id = response
                    .headers()
                    .get("x-request-id")
                    .and_then(|id| id.to_str().ok());
                (
                    Some(response.status().as_u16()),
                    None,
                    id.map(str::to_owned),
                )
            }
            Ok(Err(_)) => (None, Some("connection"), None),
            Err(_) => (None, Some("deadline"), None),
        };
        Delivered {
            attempt,
            status,
            error,
            request_id,
            ms: elapsed.as_secs_f64() * 1000.0,
        }
    }

    /// Publishes to the dead-letter topic: a new message with the old data and attributes, and
    /// where it came from
    /// (<https://cloud.google.com/pubsub/docs/handling-failures#track_delivery_attempts>).
    fn give_up(
        self: &Arc<Self>,
        options: &PushSubscription,
        message: &PubsubMessage,
        attempt: u32,
    ) {
        let Some(topic) = &options.dead_letter_topic else {
            return;
        };
        let mut attributes = message.attributes.clone();
        for (name, value) in [
            (
                "CloudPubSubDeadLetterSourceDeliveryCount",
                attempt.to_string(),
            ),
            (
                "CloudPubSubDeadLetterSourceSubscription",
                options.name.clone(),
            ),
            (
                "CloudPubSubDeadLetterSourceSubscriptionProject",
                PROJECT.to_owned(),
            ),
            (
                "CloudPubSubDeadLetterSourceTopicPublishTime",
                rfc3339(message.publish_time),
            ),
        ] {
            attributes.insert(name.to_owned(), value);
        }
        // Refused only if the topic is gone; real Pub/Sub then loses the message too.
        self.publish(
            topic,
            message.data.clone(),
            attributes,
            message.ordering_key.clone(),
        )
        .ok();
    }

    fn open_record(&self, options: &PushSubscription, message: &PubsubMessage) -> u64 {
        let mut state = lock(&self.state);
        if state.records.len() == KEPT {
            state.records.pop_first();
        }
        state.opened += 1;
        let number = state.opened;
        let record = Record {
            message_id: message.message_id.clone(),
            subscription: options.name.clone(),
            deliveries: Vec::new(),
            standing: Standing::Pending,
        };
        state.records.insert(number, record);
        number
    }
}

/// Project of everything in the sandbox.
pub(in crate::sandbox) const PROJECT: &str = "sandbox";

pub(in crate::sandbox) fn subscription_path(name: &str) -> String {
    format!("projects/{PROJECT}/subscriptions/{name}")
}

/// Statuses that acknowledge (<https://cloud.google.com/pubsub/docs/push#receive_push>).
pub(in crate::sandbox) fn is_ack(status: u16) -> bool {
    matches!(status, 102 | 200 | 201 | 202 | 204)
}

/// Makes the body of a push request, with both spellings of id and time as Pub/Sub sends them.
pub fn envelope(message: &PubsubMessage, subscription: &str, attempt: Option<u32>) -> Value {
    let time = rfc3339(message.publish_time);
    let mut inner = json!({
        "data": STANDARD.encode(&message.data),
        "messageId": message.message_id,
        "message_id": message.message_id,
        "publishTime": time,
        "publish_time": time,
    });
    if !message.attributes.is_empty() {
        inner["attributes"] = json!(message.attributes);
    }
    if let Some(key) = &message.ordering_key {
        inner["orderingKey"] = json!(key);
    }
    let mut body = json!({"message": inner, "subscription": subscription});
    if let Some(attempt) = attempt {
        body["deliveryAttempt"] = json!(attempt);
    }
    body
}
