//! A small HTTP server that can also misbehave: drop a connection, cut a body short, never answer.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::BoxError;

/// Largest request body the stand-ins read: a 10 MB message in base64, and some.
const MAX_BODY_BYTES: usize = 16 << 20;

/// A request, read to its end.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path as it was sent, percent-encoding included.
    pub path: String,
    /// The query's pairs, decoded.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// Returns the first value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns a header that is readable text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the path's segments, percent-decoded one by one.
    pub fn segments(&self) -> Vec<String> {
        let path = self.path.trim_start_matches('/').split('/');
        let decoded =
            path.map(|part| percent_encoding::percent_decode_str(part).decode_utf8_lossy());
        decoded.map(|part| part.into_owned()).collect()
    }
}

/// What is sent back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers beside `content-length`.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Bytes,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Whole,
    CutShort,
    Dropped,
}

impl Reply {
    /// Answers with a JSON document.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::text(status, body.to_string()).with("content-type", "application/json;charset=utf-8")
    }

    /// Answers with a text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::from(body.into()),
            ending: Ending::Whole,
        }
    }

    /// Closes the connection without an answer.
    pub fn dropped() -> Self {
        Self {
            ending: Ending::Dropped,
            ..Self::text(0, "")
        }
    }

    /// Announces the whole body and closes the connection in the middle of it.
    #[must_use]
    pub fn cut_short(self) -> Self {
        Self {
            ending: Ending::CutShort,
            ..self
        }
    }

    /// Sets a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn into_response(self) -> Result<Response<Body>, Closed> {
        let length = self.body.len();
        let body = match self.ending {
            Ending::Dropped => return Err(Closed),
            Ending::Whole => Full::new(self.body).map_err(never).boxed(),
            Ending::CutShort => {
                let half = self.body.slice(..length / 2);
                let parts = stream::iter([Ok(Frame::data(half)), Err(Closed)]);
                BodyExt::boxed(StreamBody::new(parts))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(CONTENT_LENGTH, length.into());
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                headers.insert(name, value);
            }
        }
        Ok(response)
    }
}

fn never(error: Infallible) -> Closed {
    match error {}
}

/// The connection is closed on purpose.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Closed;

type Body = BoxBody<Bytes, Closed>;
type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What answers the requests of one listener.
pub(super) type Answers = Arc<dyn Fn(Request) -> Answer + Send + Sync>;

/// A listening server; it ends when dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// Serves `answers` on `listener` in the background.
    pub(super) fn start(listener: TcpListener, answers: Answers) -> Result<Self, BoxError> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, answers, stop.clone(), tasks.clone()));
        Ok(Self { address, stop })
    }
}

async fn accept(
    listener: TcpListener,
    answers: Answers,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors; some will come back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        stream.set_nodelay(true).ok();
        let (answers, stop) = (answers.clone(), stop.clone());
        tasks.spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let answers = answers.clone();
                async move { answers(read(request).await?).await.into_response() }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // A connection that fails is the caller's business, or was meant to.
                _ended = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn read(request: http::Request<Incoming>) -> Result<Request, Closed> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let query = head.uri.query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    Ok(Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query,
        headers: head.headers,
        body: body.map_err(|_| Closed)?.to_bytes(),
    })
}

/// Makes an HTTP client for the sandbox's own calls, which go to this machine only.
///
/// # Errors
/// None in practice.
pub fn loopback_client(timeout: Duration) -> Result<reqwest::Client, BoxError> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    Ok(client)
}
