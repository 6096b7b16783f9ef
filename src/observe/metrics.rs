//! Counters, gauges and histograms.
//!
//! Labels come from closed lists only: a viewer must not be able to make a new series. Metrics of nearly every request are
//! found by position and have no lock ([`super::histogram`]); the rest may use a look-up.

use std::fmt;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::broadcast;

use super::cache_metrics::CacheMetrics;
use super::connection_metrics::ConnectionMetrics;
use super::event_kind::EventKind;
use super::histogram::{HistogramVec, ROUTES, RequestCounts, bounds, route_position};
use super::labels::{CanvasLabels, HealLabels, KindLabel, LabelValue, LaneLabel, SetupLabels};
use super::live_feed::{LiveEvent, LiveFeed, PublishedEvent};
use super::process::{BuildInfo, Process};
use super::scrape::{ScrapeFormat, as_text};
use super::spans::Spans;
use super::trace::RequestTrace;
use super::upstream_metrics::UpstreamMetrics;
use crate::outcome::Outcome;

/// Labels of an exemplar: trace and request.
type HealExemplar = Vec<(&'static str, String)>;
type KindCounter = Family<KindLabel, Counter>;
/// Hook that sets gauges before a scrape.
type ScrapeHook = Box<dyn Fn(&Metrics) -> bool + Send>;
type TimedHistogram = HistogramWithExemplars<HealExemplar>;

/// Metrics of the process. Cheap to share; counting never blocks for long.
pub struct Metrics {
    registry: Registry,
    /// Registry of process metrics, whose names have no prefix of ours.
    process: Registry,
    pub(super) requests: RequestCounts,
    request_seconds: HistogramVec,
    upstream_seconds: HistogramVec,
    upstream_errors: KindCounter,
    heals: Family<HealLabels, Counter>,
    heal_seconds: Family<KindLabel, TimedHistogram, fn() -> TimedHistogram>,
    wait_seconds: TimedHistogram,
    canvas_requests: Family<CanvasLabels, Counter>,
    pub(super) canvas_total: Counter,
    canvas_seconds: Family<KindLabel, TimedHistogram, fn() -> TimedHistogram>,
    resource_checks: KindCounter,
    index_lookups: KindCounter,
    learned: KindCounter,
    events: KindCounter,
    lane_waiting: Family<LaneLabel, Gauge>,
    setup_findings: Family<SetupLabels, Gauge>,
    pub(super) live: LiveFeed,
    /// The cache of image routes.
    pub cache: CacheMetrics,
    /// The edge and the configuration.
    pub edge: ConnectionMetrics,
    before: Mutex<Vec<ScrapeHook>>,
    /// Spans of sampled requests.
    pub spans: Spans,
    /// Heals under way.
    pub flights: Gauge,
    /// Viewers kept waiting.
    pub waiting: Gauge,
    /// Canvas requests under way.
    pub canvas_in_flight: Gauge,
    /// Canvas services that are left alone, because they only failed.
    pub breakers_open: Gauge,
    /// Images of manifests that readers did not get lately.
    pub broken_images: Gauge,
    /// Images that no manifest names, and that readers did not get lately.
    pub unknown_images: Gauge,
    /// 1 while this node is joined with others by way of Redis.
    pub cluster_connected: Gauge,
    /// Upstreams and their servers.
    pub upstream: UpstreamMetrics,
    /// Bytes of bodies that are held (`server.max_held_total`).
    pub held_bytes: Gauge,
    /// Viewers' connections.
    pub connections: Gauge,
    /// Documents that wait to be learned.
    pub learn_queue: Gauge,
    /// Manifests in the index.
    pub index_manifests: Gauge,
    /// Canvases in the index.
    pub index_canvases: Gauge,
    /// Images in the index.
    pub index_images: Gauge,
    /// Bytes of the index's file.
    pub index_bytes: Gauge,
    /// Unix time at which a source was last looked at without an error.
    pub index_refreshed: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
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
            process: Registry::default(),
            requests: RequestCounts::default(),
            request_seconds: HistogramVec::new(Outcome::ALL.map(Outcome::as_str)),
            upstream_seconds: HistogramVec::new(ROUTES),
            upstream_errors: Family::default(),
            heals: Family::default(),
            heal_seconds: Family::new_with_constructor(timed),
            wait_seconds: timed(),
            canvas_requests: Family::default(),
            canvas_total: Counter::default(),
            canvas_seconds: Family::new_with_constructor(timed),
            resource_checks: Family::default(),
            index_lookups: Family::default(),
            learned: Family::default(),
            events: Family::default(),
            lane_waiting: Family::default(),
            setup_findings: Family::default(),
            live: LiveFeed::default(),
            cache: CacheMetrics::default(),
            edge: ConnectionMetrics::default(),
            before: Mutex::default(),
            spans: Spans::default(),
            flights: Gauge::default(),
            waiting: Gauge::default(),
            canvas_in_flight: Gauge::default(),
            breakers_open: Gauge::default(),
            broken_images: Gauge::default(),
            unknown_images: Gauge::default(),
            cluster_connected: Gauge::default(),
            upstream: UpstreamMetrics::default(),
            held_bytes: Gauge::default(),
            connections: Gauge::default(),
            learn_queue: Gauge::default(),
            index_manifests: Gauge::default(),
            index_canvases: Gauge::default(),
            index_images: Gauge::default(),
            index_bytes: Gauge::default(),
            index_refreshed: Gauge::default(),
        };
        all.register_counters();
        all.register_durations();
        all.register_gauges();
        all.registry.register_collector(Box::new(BuildInfo::default()));
        all.process.register_collector(Box::new(Process));
        all
    }

    fn register_counters(&mut self) {
        let r = &mut self.registry;
        r.register("build", "What runs here", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        r.register("requests", "Requests by route, outcome and status class", self.requests.clone());
        r.register(
            "upstream_errors",
            "Requests that an upstream did not answer",
            self.upstream_errors.clone(),
        );
        r.register("heals", "Heals by verdict, rung and lane", self.heals.clone());
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
        r.register("learned", "Documents that passed through, by what was learned", self.learned.clone());
        r.register("spans", "Spans of sampled requests, by what became of them", self.spans.counted());
        r.register("events", "Rare events by kind", self.events.clone());
    }

    fn register_durations(&mut self) {
        let r = &mut self.registry;
        let head = "Time from a request's head to the head of its answer, by outcome";
        r.register_with_unit("request", head, Unit::Seconds, self.request_seconds.clone());
        let upstream = "Time from sending a viewer's request on to the head of the answer, by kind of route";
        r.register_with_unit("upstream", upstream, Unit::Seconds, self.upstream_seconds.clone());
        r.register_with_unit(
            "heal",
            "How long heals took, by rung",
            Unit::Seconds,
            self.heal_seconds.clone(),
        );
        let wait = "How long viewers were kept waiting";
        r.register_with_unit("wait", wait, Unit::Seconds, self.wait_seconds.clone());
        let canvas = "How long requests to the canvas service took, with their place in a lane, by rung";
        r.register_with_unit("canvas_request", canvas, Unit::Seconds, self.canvas_seconds.clone());
    }

    fn register_gauges(&mut self) {
        let gauges = [
            ("flights", "Heals under way", &self.flights),
            ("waiting_viewers", "Viewers kept waiting for a heal", &self.waiting),
            ("canvas_in_flight", "Canvas requests under way", &self.canvas_in_flight),
            ("breakers_open", "Canvas services that are left alone for a while", &self.breakers_open),
            ("broken_images", "Images of manifests that readers did not get lately", &self.broken_images),
            ("unknown_images", "Images of no manifest that readers asked for lately", &self.unknown_images),
            ("cluster_connected", "1 while joined with others by way of Redis", &self.cluster_connected),
            ("held_bytes", "Memory for bodies that are held", &self.held_bytes),
            ("connections", "Open connections of viewers", &self.connections),
            ("learn_queue", "Documents that wait to be learned", &self.learn_queue),
            ("index_manifests", "Manifests in the index", &self.index_manifests),
            ("index_canvases", "Canvases in the index", &self.index_canvases),
            ("index_images", "Images in the index", &self.index_images),
            ("index_bytes", "Size of the index file", &self.index_bytes),
            (
                "index_refreshed_timestamp_seconds",
                "Unix time at which a source was last looked at without an error",
                &self.index_refreshed,
            ),
        ];
        for (name, help, gauge) in gauges {
            self.registry.register(name, help, gauge.clone());
        }
        self.cache.register(&mut self.registry);
        self.edge.register(&mut self.registry);
        self.upstream.register(&mut self.registry);
        let waiting = self.lane_waiting.clone();
        self.registry.register("lane_waiting", "Canvas requests that wait for a place, by lane", waiting);
        let findings = self.setup_findings.clone();
        let help = "1 while the check of the setup finds this not as it should be";
        self.registry.register("setup_finding", help, findings);
    }

    /// Counts a request that ended.
    pub fn request(&self, route: &'static str, outcome: Outcome, status: u16, took: Duration) {
        self.requests.count(route, outcome, status);
        self.request_seconds.observe(outcome as usize, took);
    }

    /// Counts an upstream answer to a viewer's request on a route of this kind.
    pub fn upstream_answered(&self, route: &'static str, took: Duration) {
        self.upstream_seconds.observe(route_position(route), took);
    }

    /// Counts a request without an answer; `error` is the RFC 9209 error type.
    pub fn upstream_error(&self, error: &'static str) {
        self.upstream_errors.get_or_create(&KindLabel { kind: LabelValue(error) }).inc();
    }

    /// Counts a heal that ended.
    pub fn heal(
        &self,
        verdict: &'static str,
        rung: &'static str,
        lane: &'static str,
        took: Duration,
        of: &RequestTrace,
    ) {
        let labels =
            HealLabels { verdict: LabelValue(verdict), rung: LabelValue(rung), lane: LabelValue(lane) };
        self.heals.get_or_create(&labels).inc();
        observe(&self.heal_seconds.get_or_create(&KindLabel { kind: LabelValue(rung) }), took, of);
    }

    /// Counts a viewer that waited for `took`.
    pub fn waited(&self, took: Duration, of: &RequestTrace) {
        observe(&self.wait_seconds, took, of);
    }

    /// Counts a canvas request that ended.
    pub fn canvas_request(
        &self,
        rung: &'static str,
        answer: &'static str,
        took: Duration,
        of: &RequestTrace,
    ) {
        self.canvas_requests
            .get_or_create(&CanvasLabels { rung: LabelValue(rung), answer: LabelValue(answer) })
            .inc();
        self.canvas_total.inc();
        observe(&self.canvas_seconds.get_or_create(&KindLabel { kind: LabelValue(rung) }), took, of);
    }

    /// Counts a request to the canvas service for a registration.
    pub fn resource_check(&self, answer: &'static str) {
        self.resource_checks.get_or_create(&KindLabel { kind: LabelValue(answer) }).inc();
    }

    /// Counts a look-up in the index.
    pub fn index_lookup(&self, found: &'static str) {
        self.index_lookups.get_or_create(&KindLabel { kind: LabelValue(found) }).inc();
    }

    /// Counts a passing document that was read.
    pub fn learned(&self, what: &'static str) {
        self.learned.get_or_create(&KindLabel { kind: LabelValue(what) }).inc();
    }

    /// Sets the number of canvas requests that wait in this lane.
    pub fn lane_waiting(&self, lane: &'static str, count: usize) {
        let gauge = self.lane_waiting.get_or_create(&LaneLabel { lane: LabelValue(lane) });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets whether the setup check has such a finding now.
    pub fn setup_finding(&self, about: &'static str, state: &'static str, is_so: bool) {
        let labels = SetupLabels { about: LabelValue(about), state: LabelValue(state) };
        self.setup_findings.get_or_create(&labels).set(i64::from(is_so));
    }

    /// Counts a rare event.
    pub fn event(&self, kind: EventKind) {
        self.events.get_or_create(&KindLabel { kind: LabelValue(kind.as_str()) }).inc();
    }

    /// Number of rare events of this kind.
    pub(super) fn events(&self, kind: EventKind) -> u64 {
        self.events.get(&KindLabel { kind: LabelValue(kind.as_str()) }).map_or(0, |count| count.get())
    }

    /// Publishes to subscribers; without subscribers `event` is not called.
    pub fn publish(&self, event: impl FnOnce() -> LiveEvent) {
        self.live.publish(event);
    }

    /// Subscribes to future events. A subscriber that is too slow loses the oldest and gets an error for it.
    pub fn listen(&self) -> broadcast::Receiver<PublishedEvent> {
        self.live.listen()
    }

    /// Registers `look`, which sets gauges that are not kept up to date otherwise. `look` runs before each scrape, and must
    /// not block. Once it returns false it is not called any more.
    pub fn on_scrape(&self, look: impl Fn(&Self) -> bool + Send + 'static) {
        self.before.lock().push(Box::new(look));
    }

    /// Runs the hooks that set gauges before a scrape.
    pub(super) fn run_scrape_hooks(&self) {
        self.before.lock().retain(|look| look(self));
    }

    /// The scrape: OpenMetrics text.
    pub fn scrape(&self) -> String {
        self.scrape_as(ScrapeFormat::OpenMetrics)
    }

    /// The scrape in this format.
    pub fn scrape_as(&self, format: ScrapeFormat) -> String {
        self.run_scrape_hooks();
        let mut page = String::with_capacity(32 << 10);
        let written = encode_registry(&mut page, &self.registry)
            .and_then(|()| encode_registry(&mut page, &self.process))
            .and_then(|()| encode_eof(&mut page));
        if written.is_err() {
            // Writing to a string does not fail; a truncated page must not look whole.
            page.clear();
        }
        if format == ScrapeFormat::Text { as_text(&page) } else { page }
    }
}

fn observe(timed: &TimedHistogram, took: Duration, of: &RequestTrace) {
    timed.observe(took.as_secs_f64(), of.example(), Some(SystemTime::now()));
}

fn timed() -> TimedHistogram {
    TimedHistogram::new(bounds())
}
