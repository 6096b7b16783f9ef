//! Gauges, and names of canvas services and rungs.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::broken_images::BrokenImages;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::circuit_breaker::BreakerState;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::status::CanvasServiceStatus;
use crate::observe::Metrics;

/// Updates the gauges that are sampled.
pub(in crate::heal) fn update_gauges(
    services: &[Arc<CanvasService>],
    broken: &BrokenImages,
    metrics: &Metrics,
) {
    let now = Instant::now();
    let (known, unknown) = broken.counts();
    metrics.broken_images.set(i64::try_from(known).unwrap_or(i64::MAX));
    metrics.unknown_images.set(i64::try_from(unknown).unwrap_or(i64::MAX));
    let open = services.iter().filter(|it| it.breaker.state(now) != BreakerState::Closed).count();
    metrics.breakers_open.set(i64::try_from(open).unwrap_or(i64::MAX));
    metrics.upstream.forget_services();
    let mut at_the_door = 0;
    for status in services.iter().map(|service| service.status(now)) {
        at_the_door += status.waiting_viewers;
        metrics.upstream.variants(&status.upstream, &CanvasServiceStatus::VARIANTS, status.variants);
    }
    metrics.upstream.document_waiting.set(i64::try_from(at_the_door).unwrap_or(i64::MAX));
    let mut waiting = [0; Priority::ALL.len()];
    for (at, service) in services.iter().enumerate() {
        // Two services may share their lanes.
        if services[..at].iter().all(|other| !Arc::ptr_eq(&other.lanes, &service.lanes)) {
            for (sum, here) in waiting.iter_mut().zip(service.lanes.waiting()) {
                *sum += here;
            }
        }
    }
    for (lane, count) in Priority::ALL.into_iter().zip(waiting) {
        metrics.lane_waiting(lane.as_str(), count);
    }
}

impl Rung {
    /// Name in headers, labels, logs and the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Register => "register",
            Self::Variant => "variant",
            Self::Visit => "visit",
            Self::Rebuild => "rebuild",
        }
    }
}
