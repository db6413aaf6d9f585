//! What the service tells about itself: metrics, log lines, request ids.

mod metrics;
mod request_id;

pub use metrics::Metrics;
pub use request_id::RequestId;
