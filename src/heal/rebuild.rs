//! Rebuild: the rung that can do harm, and what must be known before it is used.
//!
//! UPSTREAM: `update=true` always builds anew and always writes. During a fault it overwrites a good canvas with a
//! poisoned one, and if the file is gone it turns a good canvas into an empty one (upstream.md "Ways back to life").

use std::sync::Arc;
use tokio::time::Instant;

use http::StatusCode;

use super::climb::{Errand, Step, Visited};
use super::service::{CanvasAnswer, CanvasService};
use super::truth::Said;
use super::urgency::Urgency;
use super::ward::{Patient, Ward};
use crate::upstream::guard::Allowed;

/// info.json past the image server's own memory.
const INFO_TRUTH: &str = "info.json?cache=nocache";

/// info.json just as the canvas service will ask for it.
const INFO: &str = "info.json";

/// How the service's nested info.json would be answered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
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
    pub(super) async fn rebuild(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &Allowed,
        patient: &Patient,
        urgency: &Arc<Urgency>,
        visited: Visited,
    ) -> Step {
        let visited = match visited {
            Visited::Got(answer) => Some(answer),
            Visited::Never => None,
            Visited::InVain => return Step::Skipped,
        };
        match visited {
            None | Some(CanvasAnswer::Carries | CanvasAnswer::Unclear | CanvasAnswer::Lacks) => {}
            // Whoever cannot build it cannot build it anew.
            Some(_) => return Step::Skipped,
        }
        let said = self.ask(patient).await;
        if matches!(said, Said::Alive(_)) {
            return Step::Alive;
        }
        let health = if service.wellness.is_well() || visited == Some(CanvasAnswer::Lacks) {
            self.health(service, patient).await
        } else {
            Health::Unwell
        };
        if health == Health::Unwell {
            self.metrics.event("rebuild_withheld");
            if visited == Some(CanvasAnswer::Lacks) {
                self.cure(service, Errand::visit(canvas), patient);
            }
            return Step::Skipped;
        }
        let nothing_to_lose = visited == Some(CanvasAnswer::Lacks);
        let is_safe = health == Health::Well && said == Said::Expired;
        let errand = if nothing_to_lose || is_safe { Errand::rebuild(canvas) } else { Errand::aside(canvas) };
        let step = self.step(service, errand, patient, urgency).await;
        if step == Step::Back {
            self.visit_was_not_in_vain(service, canvas);
        }
        // Whoever builds a canvas writes the key first, unless there is no file to write it for.
        if step != Step::NoHelp(CanvasAnswer::Lacks) {
            // UPSTREAM: a poisoned duplicate may stand behind the good one. Only plain GETs show it.
            if visited == Some(CanvasAnswer::Lacks) && step == Step::Back {
                self.cure(service, Errand::visit(canvas), patient);
            }
            return step;
        }
        if self.health(service, patient).await == Health::Unwell {
            self.cure(service, Errand::visit(canvas), patient);
            return step;
        }
        Step::Gone
    }

    /// A rebuild helped, and it comes after a visit only: where visits cool down, the next expiry would be healed by
    /// neither. (An image that is lost again and again is left alone for its rebuilds.)
    fn visit_was_not_in_vain(&self, service: &CanvasService, canvas: &Allowed) {
        let visit = Errand::visit(canvas).flight;
        if self.memory.cooling(&visit, Instant::now()).is_some() {
            self.may_try_again(service, &visit);
        }
    }

    /// Would the nested info.json be answered well? A rebuild during a fault poisons.
    pub(super) async fn health(&self, service: &CanvasService, patient: &Patient) -> Health {
        if !service.breaker_is_closed() {
            return Health::Unwell;
        }
        // UPSTREAM: only `cache=nocache` makes the image server tell the truth about info.json. For the patient
        // itself 404 is what we expect; anything worse is a fault that the nested request would meet too.
        match self.look_at(patient, INFO_TRUTH).await {
            Ok(status) if status.is_success() => Health::Well,
            Ok(status) if self.is_expiry(status) => self.health_by_others(patient).await,
            Ok(_) | Err(_) => Health::Unwell,
        }
    }

    /// The patient's own info.json is 404, as it is when all info.json are. Is it only his?
    async fn health_by_others(&self, patient: &Patient) -> Health {
        // The image server may have it in its memory: then the nested request, word for word, is well.
        if self.look_at(patient, INFO).await.is_ok_and(|status| status.is_success()) {
            return Health::Well;
        }
        let Some(witness) = self.witness().filter(|witness| witness.key != patient.key) else {
            return Health::Unproven;
        };
        match self.look_at(&witness, INFO_TRUTH).await {
            Ok(status) if status.is_success() => Health::Well,
            // An identifier that is alive must have an info.json; if it has none, info.json is what is broken.
            Ok(_) if matches!(self.ask(&witness).await, Said::Alive(_)) => Health::Unwell,
            Ok(_) => Health::Unproven,
            Err(_) => Health::Unwell,
        }
    }

    /// The nested info.json of an image that is alive would be answered well.
    pub(super) async fn nested_is_well(&self, patient: &Patient) -> bool {
        self.look_at(patient, INFO_TRUTH).await.is_ok_and(|status: StatusCode| status.is_success())
    }
}
