//! The whole way with Google's emulator: topic → push subscription → signing proxy → service →
//! downstream topic or dead letters, each read back from a subscription.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use hookyard::app::{App, Running};
use hookyard::config::Config;
use hookyard::error::{Error, Result};
use hookyard::event::Change;
use hookyard::event::contracts::{DomainEvent, Verbatim};
use hookyard::pipeline::{Completion, Context, Handler};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::emulator::Emulator;
use crate::oidc_issuer::{ACCOUNT, AUDIENCE, Issuer};
use crate::support::eventually;

#[derive(Deserialize)]
struct Parcel {
    id: String,
    /// How many tries fail before one succeeds; `null` for a parcel nobody can ever send.
    failures: Option<usize>,
    weight: Verbatim,
}

#[derive(Serialize)]
struct ParcelSent {
    parcel_id: String,
    weight: Verbatim,
}

impl DomainEvent for ParcelSent {
    const TYPE: &'static str = "parcel.sent";

    fn subject(&self) -> String {
        self.parcel_id.clone()
    }
}

/// Does what the row says.
struct SendParcel(Arc<AtomicUsize>);

impl Handler for SendParcel {
    const NAME: &'static str = "send_parcel";
    const EVENTS: &'static [&'static str] = &["parcels.insert"];
    const ABOUT: &'static str = "fails as often as it is told";
    type Payload = Change<Parcel>;

    async fn handle(&self, cx: &Context, change: Change<Parcel>) -> Result<Completion> {
        let parcel = change.row()?;
        let tries = self.0.fetch_add(1, Ordering::SeqCst);
        match parcel.failures {
            None => Err(Error::permanent("no_such_address")),
            Some(failures) if tries < failures => Err(Error::transient("carrier_busy")),
            Some(_) => {
                cx.emit(&ParcelSent {
                    parcel_id: parcel.id.clone(),
                    weight: parcel.weight.clone(),
                })?;
                Ok(Completion::Done)
            }
        }
    }
}

/// The emulator, the service, and the proxy between them.
struct World {
    emulator: Emulator,
    proxy: SocketAddr,
    answers: Arc<Mutex<Vec<u16>>>,
    tries: Arc<AtomicUsize>,
    service: Running,
    _tasks: TaskTracker,
}

