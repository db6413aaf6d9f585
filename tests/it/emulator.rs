//! Google's Pub/Sub emulator: found or started, and spoken to over its REST interface, so that
//! what the client library does is seen from outside.
//!
//! `scripts/test.sh` starts one for all tests and names it in `PUBSUB_EMULATOR_HOST`. Without it
//! each test process starts its own. Where there is none, tests say so and pass, but with `CI=true`
//! they fail.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookyard::config::{BusConfig, BusType};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Port};

/// Where Debian's and Google's packages put it.
const PLACES: &[&str] = &[
    "/usr/lib/google-cloud-sdk",
    "/usr/share/google-cloud-sdk",
    "/opt/google-cloud-sdk",
];

static STARTED: Mutex<Option<Option<String>>> = Mutex::new(None);

/// An emulator, and a project in it that no other test uses.
#[derive(Debug, Clone)]
pub(crate) struct Emulator {
    pub(crate) host: String,
    pub(crate) project: String,
    http: reqwest::Client,
}

/// A message as a subscriber gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    pub(crate) data: Vec<u8>,
    pub(crate) attributes: Value,
    pub(crate) ordering_key: Option<String>,
}

impl Emulator {
    /// Finds or starts the emulator; `None` when there is none and the test is to be skipped.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub(crate) async fn find() -> Option<Self> {
        let host = tokio::task::spawn_blocking(host).await.unwrap();
        let Some(host) = host else {
            let why = "no Pub/Sub emulator: set PUBSUB_EMULATOR_HOST or run scripts/test.sh";
            assert!(variable("CI").as_deref() != Some("true"), "{why}");
            eprintln!("skipped: {why}");
            return None;
        };
        Some(Self {
            host,
            project: format!("hookyard-{:08x}", rand::random::<u32>()),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        })
    }

    /// Returns a configuration for two topics of this emulator.
    pub(crate) fn bus(&self, events: &str, dead_letters: &str) -> BusConfig {
        BusConfig {
            bus_type: BusType::Pubsub,
            project: Some(self.project.clone()),
            events_topic: events.to_owned(),
            dead_letter_topic: dead_letters.to_owned(),
            emulator_host: Some(self.host.clone()),
        }
    }

    pub(crate) fn topic(&self, topic: &str) -> String {
        format!("projects/{}/topics/{topic}", self.project)
    }

    /// Creates a topic and a pull subscription of the same name that keeps the order.
    pub(crate) async fn create_topic(&self, topic: &str) {
        self.create_bare_topic(topic).await;
        self.subscribe(topic, topic, json!({"enableMessageOrdering": true}))
            .await;
    }

    /// Creates a topic that nobody subscribes to.
    pub(crate) async fn create_bare_topic(&self, topic: &str) {
        self.call("PUT", &self.topic(topic), json!({}))
            .await
            .unwrap();
    }

    /// Creates a subscription with more settings than its topic.
    pub(crate) async fn subscribe(&self, name: &str, topic: &str, mut settings: Value) {
        settings["topic"] = self.topic(topic).into();
        let name = format!("projects/{}/subscriptions/{name}", self.project);
        self.call("PUT", &name, settings).await.unwrap();
    }

    /// Publishes without the code under test.
    pub(crate) async fn publish(&self, topic: &str, data: &[u8], attributes: Value) {
        let message = json!({"data": STANDARD.encode(data), "attributes": attributes});
        let path = format!("{}:publish", self.topic(topic));
        self.call("POST", &path, json!({"messages": [message]}))
            .await
            .unwrap();
    }

    /// Takes messages from a pull subscription until there are `count`, or for a long time.
    pub(crate) async fn pull(&self, subscription: &str, count: usize) -> Vec<Received> {
        let path = format!("projects/{}/subscriptions/{subscription}", self.project);
        let mut received = Vec::new();
        let collect = async {
            while received.len() < count {
                let wanted = json!({"maxMessages": 1000});
                let answer = self
                    .call("POST", &format!("{path}:pull"), wanted)
                    .await
                    .unwrap();
                let messages = answer["receivedMessages"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                if messages.is_empty() {
                    continue; // the emulator holds a pull back until there is something, or a while
                }
                let ids: Vec<&Value> = messages.iter().map(|m| &m["ackId"]).collect();
                let acks = json!({"ackIds": ids});
                self.call("POST", &format!("{path}:acknowledge"), acks)
                    .await
                    .unwrap();
                received.extend(messages.iter().map(|m| Received::of(&m["message"])));
            }
        };
        tokio::time::timeout(PATIENCE, collect).await.ok();
        received
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Value,
    ) -> Result<Value, String> {
        let url = format!("http://{}/v1/{path}", self.host);
        let request = self.http.request(method.parse().unwrap(), url);
        let request = request.header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let (status, body) = (answer.status(), answer.bytes().await.unwrap());
        if status.is_success() {
            Ok(serde_json::from_slice(&body).unwrap())
        } else {
            Err(format!(
                "{method} {path}: {status} {}",
                String::from_utf8_lossy(&body)
            ))
        }
    }
}

impl Received {
    fn of(message: &Value) -> Self {
        Self {
            data: STANDARD
                .decode(message["data"].as_str().unwrap_or(""))
                .unwrap(),
            attributes: message["attributes"].clone(),
            ordering_key: message["orderingKey"].as_str().map(str::to_owned),
        }
    }
}

fn host() -> Option<String> {
    let mut started = STARTED.lock().unwrap();
    started
        .get_or_insert_with(|| {
            let given = variable("PUBSUB_EMULATOR_HOST");
            given.or_else(|| start(&program()?))
        })
        .clone()
}

#[expect(clippy::disallowed_methods, reason = "the tests' own environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn program() -> Option<PathBuf> {
    let inside =
        |root: &str| Path::new(root).join("platform/pubsub-emulator/bin/cloud-pubsub-emulator");
    let path = variable("PATH").unwrap_or_default();
    let on_path = path
        .split(':')
        .map(|folder| Path::new(folder).join("cloud-pubsub-emulator"));
    let mut places = PLACES.iter().map(|root| inside(root)).chain(on_path);
    places.find(|program| program.is_file())
}

/// Starts an emulator that ends with this process: it hangs on a pipe that closes then.
fn start(program: &Path) -> Option<String> {
    let (port, iam_port) = (Port::hold(), Port::hold());
    let script = r#""$0" --host=127.0.0.1 --port="$1" --iam_port="$2" >/dev/null 2>&1 </dev/null & read -r _; kill $!"#;
    let mut child = Command::new("sh")
        .args(["-c", script])
        .arg(program)
        .args([port.number.to_string(), iam_port.number.to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .ok()?;
    // Never closed by us: the pipe has to live as long as the process.
    std::mem::forget(child.stdin.take());
    let address: SocketAddr = ([127, 0, 0, 1], port.number).into();
    std::mem::forget((port, iam_port));
    for _ in 0..600 {
        if std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok() {
            return Some(address.to_string());
        }
        std::thread::sleep(Duration::from_millis(100)); // a JVM takes its time
    }
    None
}
