//! A whole service in this process, listening on a socket.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookyard::app::{App, AppBuilder, Running};
use hookyard::brokers::{MemoryBroker, Published};
use hookyard::clock::ManualClock;
use hookyard::pipeline::Handler;
use hookyard::sandbox::{
    ADMIN_TOKEN, Did, Entry, Fault, Faults, FlakyBroker, Reply, Sandbox, loopback_client,
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Answer, TestDatabase, eventually};

/// Subscription of the dead-letter topic, for `DEAD_LETTER_SUBSCRIPTION`.
pub(crate) const DESK: &str = "hookyard-dead-letters-desk";

/// A service under test with everything around it.
pub(crate) struct TestApp {
    pub(crate) sandbox: Sandbox,
    pub(crate) broker: MemoryBroker,
    /// What goes wrong on the way to the broker.
    pub(crate) broker_faults: Faults,
    pub(crate) running: Running,
    clock: Option<Arc<ManualClock>>,
    client: reqwest::Client,
}

/// Puts a [`TestApp`] together.
pub(crate) struct Builder {
    app: AppBuilder,
    clock: Option<Arc<ManualClock>>,
    variables: Vec<(&'static str, String)>,
}

/// A message that went out.
#[derive(Debug)]
pub(crate) struct Went {
    pub(crate) id: String,
    pub(crate) event_type: String,
    pub(crate) data: Vec<u8>,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) ordering_key: Option<String>,
}

impl Went {
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn from(published: Published) -> Self {
        let message = published.message;
        let mut went = Self {
            id: String::new(),
            event_type: String::new(),
            data: message.data.to_vec(),
            attributes: message.attributes,
            ordering_key: message.ordering_key,
        };
        went.id = went.attribute("ce-id").unwrap_or_default().to_owned();
        went.event_type = went.attribute("ce-type").unwrap_or_default().to_owned();
        went
    }
}

impl Builder {
    pub(crate) fn handler<H: Handler>(mut self, handler: H) -> Self {
        self.app = self.app.handler(handler);
        self
    }

    /// Lets time stand still until the test moves it; waiting moves it too.
    pub(crate) fn manual_clock(mut self) -> Self {
        let clock = ManualClock::start();
        self.app = self.app.clock(clock.clone());
        self.clock = Some(clock);
        self
    }

    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Lets the service keep what it owes in this database.
    pub(crate) fn database(self, database: &TestDatabase) -> Self {
        self.variable("DATABASE_URL", database.url())
    }

    pub(crate) fn dedupe_capacity(self, capacity: u64) -> Self {
        self.variable("DEDUPE_CAPACITY", capacity.to_string())
    }

    pub(crate) fn max_in_flight(self, places: usize) -> Self {
        self.variable("MAX_IN_FLIGHT", places.to_string())
    }

    pub(crate) async fn start(self) -> TestApp {
        let app = Box::pin(self.launch()).await;
        app.wait_until_ready().await;
        app
    }

    /// Starts without waiting until the service is ready.
    pub(crate) async fn launch(self) -> TestApp {
        let mut sandbox = Sandbox::builder().auto_seed();
        for (name, value) in self.variables {
            sandbox = sandbox.variable(name, value);
        }
        if let Some(clock) = &self.clock {
            sandbox = sandbox.clock(clock.clone());
        }
        let sandbox = sandbox.start().await.unwrap();
        let broker = MemoryBroker::new();
        broker.create_subscription(DESK, "hookyard-dead-letters");
        let flaky = FlakyBroker::new(broker.clone());
        let broker_faults = flaky.faults().clone();
        let app = self
            .app
            .config(sandbox.config().unwrap())
            .publisher(Arc::new(flaky))
            .subscriber(Arc::new(broker.clone()));
        let app = app.handlers(hookyard::handlers::register);
        let app = app.build().await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = app.start(listener).unwrap();
        let client = loopback_client(Duration::from_secs(60)).unwrap();
        TestApp {
            sandbox,
            broker,
            broker_faults,
            running,
            clock: self.clock,
            client,
        }
    }
}

impl TestApp {
    /// Starts putting another service than the reference service together.
    pub(crate) fn of(app: AppBuilder) -> Builder {
        Builder {
            app,
            ..Self::builder()
        }
    }

    pub(crate) fn builder() -> Builder {
        Builder {
            app: App::builder(),
            clock: None,
            variables: Vec::new(),
        }
    }

    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    pub(crate) fn clock(&self) -> &ManualClock {
        self.clock
            .as_ref()
            .expect("this test did not ask for a manual clock")
    }

    pub(crate) async fn wait_until_ready(&self) {
        let what = || "the service did not become ready".to_owned();
        let ready = async || self.get("/ready").await.status == StatusCode::OK;
        eventually(what, ready).await;
    }

    /// Pushes an event as Pub/Sub would, under a fresh message id.
    pub(crate) async fn push(&self, event: &str) -> Answer {
        self.push_as(&format!("message-{:x}", rand::random::<u64>()), event)
            .await
    }

    /// Pushes an event under a message id of the test's choice.
    pub(crate) async fn push_as(&self, message_id: &str, event: &str) -> Answer {
        self.push_envelope(&envelope(message_id, event.as_bytes(), &[]))
            .await
    }

    /// Pushes a message with attributes.
    pub(crate) async fn push_message(&self, data: &[u8], with: &[(String, String)]) -> Answer {
        let message_id = format!("message-{:x}", rand::random::<u64>());
        self.push_envelope(&envelope(&message_id, data, with)).await
    }

    pub(crate) async fn push_envelope(&self, envelope: &Value) -> Answer {
        self.post(envelope.to_string().into_bytes()).await
    }

