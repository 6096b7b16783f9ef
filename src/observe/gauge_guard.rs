//! Gauges that cannot leak.

use prometheus_client::metrics::gauge::Gauge;

/// Adds one to a gauge for as long as it lives. A future that is dropped in the middle cannot leak it.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Counts one more.
    pub fn inc(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
