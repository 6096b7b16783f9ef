//! Snapshot of the metrics that the dashboard shows.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::degraded::DegradedReason;
use super::event_kind::EventKind;
use super::live_feed::{Sample, Totals};
use super::metrics::Metrics;
use super::process::started;
use crate::outcome::Outcome;

/// Counts since the start, gauges as they stand, and the last half hour. Cheap: a few hundred loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Version of the program.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Requests so far, by outcome.
    pub requests: BTreeMap<&'static str, u64>,
    /// Requests so far to the canvas services that make them work.
    pub canvas_requests: u64,
    /// Rare events so far, those that an operator should know of.
    pub events: BTreeMap<&'static str, u64>,
    /// Counts of the cache, and its content.
    pub cache: CacheSnapshot,
    /// Current values of gauges.
    pub now: CurrentGauges,
    /// Parts that are out of order while traffic is served.
    pub degraded: BTreeMap<&'static str, DegradedReason>,
    /// The last half hour, a point every five seconds, oldest first.
    pub points: Vec<Sample>,
}

/// Counts of the cache, and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CacheSnapshot {
    /// Requests on image routes that are ones for the cache.
    pub requests: u64,
    /// Requests answered from memory while the answer was fresh.
    pub hits: u64,
    /// Requests answered from memory because the image server or a heal failed.
    pub stale: u64,
    /// Stored answers.
    pub entries: u64,
    /// Bytes of these answers.
    pub bytes: u64,
}

/// Current values of gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CurrentGauges {
    /// Heals under way.
    pub flights: i64,
    /// Viewers kept waiting.
    pub waiting: i64,
    /// Canvas requests under way.
    pub canvas_in_flight: i64,
    /// Canvas services that are left alone.
    pub breakers_open: i64,
    /// Images of manifests that readers did not get lately, and that were not seen well since.
    pub broken_images: i64,
    /// Broken images that no manifest names.
    pub unknown_images: i64,
    /// Requests with an upstream.
    pub upstream_in_flight: i64,
    /// Viewers' connections.
    pub connections: i64,
    /// Documents that wait to be learned.
    pub learn_queue: i64,
    /// 1 while joined with other nodes by way of Redis.
    pub cluster_connected: i64,
    /// Manifests in the index.
    pub index_manifests: i64,
    /// Canvases in the index.
    pub index_canvases: i64,
    /// Images in the index.
    pub index_images: i64,
    /// Unix seconds at which a source was last looked at without an error; zero: never.
    pub index_refreshed: i64,
}

/// Events that stand in a snapshot.
const EVENTS: [EventKind; 6] = [
    EventKind::MassExpiry,
    EventKind::Poisoned,
    EventKind::Cured,
    EventKind::CureFailed,
    EventKind::BreakerOpened,
    EventKind::HistoryFailed,
];

impl Metrics {
    /// Takes a snapshot of the metrics.
    pub fn snapshot(&self) -> Snapshot {
        self.run_scrape_hooks();
        let outcomes = Outcome::ALL.map(Outcome::as_str);
        let (hits, stale, requests) = self.cache.totals();
        let gauge =
            |gauge: &prometheus_client::metrics::gauge::Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: started().elapsed().unwrap_or(Duration::ZERO).as_secs(),
            requests: outcomes.into_iter().zip(self.requests.by_outcome()).collect(),
            canvas_requests: self.canvas_total.get(),
            events: EVENTS.into_iter().map(|kind| (kind.as_str(), self.events(kind))).collect(),
            cache: CacheSnapshot {
                requests,
                hits,
                stale,
                entries: gauge(&self.cache.entries),
                bytes: gauge(&self.cache.bytes),
            },
            now: CurrentGauges {
                flights: self.flights.get(),
                waiting: self.waiting.get(),
                canvas_in_flight: self.canvas_in_flight.get(),
                breakers_open: self.breakers_open.get(),
                broken_images: self.broken_images.get(),
                unknown_images: self.unknown_images.get(),
                upstream_in_flight: self.upstream.in_flight.get(),
                connections: self.connections.get(),
                learn_queue: self.learn_queue.get(),
                cluster_connected: self.cluster_connected.get(),
                index_manifests: self.index_manifests.get(),
                index_canvases: self.index_canvases.get(),
                index_images: self.index_images.get(),
                index_refreshed: self.index_refreshed.get(),
            },
            degraded: self.edge.degraded.parts(),
            points: self.live.points(),
        }
    }

    /// Adds a sample of the counts since the last one. To be called every [`super::SAMPLE_EVERY`].
    pub fn sample(&self) {
        let of = self.requests.by_outcome();
        let count = |outcome: Outcome| of[outcome as usize];
        let totals = Totals {
            requests: of.iter().sum(),
            healed: count(Outcome::Healed),
            broken: [Outcome::Missing, Outcome::Cooling, Outcome::Pending, Outcome::Failed]
                .map(count)
                .iter()
                .sum(),
            refused: count(Outcome::Refused),
            canvas_requests: self.canvas_total.get(),
        };
        let gauges = Sample {
            waiting: self.waiting.get(),
            flights: self.flights.get(),
            connections: self.connections.get(),
            ..Sample::default()
        };
        self.live.sample(totals, gauges);
    }
}
