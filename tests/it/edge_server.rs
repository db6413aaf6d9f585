//! The edge on loopback with a small router: a door that only reads its body, and a slow route.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use hookyard::api::{self, ApiState, EdgeOptions, Served};
use hookyard::config::{AdminTokens, ServerConfig};
use hookyard::ingress::{TokenVerifier as _, bearer, read_body, refuse_encoding};
use hookyard::telemetry::RequestId;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::oidc_issuer::Issuer;
use crate::support::PATIENCE;

/// Small, so that a test need not send much to pass it.
pub(crate) const LIMIT: usize = 1024 * 1024;

pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) issuer: Issuer,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: JoinHandle<Served>,
    pub(crate) seen: Arc<Seen>,
}

/// What the routes have done.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) read: AtomicUsize,
    pub(crate) broken: AtomicUsize,
    /// Requests that reached `/slow`; each waits until it is released.
    pub(crate) slow: AtomicUsize,
    pub(crate) finished: AtomicUsize,
    pub(crate) release: Notify,
}

/// Of an edge that waits for its clients longer than anything here takes, even on a busy machine.
pub(crate) fn options() -> EdgeOptions {
    EdgeOptions {
        header_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        max_connections: 1000,
        max_head_bytes: 64 * 1024,
        grace: PATIENCE,
    }
}

/// Of an edge that a client may keep waiting for a second.
pub(crate) fn hasty() -> EdgeOptions {
    EdgeOptions {
        header_timeout: Duration::from_secs(1),
        ..options()
    }
}

pub(crate) fn server_config(admin_token: Option<&str>) -> ServerConfig {
    let lookup = |name: &str| {
        let value = match name {
            "PUSH_AUDIENCE" | "PUSH_SERVICE_ACCOUNT" => "x",
            "HASURA_GRAPHQL_URL" | "CHARGEBEE_URL" => "http://127.0.0.1:1/v1/graphql",
            "HASURA_ADMIN_SECRET" | "CHARGEBEE_API_KEY" => "s",
            "EVENT_BUS_TYPE" => "memory",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let mut config = hookyard::config::Config::from_lookup(&lookup).unwrap();
    config.server.admin = AdminTokens::new(admin_token.as_slice(), &[]);
    config.server
}

struct Door {
    issuer: Arc<hookyard::ingress::OidcVerifier>,
    seen: Arc<Seen>,
    /// How long a body may take.
    wait: Duration,
}

/// As the real door: token, then headers, then body.
async fn push(State(door): State<Arc<Door>>, request: Request) -> Response {
    let id = RequestId::of(request.headers());
    let mut response = match accept(&door, request).await {
        Ok(length) => length.to_string().into_response(),
        Err(refused) => refused,
    };
    id.put(response.headers_mut());
    response
}

async fn accept(door: &Door, request: Request) -> Result<usize, Response> {
    let (head, body) = request.into_parts();
    let token = bearer(&head.headers).map_err(|error| error.into_response())?;
    let verdict = door.issuer.verify(token).await;
    verdict.map_err(|error| error.into_response())?;
    refuse_encoding(&head.headers).map_err(|error| error.into_response())?;
    let body = read_body(body, LIMIT, door.wait).await;
    if body.is_err() {
        door.seen.broken.fetch_add(1, Ordering::SeqCst);
    }
    let body = body.map_err(|error| error.into_response())?;
    door.seen.read.fetch_add(1, Ordering::SeqCst);
    Ok(body.len())
}

async fn slow(State(door): State<Arc<Door>>) -> &'static str {
    door.seen.slow.fetch_add(1, Ordering::SeqCst);
    door.seen.release.notified().await;
    door.seen.finished.fetch_add(1, Ordering::SeqCst);
    "slow but done"
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::with(options(), Some("let-me-in")).await
    }

    pub(crate) async fn with(options: EdgeOptions, admin_token: Option<&str>) -> Self {
        let issuer = Issuer::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let seen = Arc::new(Seen::default());
        let door = Arc::new(Door {
            issuer: issuer.verifier.clone(),
            seen: seen.clone(),
            wait: options.header_timeout,
        });
        let (verifier, stopping) = (issuer.verifier.clone(), shutdown.clone());
        let state = ApiState {
            server: server_config(admin_token),
            metrics: issuer.metrics.clone(),
            before_metrics: Arc::new(|| {}),
            detail: None,
            desk: None,
            handlers: Arc::new(|| json!([{"name": "activate_contract"}])),
            ready: Arc::new(move || match () {
                () if stopping.is_cancelled() => Err("shutting_down"),
                () if !verifier.ready() => Err("keys_not_fetched"),
                () => Ok(()),
            }),
        };
        let doors = Router::new()
            .route("/push", post(push))
            .route("/slow", get(slow))
            .with_state(door);
        let router = api::router(state, doors);
        let served =
            TaskTracker::new().spawn(api::serve(listener, router, options, shutdown.clone()));
        Self {
            address,
            issuer,
            shutdown,
            served,
            seen,
        }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends one request on a connection of its own and returns the whole answer.
    pub(crate) async fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.send(request).await;
        client.rest().await
    }

    /// A push request with a good token; headers end with a line break.
    pub(crate) fn push(&self, headers: &str, body: &str) -> String {
        format!(
            "POST /push HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{headers}\
             connection: close\r\n\r\n{body}",
            self.issuer.token()
        )
    }

    /// Fails unless an ordinary request is served.
    pub(crate) async fn assert_serves(&self) {
        let answer = self.exchange(get_request("/health")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    pub(crate) async fn until(&self, holds: impl Fn(&Seen) -> bool) {
        let waiting = async {
            while !holds(&self.seen) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }
}

pub(crate) fn get_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// A client that writes bytes as they are.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The server may have hung up already, which the answer tells.
        self.0.write_all(bytes.as_ref()).await.ok();
    }

    /// Reads until the server closes the connection.
    pub(crate) async fn rest(&mut self) -> String {
        let mut answer = Vec::new();
        let read = self.0.read_to_end(&mut answer);
        let read = tokio::time::timeout(PATIENCE, read).await;
        let read = read.expect("the server never closed the connection");
        if answer.is_empty() {
            read.ok();
        } else {
            read.expect("the answer must not be lost in a reset");
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Reads one answer with `Content-Length` and leaves the connection open.
    pub(crate) async fn one_answer(&mut self) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(answer).unwrap();
        let length = header_of(&head, "content-length").map_or(0, |value| value.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        head + &String::from_utf8(body).unwrap()
    }
}

/// Returns the status of an answer.
pub(crate) fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

pub(crate) fn header_of<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer
        .split("\r\n")
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": "))
        .find(|(header, _)| header.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

pub(crate) fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
