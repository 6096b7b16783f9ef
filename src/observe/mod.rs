//! What the people who run it can see. A leaf: every room may use it, it uses none.

mod logging;
mod metrics;

pub use logging::{LoggingError, install as install_logging, set_filter as set_log_filter};
pub use metrics::{Gauged, Metrics, RequestLabels, Word};
