//! Health of the canvas service, checked before a rebuild, because a rebuild during a fault ruins a good canvas.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A fault is forgotten after this time without another fault.
const FAULT_LASTS: Duration = Duration::from_secs(2);

/// Time in which a sign of a fault may still be refuted, and interval of that check.
const DOUBT_LASTS: Duration = Duration::from_secs(3);
const DOUBT_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// `FaultTracker` holds the last signs of health and of faults of one canvas service.
#[derive(Debug, Default)]
pub(in crate::heal) struct FaultTracker {
    last_fault: Mutex<Option<Instant>>,
    /// Time of the last whole build.
    last_good: Mutex<Option<Instant>>,
    /// Time of the last build, whole or not.
    last_build: Mutex<Option<Instant>>,
    /// Notified when the service builds something whole.
    news: Notify,
}

impl FaultTracker {
    /// Notes that a canvas came back whole, or that the service's own info.json was answered well.
    pub(in crate::heal) fn record_success(&self) {
        *self.last_good.lock() = Some(Instant::now());
        *self.last_fault.lock() = None;
        self.builds();
        self.news.notify_waiters();
    }

    /// Notes that the service answered with a canvas: the repository behind it works.
    pub(in crate::heal) fn builds(&self) {
        *self.last_build.lock() = Some(Instant::now());
    }

    /// Time of the last answer with a canvas, whole or not.
    pub(in crate::heal) fn built_at(&self) -> Option<Instant> {
        *self.last_build.lock()
    }

    /// Notes that a canvas came back without its image, or that the service's own info.json failed.
    pub(in crate::heal) fn record_fault(&self) {
        *self.last_fault.lock() = Some(Instant::now());
    }

    /// Notes that the service's own info.json request came through us and was answered with `status`.
    pub(in crate::heal) fn record_callback(&self, status: http::StatusCode) {
        if status.is_success() { self.record_success() } else { self.record_fault() }
    }

    /// Waits until the service builds something whole, but no longer than this.
    pub(in crate::heal) async fn until_good(&self, longest: Duration) {
        let _ = tokio::time::timeout(longest, self.news.notified()).await;
    }

    /// Time of the last whole build.
    pub(in crate::heal) fn well_at(&self) -> Option<Instant> {
        *self.last_good.lock()
    }

    /// True if there is no recent sign of a fault, or the sign is refuted within a moment. A canvas without its image may
    /// have been stored in an older fault; a build at once tells.
    pub(in crate::heal) async fn is_well_soon(&self) -> bool {
        let refuted = async {
            while !self.is_healthy() {
                tokio::time::sleep(DOUBT_CHECK_INTERVAL).await;
            }
        };
        tokio::time::timeout(DOUBT_LASTS, refuted).await.is_ok()
    }

    /// True if there is no recent sign of a fault.
    pub(in crate::heal) fn is_healthy(&self) -> bool {
        let last = *self.last_fault.lock();
        last.is_none_or(|fault| fault.elapsed() > FAULT_LASTS)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fault_counts_until_something_whole_comes_or_for_two_seconds() {
        let tracker = FaultTracker::default();
        assert!(tracker.is_healthy());
        tracker.record_callback(StatusCode::NOT_FOUND);
        assert!(!tracker.is_healthy() && tracker.well_at().is_none());
        tracker.record_callback(StatusCode::OK);
        assert!(tracker.is_healthy() && tracker.well_at() == Some(Instant::now()));
        tracker.record_fault();
        tokio::time::advance(FAULT_LASTS).await;
        assert!(!tracker.is_healthy());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(tracker.is_healthy());
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_canvas_is_a_build_and_a_whole_one_is_one_too() {
        let tracker = FaultTracker::default();
        assert_eq!(tracker.built_at(), None);
        tracker.builds();
        let built = Instant::now();
        assert_eq!((tracker.built_at(), tracker.well_at()), (Some(built), None));
        tokio::time::advance(Duration::from_secs(1)).await;
        tracker.record_success();
        assert_eq!(tracker.built_at(), Some(Instant::now()));
    }
}
