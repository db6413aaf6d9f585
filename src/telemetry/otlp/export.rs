//! Takes finished spans out of the queue and sends them in batches, in the background.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::resource::Resource;
use super::span::Finished;
use super::transport::{Failure, Transport};
use crate::clock::SharedClock;
use crate::telemetry::Metrics;

/// Most spans of one batch, and how long its first one waits for others. A second rather than
/// OpenTelemetry's five: an idle Cloud Run instance has no processor time to send with.
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(1);

/// Tries of one batch, and the wait after the first; it doubles.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How often failures are told at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Sends what the queue holds until the service ends.
pub(super) struct Exporter {
    transport: Transport,
    resource: Resource,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    told: Option<Instant>,
    lost: usize,
}

impl Exporter {
    pub(super) fn new(
        transport: Transport,
        resource: Resource,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            transport,
            resource,
            clock,
            metrics,
            told: None,
            lost: 0,
        }
    }

    /// Sends until `closing`, then what is left, once.
    pub(super) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Finished>,
        closing: CancellationToken,
    ) {
        self.resource.complete().await;
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = self.gather(&mut queue, &mut batch) => {}
                // Gathering keeps what it has when it is dropped.
                () = closing.cancelled() => queue.close(),
            }
            if batch.is_empty() {
                self.gather(&mut queue, &mut batch).await;
            }
            if batch.is_empty() {
                return; // closed, and nothing left
            }
            self.export(std::mem::take(&mut batch), &closing).await;
        }
    }

    /// Waits for a span and then a moment for others. Leaves `batch` empty when the queue is
    /// closed and empty.
    async fn gather(&self, queue: &mut mpsc::Receiver<Finished>, batch: &mut Vec<Finished>) {
        if batch.is_empty() && queue.recv_many(batch, BATCH).await == 0 {
            return;
        }
        let fill = async {
            while batch.len() < BATCH && queue.recv_many(batch, BATCH - batch.len()).await > 0 {}
        };
        tokio::select! {
            () = fill => {}
            () = self.clock.sleep(DELAY) => {}
        }
    }

    async fn export(&mut self, batch: Vec<Finished>, closing: &CancellationToken) {
        let count = batch.len();
        let request = self.request(batch);
        let mut wait = FIRST_WAIT;
        for left in (0..TRIES).rev() {
            let failure = match self.transport.send(request.clone()).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.count("exported", count - rejected);
                    if rejected > 0 {
                        self.lose(rejected, &Failure::rejected_some());
                    }
                    return;
                }
                Err(failure) => failure,
            };
            let last = left == 0 || !failure.may_pass || closing.is_cancelled();
            if last {
                return self.lose(count, &failure);
            }
            let pause = failure.retry_after.unwrap_or(wait).min(LONGEST_WAIT);
            tokio::select! {
                () = self.clock.sleep(pause) => {}
                () = closing.cancelled() => {}
            }
            wait *= 2;
        }
    }

    /// Counts spans that are lost, and says so once a minute.
    fn lose(&mut self, spans: usize, failure: &Failure) {
        self.count("failed", spans);
        self.lost += spans;
        let now = self.clock.monotonic();
        let quiet = |told: Instant| now.saturating_duration_since(told) < TELL_EVERY;
        if self.told.is_some_and(quiet) {
            return;
        }
        self.told = Some(now);
        tracing::warn!(
            spans = std::mem::take(&mut self.lost),
            reason = failure.code,
            status = failure.status,
            "traces are not exported (said once a minute)"
        );
    }

    fn count(&self, outcome: &str, spans: usize) {
        self.metrics
            .spans
            .with_label_values(&[outcome])
            .inc_by(spans as u64);
    }

    fn request(&self, batch: Vec<Finished>) -> ExportTraceServiceRequest {
        let spans = ScopeSpans {
            scope: Some(InstrumentationScope {
                name: env!("CARGO_PKG_NAME").to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            spans: batch.into_iter().map(|span| *span).collect(),
            ..ScopeSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.message()),
                scope_spans: vec![spans],
                ..ResourceSpans::default()
            }],
        }
    }
}
