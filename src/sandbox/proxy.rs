//! A signing proxy: takes a push without a token and passes it on with one.
//!
//! Google's emulator sends no token, and the service takes nothing without one; so the emulator
//! pushes here. It is also the easiest door for curl.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::http::{Reply, Request, loopback_client};
use super::issuer::{HOUR, Issuer};
use super::lock;
use crate::error::BoxError;

/// Answers kept for reading back.
const KEPT: usize = 10_000;

/// Where the proxy passes pushes on to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The service's push endpoint.
    pub endpoint: String,
    /// `aud` of the tokens.
    pub audience: String,
    /// `email` of the tokens.
    pub service_account: String,
}

/// How the service answered a push that came through the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Pub/Sub's id of the message.
    pub message_id: String,
    /// The service's status.
    pub status: u16,
    /// The service's `x-request-id`.
    pub request_id: Option<String>,
}

/// Passes pushes on with a token. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    issuer: Issuer,
    client: reqwest::Client,
    target: Arc<Mutex<Option<Target>>>,
    passed: Arc<Mutex<Vec<Passed>>>,
}

impl Proxy {
    /// Makes a proxy without a target.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(issuer: Issuer) -> Result<Self, BoxError> {
        Ok(Self {
            issuer,
            client: loopback_client(Duration::from_secs(600))?,
            target: Arc::default(),
            passed: Arc::default(),
        })
    }

    /// Says where to pass pushes on to.
    pub fn set_target(&self, target: Target) {
        *lock(&self.target) = Some(target);
    }

    /// Returns the answers so far, oldest first.
    pub fn passed(&self) -> Vec<Passed> {
        lock(&self.passed).clone()
    }

    /// Returns the answers to one message so far, oldest first.
    pub fn passed_of(&self, message_id: &str) -> Vec<Passed> {
        let passed = lock(&self.passed);
        passed
            .iter()
            .filter(|one| one.message_id == message_id)
            .cloned()
            .collect()
    }

    pub(super) async fn answer(&self, request: Request) -> Reply {
        let Some(target) = lock(&self.target).clone() else {
            return Reply::text(503, "no service to pass this on to\n");
        };
        let token = self
            .issuer
            .token(&target.audience, &target.service_account, HOUR);
        let mut headers = request.headers.clone();
        // Those of this connection, and whatever credential the caller may have brought.
        for name in [
            "host",
            "connection",
            "content-length",
            "transfer-encoding",
            "authorization",
        ] {
            headers.remove(name);
        }
        let sent = self
            .client
            .post(&target.endpoint)
            .headers(headers)
            .bearer_auth(token);
        let Ok(response) = sent.body(request.body.clone()).send().await else {
            return Reply::text(502, "the service did not answer\n");
        };
        let status = response.status().as_u16();
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let request_id = header("x-request-id").map(str::to_owned);
        let mut passed = lock(&self.passed);
        if passed.len() < KEPT {
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let message_id = body["message"]["messageId"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            passed.push(Passed {
                message_id,
                status,
                request_id,
            });
        }
        drop(passed);
        let mut reply = Reply::text(status, "");
        for name in ["x-request-id", "retry-after", "www-authenticate"] {
            if let Some(value) = header(name) {
                reply = reply.with(name, value);
            }
        }
        reply
    }
}
