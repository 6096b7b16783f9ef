//! Variant: the canvas is built beside the stored one. The rung that can do no harm.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::ladder::{StepResult, Turn, VisitResult};
use crate::heal::ward::{IndexedImage, Ward};
use crate::upstream::guard::Allowed;

impl Ward {
    /// May a rung be used that asks for the stored canvas itself? Not where it can be built beside, or where that is
    /// not known yet.
    pub(in crate::heal) fn may_overwrite(&self, service: &CanvasService, canvas: &Allowed) -> bool {
        canvas.variant.is_none()
            || !self.settings.heal.ladder.contains(&Rung::Variant)
            || service.variants.known(Instant::now()) == Some(false)
    }

    /// The stored canvas that this request may have built over.
    pub(in crate::heal) fn touched<'a>(
        &self,
        service: &CanvasService,
        errand: &'a CanvasRequest,
    ) -> Option<&'a Allowed> {
        let canvas = errand.canvas.as_ref()?;
        (errand.flight.rung != Rung::Variant || self.may_overwrite(service, canvas)).then_some(canvas)
    }

    /// Variant: the canvas is built beside the stored one, which stays as it is; the key is written all the same.
    pub(in crate::heal) async fn variant(
        self: &Arc<Self>,
        turn: &mut Turn,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> StepResult {
        let Some(errand) = CanvasRequest::variant(&turn.canvas) else { return StepResult::Skipped };
        // One that began before that was known is a plain visit of this canvas: it is joined.
        if self.honours_variants(&turn.service).await == Some(false)
            && self.canvases.find(&errand.flight).is_none()
        {
            return StepResult::Skipped;
        }
        let step = self.step(&turn.service, errand, patient, urgency).await;
        // It was a plain visit there. (Another node may have had the request, and seen that.)
        if self.honours_variants(&turn.service).await == Some(false) {
            turn.visited = if let StepResult::NoHelp(answer) = step {
                VisitResult::Got(answer)
            } else {
                VisitResult::InVain
            };
        }
        // A service that builds a canvas writes the key first, unless there is no file to write it for.
        if step == StepResult::NoHelp(CanvasResponse::Lacks)
            && !self.may_overwrite(&turn.service, &turn.canvas)
        {
            return StepResult::Gone;
        }
        step
    }
}
