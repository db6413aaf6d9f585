//! Faults of a stand-in: scripted one by one, or drawn from a seed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::http::Reply;
use super::lock;
use crate::clock::SharedClock;

/// One way to go wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers this instead of doing the work.
    Answer(Reply),
    /// Does the work, but a gateway in between answers this.
    AnswerAfter(Reply),
    /// Waits before doing the work.
    Slow(Duration),
    /// Does the work and waits before answering.
    SlowAnswer(Duration),
    /// Closes the connection without doing the work.
    ResetBefore,
    /// Does the work and closes the connection instead of answering.
    ResetAfter,
    /// Does the work and closes the connection in the middle of the answer.
    CutShort,
    /// Waits for [`Hold::release`] before doing the work.
    Held(Hold),
    /// Never answers and does nothing.
    Hang,
    /// Does the work and never answers.
    HangAfter,
}

impl Fault {
    /// A status with an empty body, as gateways send it.
    pub fn status(status: u16) -> Self {
        Self::Answer(Reply::text(status, ""))
    }

    /// 429 with `Retry-After`, in Chargebee's shape.
    pub fn too_many_requests(retry_after_secs: u64) -> Self {
        let body = serde_json::json!({
            "message": "Sorry, the maximum number of API requests has been reached",
            "type": "operation_failed",
            "api_error_code": "api_request_limit_exceeded",
        });
        Self::Answer(Reply::json(429, &body).with("retry-after", retry_after_secs.to_string()))
    }

    /// A GraphQL answer, which is HTTP 200, with this `extensions.code`.
    pub fn graphql_error(code: &str) -> Self {
        let body = serde_json::json!({
            "errors": [{"message": "it went wrong", "extensions": {"path": "$", "code": code}}],
        });
        Self::Answer(Reply::json(200, &body))
    }

    /// HTTP 200 with a body that is not the API's.
    pub fn nonsense(body: impl Into<String>) -> Self {
        Self::Answer(Reply::text(200, body))
    }

    /// Returns the word for it in the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Answer(_) => "answer",
            Self::AnswerAfter(_) => "answer_after",
            Self::Slow(_) => "slow",
            Self::SlowAnswer(_) => "slow_answer",
            Self::ResetBefore => "reset_before",
            Self::ResetAfter => "reset_after",
            Self::CutShort => "cut_short",
            Self::Held(_) => "held",
            Self::Hang => "hang",
            Self::HangAfter => "hang_after",
        }
    }

    /// Does what comes before the work; a reply means that the work is not done.
    pub(super) async fn before(&self, clock: &SharedClock) -> Option<Reply> {
        match self {
            Self::Answer(reply) => Some(reply.clone()),
            Self::ResetBefore => Some(Reply::dropped()),
            Self::Hang => std::future::pending().await,
            Self::Held(hold) => {
                hold.wait().await;
                None
            }
            Self::Slow(delay) => {
                clock.sleep(*delay).await;
                None
            }
            Self::AnswerAfter(_)
            | Self::SlowAnswer(_)
            | Self::ResetAfter
            | Self::CutShort
            | Self::HangAfter => None,
        }
    }

    /// Tells whether [`Fault::before`] keeps the work from being done.
    pub(super) fn loses_the_request(&self) -> bool {
        matches!(self, Self::Answer(_) | Self::ResetBefore | Self::Hang)
    }

    /// Does what comes after the work to its answer.
    pub(super) async fn after(self, reply: Reply, clock: &SharedClock) -> Reply {
        match self {
            Self::AnswerAfter(other) => other,
            Self::ResetAfter => Reply::dropped(),
            Self::CutShort => reply.cut_short(),
            Self::HangAfter => std::future::pending().await,
            Self::SlowAnswer(delay) => {
                clock.sleep(delay).await;
                reply
            }
            Self::Answer(_) | Self::Slow(_) | Self::Held(_) | Self::ResetBefore | Self::Hang => {
                reply
            }
        }
    }
}

