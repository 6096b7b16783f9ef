//! Shared context of spans: parent, exporter, counters.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as Written;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::mpsc;

use super::labels::{KindLabel, LabelValue};

/// Counts of spans by result. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct SpanCounters(pub(super) Family<KindLabel, Counter>);

impl SpanCounters {
    pub(super) fn count(&self, kind: &'static str, spans: usize) {
        self.0
            .get_or_create(&KindLabel { kind: LabelValue(kind) })
            .inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }
}

/// Queue of finished spans.
#[derive(Debug)]
pub(super) struct SpanSender {
    pub(super) sample: u32,
    pub(super) queue: mpsc::Sender<Written>,
    pub(super) counted: SpanCounters,
}

/// Context of the next spans of a trace.
#[derive(Debug)]
pub(super) struct SpanContext {
    pub(super) outlet: Arc<SpanSender>,
    pub(super) trace: u128,
    pub(super) span: u64,
}

impl PartialEq for SpanContext {
    fn eq(&self, other: &Self) -> bool {
        (self.trace, self.span) == (other.trace, other.span)
    }
}

impl Eq for SpanContext {}

/// Makes an attribute of a span or of its resource.
pub(super) fn attribute(key: &'static str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
