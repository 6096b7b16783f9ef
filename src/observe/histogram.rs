//! Histograms and counters for the path that nearly every request takes: plain atomics, found by position.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

use super::labels::{KindLabel, LabelValue, RequestLabels};
use crate::outcome::Outcome;

/// End of the first bucket in nanoseconds: 0.5 ms. Each other ends at twice the one before, the last at 65 s.
const FIRST: u64 = 500_000;

/// Buckets with an upper bound.
const BOUNDED: u16 = 18;

/// The upper bounds, in seconds.
pub(super) fn bounds() -> impl Iterator<Item = f64> {
    (0..BOUNDED).map(|at| 0.0005 * f64::from(1_u32 << at))
}

/// Histogram of durations. No lock: an update is two additions.
#[derive(Debug, Default)]
pub(super) struct AtomicHistogram {
    buckets: [AtomicU64; BOUNDED as usize + 1],
    nanos: AtomicU64,
}

impl AtomicHistogram {
    pub(super) fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds().chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)
    }

    fn is_unused(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.load(Ordering::Relaxed) == 0)
    }
}

/// The smallest bucket that holds so much.
fn bucket(nanos: u64) -> usize {
    let doubled = u64::BITS - (nanos.saturating_sub(1) / FIRST).leading_zeros();
    (doubled as usize).min(BOUNDED as usize)
}

/// Histograms of a few kinds, by position.
#[derive(Debug, Clone)]
pub(super) struct HistogramVec {
    kinds: Arc<[(&'static str, AtomicHistogram)]>,
}

impl HistogramVec {
    pub(super) fn new(kinds: impl IntoIterator<Item = &'static str>) -> Self {
        Self { kinds: kinds.into_iter().map(|kind| (kind, AtomicHistogram::default())).collect() }
    }

    pub(super) fn observe(&self, kind: usize, took: Duration) {
        if let Some((_, histogram)) = self.kinds.get(kind) {
            histogram.observe(took);
        }
    }
}

impl EncodeMetric for HistogramVec {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (kind, histogram) in self.kinds.iter().filter(|(_, histogram)| !histogram.is_unused()) {
            histogram.encode(&mut encoder.encode_family(&KindLabel { kind: LabelValue(kind) })?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Values of the label `route`.
pub(super) const ROUTES: [&str; 5] = ["image", "presentation", "plain", "manifests", "none"];

/// Position of a route in `ROUTES`; an unknown one counts as `none`.
pub(super) fn route_position(route: &str) -> usize {
    ROUTES.iter().position(|known| *known == route).unwrap_or(ROUTES.len() - 1)
}

/// Classes of statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const OUTCOMES: usize = Outcome::ALL.len();

/// Requests by route, outcome and class of the status.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestCounts(Arc<[[[AtomicU64; CLASSES.len()]; OUTCOMES]; ROUTES.len()]>);

impl RequestCounts {
    pub(super) fn count(&self, route: &'static str, outcome: Outcome, status: u16) {
        let route = route_position(route);
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.0[route][outcome as usize][class].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests so far, in the order of [`Outcome::ALL`].
    pub(super) fn by_outcome(&self) -> [u64; OUTCOMES] {
        let of = |outcome: usize| {
            self.0.iter().flat_map(|route| &route[outcome]).map(|count| count.load(Ordering::Relaxed)).sum()
        };
        std::array::from_fn(of)
    }
}

impl EncodeMetric for RequestCounts {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (route, of_route) in ROUTES.iter().zip(&*self.0) {
            for (outcome, of_outcome) in Outcome::ALL.into_iter().zip(of_route) {
                for (status, count) in CLASSES.iter().zip(of_outcome) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let labels =
                            RequestLabels { route: LabelValue(route), outcome, status: LabelValue(status) };
                        encode_counter(&mut encoder, &labels, count)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

fn encode_counter(encoder: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, count: u64) -> fmt::Result {
    encoder.encode_family(labels)?.encode_counter::<[(&str, &str); 0], u64, u64>(&count, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_smallest_bucket_that_holds_it() {
        let bounds: Vec<f64> = bounds().collect();
        for nanos in [0, 1, 499_999, 500_000, 500_001, 1_000_000, 1_000_001, 65_536_000_000, 65_536_000_001] {
            let seconds = Duration::from_nanos(nanos).as_secs_f64();
            let expected = bounds.iter().position(|bound| seconds <= *bound).unwrap_or(bounds.len());
            assert_eq!(bucket(nanos), expected, "{nanos}");
        }
        assert_eq!(bucket(u64::MAX), bounds.len());
    }
}
