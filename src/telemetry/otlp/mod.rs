//! Traces for OpenTelemetry collectors, over OTLP, under the ids of the event's own trace context.
//!
//! What decides about ids is [`TraceContext`], which is also written to log lines, sent to
//! upstreams and published: an exported span is never under another id than those. So spans are
//! put together here and not by OpenTelemetry's SDK, which makes up ids of its own.

mod export;
mod resource;
mod sampler;
mod span;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use span::{Attribute, SpanKind, TraceSpan};
pub use transport::SetupError;

use export::Exporter;
use sampler::Sampler;
use transport::Transport;

use super::Metrics;
use crate::clock::SharedClock;
use crate::config::{LogConfig, OtlpConfig};
use crate::event::TraceContext;

/// Finished spans that may wait to be sent; what comes on top is dropped and counted.
const QUEUE: usize = 2048;

/// Longest wait for the last spans when the service ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// Records spans, or does nothing when traces are not exported. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

/// What the spans of one service share.
struct Recorder {
    sampler: Sampler,
    queue: mpsc::Sender<span::Finished>,
    metrics: Arc<Metrics>,
    clock: SharedClock,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracer").field(&self.exports()).finish()
    }
}

impl Tracer {
    /// Makes a tracer that does nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Starts exporting in the background of the current runtime. `about` names the service.
    ///
    /// # Errors
    /// [`SetupError`] when the endpoint cannot be used.
    pub fn start(
        config: &OtlpConfig,
        about: &LogConfig,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SetupError> {
        let transport = Transport::new(config)?;
        let (queue, spans) = mpsc::channel(QUEUE);
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let resource = resource::Resource::new(config, about);
        let exporter = Exporter::new(transport, resource, clock.clone(), metrics.clone());
        tasks.spawn(exporter.run(spans, closing.clone()));
        tasks.close();
        Ok(Self(Some(Arc::new(Recorder {
            sampler: Sampler::new(config.sampler),
            queue,
            metrics,
            clock,
            closing,
            tasks,
        }))))
    }

    /// Tells whether spans go anywhere.
    pub fn exports(&self) -> bool {
        self.0.is_some()
    }

    /// Enters the trace of `parent`, or starts one, and decides whether it is recorded.
    pub fn enter(&self, parent: Option<TraceContext>) -> TraceContext {
        let context = parent.map_or_else(TraceContext::new_root, |parent| parent.child());
        match &self.0 {
            Some(recorder) => {
                let sampled = recorder.sampler.samples(&context);
                context.with_sampled(sampled)
            }
            None => context,
        }
    }

    /// Starts a span under the ids of `context`, below `parent`.
    ///
    /// Nothing is formatted, let alone kept, when the trace is not recorded.
    pub fn span(
        &self,
        kind: SpanKind,
        name: fmt::Arguments<'_>,
        context: &TraceContext,
        parent: Option<&TraceContext>,
    ) -> TraceSpan {
        match &self.0 {
            Some(recorder) if context.sampled() => {
                TraceSpan::open(Arc::clone(recorder), kind, name, context, parent)
            }
            _ => TraceSpan::none(),
        }
    }

    /// Sends the spans that wait, for at most 3 s and at most `limit`.
    pub async fn shutdown(&self, limit: Duration) {
        let Some(recorder) = &self.0 else { return };
        recorder.closing.cancel();
        let ended = tokio::time::timeout(limit.min(FAREWELL), recorder.tasks.wait()).await;
        if ended.is_err() {
            tracing::warn!("the last traces could not be exported in time");
        }
    }
}
