//! Observability: metrics, logs, spans, and number formats for people. A leaf: every module may use it, and it uses none of
//! them.

mod cache_metrics;
mod connection_metrics;
mod counted;
mod degraded;
mod event_kind;
mod export;
mod gauge_guard;
mod histogram;
mod labels;
mod live_feed;
mod log_writer;
mod logging;
mod metrics;
mod process;
mod redact;
mod scrape;
mod snapshot;
mod span_context;
mod spans;
mod trace;
mod upstream_metrics;

pub use cache_metrics::{CacheMetrics, CacheResult};
pub use connection_metrics::ConnectionMetrics;
pub(crate) use counted::{counted, grouped};
pub use degraded::{Degraded, DegradedReason};
pub use event_kind::EventKind;
pub use export::Export;
pub use gauge_guard::GaugeGuard;
pub use labels::{LabelValue, RequestLabels};
pub(crate) use live_feed::now_ms;
pub use live_feed::{LiveEvent, PublishedEvent, SAMPLE_EVERY, Sample};
#[doc(hidden)]
pub use log_writer::line_of;
pub(crate) use log_writer::visible;
pub use logging::{LogGuard, LoggingError, install as install_logging, set_filter as set_log_filter};
pub use metrics::Metrics;
pub use scrape::ScrapeFormat;
pub use snapshot::{CacheSnapshot, CurrentGauges, Snapshot};
pub use spans::{Span, Spans};
pub use trace::{REQUEST_ID, RequestTrace, TRACEPARENT, TRACESTATE};
pub use upstream_metrics::UpstreamMetrics;
