//! What the service tells about itself: metrics here, log lines in the files beside.

mod metrics;

pub use metrics::Metrics;
