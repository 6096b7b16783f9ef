//! Metrics of requests to upstreams.

use http::uri::Authority;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{KindLabel, LabelValue};

/// Labels of `upstream_server_up`: both stand in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    upstream: String,
    server: String,
}

/// Labels of `canvas_service_variants`: the one stands in the configuration, the other comes from a closed list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VariantLabels {
    upstream: String,
    state: LabelValue,
}

/// Metrics of upstreams. Cheap to clone; the default value is registered nowhere.
#[derive(Debug, Clone, Default)]
pub struct UpstreamMetrics {
    /// Requests in flight at an upstream, from their permit to the end of the answer's body.
    pub in_flight: Gauge,
    /// Connections that speak another protocol.
    pub upgraded: Gauge,
    /// Answers and uploads that were ended because others waited while their client did nothing.
    pub ended: Counter,
    /// Viewers' requests that wait for a permit at a canvas service.
    pub document_waiting: Gauge,
    up: Family<ServerLabels, Gauge>,
    variants: Family<VariantLabels, Gauge>,
    retries: Family<KindLabel, Counter>,
}

impl UpstreamMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "upstream_in_flight",
            "Requests with an upstream, until the end of the answer",
            self.in_flight.clone(),
        );
        registry.register(
            "upgraded_connections",
            "Connections of viewers that speak another protocol, such as WebSocket",
            self.upgraded.clone(),
        );
        registry.register(
            "upstream_server_up",
            "1: the server is asked; 0: it is passed over",
            self.up.clone(),
        );
        registry.register(
            "canvas_service_variants",
            "1 for what is known: does the canvas service build beside the stored canvas",
            self.variants.clone(),
        );
        registry.register(
            "document_waiting",
            "Viewers who wait for their turn at a canvas service",
            self.document_waiting.clone(),
        );
        registry.register(
            "upstream_ended",
            "Answers and uploads that were ended because others waited while their client did nothing",
            self.ended.clone(),
        );
        registry.register("upstream_retries", "Requests that were sent once more", self.retries.clone());
    }

    /// Sets whether a server gets requests.
    pub fn set_server_up(&self, upstream: &Authority, server: &Authority, up: bool) {
        let labels = ServerLabels { upstream: upstream.to_string(), server: server.to_string() };
        self.up.get_or_create(&labels).set(i64::from(up));
    }

    /// Sets the variant state of a canvas service, of all `states`: whether it builds beside the stored canvas.
    pub fn variants(&self, upstream: &str, states: &[&'static str], known: &str) {
        for state in states {
            let labels = VariantLabels { upstream: upstream.to_owned(), state: LabelValue(state) };
            self.variants.get_or_create(&labels).set(i64::from(*state == known));
        }
    }

    /// Forgets every canvas service: the configured ones register themselves again.
    pub fn forget_services(&self) {
        self.variants.clear();
    }

    /// Forgets every server: the configuration changed, and the new servers register themselves.
    pub fn forget_servers(&self) {
        self.up.clear();
    }

    /// Counts a repeated request.
    pub fn retried(&self, why: &'static str) {
        self.retries.get_or_create(&KindLabel { kind: LabelValue(why) }).inc();
    }
}
