//! Part of `GET /api/v1/stats` that `top` shows.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Snapshot, as far as it is shown. A value that an older or newer iiif-mender does not send is zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct TopStats {
    pub(super) version: String,
    pub(super) uptime_seconds: u64,
    pub(super) requests: BTreeMap<String, u64>,
    pub(super) canvas_requests: u64,
    pub(super) now: GaugeValues,
    pub(super) points: Vec<SampleValues>,
    /// The last heals, newest first, from `GET /api/v1/heals`.
    #[serde(skip)]
    pub(super) heals: Vec<TopHeal>,
}

/// Answer of `GET /api/v1/heals`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TopHeals {
    pub(super) items: Vec<TopHeal>,
}

/// Answer of `GET /api/v1/broken`.
#[derive(Debug, Deserialize)]
pub(super) struct BrokenList {
    pub(super) items: Vec<serde_json::Value>,
    pub(super) next: Option<i64>,
}

/// A heal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct TopHeal {
    pub(super) at: i64,
    pub(super) identifier: String,
    pub(super) verdict: String,
    pub(super) rung: Option<String>,
    pub(super) duration_ms: u64,
    pub(super) reason: Option<String>,
    pub(super) label: Option<String>,
    pub(super) book: Option<String>,
}

/// Gauges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct GaugeValues {
    pub(super) flights: i64,
    pub(super) waiting: i64,
    pub(super) canvas_in_flight: i64,
    pub(super) breakers_open: i64,
    pub(super) broken_images: i64,
    pub(super) unknown_images: i64,
    pub(super) upstream_in_flight: i64,
    pub(super) connections: i64,
    pub(super) learn_queue: i64,
    pub(super) index_manifests: i64,
    pub(super) index_canvases: i64,
    pub(super) index_images: i64,
    pub(super) cluster_connected: i64,
}

/// Counts of a few seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct SampleValues {
    pub(super) at: i64,
    pub(super) requests: u64,
    pub(super) healed: u64,
    pub(super) broken: u64,
}

impl TopStats {
    /// Requests a second, over the last points.
    pub(super) fn rate(&self, of: impl Fn(&SampleValues) -> u64) -> f64 {
        const LAST: usize = 12;
        let last = &self.points[self.points.len().saturating_sub(LAST + 1)..];
        let [first, counted @ ..] = last else { return 0.0 };
        let Some(end) = counted.last() else { return 0.0 };
        let seconds = i32::try_from(end.at - first.at).map_or(f64::MAX, f64::from) / 1000.0;
        let count = counted.iter().map(of).sum::<u64>();
        if seconds > 0.0 { f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds } else { 0.0 }
    }
}
