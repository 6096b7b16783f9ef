//! What the people who run it can see. A leaf: every room may use it, it uses none.

mod logging;
mod meters;
mod metrics;

pub use logging::{LoggingError, install as install_logging};
pub use meters::UpstreamMeters;
pub use metrics::{Gauged, Metrics, RequestLabels, Word};
