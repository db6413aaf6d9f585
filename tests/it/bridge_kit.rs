//! A bridge under test, listening on a socket.

use std::sync::Arc;

use hookyard::bridge::{Bridge, RunningBridge};
use hookyard::brokers::{MemoryBroker, Message};
use hookyard::clock::ManualClock;
use hookyard::config::BridgeRoleConfig;
use hookyard::sandbox::loopback_client;
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{Answer, PATIENCE};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const OLD_SECRET: &str = "fedcba9876543210fedcba9876543210";
pub(crate) const TOPIC: &str = "hasura-events";

/// A bridge with a broker in memory and a clock that stands still.
pub(crate) struct TestBridge {
    pub(crate) broker: MemoryBroker,
    pub(crate) running: RunningBridge,
    client: reqwest::Client,
}

/// Reads the configuration of a bridge as the environment is read.
pub(crate) fn config(variables: &[(&str, &str)]) -> BridgeRoleConfig {
    let defaults = [
        ("HOST", "127.0.0.1"),
        ("EVENT_BUS_TYPE", "memory"),
        ("ADMIN_TOKEN", "admin"),
        ("BRIDGE_TOPIC", TOPIC),
        ("BRIDGE_SECRET", SECRET),
    ];
    let value = |name: &str| {
        let mut all = variables.iter().chain(&defaults);
        let found = all.find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    BridgeRoleConfig::from_lookup(&value).unwrap()
}

impl TestBridge {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(variables: &[(&str, &str)]) -> Self {
        Self::of(config(variables)).await
    }

    pub(crate) async fn of(config: BridgeRoleConfig) -> Self {
        let broker = MemoryBroker::new();
        let bridge = Bridge::builder(config)
            .publisher(Arc::new(broker.clone()))
            .clock(ManualClock::start());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            running: bridge.build().await.unwrap().start(listener).unwrap(),
            broker,
            client: loopback_client(PATIENCE).unwrap(),
        }
    }

    /// Prepares a webhook as Hasura calls it, without the secret.
    pub(crate) fn webhook(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let url = format!("http://{}/hasura/events", self.running.address);
        let request = self.client.post(url).body(body);
        request.header("content-type", "application/json")
    }

    /// Calls the webhook with the secret.
    pub(crate) async fn send(&self, body: impl Into<reqwest::Body>) -> Answer {
        answer(self.webhook(body).header("x-hookyard-secret", SECRET)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.running.address);
        answer(self.client.get(url).bearer_auth("admin")).await
    }

    /// Returns what was published, oldest first.
    pub(crate) fn published(&self) -> Vec<Message> {
        let published = self.broker.published(TOPIC).into_iter();
        published.map(|published| published.message).collect()
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    Answer::read(request.send().await.unwrap()).await.unwrap()
}

/// Returns code and message of an error answer, which has no other members but its id.
pub(crate) fn error(answer: &Answer) -> (String, String) {
    let body: Value = serde_json::from_str(&answer.text()).unwrap();
    let error = body["error"].as_object().unwrap();
    assert_eq!(error.len(), 3, "{body}");
    assert!(error["request_id"].is_string());
    let text = |name: &str| error[name].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

/// Returns `Retry-After` as Hasura reads it: positive whole seconds.
pub(crate) fn retry_after(answer: &Answer) -> Option<u32> {
    let value = answer.headers.get("retry-after")?;
    let seconds: u32 = value.to_str().unwrap().parse().unwrap();
    assert!(seconds > 0);
    Some(seconds)
}

pub(crate) fn attribute<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let mut found = message.attributes.iter().filter(|(key, _)| key == name);
    let value = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "{name} is there twice");
    value
}
