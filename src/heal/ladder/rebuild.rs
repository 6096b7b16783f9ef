//! Rebuild: the rung that can do harm, and its preconditions.
//!
//! UPSTREAM: `update=true` always builds anew and always writes. During a fault it overwrites a good canvas with a
//! poisoned one, and if the file is gone it turns a good canvas into an empty one (upstream.md "Ways back to life").

use std::time::Duration;

use http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::evidence::{Evidence, Probe, asks_for_login};
use crate::heal::image::IndexedImage;
use crate::heal::ladder::{CanvasAttempt, HealRun, Ladder, StepResult, VisitResult};
use crate::observe::EventKind;

/// info.json past the image server's own memory.
const INFO_TRUTH: &str = "info.json?cache=nocache";

/// info.json exactly as the canvas service will request it.
const INFO: &str = "info.json";

/// Duration of a check after which a probe tells whether the rebuild is still needed.
const LONG_CHECK: Duration = Duration::from_millis(50);

/// `ServiceHealth` is the expected answer to the service's nested info.json now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum ServiceHealth {
    /// Well: the info.json of an image was.
    Well,
    /// Unproven: no fault was seen, but no info.json that was well either.
    Unproven,
    /// Unwell: the request failed, or the breaker is open.
    Unwell,
}

impl Ladder {
    /// Rebuild: only when a visit did not help, the service is well, and does not report the image alive. (Alive and 404 is
    /// a missing file: a rebuild would ruin a good canvas.)
    pub(super) async fn rebuild(&self, attempt: &CanvasAttempt, run: &mut HealRun<'_>) -> StepResult {
        let (service, canvas) = (&attempt.service, &attempt.canvas);
        let lacks = match attempt.visited {
            VisitResult::Got(CanvasResponse::Lacks) => true,
            VisitResult::Never
            | VisitResult::Got(CanvasResponse::Built | CanvasResponse::Carries | CanvasResponse::Unclear) => {
                false
            }
            // A service that cannot build the canvas cannot build it anew.
            VisitResult::InVain | VisitResult::Got(_) => return StepResult::Skipped,
        };
        let alone = match self.may_rebuild(attempt, run, lacks).await {
            Ok(alone) => alone,
            Err(step) => return step,
        };
        let cannot_build_beside = service.variants.known(Instant::now()) == Some(false);
        // Built beside wherever that may be possible: if the file is gone, the canvas built anew would be empty.
        let request = if cannot_build_beside || canvas.variant.is_none() {
            CanvasRequest::rebuild(canvas)
        } else {
            CanvasRequest::rebuild_variant(canvas)
        };
        let step = self.try_rung(service, request, run).await;
        drop(alone);
        // A rebuild comes only after a visit: with the visit cooling down, the next expiry would be healed by neither. (An
        // image that is lost again and again keeps its rebuilds' cool-down.)
        if step == StepResult::Back {
            self.services.clear_cooldown(service, &CanvasRequest::visit(canvas).flight);
        }
        // A service that builds a canvas writes the key first, unless there is no file to write it for.
        if step != StepResult::NoHelp(CanvasResponse::Lacks) {
            return step;
        }
        if self.health(service, run.image).await == ServiceHealth::Unwell {
            run.repair(service, CanvasRequest::visit(canvas));
            return step;
        }
        StepResult::Gone
    }

    /// Checks whether a rebuild is safe now. `lacks`: the stored canvas is without its image, so there is nothing to lose.
    /// Returns the permit for the only rebuild, where nothing shows that the service is well. `Err`: not safe.
    async fn may_rebuild(
        &self,
        attempt: &CanvasAttempt,
        run: &mut HealRun<'_>,
        lacks: bool,
    ) -> Result<Option<OwnedSemaphorePermit>, StepResult> {
        let (service, image) = (&attempt.service, run.image);
        let (began, mut alone, mut has_waited) = (Instant::now(), None, false);
        loop {
            if matches!(self.canvases.registration(image).await, Registration::Alive(_)) {
                return Err(StepResult::Alive);
            }
            let health = if service.fault_tracker.is_well_soon().await || lacks {
                self.health(service, image).await
            } else {
                ServiceHealth::Unwell
            };
            if health == ServiceHealth::Unwell {
                self.metrics.event(EventKind::RebuildWithheld);
                if lacks {
                    run.repair(service, CanvasRequest::visit(&attempt.canvas));
                }
                return Err(StepResult::Skipped);
            }
            // The stored canvas could become worse: one rebuild finds out whether the service is well, the others wait for
            // the result.
            let is_a_trial = health != ServiceHealth::Well
                && !lacks
                && service.variants.known(Instant::now()) == Some(false);
            if is_a_trial && alone.is_none() {
                alone = service.try_alone();
                if alone.is_none() {
                    (alone, has_waited) = (service.alone().await, true);
                    continue;
                }
            }
            // During the wait another page of the same file may have been rebuilt.
            if (has_waited || began.elapsed() > LONG_CHECK) && self.evidence(image).await == Evidence::Alive {
                return Err(StepResult::Alive);
            }
            return Ok(alone.filter(|_| is_a_trial));
        }
    }

    /// Checks whether the nested info.json would be answered well. A rebuild during a fault poisons.
    pub(in crate::heal) async fn health(
        &self,
        service: &CanvasService,
        image: &IndexedImage,
    ) -> ServiceHealth {
        if !service.breaker_is_closed() {
            return ServiceHealth::Unwell;
        }
        // UPSTREAM: only `cache=nocache` makes the image server tell the truth about info.json. For the image itself 404 is
        // expected; anything worse is a fault that the nested request would meet too.
        match self.look_at(image, INFO_TRUTH).await {
            Ok(status) if status.is_success() => ServiceHealth::Well,
            Ok(status) if self.is_expiry(status) => self.health_by_known_alive(image).await,
            // The image server asks for a login before the look-up: that is no fault, and the service has a way of its own.
            Ok(status) if asks_for_login(status) => ServiceHealth::Unproven,
            Ok(_) | Err(_) => ServiceHealth::Unwell,
        }
    }

    /// Checks another image's info.json: this image's own is 404, as it also is when every info.json fails.
    async fn health_by_known_alive(&self, image: &IndexedImage) -> ServiceHealth {
        // The image server may have the info.json in its memory: then the nested request, word for word, is well.
        if self.look_at(image, INFO).await.is_ok_and(|status| status.is_success()) {
            return ServiceHealth::Well;
        }
        let Some(witness) = self.services.known_alive().filter(|witness| witness.key != image.key) else {
            return ServiceHealth::Unproven;
        };
        match self.look_at(&witness, INFO_TRUTH).await {
            Ok(status) if status.is_success() => ServiceHealth::Well,
            // An identifier that is alive must have an info.json; if it has none, info.json is broken. Except where its own
            // file is gone: then its tiles are 404, too.
            Ok(_) if matches!(self.canvases.registration(&witness).await, Registration::Alive(_)) => {
                let tile = self.look_at(&witness, Probe::SmallTile.tail()).await;
                if tile.is_ok_and(|status| self.is_expiry(status)) {
                    ServiceHealth::Unproven
                } else {
                    ServiceHealth::Unwell
                }
            }
            Ok(_) => ServiceHealth::Unproven,
            Err(_) => ServiceHealth::Unwell,
        }
    }

    /// True if the nested info.json of an image that is alive would be answered well.
    pub(in crate::heal) async fn nested_request_works(&self, image: &IndexedImage) -> bool {
        self.look_at(image, INFO_TRUTH).await.is_ok_and(|status: StatusCode| status.is_success())
    }
}
