//! Exports spans to a collector (OTLP over HTTP): in batches, in the background.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Written};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::span_context::{SpanCounters, attribute};

/// Spans in one request at most.
const MOST: usize = 512;

/// Time that the first span of a batch waits for others.
const BATCH_DELAY: Duration = Duration::from_millis(500);

/// Sends what was recorded.
#[derive(Debug)]
pub struct Export {
    waiting: mpsc::Receiver<Written>,
    counted: SpanCounters,
}

impl Export {
    pub(super) fn new(waiting: mpsc::Receiver<Written>, counted: SpanCounters) -> Self {
        Self { waiting, counted }
    }

    /// Sends batches with `post`, each once, until `last` is dropped; then the rest. `post` has deadlines of its own, and
    /// returns the reason of a failure.
    pub async fn run<P, F>(mut self, post: P, mut last: oneshot::Receiver<()>)
    where
        P: Fn(Bytes) -> F,
        F: Future<Output = Result<(), String>>,
    {
        let (mut batch, mut is_open, mut is_well) = (Vec::with_capacity(MOST), true, true);
        loop {
            tokio::select! {
                biased;
                _ = &mut last, if is_open => {
                    is_open = false;
                    self.waiting.close();
                    continue;
                }
                () = gather(&mut self.waiting, &mut batch) => {}
            }
            if batch.is_empty() {
                return;
            }
            let spans = batch.len();
            let sent = post(encoded(std::mem::take(&mut batch))).await;
            self.counted.count(if sent.is_ok() { "sent" } else { "failed" }, spans);
            match &sent {
                Ok(()) if !is_well => tracing::info!("the collector takes spans again"),
                Err(error) if is_well => tracing::warn!(
                    error,
                    "the collector takes no spans: they are lost, and counted, until it does ([telemetry] otlp)"
                ),
                _ => {}
            }
            is_well = sent.is_ok();
        }
    }
}

/// Gathers a full batch, or the spans that came within a moment of the first; returns with none when the queue is closed.
/// Cancel-safe: spans already taken stay in `batch`.
async fn gather(waiting: &mut mpsc::Receiver<Written>, batch: &mut Vec<Written>) {
    if batch.is_empty() && waiting.recv_many(batch, MOST).await == 0 {
        return;
    }
    let until = Instant::now() + BATCH_DELAY;
    while batch.len() < MOST {
        match timeout_at(until, waiting.recv_many(batch, MOST - batch.len())).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// The body of one request (OTLP 1.x, `ExportTraceServiceRequest`).
fn encoded(spans: Vec<Written>) -> Bytes {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let name = env!("CARGO_PKG_NAME").to_owned();
    let resource = Resource {
        attributes: vec![
            attribute("service.name", Value::StringValue(name.clone())),
            attribute("service.version", Value::StringValue(version.clone())),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope { name, version, ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let all = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![all] }.encode_to_vec().into()
}
