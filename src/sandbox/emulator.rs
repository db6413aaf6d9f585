//! Google's Pub/Sub emulator in the pusher's place, spoken to by its REST interface.
//!
//! Interface: <https://cloud.google.com/pubsub/docs/reference/rest>.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use super::http::loopback_client;
use crate::error::BoxError;

/// A Pub/Sub emulator that runs somewhere on this machine.
#[derive(Debug, Clone)]
pub struct Emulator {
    base: String,
    project: String,
    client: reqwest::Client,
}

/// A message pulled from a subscription.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// Pub/Sub's id.
    pub message_id: String,
    /// The bytes.
    pub data: Vec<u8>,
    /// Names and values beside the bytes.
    pub attributes: BTreeMap<String, String>,
}

impl Emulator {
    /// Uses the emulator at `host` (`127.0.0.1:8085`) with a project of this name.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(host: &str, project: &str) -> Result<Self, BoxError> {
        let host = host.trim_start_matches("http://").trim_end_matches('/');
        Ok(Self {
            base: format!("http://{host}/v1/projects/{project}"),
            project: project.to_owned(),
            client: loopback_client(Duration::from_secs(20))?,
        })
    }

    /// Makes a topic, unless it is there.
    ///
    /// # Errors
    /// When the emulator does not answer or refuses.
    pub async fn create_topic(&self, topic: &str) -> Result<(), BoxError> {
        self.call(Method::PUT, &format!("topics/{topic}"), &json!({}))
            .await
            .map(drop)
    }

    /// Makes a push subscription that pushes to `endpoint`.
    ///
    /// # Errors
    /// As [`Emulator::create_topic`].
    pub async fn create_push_subscription(
        &self,
        name: &str,
        topic: &str,
        endpoint: &str,
        ack_deadline_seconds: u32,
    ) -> Result<(), BoxError> {
        let options = json!({
            "topic": format!("projects/{}/topics/{topic}", self.project),
            "pushConfig": {"pushEndpoint": endpoint},
            "ackDeadlineSeconds": ack_deadline_seconds,
            "retryPolicy": {"minimumBackoff": "1s", "maximumBackoff": "10s"},
        });
        self.call(Method::PUT, &format!("subscriptions/{name}"), &options)
            .await
            .map(drop)
    }

    /// Makes a pull subscription, to read a topic back.
    ///
    /// # Errors
    /// As [`Emulator::create_topic`].
    pub async fn create_pull_subscription(&self, name: &str, topic: &str) -> Result<(), BoxError> {
        let options = json!({"topic": format!("projects/{}/topics/{topic}", self.project)});
        self.call(Method::PUT, &format!("subscriptions/{name}"), &options)
            .await
            .map(drop)
    }

    /// Publishes a message and returns its id.
    ///
    /// # Errors
    /// As [`Emulator::create_topic`].
    pub async fn publish(
        &self,
        topic: &str,
        data: &[u8],
        attributes: &[(&str, &str)],
    ) -> Result<String, BoxError> {
        let attributes: BTreeMap<_, _> = attributes.iter().copied().collect();
        let message = json!({"data": STANDARD.encode(data), "attributes": attributes});
        let body = json!({"messages": [message]});
        let answer = self
            .call(Method::POST, &format!("topics/{topic}:publish"), &body)
            .await?;
        let id = answer["messageIds"][0].as_str();
        Ok(id.ok_or("the emulator gave no message id")?.to_owned())
    }

    /// Takes what is there from a pull subscription and acknowledges it.
    ///
    /// # Errors
    /// As [`Emulator::create_topic`].
    pub async fn pull(&self, subscription: &str) -> Result<Vec<Pulled>, BoxError> {
        let path = format!("subscriptions/{subscription}");
        let body = json!({"maxMessages": 100, "returnImmediately": true});
        let answer = self
            .call(Method::POST, &format!("{path}:pull"), &body)
            .await?;
        let received = answer["receivedMessages"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if !received.is_empty() {
            let ids: Vec<&Value> = received.iter().map(|message| &message["ackId"]).collect();
            let body = json!({"ackIds": ids});
            self.call(Method::POST, &format!("{path}:acknowledge"), &body)
                .await?;
        }
        Ok(received
            .iter()
            .map(|received| pulled(&received["message"]))
            .collect())
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, BoxError> {
        let request = self.client.request(method, format!("{}/{path}", self.base));
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        let response = request.send().await.map_err(|error| {
            let why = if error.is_connect() {
                "is not reachable"
            } else {
                "did not answer"
            };
            format!("the Pub/Sub emulator {why}; check PUBSUB_EMULATOR_HOST")
        })?;
        let status = response.status().as_u16();
        let body = response.bytes().await?;
        // 409 is "already exists": left from a run before, with the same settings.
        if !matches!(status, 200 | 409) {
            return Err(format!("the Pub/Sub emulator answered {status} to {path}").into());
        }
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }
}

fn pulled(message: &Value) -> Pulled {
    let attributes = message["attributes"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
    Pulled {
        message_id: message["messageId"].as_str().unwrap_or_default().to_owned(),
        data: STANDARD
            .decode(message["data"].as_str().unwrap_or_default())
            .unwrap_or_default(),
        attributes: attributes
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect(),
    }
}