    /// Posts any body with a good token.
    pub(crate) async fn post(&self, body: Vec<u8>) -> Answer {
        let request = self
            .client
            .post(self.url("/push"))
            .bearer_auth(self.sandbox.token());
        let request = request
            .header("content-type", "application/json")
            .body(body);
        Answer::read(request.send().await.unwrap()).await.unwrap()
    }

    /// Pushes a good event with this token.
    pub(crate) async fn push_with_token(&self, token: &str) -> Answer {
        let event = super::contract_event("token", "signed", "active");
        let body = envelope("token", event.as_bytes(), &[]).to_string();
        let request = self
            .client
            .post(self.url("/push"))
            .bearer_auth(token)
            .body(body);
        Answer::read(request.send().await.unwrap()).await.unwrap()
    }

    /// Gets one of the service's own routes as its operator.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = self.client.get(self.url(path)).bearer_auth(ADMIN_TOKEN);
        Answer::read(request.send().await.unwrap()).await.unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.address)
    }

    /// Returns the downstream events, oldest first.
    pub(crate) fn events(&self) -> Vec<Went> {
        self.broker
            .published("hookyard-events")
            .into_iter()
            .map(Went::from)
            .collect()
    }

    /// Returns the dead letters, oldest first.
    pub(crate) fn dead_letters(&self) -> Vec<Went> {
        self.broker
            .published("hookyard-dead-letters")
            .into_iter()
            .map(Went::from)
            .collect()
    }

    /// Returns what changed something upstream.
    pub(crate) fn effects(&self) -> Vec<String> {
        let entries = self.sandbox.journal().entries();
        let effect = |entry: &Entry| entry.did == Did::Effect;
        entries
            .iter()
            .filter(|e| effect(e))
            .map(|e| format!("{} {}", e.request, e.subject))
            .collect()
    }

    /// Returns how many requests Chargebee and Hasura got.
    pub(crate) fn upstream_requests(&self) -> usize {
        let journal = self.sandbox.journal();
        journal.of("chargebee").len() + journal.of("hasura").len()
    }

    /// Returns a counter of `/metrics` by its two label values.
    pub(crate) async fn metric(&self, name: &str, handler: &str, outcome: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let start = format!("{name}{{handler=\"{handler}\",outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until so many downstream events are published, and fails when there are more; one
    /// published twice counts once.
    pub(crate) async fn wait_for_events(&self, count: usize) {
        let ids = || {
            let ids: std::collections::BTreeSet<_> =
                self.events().into_iter().map(|e| e.id).collect();
            ids.len()
        };
        let what = || format!("{} events of {count}", ids());
        eventually(what, || async { ids() >= count }).await;
        assert_eq!(ids(), count);
    }

    /// Waits until nothing is left to publish.
    pub(crate) async fn wait_until_relayed(&self, database: &TestDatabase) {
        let store = database.store().await;
        let waiting = "SELECT COUNT(*) FROM outbox WHERE state = 0";
        let what = || "the outbox is not empty".to_owned();
        eventually(what, || async { super::count(&store, waiting).await == 0 }).await;
    }

    /// Waits until so many pushes have been received and not been answered.
    pub(crate) async fn wait_for_in_flight(&self, count: usize) {
        let now = || self.running.app().in_flight();
        let what = || format!("only {} pushes are in flight", now());
        eventually(what, async || now() >= count).await;
    }

    /// Waits until no more than so many pushes are being worked on.
    pub(crate) async fn wait_for_in_flight_at_most(&self, count: usize) {
        let now = || self.running.app().in_flight();
        let what = || format!("{} pushes are still in flight", now());
        eventually(what, async || now() <= count).await;
    }

    pub(crate) fn chargebee_contract_id(&self, subscription: &str) -> Option<String> {
        text(
            &self.sandbox.chargebee().subscription(subscription)?,
            "cf_contract_id",
        )
    }

    pub(crate) fn chargebee_status(&self, subscription: &str) -> Option<String> {
        text(
            &self.sandbox.chargebee().subscription(subscription)?,
            "status",
        )
    }

    pub(crate) fn chargebee_first_name(&self, customer: &str) -> Option<String> {
        text(&self.sandbox.chargebee().customer(customer)?, "first_name")
    }

    pub(crate) fn hasura_subscription_id(&self, contract: &str) -> Option<String> {
        text(
            &self.sandbox.hasura().contract(contract)?,
            "chargebee_subscription_id",
        )
    }

    /// Lets Chargebee not know any subscription it was not told of before.
    pub(crate) fn forget_subscriptions(&self) {
        self.sandbox.chargebee().set_auto_seed(false);
    }

    /// Lets the state check through and the next `n` mutations fail.
    pub(crate) fn hasura_fails_mutations(&self, n: usize) {
        let body = json!({"errors": [{"message": "x", "extensions": {"code": "unexpected"}}]});
        let faults = self.sandbox.hasura().faults();
        faults.pass();
        faults.next_n(n, &Fault::Answer(Reply::json(200, &body)));
    }
}

fn text(row: &Value, field: &str) -> Option<String> {
    row.get(field)?.as_str().map(str::to_owned)
}

/// Wraps a message as Pub/Sub does, with both spellings of what it spells twice.
fn envelope(message_id: &str, data: &[u8], attributes: &[(String, String)]) -> Value {
    let attributes: Map<String, Value> = attributes
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    json!({
        "message": {
            "attributes": attributes,
            "data": STANDARD.encode(data),
            "messageId": message_id,
            "message_id": message_id,
            "publishTime": "2026-01-05T10:00:00.749Z",
            "publish_time": "2026-01-05T10:00:00.749Z",
        },
        "subscription": "projects/test-project/subscriptions/contract-events-push",
    })
}
