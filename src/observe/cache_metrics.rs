//! Metrics of the cache.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::LabelValue;

/// Values of the label `target`: the kind of request on an image route.
const TARGETS: [&str; 2] = ["image", "info"];

/// Way in which the cache answered a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// From memory, while fresh.
    Hit,
    /// From memory, because the image server or a heal failed.
    Stale,
    /// By the request of another reader for the same tile.
    Collapsed,
    /// By the image server.
    Miss,
    /// By the image server, past the cache: the request is not cacheable.
    Bypass,
}

const RESULTS: [&str; 5] = ["hit", "stale", "collapsed", "miss", "bypass"];

/// Labels of `cache_requests`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    target: LabelValue,
    result: LabelValue,
}

/// The label `cause`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: LabelValue,
}

/// Requests by target and result. No lock: every hit counts here.
#[derive(Debug, Clone, Default)]
struct CacheCounts(Arc<[[AtomicU64; RESULTS.len()]; TARGETS.len()]>);

impl EncodeMetric for CacheCounts {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (target, of_target) in TARGETS.iter().zip(&*self.0) {
            for (result, count) in RESULTS.iter().zip(of_target) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = CacheLabels { target: LabelValue(target), result: LabelValue(result) };
                    encoder
                        .encode_family(&labels)?
                        .encode_counter::<[(&str, &str); 0], u64, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Counts of the cache. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CacheMetrics {
    requests: CacheCounts,
    sent: Counter,
    stored: Counter,
    removed: Family<CauseLabel, Counter>,
    prefetched: Counter,
    prefetch_refused: Counter,
    /// Bytes of stored answers.
    pub bytes: Gauge,
    /// Stored answers.
    pub entries: Gauge,
    /// Readers who wait for another reader's request for the same tile.
    pub waiting: Gauge,
}

impl CacheMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let requests = "Requests on image routes by what the cache did";
        registry.register("cache_requests", requests, self.requests.clone());
        registry.register("cache_sent_bytes", "Bytes of bodies that came from the cache", self.sent.clone());
        registry.register("cache_stored", "Answers that were kept", self.stored.clone());
        let removed = "Answers that are kept no longer, by cause";
        registry.register("cache_removed", removed, self.removed.clone());
        let prefetched = "Requests for next pages that were sent ahead of their reader";
        registry.register("cache_prefetched", prefetched, self.prefetched.clone());
        let refused = "Readers' requests that were not repeated for next pages, because many were under way";
        registry.register("cache_prefetch_refused", refused, self.prefetch_refused.clone());
        registry.register("cache_bytes", "Memory of the answers that are kept", self.bytes.clone());
        registry.register("cache_entries", "Answers that are kept", self.entries.clone());
        let waiting = "Readers who wait for another one's request for the same tile";
        registry.register("cache_waiting", waiting, self.waiting.clone());
    }

    /// Counts a request for a tile, or for an info.json (`is_info`).
    pub fn request(&self, is_info: bool, result: CacheResult) {
        self.requests.0[usize::from(is_info)][result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes of a body that came from the cache.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// Counts a newly stored answer.
    pub fn stored(&self) {
        self.stored.inc();
    }

    /// Counts a request that is sent ahead of a reader, or a reader's request for which that was not done (`is_sent` is false).
    pub fn prefetch(&self, is_sent: bool) {
        if is_sent { &self.prefetched } else { &self.prefetch_refused }.inc();
    }

    /// Counts a removed answer: `size`, `expired`, `purged` or `replaced`.
    pub fn removed(&self, cause: &'static str) {
        self.removed.get_or_create(&CauseLabel { cause: LabelValue(cause) }).inc();
    }

    /// Requests so far that were answered from memory (fresh, stale), and all that the cache had to do with.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        let of = |result: CacheResult| {
            self.requests.0.iter().map(|of| of[result as usize].load(Ordering::Relaxed)).sum::<u64>()
        };
        let (hits, stale) = (of(CacheResult::Hit), of(CacheResult::Stale));
        (hits, stale, hits + stale + of(CacheResult::Collapsed) + of(CacheResult::Miss))
    }
}