impl World {
    async fn start() -> Option<Self> {
        let emulator = Emulator::find().await?;
        for topic in ["downstream", "dead-letters", "given-up", "hasura"] {
            emulator.create_topic(topic).await;
        }
        let issuer = Issuer::start().await;
        let tries = Arc::new(AtomicUsize::new(0));
        let app = App::builder()
            .config(config(&emulator, &issuer))
            .token_verifier(issuer.verifier.clone())
            .handler(SendParcel(Arc::clone(&tries)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = app.build().await.unwrap().start(listener).unwrap();

        let answers = Arc::default();
        let proxy = Proxy {
            token: issuer.token(),
            target: format!("http://{}/push", service.address),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            answers: Arc::clone(&answers),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(sign)).with_state(proxy);
        let tasks = TaskTracker::new();
        tasks.spawn(async move { axum::serve(listener, router).await });
        Some(Self {
            emulator,
            proxy: address,
            answers,
            tries,
            service,
            _tasks: tasks,
        })
    }

    /// Lets the emulator push what is published to `hasura`.
    async fn push_to(&self, endpoint: SocketAddr) {
        let settings = json!({
            "pushConfig": {"pushEndpoint": format!("http://{endpoint}/")},
            "ackDeadlineSeconds": 60,
            "deadLetterPolicy": {
                "deadLetterTopic": self.emulator.topic("given-up"),
                "maxDeliveryAttempts": 5,
            },
        });
        self.emulator.subscribe("push", "hasura", settings).await;
    }

    async fn insert(&self, id: &str, parcel: &str) {
        let event = format!(
            r#"{{"id":"{id}","created_at":"2026-01-02T03:04:05.678901Z","trigger":{{"name":"parcel_events"}},"table":{{"schema":"public","name":"parcels"}},"event":{{"op":"INSERT","session_variables":null,"data":{{"old":null,"new":{parcel}}}}}}}"#
        );
        let attributes = json!({"origin": "hasura"});
        self.emulator
            .publish("hasura", event.as_bytes(), attributes)
            .await;
    }

    fn answers(&self) -> Vec<u16> {
        self.answers.lock().unwrap().clone()
    }

    /// Waits for so many answers: the last one may still be on its way when what it answers for
    /// has arrived downstream.
    async fn wait_for_answers(&self, count: usize) {
        let what = || format!("{:?}", self.answers());
        eventually(what, async || self.answers().len() >= count).await;
    }
}

fn config(emulator: &Emulator, issuer: &Issuer) -> Config {
    let bus = emulator.bus("downstream", "dead-letters");
    Config::from_lookup(&|name| {
        let value = match name {
            "PUSH_AUDIENCE" => AUDIENCE,
            "PUSH_SERVICE_ACCOUNT" => ACCOUNT,
            "OIDC_JWKS_URL" => &issuer.url,
            "HASURA_GRAPHQL_URL" => "http://127.0.0.1:1/v1/graphql",
            "CHARGEBEE_URL" => "http://127.0.0.1:1",
            "HASURA_ADMIN_SECRET" | "CHARGEBEE_API_KEY" => "unused",
            "GOOGLE_CLOUD_PROJECT" => bus.project.as_deref()?,
            "EVENTS_TOPIC" => &bus.events_topic,
            "DEAD_LETTER_TOPIC" => &bus.dead_letter_topic,
            "PUBSUB_EMULATOR_HOST" => bus.emulator_host.as_deref()?,
            _ => return None,
        };
        Some(value.to_owned())
    })
    .unwrap()
}

/// Adds the token that the emulator does not send, and keeps the service's answers.
#[derive(Clone)]
struct Proxy {
    token: String,
    target: String,
    http: reqwest::Client,
    answers: Arc<Mutex<Vec<u16>>>,
}

async fn sign(State(proxy): State<Proxy>, body: Bytes) -> StatusCode {
    let request = proxy.http.post(&proxy.target).bearer_auth(&proxy.token);
    let request = request.header("content-type", "application/json");
    let status = request.body(body).send().await.unwrap().status();
    proxy.answers.lock().unwrap().push(status.as_u16());
    StatusCode::from_u16(status.as_u16()).unwrap()
}

#[tokio::test]
async fn an_event_ends_as_an_event_on_the_downstream_topic() {
    let Some(world) = World::start().await else {
        return;
    };
    world.push_to(world.proxy).await;
    // More digits than a double or an i64 holds.
    let weight = "12345678901234567890.123456789012345678901";

    world
        .insert(
            "e1",
            &format!(r#"{{"id":"p1","failures":0,"weight":{weight}}}"#),
        )
        .await;
    let downstream = world.emulator.pull("downstream", 1).await;

    let data = format!(r#"{{"parcel_id":"p1","weight":{weight}}}"#);
    assert_eq!(String::from_utf8_lossy(&downstream[0].data), data);
    assert_eq!(downstream[0].ordering_key.as_deref(), Some("p1"));
    let attributes = &downstream[0].attributes;
    assert_eq!(attributes["ce-type"], "parcel.sent");
    assert_eq!(attributes["ce-causationid"], "e1");
    world.wait_for_answers(1).await;
    assert_eq!(world.answers(), [200]);
    world.service.shutdown().await;
}

#[tokio::test]
async fn an_event_that_failed_for_a_while_is_delivered_again_and_leaves_one_event() {
    let Some(world) = World::start().await else {
        return;
    };
    world.push_to(world.proxy).await;

    world
        .insert("e1", r#"{"id":"p1","failures":2,"weight":1}"#)
        .await;
    let downstream = world.emulator.pull("downstream", 1).await;

    assert_eq!(downstream.len(), 1);
    world.wait_for_answers(3).await;
    assert_eq!(world.answers(), [503, 503, 200]);
    assert_eq!(world.tries.load(Ordering::SeqCst), 3);
    world.service.shutdown().await;
}

#[tokio::test]
async fn an_event_that_can_never_be_handled_is_a_dead_letter_with_its_bytes() {
    let Some(world) = World::start().await else {
        return;
    };
    world.push_to(world.proxy).await;

    world
        .insert("e1", r#"{"id":"p1","failures":null,"weight":1.50}"#)
        .await;
    let dead = world.emulator.pull("dead-letters", 1).await;

    let original = String::from_utf8_lossy(&dead[0].data);
    assert!(
        original.contains(r#""new":{"id":"p1","failures":null,"weight":1.50}"#),
        "{original}"
    );
    let attributes = &dead[0].attributes;
    assert_eq!(attributes["origin"], "hasura");
    assert_eq!(attributes["hookyard-error-code"], "no_such_address");
    assert_eq!(attributes["hookyard-handler"], "send_parcel");
    assert_eq!(attributes["hookyard-event-id"], "e1");
    world.wait_for_answers(1).await;
    assert_eq!(world.answers(), [200]);
    world.service.shutdown().await;
}

#[tokio::test]
async fn an_event_that_fails_on_every_attempt_ends_on_the_subscriptions_own_topic() {
    let Some(world) = World::start().await else {
        return;
    };
    world.push_to(world.proxy).await;

    world
        .insert("e1", r#"{"id":"p1","failures":1000,"weight":1}"#)
        .await;
    let given_up = world.emulator.pull("given-up", 1).await;

    let attributes = &given_up[0].attributes;
    assert_eq!(attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "5");
    assert_eq!(world.answers(), [503; 5]);
    assert_eq!(attributes["origin"], Value::from("hasura"));
    world.service.shutdown().await;
}

#[tokio::test]
async fn a_push_without_a_token_reaches_no_handler() {
    let Some(world) = World::start().await else {
        return;
    };
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let push = format!("http://{}/push", world.service.address);

    let answer = http.post(push).body("{}").send().await.unwrap();

    assert_eq!(answer.status().as_u16(), 401);
    assert_eq!(world.tries.load(Ordering::SeqCst), 0);
    world.service.shutdown().await;
}
