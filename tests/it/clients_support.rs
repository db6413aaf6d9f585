//! An upstream that answers by a script over a real socket, misbehaves on demand and keeps what
//! it was asked; clients set up against it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use hookyard::clients::chargebee::Chargebee;
use hookyard::clients::hasura::Hasura;
use hookyard::clients::http::{Policy, Upstream};
use hookyard::clients::{Call, Gate, Steps};
use hookyard::clock::{Clock, Deadline, ManualClock, SharedClock};
use hookyard::config::{ChargebeeConfig, HasuraConfig, ProductCatalog};
use hookyard::event::{EventId, TraceContext};
use hookyard::telemetry::{Metrics, Tracer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing_subscriber::fmt::MakeWriter;

pub(crate) const API_KEY: &str = "canary_chargebee_key";
pub(crate) const ADMIN_SECRET: &str = "canary-hasura-secret";
pub(crate) const EVENT_ID: &str = "85558393-c75d-4d2f-9c15-e80591b83894";

/// What the peer does with one request, which it has read and written down before.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Http {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// Never answers.
    Silence,
    /// Sends half of the headers.
    HalfHeaders,
    /// Announces 100 bytes and sends 10.
    HalfBody,
    /// Sends a body without end under this status.
    Endless(u16),
    /// Announces 100 bytes, sends 10 and closes.
    CutOff,
    /// Closes without an answer.
    HangUp,
    /// Answers 200 with this body and closes, though it promised to keep the connection.
    AnswerAndClose(String),
}

pub(crate) fn status(status: u16, body: impl Into<String>) -> Reply {
    Reply::Http {
        status,
        headers: Vec::new(),
        body: body.into(),
    }
}

pub(crate) fn ok(body: impl Into<String>) -> Reply {
    status(200, body)
}

pub(crate) fn with_header(status: u16, name: &'static str, value: impl Into<String>) -> Reply {
    Reply::Http {
        status,
        headers: vec![(name, value.into())],
        body: String::new(),
    }
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let value = found.next()?.1.as_str();
        assert!(found.next().is_none(), "{name} was sent twice");
        Some(value)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }
}

#[derive(Debug, Default)]
struct Journal {
    asked: Vec<Asked>,
    script: Vec<Reply>,
}

/// An upstream on loopback; answers by its script, the last reply for ever.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    journal: Arc<Mutex<Journal>>,
    _tasks: JoinSet<()>,
}

impl Peer {
    pub(crate) async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let journal = Arc::new(Mutex::new(Journal::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&journal)));
        let peer = Self {
            address,
            journal,
            _tasks: tasks,
        };
        peer.answer(script);
        peer
    }

    /// Replaces the script.
    pub(crate) fn answer(&self, script: impl IntoIterator<Item = Reply>) {
        let mut script: Vec<_> = script.into_iter().collect();
        script.reverse();
        lock(&self.journal).script = script;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.journal).asked.clone()
    }

    pub(crate) fn tries(&self) -> usize {
        lock(&self.journal).asked.len()
    }

    /// Asserts that there were `tries` requests, equal in method, path, body and every header.
    pub(crate) fn assert_same_request(&self, tries: usize) {
        let asked = self.asked();
        assert_eq!(asked.len(), tries, "{asked:#?}");
        for again in &asked {
            let first = Asked {
                connection: again.connection,
                ..asked[0].clone()
            };
            assert_eq!(*again, first);
        }
    }
}

fn lock(journal: &Mutex<Journal>) -> std::sync::MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, journal: Arc<Mutex<Journal>>) {
    let mut connections = JoinSet::new();
    for connection in 1.. {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let journal = Arc::clone(&journal);
        connections.spawn(async move {
            // A client that goes away is part of the game.
            serve(stream, connection, &journal).await.ok();
        });
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    journal: &Mutex<Journal>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(asked) = read_request(&mut stream, &mut buffer, connection).await? {
        let reply = {
            let mut journal = lock(journal);
            journal.asked.push(asked);
            match journal.script.len() {
                0 => status(599, "no script"),
                1 => journal.script[0].clone(),
                _ => journal.script.pop().expect("two or more"),
            }
        };
        const TEN: &str = "{\"subscri";
        match reply {
            Reply::Http {
                status,
                headers,
                body,
            } => {
                let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    text.push_str(&format!("{name}: {value}\r\n"));
                }
                stream
                    .write_all(format!("{text}\r\n{body}").as_bytes())
                    .await?;
            }
            Reply::AnswerAndClose(body) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await?;
                return Ok(());
            }
            Reply::Silence => std::future::pending().await,
            Reply::HalfHeaders => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-l").await?;
                std::future::pending::<()>().await;
            }
            Reply::HalfBody | Reply::CutOff => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
                stream.write_all(format!("{head}{TEN}").as_bytes()).await?;
                if matches!(reply, Reply::CutOff) {
                    return Ok(());
                }
                std::future::pending::<()>().await;
            }
            Reply::Endless(status) => {
                let head = format!("HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
                loop {
                    stream.write_all(chunk.as_bytes()).await?;
                }
            }
            Reply::HangUp => return Ok(()),
        }
    }
    Ok(())
}

