//! Rebuild: the rung that can do harm, and what must be known before it is used.
//!
//! UPSTREAM: `update=true` always builds anew and always writes. During a fault it overwrites a good canvas with a
//! poisoned one, and if the file is gone it turns a good canvas into an empty one (upstream.md "Ways back to life").

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use http::StatusCode;

use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::registration::Said;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::ladder::{StepResult, VisitResult};
use crate::heal::ward::{IndexedImage, Ward};
use crate::upstream::guard::Allowed;

/// info.json past the image server's own memory.
const INFO_TRUTH: &str = "info.json?cache=nocache";

/// info.json just as the canvas service will ask for it.
const INFO: &str = "info.json";

/// Who looked for longer whether a rebuild is safe looks once more whether it is needed.
const A_WHILE: Duration = Duration::from_millis(50);

/// How the service's nested info.json would be answered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum ServiceHealth {
    /// Well: somebody's info.json was.
    Well,
    /// No fault was seen, but no info.json that was well either.
    Unproven,
    /// Not well.
    Unwell,
}

impl Ward {
    /// Rebuild: only when a visit did not help, the service is well, and it does not say that the image is alive.
    /// (Alive and 404 is a missing file: a rebuild would ruin a good canvas.)
    pub(in crate::heal) async fn rebuild(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &Allowed,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
        visited: VisitResult,
    ) -> StepResult {
        let visited = match visited {
            VisitResult::Got(answer) => Some(answer),
            VisitResult::Never => None,
            VisitResult::InVain => return StepResult::Skipped,
        };
        match visited {
            None
            | Some(
                CanvasResponse::Built
                | CanvasResponse::Carries
                | CanvasResponse::Unclear
                | CanvasResponse::Lacks,
            ) => {}
            // Whoever cannot build it cannot build it anew.
            Some(_) => return StepResult::Skipped,
        }
        let lacks = visited == Some(CanvasResponse::Lacks);
        let alone = match self.may_rebuild(service, canvas, patient, lacks).await {
            Ok(alone) => alone,
            Err(step) => return step,
        };
        let cannot_build_beside = service.variants.known(Instant::now()) == Some(false);
        // Beside it, wherever that may be possible: of a file that is gone a canvas built anew would be empty.
        let errand = if cannot_build_beside || canvas.variant.is_none() {
            CanvasRequest::rebuild(canvas)
        } else {
            CanvasRequest::aside(canvas)
        };
        let step = self.step(service, errand, patient, urgency).await;
        drop(alone);
        if step == StepResult::Back {
            self.visit_was_not_in_vain(service, canvas);
        }
        // Whoever builds a canvas writes the key first, unless there is no file to write it for.
        if step != StepResult::NoHelp(CanvasResponse::Lacks) {
            // UPSTREAM: a poisoned duplicate may stand behind the good one. Only plain GETs show it.
            if lacks && step == StepResult::Back {
                self.cure(service, &CanvasRequest::visit(canvas), patient);
            }
            return step;
        }
        if self.health(service, patient).await == ServiceHealth::Unwell {
            self.cure(service, &CanvasRequest::visit(canvas), patient);
            return step;
        }
        StepResult::Gone
    }

    /// Is a rebuild safe now? `lacks`: the stored canvas is without its image, so there is nothing to lose. With the right to
    /// be the only one, where nothing shows that the service is well. `Err`: it is not safe.
    async fn may_rebuild(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &Allowed,
        patient: &IndexedImage,
        lacks: bool,
    ) -> Result<Option<OwnedSemaphorePermit>, StepResult> {
        let (began, mut alone) = (Instant::now(), None);
        loop {
            if matches!(self.ask(patient).await, Said::Alive(_)) {
                return Err(StepResult::Alive);
            }
            let health = if service.wellness.is_well_soon().await || lacks {
                self.health(service, patient).await
            } else {
                ServiceHealth::Unwell
            };
            if health == ServiceHealth::Unwell {
                self.metrics.event("rebuild_withheld");
                if lacks {
                    self.cure(service, &CanvasRequest::visit(canvas), patient);
                }
                return Err(StepResult::Skipped);
            }
            // What is stored could become worse: one finds out whether the service is well, the others wait for that.
            let is_a_trial = health != ServiceHealth::Well
                && !lacks
                && service.variants.known(Instant::now()) == Some(false);
            if is_a_trial && alone.is_none() {
                alone = service.try_alone();
                if alone.is_none() {
                    alone = service.alone().await;
                    continue;
                }
            }
            // While this one waited, another page of the same file may have been rebuilt.
            if began.elapsed() > A_WHILE && self.is_back(patient).await {
                return Err(StepResult::Alive);
            }
            return Ok(alone.filter(|_| is_a_trial));
        }
    }

    /// A rebuild helped, and it comes after a visit only: where visits cool down, the next expiry would be healed by
    /// neither. (An image that is lost again and again is left alone for its rebuilds.)
    fn visit_was_not_in_vain(&self, service: &CanvasService, canvas: &Allowed) {
        let visit = CanvasRequest::visit(canvas).flight;
        if self.memory.cooling(&visit, service.recovered(), Instant::now()).is_some() {
            self.may_try_again(service, &visit);
        }
    }

    /// Would the nested info.json be answered well? A rebuild during a fault poisons.
    pub(in crate::heal) async fn health(
        &self,
        service: &CanvasService,
        patient: &IndexedImage,
    ) -> ServiceHealth {
        if !service.breaker_is_closed() {
            return ServiceHealth::Unwell;
        }
        // UPSTREAM: only `cache=nocache` makes the image server tell the truth about info.json. For the patient
        // itself 404 is what we expect; anything worse is a fault that the nested request would meet too.
        match self.look_at_info(patient, INFO_TRUTH).await {
            Ok(status) if status.is_success() => ServiceHealth::Well,
            Ok(status) if self.is_expiry(status) => self.health_by_others(patient).await,
            // It asks for a login before it looks: that is no fault, and the service has a way of its own.
            Ok(status) if matches!(status.as_u16(), 401 | 407) => ServiceHealth::Unproven,
            Ok(_) | Err(_) => ServiceHealth::Unwell,
        }
    }

    /// The patient's own info.json is 404, as it is when all info.json are. Is it only his?
    async fn health_by_others(&self, patient: &IndexedImage) -> ServiceHealth {
        // The image server may have it in its memory: then the nested request, word for word, is well.
        if self.look_at_info(patient, INFO).await.is_ok_and(|status| status.is_success()) {
            return ServiceHealth::Well;
        }
        let Some(witness) = self.witness().filter(|witness| witness.key != patient.key) else {
            return ServiceHealth::Unproven;
        };
        match self.look_at_info(&witness, INFO_TRUTH).await {
            Ok(status) if status.is_success() => ServiceHealth::Well,
            // An identifier that is alive must have an info.json; if it has none, info.json is what is broken.
            // Unless its own file is gone: then its tiles are 404, too.
            Ok(_) if matches!(self.ask(&witness).await, Said::Alive(_)) => {
                if self.shows_nothing(&witness).await {
                    ServiceHealth::Unproven
                } else {
                    ServiceHealth::Unwell
                }
            }
            Ok(_) => ServiceHealth::Unproven,
            Err(_) => ServiceHealth::Unwell,
        }
    }

    /// The nested info.json of an image that is alive would be answered well.
    pub(in crate::heal) async fn nested_is_well(&self, patient: &IndexedImage) -> bool {
        self.look_at_info(patient, INFO_TRUTH).await.is_ok_and(|status: StatusCode| status.is_success())
    }
}
