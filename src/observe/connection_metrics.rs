//! Metrics of the edge: connections that we closed, and configurations that we read.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::degraded::Degraded;
use super::labels::{KindLabel, LabelValue};

/// The label `result`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabel {
    result: LabelValue,
}

/// Counts of the edge. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    cut: Family<KindLabel, Counter>,
    reloads: Family<ReloadLabel, Counter>,
    loaded: Gauge,
    /// Parts that are out of order.
    pub degraded: Degraded,
}

impl ConnectionMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let cut = "Connections of viewers that we closed, by reason";
        registry.register("connections_cut", cut, self.cut.clone());
        registry.register("config_reloads", "Readings of the configuration, by result", self.reloads.clone());
        let loaded = "Unix time at which the configuration in use was read";
        registry.register("config_loaded_timestamp_seconds", loaded, self.loaded.clone());
        self.degraded.register(registry);
    }

    /// Counts a viewer's connection that we closed.
    pub fn connection_cut(&self, kind: &'static str) {
        self.cut.get_or_create(&KindLabel { kind: LabelValue(kind) }).inc();
    }

    /// Counts a reload of the configuration: `applied`, `refused` or `unchanged`.
    pub fn config_reload(&self, result: &'static str) {
        self.reloads.get_or_create(&ReloadLabel { result: LabelValue(result) }).inc();
    }

    /// Sets the time at which the configuration in use was read.
    pub fn config_is_loaded(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.loaded.set(i64::try_from(now).unwrap_or(i64::MAX));
    }
}
