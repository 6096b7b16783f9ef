//! Degraded parts: out of order, while traffic is still served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::labels::LabelValue;

/// The label `part`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabel {
    part: LabelValue,
}

/// All parts that may be.
const PARTS: [&str; 5] = ["admin", "admin_token", "index", "telemetry", "upstream_tls"];

/// The parts that are out of order, and why. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Degraded {
    parts: Arc<Mutex<BTreeMap<&'static str, DegradedReason>>>,
    gauge: Family<PartLabel, Gauge>,
}

/// Reason why a part is degraded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DegradedReason {
    /// Unix seconds.
    pub since: u64,
    /// Description of the fault.
    pub why: String,
}

impl Degraded {
    pub(super) fn register(&self, registry: &mut Registry) {
        for part in PARTS {
            self.gauge.get_or_create(&PartLabel { part: LabelValue(part) }).set(0);
        }
        registry.register(
            "degraded",
            "1 while this part is out of order and traffic is served without it",
            self.gauge.clone(),
        );
    }

    /// Marks a part as degraded. The log has one line, and another one when the reason changes.
    pub fn begins(&self, part: &'static str, why: &str) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut parts = self.parts.lock();
        let fault = parts.entry(part).or_insert_with(|| DegradedReason { since, why: String::new() });
        if fault.why != why {
            why.clone_into(&mut fault.why);
            tracing::error!(part, "degraded: {why}");
        }
        drop(parts);
        self.gauge.get_or_create(&PartLabel { part: LabelValue(part) }).set(1);
    }

    /// Marks a part as in order.
    pub fn ends(&self, part: &'static str) {
        if self.parts.lock().remove(part).is_some() {
            tracing::info!(part, "in order again");
            self.gauge.get_or_create(&PartLabel { part: LabelValue(part) }).set(0);
        }
    }

    /// True if a part is degraded.
    pub fn is(&self, part: &str) -> bool {
        self.parts.lock().contains_key(part)
    }

    /// All parts that are out of order.
    pub fn parts(&self) -> BTreeMap<&'static str, DegradedReason> {
        self.parts.lock().clone()
    }
}
