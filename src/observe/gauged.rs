//! Gauges that cannot leak.

use prometheus_client::metrics::gauge::Gauge;

/// Adds one to a gauge for as long as it lives. A future that is dropped in the middle cannot leak it.
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
