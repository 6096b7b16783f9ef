//! What the people who run it can see. A leaf: every room may use it, it uses none.

mod degraded;
mod edge;
mod event_kind;
mod export;
mod gauged;
mod histogram;
mod labels;
mod lines;
mod live;
mod logging;
mod meters;
mod metrics;
mod process;
mod redact;
mod scrape;
mod snapshot;
mod span_context;
mod spans;
mod trace;

pub use degraded::{Degraded, DegradedReason};
pub use edge::ConnectionMetrics;
pub use event_kind::EventKind;
pub use export::Export;
pub use gauged::GaugeGuard;
pub use labels::{LabelValue, RequestLabels};
#[doc(hidden)]
pub use lines::line_of;
pub use live::{LiveEvent, PublishedEvent, SAMPLE_EVERY, Sample};
pub use logging::{LogGuard, LoggingError, install as install_logging, set_filter as set_log_filter};
pub use meters::UpstreamMetrics;
pub use metrics::Metrics;
pub use scrape::ScrapeFormat;
pub use snapshot::{CurrentGauges, Snapshot};
pub use spans::{Span, Spans};
pub use trace::{REQUEST_ID, RequestTrace, TRACEPARENT, TRACESTATE};