/// Keeps requests waiting until they are let go. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Hold(Arc<HoldInner>);

#[derive(Debug, Default)]
struct HoldInner {
    waiting: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Hold {
    /// Waits until `count` requests have come in and are held.
    pub async fn held(&self, count: usize) {
        // The sender lives as long as this handle, so waiting cannot fail.
        self.0
            .waiting
            .subscribe()
            .wait_for(|waiting| *waiting >= count)
            .await
            .ok();
    }

    /// Lets everything go on, what is held and what is to come.
    pub fn release(&self) {
        self.0.open.send_replace(true);
    }

    async fn wait(&self) {
        self.0.waiting.send_modify(|waiting| *waiting += 1);
        self.0.open.subscribe().wait_for(|open| *open).await.ok();
    }
}

/// The faults of one stand-in. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What the next requests meet; `None` lets one through.
    script: VecDeque<Option<Fault>>,
    always: Option<Fault>,
    chances: Option<Chances>,
    hits: u64,
}

#[derive(Debug)]
struct Chances {
    seed: u64,
    rate: f64,
    faults: Vec<Fault>,
    seen: HashMap<u64, u64>,
}

impl Faults {
    /// Lets the next request meet `fault`, after those already scripted.
    pub fn next(&self, fault: Fault) {
        lock(&self.0).script.push_back(Some(fault));
    }

    /// Lets the next `n` requests meet `fault`.
    pub fn next_n(&self, n: usize, fault: &Fault) {
        for _ in 0..n {
            self.next(fault.clone());
        }
    }

    /// Lets one request through, between scripted faults.
    pub fn pass(&self) {
        lock(&self.0).script.push_back(None);
    }

    /// Lets every request meet `fault` until [`Faults::stop`].
    pub fn always(&self, fault: Fault) {
        lock(&self.0).always = Some(fault);
    }

    /// Lets requests meet one of `faults` with probability `rate` until [`Faults::stop`].
    ///
    /// What the n-th try of a request meets depends on the seed and on the request only, not on
    /// the order in which requests happen to arrive.
    pub fn at_random(&self, seed: u64, rate: f64, faults: Vec<Fault>) {
        lock(&self.0).chances = Some(Chances {
            seed,
            rate,
            faults,
            seen: HashMap::new(),
        });
    }

    /// Ends all faults.
    pub fn stop(&self) {
        let mut inner = lock(&self.0);
        inner.script.clear();
        inner.always = None;
        inner.chances = None;
    }

    /// Returns how many requests met a fault.
    pub fn hits(&self) -> u64 {
        lock(&self.0).hits
    }

    /// Decides what the request with this identity meets.
    pub fn draw(&self, identity: &[u8]) -> Option<Fault> {
        let mut inner = lock(&self.0);
        let fault = match inner.script.pop_front() {
            Some(scripted) => scripted,
            None => match &mut inner.chances {
                Some(chances) => chances.draw(identity),
                None => inner.always.clone(),
            },
        };
        inner.hits += u64::from(fault.is_some());
        fault
    }
}

impl Chances {
    fn draw(&mut self, identity: &[u8]) -> Option<Fault> {
        let hash = xxh3_64_with_seed(identity, self.seed);
        let tries = self.seen.entry(hash).or_default();
        *tries += 1;
        let throw = xxh3_64_with_seed(&tries.to_le_bytes(), hash);
        // 53 bits are what a float can tell apart.
        let fraction = (throw >> 11) as f64 / (1_u64 << 53) as f64;
        if fraction >= self.rate || self.faults.is_empty() {
            return None;
        }
        let which = xxh3_64_with_seed(b"which", throw) % self.faults.len() as u64;
        self.faults
            .get(usize::try_from(which).unwrap_or(0))
            .cloned()
    }
}

/// Returns the hash of a request that the journal shows and that draws faults.
pub(super) fn identity(path: &str, body: &Bytes) -> u64 {
    xxh3_64_with_seed(body, xxh3_64_with_seed(path.as_bytes(), 0))
}
