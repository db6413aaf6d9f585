//! Sends requests over keep-alive connections, one at a time on each, and counts the answers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

use crate::requests::Request;

/// What to send.
pub(crate) struct Plan<'a> {
    /// The request, apart from what varies.
    pub(crate) request: &'a Request,
    /// How many to send in all.
    pub(crate) requests: usize,
    /// On how many connections.
    pub(crate) connections: usize,
    /// The tokens to take turns with; empty to leave the request's own.
    pub(crate) tokens: &'a [String],
    /// The number of the first event; `None` to send one event again and again.
    pub(crate) first_number: Option<u64>,
}

/// What came back.
pub(crate) struct Answers {
    /// How many answers had which status.
    pub(crate) statuses: BTreeMap<u16, usize>,
    /// How long it took.
    pub(crate) elapsed: Duration,
    latencies: Vec<u32>,
}

impl Answers {
    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the answers did not exceed, in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let place = (self.latencies.len() as f64 * share) as usize;
        f64::from(self.latencies[place.min(self.latencies.len() - 1)]) / 1_000.0
    }

    /// The share of answers with a status.
    pub(crate) fn share(&self, status: u16) -> f64 {
        let count = self.statuses.get(&status).copied().unwrap_or_default();
        count as f64 / self.latencies.len() as f64
    }
}

/// Runs plans at the same time; the runtime has to be a current-thread one.
pub(crate) fn send(address: SocketAddr, plans: &[Plan<'_>]) -> Vec<Answers> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        futures_util::future::join_all(plans.iter().map(|plan| send_one(address, plan))).await
    }))
}

async fn send_one(address: SocketAddr, plan: &Plan<'_>) -> Answers {
    let mut connections = JoinSet::new();
    let next = Rc::new(Cell::new(0));
    let tokens: Rc<[String]> = plan.tokens.into();
    let started = Instant::now();
    for _ in 0..plan.connections {
        let (next, tokens) = (next.clone(), tokens.clone());
        let (mut request, first, requests) =
            (plan.request.clone(), plan.first_number, plan.requests);
        connections.spawn_local(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut seen = Vec::with_capacity(requests);
            let mut buffer = vec![0; 4_096];
            loop {
                let turn = next.replace(next.get() + 1);
                if turn >= requests {
                    return seen;
                }
                if let Some(first) = first {
                    request.set_number(first + turn as u64);
                }
                if !tokens.is_empty() {
                    request.set_token(&tokens[turn % tokens.len()]);
                }
                let sent = Instant::now();
                stream.write_all(&request.bytes).await.unwrap();
                let (status, close) = read_answer(&mut stream, &mut buffer).await;
                seen.push((status, u32::try_from(sent.elapsed().as_micros()).unwrap()));
                if close {
                    stream = TcpStream::connect(address).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                }
            }
        });
    }
    let mut statuses = BTreeMap::new();
    let mut latencies = Vec::with_capacity(plan.requests);
    while let Some(seen) = connections.join_next().await {
        for (status, micros) in seen.unwrap() {
            *statuses.entry(status).or_default() += 1;
            latencies.push(micros);
        }
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    Answers {
        statuses,
        elapsed,
        latencies,
    }
}

/// Reads one answer, whose body has a length, and tells its status and whether it was the last.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> (u16, bool) {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.unwrap();
        assert!(read > 0, "the server hung up instead of answering");
        filled += read;
        let answer = &buffer[..filled];
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&answer[..end]).unwrap();
        let status = head[9..12].parse().unwrap();
        let body: usize = header(head, "content-length").map_or(0, |text| text.parse().unwrap());
        let close = header(head, "connection") == Some("close");
        if filled >= end + 4 + body {
            return (status, close);
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

impl<'a> Plan<'a> {
    /// Sends one request as it is.
    pub(crate) fn once(request: &'a Request) -> Self {
        Self {
            request,
            requests: 1,
            connections: 1,
            tokens: &[],
            first_number: None,
        }
    }
}
