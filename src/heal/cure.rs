//! Poison: a canvas that came back, and was cached, without its image. Cured behind the viewers' backs.
//!
//! UPSTREAM: only `update=true` on that same URL cures it, and only after the fault ended; duplicates hide behind
//! one another, so that up to three rebuilds are needed, each proven by a plain GET (upstream.md "Poison", "Load").

use std::sync::Arc;
use std::time::Duration;

use super::climb::Errand;
use super::flight::Seat;
use super::lanes::Lane;
use super::service::{CanvasAnswer, CanvasService};
use super::truth::Said;
use super::urgency::Urgency;
use super::ward::{Patient, Ward};
use crate::upstream::guard::Allowed;

/// Cures under way at most; a canvas beyond that stays poisoned until somebody asks for it again.
const CURES: usize = 1_000;

/// Rebuilds of one canvas at most.
const REBUILDS: u32 = 3;

/// How often the service is looked at before the cure gives up; with the pauses about half an hour.
const LOOKS: u32 = 40;

const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// How one try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Try {
    Cured,
    /// The file itself is gone, so an empty canvas is the truth.
    FileIsGone,
    /// A rebuild did not help.
    Rebuilt,
    /// The service is not well; nothing was sent.
    Unwell,
}

impl Ward {
    /// After an early release: the canvas request still runs, and may yet end in poison.
    pub(super) fn watch(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        errand: Errand,
        mut seat: Seat<CanvasAnswer>,
        patient: &Patient,
    ) {
        let (ward, service, patient) = (Arc::clone(self), Arc::clone(service), patient.clone());
        tokio::spawn(async move {
            if seat.landed().await == Some(CanvasAnswer::Lacks) {
                ward.cure(&service, errand, &patient);
            }
        });
    }

    /// Starts the cure of a canvas that came back without its image; one per canvas.
    pub(super) fn cure(self: &Arc<Self>, service: &Arc<CanvasService>, errand: Errand, patient: &Patient) {
        let Some(canvas) = errand.canvas else { return };
        if self.cures.len() >= CURES {
            self.metrics.event("cure_refused");
            return;
        }
        let key = Errand::rebuild(&canvas).flight;
        self.cures.board(&key, Lane::Sweep, |urgency| {
            let (ward, service, patient) = (Arc::clone(self), Arc::clone(service), patient.clone());
            async move { ward.cure_until_well(&service, &canvas, &patient, &urgency).await }
        });
    }

    async fn cure_until_well(
        &self,
        service: &CanvasService,
        canvas: &Allowed,
        patient: &Patient,
        urgency: &Urgency,
    ) {
        self.metrics.event("poisoned");
        tracing::warn!(canvas = %canvas.visit, "poisoned: it came back without its image; curing it when the service is well");
        let mut pause = FIRST_PAUSE;
        let mut rebuilds = 0;
        for _ in 0..LOOKS {
            match self.try_cure(service, canvas, patient, urgency).await {
                Try::Cured => {
                    self.metrics.event("cured");
                    tracing::info!(canvas = %canvas.visit, rebuilds, "cured");
                    return;
                }
                Try::FileIsGone => {
                    tracing::info!(canvas = %canvas.visit, "not poisoned: the file of its image is gone");
                    return;
                }
                Try::Rebuilt => {
                    rebuilds += 1;
                    if rebuilds == REBUILDS {
                        break;
                    }
                    continue;
                }
                Try::Unwell => {}
            }
            tokio::time::sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            pause = (pause * 2).min(self.settings.heal.backoff_max);
        }
        self.metrics.event("cure_failed");
        tracing::warn!(canvas = %canvas.visit, rebuilds, "still poisoned; giving up until it is seen again");
    }

    async fn try_cure(
        &self,
        service: &CanvasService,
        canvas: &Allowed,
        patient: &Patient,
        urgency: &Urgency,
    ) -> Try {
        if !self.is_curable(patient).await {
            return Try::FileIsGone;
        }
        if !service.breaker_is_closed() || !self.nested_is_well(patient).await {
            return Try::Unwell;
        }
        // A plain GET first: somebody else may have cured it, and a good canvas is never rebuilt.
        if self.plain(service, canvas, patient, urgency).await == CanvasAnswer::Carries {
            return Try::Cured;
        }
        let rebuild = Errand::rebuild(canvas).flight;
        self.request(service, &rebuild, &patient.key, urgency).await;
        match self.plain(service, canvas, patient, urgency).await {
            CanvasAnswer::Carries => Try::Cured,
            CanvasAnswer::Lacks | CanvasAnswer::Unclear => Try::Rebuilt,
            _ => Try::Unwell,
        }
    }

    async fn plain(
        &self,
        service: &CanvasService,
        canvas: &Allowed,
        patient: &Patient,
        urgency: &Urgency,
    ) -> CanvasAnswer {
        self.request(service, &Errand::visit(canvas).flight, &patient.key, urgency).await
    }

    /// False: the service knows where the file is and the image server says that nothing is there.
    async fn is_curable(&self, patient: &Patient) -> bool {
        if !matches!(self.ask(patient).await, Said::Alive(_)) {
            return true;
        }
        let tile = self.look_at(patient, super::climb::SMALL_TILE).await;
        !tile.is_ok_and(|status| self.is_expiry(status))
    }

    /// The nested info.json that the service will ask for would be answered well.
    async fn nested_is_well(&self, patient: &Patient) -> bool {
        let info = self.look_at(patient, super::climb::INFO_TRUTH).await;
        info.is_ok_and(|status| status.is_success())
    }
}
