//! What the people who run it can see. A leaf: every room may use it, it uses none.

mod logging;
mod meters;
mod metrics;
mod trace;

pub use logging::{LoggingError, install as install_logging, set_filter as set_log_filter};
pub use meters::UpstreamMeters;
pub use metrics::{Gauged, Metrics, RequestLabels, Word};
pub use trace::{REQUEST_ID, TRACEPARENT, TRACESTATE, Trace};