async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    connection: usize,
) -> io::Result<Option<Asked>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.lines().filter(|line| !line.is_empty());
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next(), words.next());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().expect("a length"));
    while buffer.len() < head_end + length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let rest = buffer.split_off(head_end + length);
    let request = std::mem::replace(buffer, rest);
    Ok(Some(Asked {
        connection,
        method: method.unwrap_or_default().to_owned(),
        path: path.unwrap_or_default().to_owned(),
        headers,
        body: String::from_utf8_lossy(&request[head_end..]).into_owned(),
    }))
}

/// The surroundings of one handler's run: a clock at rest, metrics, 50 s to go.
pub(crate) struct Run {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) call: Call,
}

impl Run {
    pub(crate) fn new() -> Self {
        listen();
        // Sun, 06 Nov 1994 08:49:37 GMT: whole seconds, so that HTTP dates are exact.
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777));
        let shared: SharedClock = clock.clone();
        Self {
            call: Call {
                event_id: EventId::new(EVENT_ID).expect("an id"),
                generation: 0,
                handler: "test_handler",
                depth: 0,
                deadline: Deadline::after(&shared, Duration::from_secs(50)),
                trace: TraceContext::parse(
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                )
                .expect("a traceparent"),
                tracer: Tracer::off(),
                steps: Steps::default(),
                gate: Gate::default(),
            },
            metrics: Metrics::new().expect("metrics"),
            clock,
        }
    }

    pub(crate) fn with_seconds_left(mut self, seconds: u64) -> Self {
        self.call = self.call_with_seconds(seconds);
        self
    }

    /// Makes a later run of the same handler for the same event.
    pub(crate) fn call_with_seconds(&self, seconds: u64) -> Call {
        let shared: SharedClock = self.clock.clone();
        Call {
            deadline: Deadline::after(&shared, Duration::from_secs(seconds)),
            ..self.call.clone()
        }
    }

    pub(crate) fn chargebee(&self, peer: &Peer) -> Chargebee {
        self.chargebee_at(&peer.url(), ProductCatalog::V2, Policy::default())
    }

    pub(crate) fn chargebee_at(
        &self,
        url: &str,
        product_catalog: ProductCatalog,
        policy: Policy,
    ) -> Chargebee {
        let config = ChargebeeConfig {
            url: url.to_owned(),
            api_key: API_KEY.into(),
            product_catalog,
        };
        Chargebee::with_policy(&config, self.metrics.clone(), self.clock.clone(), policy)
            .expect("a client")
    }

    pub(crate) fn hasura(&self, peer: &Peer) -> Hasura {
        let config = HasuraConfig {
            graphql_url: format!("{}/v1/graphql", peer.url()),
            admin_secret: ADMIN_SECRET.into(),
        };
        Hasura::new(&config, self.metrics.clone(), self.clock.clone()).expect("a client")
    }

    pub(crate) fn upstream(&self, peer: &Peer, policy: Policy) -> Upstream {
        let metrics = self.metrics.clone();
        Upstream::new("crm", &peer.url(), metrics, self.clock.clone(), policy).expect("a client")
    }

    pub(crate) fn counted(&self, upstream: &str, outcome: &str) -> u64 {
        let counters = &self.metrics.upstream_requests;
        counters.with_label_values(&[upstream, outcome]).get()
    }

    /// Returns an HTTP date that many seconds ahead of this run's clock.
    pub(crate) fn http_date(&self, ahead: u64) -> String {
        httpdate::fmt_http_date(self.clock.now() + Duration::from_secs(ahead))
    }
}

/// A subscription as Chargebee sends it, with a contract's id or without.
pub(crate) fn subscription(contract_id: Option<&str>) -> String {
    let link = contract_id.map_or_else(String::new, |id| format!(r#""cf_contract_id":"{id}","#));
    format!(
        r#"{{"subscription":{{"id":"sub_1","status":"active",{link}"customer_id":"cust_1",
        "resource_version":1517505747000,"object":"subscription"}},"customer":{{"id":"cust_1"}}}}"#
    )
}

/// Gives every thread a subscriber that hears everything and keeps nothing.
///
/// Whether a log statement is listened to is found out once, when it first runs. Tests run at the
/// same time: without this, one that runs first while nobody listens could switch a statement off
/// for the one that reads it.
fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry()).ok();
    });
}

/// Everything logged on this thread while this value lives.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    pub(crate) fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        listen();
        let logs = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(logs.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        (logs, guard)
    }

    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Counts the lines that hold all of `words`.
    pub(crate) fn lines_with(&self, words: &[&str]) -> usize {
        let text = self.text();
        let lines = text.lines();
        lines
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
    }
}

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Logs {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
