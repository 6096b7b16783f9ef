//! Variant: the canvas is built beside the stored one. The rung that can do no harm.

use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::ladder::{CanvasAttempt, HealRun, Ladder, StepResult, VisitResult};

impl Ladder {
    /// Variant: the canvas is built beside the stored one, which stays as it is; the key is written nevertheless.
    pub(super) async fn variant(&self, attempt: &mut CanvasAttempt, run: &mut HealRun<'_>) -> StepResult {
        let Some(request) = CanvasRequest::variant(&attempt.canvas) else { return StepResult::Skipped };
        // A request from before that was known is a plain visit of this canvas: this heal joins it.
        if self.services.honours_variants(&attempt.service).await == Some(false)
            && self.canvases.find(&request.flight).is_none()
        {
            return StepResult::Skipped;
        }
        let step = self.try_rung(&attempt.service, request, run).await;
        // The request was a plain visit. (Another node may have sent it, and learned that.)
        if self.services.honours_variants(&attempt.service).await == Some(false) {
            attempt.visited = if let StepResult::NoHelp(answer) = step {
                VisitResult::Got(answer)
            } else {
                VisitResult::InVain
            };
        }
        // A service that builds a canvas writes the key first, unless there is no file to write it for.
        if step == StepResult::NoHelp(CanvasResponse::Lacks)
            && !attempt.service.may_overwrite(&attempt.canvas)
        {
            return StepResult::Gone;
        }
        step
    }
}
