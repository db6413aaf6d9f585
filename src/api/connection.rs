//! One connection: watches whether its client gets on, and says goodbye politely.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How long, and for how many bytes, a client may go on sending after its answer was sent.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// What the client of one connection is up to. Times are milliseconds since it was opened.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    requests: AtomicU64,
    in_flight: AtomicUsize,
    is_h2: AtomicBool,
    /// When the first byte of a head arrived that is not complete yet, plus one; else zero.
    head_since: AtomicU64,
    idle_since: AtomicU64,
}

/// What is to be done about a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Look again at this moment.
    LookAgain(Instant),
    /// It has been idle for long: close it as soon as nothing is under way.
    Close,
    /// Its client does not get on with sending a request: drop it.
    Drop,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            is_h2: AtomicBool::new(false),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
        })
    }

    /// Notes that a request's head is complete; the guard notes that it was answered.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Working {
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            let is_h2 = version == Version::HTTP_2;
            self.is_h2.store(is_h2, Ordering::Relaxed);
        }
        self.head_since.store(0, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(self))
    }

    /// Tells whether not one byte has come yet.
    pub(super) fn untouched(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0
    }

    /// Judges the connection by the time allowed for a head and for idling.
    pub(super) fn advice(&self, head: Duration, idle: Duration) -> Advice {
        let now = Instant::now();
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Advice::LookAgain(now + head);
        }
        let since = |millis: u64| self.opened + Duration::from_millis(millis);
        let head_since = self.head_since.load(Ordering::Relaxed);
        let (limit, advice) = if self.requests.load(Ordering::Relaxed) == 0 {
            (self.opened + head, Advice::Drop)
        } else if head_since > 0 && !self.is_h2.load(Ordering::Relaxed) {
            // Not in HTTP/2, where pings and settings come outside of requests.
            (since(head_since - 1) + head, Advice::Drop)
        } else {
            let idle_since = since(self.idle_since.load(Ordering::Relaxed));
            (idle_since + idle, Advice::Close)
        };
        if now >= limit {
            advice
        } else {
            // Not later than this, because meanwhile a head may begin.
            Advice::LookAgain(limit.min(now + head))
        }
    }

    fn bytes_came(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(self.millis() + 1, Ordering::Relaxed);
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

/// A request that is being answered.
pub(super) struct Working(Arc<Activity>);

impl Drop for Working {
    fn drop(&mut self) {
        let now = self.0.millis();
        self.0.idle_since.store(now, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that notes when bytes come, and lingers when it is closed.
///
/// Closing a socket with unread bytes in it makes the kernel send a reset, which may overtake the
/// answer: a client that is refused halfway through a large body would never learn why.
pub(super) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
    end: End,
}

enum End {
    Open,
    /// The client has closed its side.
    Eof,
    Lingering(Pin<Box<Sleep>>, usize),
}

impl Watched {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            end: End::Open,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.bytes_came();
        } else {
            self.end = End::Eof;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if matches!(this.end, End::Open) {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.end = End::Lingering(Box::pin(tokio::time::sleep(LINGER)), LINGER_BYTES);
        }
        let End::Lingering(timer, left) = &mut this.end else {
            return Pin::new(&mut this.stream).poll_shutdown(cx);
        };
        let mut scratch = [0; 8 * 1024];
        while *left > 0 && timer.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
            *left = left.saturating_sub(buf.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}
