//! What the service tells about itself: metrics, log lines, traces, request ids.

mod database;
mod fields;
mod filter;
mod layer;
mod logs;
mod metrics;
mod otlp;
mod panics;
mod request_id;
mod writer;

pub use logs::{ExtraLayer, Guard, Logs, init};
pub use metrics::Metrics;
pub use otlp::{Attribute, SetupError, SpanKind, TraceSpan, Tracer};
pub use request_id::RequestId;
