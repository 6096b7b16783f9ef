//! Counters, gauges and histograms, and the page that shows them (OpenMetrics text).
//!
//! Labels come from closed lists only: a viewer must not be able to make a new series.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::meters::UpstreamMeters;
use crate::outcome::Outcome;

/// A label value out of some closed list: the text of an enum's variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word(pub &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(self.0)
    }
}

/// Labels of `requests`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `image`, `presentation`, `plain` or `none`.
    pub route: Word,
    /// How it ended.
    pub outcome: Outcome,
    /// `2xx`, `3xx`, …
    pub status: Word,
}

/// One label named `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Kind {
    pub(super) kind: Word,
}

/// Labels of `canvas_requests`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CanvasLabels {
    rung: Word,
    answer: Word,
}

/// Labels of `heals`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HealLabels {
    verdict: Word,
    rung: Word,
    lane: Word,
}

type Kinds = Family<Kind, Counter>;
type Durations = Family<Kind, Histogram, fn() -> Histogram>;

/// Everything that is counted. Cheap to share; counting never blocks for long.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Durations,
    upstream_errors: Kinds,
    heals: Family<HealLabels, Counter>,
    heal_seconds: Durations,
    wait_seconds: Histogram,
    canvas_requests: Family<CanvasLabels, Counter>,
    resource_checks: Kinds,
    index_lookups: Kinds,
    events: Kinds,
    /// Heals under way.
    pub flights: Gauge,
    /// Viewers kept waiting.
    pub waiting: Gauge,
    /// Canvas requests under way.
    pub canvas_in_flight: Gauge,
    /// Canvas services that are left alone, because they only failed.
    pub breakers_open: Gauge,
    /// 1 while this node is joined with others by way of Redis.
    pub cluster_connected: Gauge,
    /// Upstreams and their servers.
    pub upstream: UpstreamMeters,
    /// Viewers' connections.
    pub connections: Gauge,
    /// Manifests in the index.
    pub index_manifests: Gauge,
    /// Canvases in the index.
    pub index_canvases: Gauge,
    /// Images in the index.
    pub index_images: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut all = Self {
            registry: Registry::with_prefix("iiif_mender"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            upstream_errors: Family::default(),
            heals: Family::default(),
            heal_seconds: Family::new_with_constructor(seconds),
            wait_seconds: seconds(),
            canvas_requests: Family::default(),
            resource_checks: Family::default(),
            index_lookups: Family::default(),
            events: Family::default(),
            flights: Gauge::default(),
            waiting: Gauge::default(),
            canvas_in_flight: Gauge::default(),
            breakers_open: Gauge::default(),
            cluster_connected: Gauge::default(),
            upstream: UpstreamMeters::default(),
            connections: Gauge::default(),
            index_manifests: Gauge::default(),
            index_canvases: Gauge::default(),
            index_images: Gauge::default(),
        };
        all.register();
        all
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Requests by route, outcome and status class", self.requests.clone());
        r.register_with_unit(
            "request",
            "Time from a request's head to the head of its answer, by outcome",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        r.register(
            "upstream_errors",
            "Requests that an upstream did not answer",
            self.upstream_errors.clone(),
        );
        r.register("heals", "Heals by verdict, rung and lane", self.heals.clone());
        r.register_with_unit(
            "heal",
            "How long heals took, by rung",
            Unit::Seconds,
            self.heal_seconds.clone(),
        );
        r.register_with_unit(
            "wait",
            "How long viewers were kept waiting",
            Unit::Seconds,
            self.wait_seconds.clone(),
        );
        r.register(
            "canvas_requests",
            "Requests to the canvas service that change something, by rung and answer",
            self.canvas_requests.clone(),
        );
        r.register(
            "resource_checks",
            "Questions to the canvas service whether an identifier is alive, by answer",
            self.resource_checks.clone(),
        );
        r.register("index_lookups", "Identifiers looked up, by what was found", self.index_lookups.clone());
        r.register("events", "Rare events by kind", self.events.clone());
        r.register("flights", "Heals under way", self.flights.clone());
        r.register("waiting_viewers", "Viewers kept waiting for a heal", self.waiting.clone());
        r.register("canvas_in_flight", "Canvas requests under way", self.canvas_in_flight.clone());
        r.register(
            "breakers_open",
            "Canvas services that are left alone for a while",
            self.breakers_open.clone(),
        );
        r.register(
            "cluster_connected",
            "1 while this node is joined with others by way of Redis",
            self.cluster_connected.clone(),
        );
        self.upstream.register(r);
        r.register("connections", "Open connections of viewers", self.connections.clone());
        r.register("index_manifests", "Manifests in the index", self.index_manifests.clone());
        r.register("index_canvases", "Canvases in the index", self.index_canvases.clone());
        r.register("index_images", "Images in the index", self.index_images.clone());
    }

    /// One request ended.
    pub fn request(&self, route: &'static str, outcome: Outcome, status: u16, took: std::time::Duration) {
        let status = Word(match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        });
        self.requests.get_or_create(&RequestLabels { route: Word(route), outcome, status }).inc();
        self.request_seconds
            .get_or_create(&Kind { kind: Word(outcome.as_str()) })
            .observe(took.as_secs_f64());
    }

    /// An upstream gave no answer; `error` is the RFC 9209 error type.
    pub fn upstream_error(&self, error: &'static str) {
        self.upstream_errors.get_or_create(&Kind { kind: Word(error) }).inc();
    }

    /// One heal ended.
    pub fn heal(
        &self,
        verdict: &'static str,
        rung: &'static str,
        lane: &'static str,
        took: std::time::Duration,
    ) {
        let labels = HealLabels { verdict: Word(verdict), rung: Word(rung), lane: Word(lane) };
        self.heals.get_or_create(&labels).inc();
        self.heal_seconds.get_or_create(&Kind { kind: Word(rung) }).observe(took.as_secs_f64());
    }

    /// One viewer was kept waiting for so long.
    pub fn waited(&self, time: std::time::Duration) {
        self.wait_seconds.observe(time.as_secs_f64());
    }

    /// One canvas request ended.
    pub fn canvas_request(&self, rung: &'static str, answer: &'static str) {
        self.canvas_requests.get_or_create(&CanvasLabels { rung: Word(rung), answer: Word(answer) }).inc();
    }

    /// The canvas service was asked whether an identifier is alive.
    pub fn resource_check(&self, answer: &'static str) {
        self.resource_checks.get_or_create(&Kind { kind: Word(answer) }).inc();
    }

    /// The index was asked for an identifier.
    pub fn index_lookup(&self, found: &'static str) {
        self.index_lookups.get_or_create(&Kind { kind: Word(found) }).inc();
    }

    /// Something rare happened.
    pub fn event(&self, kind: &'static str) {
        self.events.get_or_create(&Kind { kind: Word(kind) }).inc();
    }

    /// The scrape: OpenMetrics text.
    pub fn scrape(&self) -> String {
        let mut page = String::new();
        if prometheus_client::encoding::text::encode(&mut page, &self.registry).is_err() {
            // Writing to a string does not fail; a cut page must not look whole.
            page.clear();
        }
        page
    }
}

/// 0.5 ms … 65 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 18))
}

/// One more in a gauge for as long as it lives. A future that is dropped in the middle cannot leak it.
#[derive(Debug)]
pub struct Gauged(Gauge);

impl Gauged {
    /// Counts one more.
    pub fn one(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.dec();
    }
}
