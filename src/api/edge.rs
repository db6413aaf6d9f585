//! Accepts connections and serves HTTP/1.1 and h2c on them, against clients that mean no good.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::rt::Executor;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Activity, Advice, Watched};
use crate::config::ServerConfig;

/// Out of file descriptors or memory: others have to finish first, and asking again at once would
/// only burn the processor they need.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits of HTTP/2, per connection. A client that resets streams as fast as it opens them
/// (CVE-2023-44487) is cut off after this many.
const MAX_STREAMS: u32 = 256;
const MAX_PENDING_RESETS: usize = 20;
const MAX_OWN_RESETS: usize = 256;
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// How patient the edge is.
#[derive(Debug, Clone)]
pub struct EdgeOptions {
    /// How long a client may take from the first byte of a request's head to the last.
    pub header_timeout: Duration,
    /// How long a connection is kept without a request. Longer than Google's front ends keep
    /// theirs (600 s), so that they never send into a connection that is just being closed.
    pub idle_timeout: Duration,
    /// Connections served at once; from half of it on, idle ones are closed early.
    pub max_connections: usize,
    /// Largest request head in bytes; above it 431.
    pub max_head_bytes: usize,
    /// How long requests may take after the shutdown has begun.
    pub grace: Duration,
}

impl From<&ServerConfig> for EdgeOptions {
    /// Takes what the configuration says and sensible values for the rest.
    fn from(config: &ServerConfig) -> Self {
        Self {
            header_timeout: config.header_timeout,
            idle_timeout: Duration::from_secs(620),
            max_connections: 10_000,
            max_head_bytes: 64 * 1024,
            grace: config.shutdown_grace,
        }
    }
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Connections that still had a request under way when the grace was over.
    pub cut: usize,
}

/// Serves `router` on `listener` until `shutdown`.
///
/// Then the listener is closed, idle connections are closed, requests under way are answered
/// within the grace, and whatever is left is cut off. Dropping the future cuts all at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: EdgeOptions,
    shutdown: CancellationToken,
) -> Served {
    let grace = options.grace;
    let most = options.max_connections;
    let edge = Arc::new(Edge::new(router, options));
    let mut connections = JoinSet::new();
    let mut failures = 0_u32;
    loop {
        let crowded = connections.len() * 2 > most || failures > 0;
        edge.crowded.store(crowded, Ordering::Relaxed);
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept(), if connections.len() < most => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                failures = 0;
                let attended = Arc::clone(&edge).attend(stream, shutdown.clone());
                connections.spawn(attended);
            }
            Err(error) if only_this_client(&error) => {}
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures.is_power_of_two() {
                    tracing::warn!(error = %error, failures, "no connection can be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    let in_time = tokio::time::timeout(grace, all_ended).await.is_ok();
    let cut = if in_time { 0 } else { connections.len() };
    connections.shutdown().await;
    Served { cut }
}

fn only_this_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Runs the tasks of HTTP/2 streams.
#[derive(Debug, Clone)]
struct Streams(TaskTracker);

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

struct Edge {
    http: auto::Builder<Streams>,
    router: TowerToHyperService<Router>,
    options: EdgeOptions,
    crowded: AtomicBool,
}

impl Edge {
    fn new(router: Router, options: EdgeOptions) -> Self {
        let mut http = auto::Builder::new(Streams(TaskTracker::new()));
        http.http1()
            // A client that has sent all it wants to say may close its side and still wait for
            // the answer; and one that went away must not stop what it has begun.
            .half_close(true)
            // Heads are timed by `Activity`, which can tell a slow head from an idle connection.
            .header_read_timeout(None)
            .max_buf_size(options.max_head_bytes.max(8 * 1024));
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_OWN_RESETS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(options.max_head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        Self {
            http,
            router: TowerToHyperService::new(router.with_state(())),
            options,
            crowded: AtomicBool::new(false),
        }
    }

    async fn attend(self: Arc<Self>, stream: TcpStream, shutdown: CancellationToken) {
        // Answers are small and complete: waiting to fill a packet only delays them.
        stream.set_nodelay(true).ok();
        let activity = Activity::new();
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let working = activity.begin(request.version());
            let answer = self.router.call(request);
            async move {
                let answer = answer.await;
                drop(working);
                answer
            }
        });
        let mut connection = pin!(self.http.serve_connection(io, service));
        let head = self.options.header_timeout;
        let mut timer = pin!(tokio::time::sleep(head));
        let mut closing = false;
        loop {
            tokio::select! {
                biased;
                // An error here is the client's (reset, bad framing); hyper has answered it if
                // there was anything to answer.
                _ = connection.as_mut() => return,
                () = shutdown.cancelled(), if !closing => {
                    if activity.untouched() {
                        return;
                    }
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = timer.as_mut() => match activity.advice(head, self.idle_timeout()) {
                    Advice::LookAgain(at) => timer.as_mut().reset(at),
                    Advice::Close if !closing => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                        timer.as_mut().reset(tokio::time::Instant::now() + head);
                    }
                    Advice::Close | Advice::Drop => return,
                },
            }
        }
    }

    fn idle_timeout(&self) -> Duration {
        if self.crowded.load(Ordering::Relaxed) {
            self.options.header_timeout
        } else {
            self.options.idle_timeout
        }
    }
}
