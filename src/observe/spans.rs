//! Spans: the steps of a sampled request, for a collector (OpenTelemetry).
//!
//! A request that is not sampled has no spans and allocates nothing for them. A span that ends goes into a bounded queue;
//! where that is full it is dropped and counted: no request ever waits for it.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::request::Parts;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span as Written, Status};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::mpsc;

use super::export::Export;
use super::labels::KindLabel;
use super::span_context::{SpanContext, SpanCounters, SpanSender, attribute};
use super::trace::{RequestTrace, fresh_number};

/// Source of spans; there are none until an export is opened.
#[derive(Debug, Default)]
pub struct Spans {
    outlet: OnceLock<Arc<SpanSender>>,
    counted: SpanCounters,
}

impl Spans {
    pub(super) fn counted(&self) -> Family<KindLabel, Counter> {
        self.counted.0.clone()
    }

    /// Opens the export: one of `sample` requests has spans from now on; at most `queue` of them wait to be sent. `None`:
    /// open already.
    pub fn open(&self, sample: u32, queue: usize) -> Option<Export> {
        let (sender, waiting) = mpsc::channel(queue.max(1));
        let outlet = SpanSender { sample: sample.max(1), queue: sender, counted: self.counted.clone() };
        self.outlet.set(Arc::new(outlet)).ok()?;
        // Set to zero, so that the first scrape shows them.
        for kind in ["sent", "dropped", "failed"] {
            self.counted.count(kind, 0);
        }
        Some(Export::new(waiting, self.counted.clone()))
    }

    /// Begins the span of a whole request, and returns the trace as it goes on below it. The sampling decision of a trusted
    /// proxy holds (W3C Trace Context section 3.2.2.5); without one, one of `sample` requests is taken.
    pub fn begin(&self, trace: RequestTrace) -> (RequestTrace, Span) {
        let Some(outlet) = self.outlet.get() else { return (trace, Span::default()) };
        let parent = trace.remote_parent();
        if !parent.map_or_else(|| fastrand::u32(0..outlet.sample) == 0, |parent| parent.sampled) {
            return (trace, Span::default());
        }
        let own = || trace.number().unwrap_or_else(fresh_number);
        let (number, above) = parent.map_or_else(|| (own(), 0), |parent| (parent.trace, parent.span));
        let context = SpanContext { outlet: Arc::clone(outlet), trace: number, span: above };
        let span = Span::start(&trace, &context, "request", SpanKind::Server);
        (span.within(&trace), span)
    }
}

/// A step of a request. Dropping it ends it. The span of a request that is not sampled holds nothing.
#[derive(Debug, Default)]
pub struct Span(Option<Box<OpenSpan>>);

#[derive(Debug)]
struct OpenSpan {
    written: Written,
    trace: RequestTrace,
    started: Instant,
}

impl Span {
    fn start(of: &RequestTrace, at: &SpanContext, name: &'static str, kind: SpanKind) -> Self {
        let id = fastrand::u64(1..);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let written = Written {
            trace_id: at.trace.to_be_bytes().to_vec(),
            span_id: id.to_be_bytes().to_vec(),
            parent_span_id: if at.span == 0 { Vec::new() } else { at.span.to_be_bytes().to_vec() },
            trace_state: of.state_text().to_owned(),
            flags: 1,
            name: name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: u64::try_from(now).unwrap_or_default(),
            ..Written::default()
        };
        let context = SpanContext { outlet: Arc::clone(&at.outlet), trace: at.trace, span: id };
        let trace = of.below(at.trace, id, context);
        Self(Some(Box::new(OpenSpan { written, trace, started: Instant::now() })))
    }

    /// Begins a step below the span of `trace`.
    pub fn step(trace: &RequestTrace, name: &'static str) -> Self {
        trace.context().map_or_else(Self::default, |at| Self::start(trace, at, name, SpanKind::Internal))
    }

    /// A request that we send.
    pub fn call(trace: &RequestTrace, head: &Parts) -> Self {
        let Some(at) = trace.context() else { return Self::default() };
        let mut span = Self::start(trace, at, "upstream", SpanKind::Client);
        span.text("http.request.method", head.method.as_str());
        span.text("url.path", head.uri.path());
        span
    }

    /// True if the span is written.
    pub fn is_sampled(&self) -> bool {
        self.0.is_some()
    }

    /// The trace below this step; `trace` itself where there is no span.
    pub fn within(&self, trace: &RequestTrace) -> RequestTrace {
        self.0.as_ref().map_or(trace, |open| &open.trace).clone()
    }

    /// Head for the upstream, which names this span as its parent.
    pub fn inject<'a>(&self, head: &'a Parts) -> Cow<'a, Parts> {
        let Some(open) = &self.0 else { return Cow::Borrowed(head) };
        let mut head = head.clone();
        open.trace.inject(&mut head.headers);
        Cow::Owned(head)
    }

    /// Adds an attribute.
    pub fn text(&mut self, key: &'static str, value: &str) {
        if self.0.is_some() {
            self.set(key, Value::StringValue(value.to_owned()));
        }
    }

    /// Sets the response status; 5xx is an error.
    pub fn status(&mut self, status: http::StatusCode) {
        self.set("http.response.status_code", Value::IntValue(i64::from(status.as_u16())));
        if status.is_server_error() {
            self.failed(status.as_str());
        }
    }

    /// Records the result of an upstream request.
    pub fn answered<B, E: fmt::Display>(&mut self, answer: &Result<http::Response<B>, E>) {
        match answer {
            Ok(answer) => self.status(answer.status()),
            Err(error) if self.0.is_some() => self.failed(&error.to_string()),
            Err(_) => {}
        }
    }

    /// Marks the span as failed.
    pub fn failed(&mut self, why: &str) {
        if let Some(open) = &mut self.0 {
            open.written.status = Some(Status { message: why.to_owned(), code: StatusCode::Error.into() });
        }
    }

    /// Links the span to that of `leader`, which did the work.
    pub fn link(&mut self, leader: Option<&RequestTrace>) {
        let (Some(open), Some(leader)) = (&mut self.0, leader.and_then(RequestTrace::context)) else {
            return;
        };
        if open.trace.context().is_none_or(|own| own != leader) {
            open.written.links.push(Link {
                trace_id: leader.trace.to_be_bytes().to_vec(),
                span_id: leader.span.to_be_bytes().to_vec(),
                flags: 1,
                ..Link::default()
            });
        }
    }

    fn set(&mut self, key: &'static str, value: Value) {
        if let Some(open) = &mut self.0 {
            open.written.attributes.push(attribute(key, value));
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let took = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut written = std::mem::take(&mut self.written);
        written.end_time_unix_nano = written.start_time_unix_nano.saturating_add(took);
        if let Some(context) = self.trace.context()
            && context.outlet.queue.try_send(written).is_err()
        {
            context.outlet.counted.count("dropped", 1);
        }
    }
}
