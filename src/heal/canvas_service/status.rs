//! Status of one canvas service: whether it answers, builds beside what it stores, and has viewers waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::circuit_breaker::{BreakerState, BreakerStatus};
use crate::heal::canvas_service::failure_log::FailureReason;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::{CanvasService, variants};
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::image::IndexedImage;
use crate::observe::{EventKind, LiveEvent};

/// `CanvasServiceStatus` is the status of one canvas service.
#[derive(Debug, Clone)]
pub struct CanvasServiceStatus {
    /// Host and port as configured.
    pub upstream: String,
    /// State of `variant`: whether the service builds a canvas beside the stored one. `honoured`, `ignored` (tried anew
    /// after ten minutes) or `unknown`.
    pub variants: &'static str,
    /// Breaker.
    pub breaker: BreakerStatus,
    /// Last failure of any request, in words, since the last one that the service answered well.
    pub last_error: Option<String>,
    /// Viewers who wait for their turn there (`heal.max_waiting`).
    pub waiting_viewers: usize,
}

impl CanvasServiceStatus {
    /// Values of `variants`.
    pub const VARIANTS: [&str; 3] = ["honoured", "ignored", "unknown"];
}

impl CanvasService {
    /// Records the result of a canvas request: for the breaker, and for the health of the service.
    pub(super) fn record(&self, answer: CanvasResponse) {
        match answer {
            CanvasResponse::Built => {
                self.record_success();
                self.fault_tracker.record_success();
            }
            CanvasResponse::Lacks => {
                self.record_success();
                self.fault_tracker.record_fault();
                self.fault_tracker.builds();
            }
            // The service answers, only not for this canvas, which has its own cool-down: five dead links in a row must not
            // keep every other image from being healed. A cached answer proves nothing about the health now.
            CanvasResponse::Carries | CanvasResponse::Unclear | CanvasResponse::Refused => {
                self.record_success();
            }
            CanvasResponse::Withheld | CanvasResponse::Needless => {}
            CanvasResponse::Busy | CanvasResponse::Unwell => {
                if self.breaker.record_failure(Instant::now()) {
                    self.metrics.event(EventKind::BreakerOpened);
                    if let Some(cluster) = &self.cluster {
                        cluster.open_breaker(&self.authority, self.open_for);
                    }
                    self.emit_breaker_event(true);
                    tracing::warn!(
                        upstream = %self.authority,
                        "the canvas service only fails: leaving it alone for a while ([heal] breaker_open)"
                    );
                }
            }
        }
    }

    /// Notes whether the service builds beside.
    pub(in crate::heal) fn heard_of_variants(&self, honoured: bool) {
        if self.variants.record(honoured, Instant::now()) {
            if honoured {
                self.metrics.event(EventKind::VariantsHonoured);
            } else {
                self.metrics.event(EventKind::VariantsIgnored);
            }
            tracing::info!(upstream = %self.authority, honoured, "whether the canvas service builds beside (disallow)");
        }
    }

    /// Status of the service at `now`.
    pub(in crate::heal) fn status(&self, now: Instant) -> CanvasServiceStatus {
        let variants = match self.variants.known(now) {
            Some(true) => "honoured",
            Some(false) => "ignored",
            None => "unknown",
        };
        CanvasServiceStatus {
            upstream: self.authority.clone(),
            variants,
            breaker: self.breaker.status(now),
            last_error: self.failures.latest(),
            waiting_viewers: self.viewers.waiting_viewers(),
        }
    }

    /// Notes that one request for this image ended.
    pub(in crate::heal) fn request_ended(
        &self,
        request: &CanvasRequestKey,
        answer: CanvasResponse,
        image: &IndexedImage,
        took: Duration,
    ) {
        let (rung, answer) = (request.rung.as_str(), answer.as_str());
        self.metrics.canvas_request(rung, answer, took, &image.trace);
        self.metrics.publish(|| LiveEvent::HealStep {
            request: image.trace.to_string(),
            identifier: image.key.to_string(),
            rung,
            answer,
            reason: self.failure(request).map(|failure| failure.text),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// Reason why the last request like this one failed; `None` where it went well, or was never sent.
    pub(in crate::heal) fn failure(&self, request: &CanvasRequestKey) -> Option<FailureReason> {
        let last = targets(request).find_map(|target| self.failures.last(&target))?;
        Some(FailureReason { text: format!("{} ({})", last.text, self.authority), ..last })
    }

    /// Time of the last request like this one, if it failed.
    pub(in crate::heal) fn failed_at(&self, request: &CanvasRequestKey) -> Option<Instant> {
        targets(request).filter_map(|target| self.failures.failed_at(&target)).max()
    }

    pub(in crate::heal) fn breaker_is_closed(&self) -> bool {
        self.breaker.state(Instant::now()) == BreakerState::Closed
    }

    /// Notes a healthy answer of the service, or other proof that it is well.
    pub(in crate::heal) fn record_success(&self) {
        if self.breaker.record_success() {
            *self.recovered.lock() = Some(Instant::now());
            self.emit_breaker_event(false);
        }
    }

    pub(in crate::heal) fn emit_breaker_event(&self, open: bool) {
        self.metrics.publish(|| LiveEvent::Breaker { upstream: self.authority.clone(), open });
    }

    /// Time at which the service was seen to be well again after its breaker was open: failures from before do not count
    /// any more.
    pub(in crate::heal) fn recovered(&self) -> Option<Instant> {
        *self.recovered.lock()
    }

    /// Closes the breaker by hand.
    pub(in crate::heal) fn close_breaker(&self) {
        self.record_success();
        if let Some(cluster) = &self.cluster {
            cluster.close_breaker(&self.authority);
        }
    }
}

/// Targets of this request; of a variant the one that is built anew comes first.
fn targets(request: &CanvasRequestKey) -> impl Iterator<Item = Arc<str>> {
    let anew = (request.rung == Rung::Variant).then(|| variants::built_anew(&request.target).into());
    anew.into_iter().chain([Arc::clone(&request.target)])
}
