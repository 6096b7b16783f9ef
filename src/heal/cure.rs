//! Poison: a canvas that came back, and was cached, without its image. Cured behind the viewers' backs.
//!
//! UPSTREAM: only `update=true` on that same URL cures it, and only after the fault ended; duplicates hide behind
//! one another, so that up to three rebuilds are needed, each proven by a plain GET (upstream.md "Poison", "Load").

use std::sync::Arc;
use std::time::Duration;

use super::climb::Errand;
use super::fleet::{DONE, Wanted};
use super::flight::Seat;
use super::lanes::Lane;
use super::rebuild::Health;
use super::service::{CanvasAnswer, CanvasService};
use super::truth::Said;
use super::urgency::Urgency;
use super::ward::{Patient, Ward};
use crate::config::settings::Rung;
use crate::upstream::guard::Allowed;

/// Cures under way at most; a canvas beyond that stays poisoned until somebody asks for it again.
const CURES: usize = 1_000;

/// Rebuilds of one canvas at most that brought it back whole and yet did not last: duplicates hide.
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
    /// A rebuild brought it back whole, and the next plain GET did not.
    Rebuilt,
    /// The service is not well.
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
        self.home.spawn(async move {
            if seat.landed().await == Some(CanvasAnswer::Lacks) {
                ward.cure(&service, errand, &patient);
            }
        });
    }

    /// Starts the cure of a canvas that came back without its image; one per canvas.
    pub(super) fn cure(self: &Arc<Self>, service: &Arc<CanvasService>, errand: Errand, patient: &Patient) {
        let Some(canvas) = errand.canvas else { return };
        self.mends.lacking.note([&*patient.key], true);
        // Who took the rung away wants no rebuild, not even behind the viewers' backs.
        if !self.settings.heal.ladder.contains(&Rung::Rebuild) {
            return;
        }
        if self.cures.len() >= CURES {
            self.metrics.event("cure_refused");
            return;
        }
        let key = Errand::rebuild(&canvas).flight;
        self.cures.board(&key, Lane::Sweep, |urgency| {
            let (ward, service, patient) = (Arc::clone(self), Arc::clone(service), patient.clone());
            async move {
                let name = format!("cure {}", service.name_of(&Errand::rebuild(&canvas).flight));
                // Whichever node cures it, cures it for all.
                if let Ok(own) = ward.ours(&name).await {
                    ward.cure_until_well(&service, &canvas, &patient, &urgency).await;
                    own.lands(DONE);
                }
            }
        });
    }

    async fn cure_until_well(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &Allowed,
        patient: &Patient,
        urgency: &Arc<Urgency>,
    ) {
        self.metrics.event("poisoned");
        tracing::warn!(request = %patient.trace, canvas = %canvas.visit, "poisoned: it came back without its image; curing it when the service is well");
        let mut pause = FIRST_PAUSE;
        let mut rebuilds = 0;
        for _ in 0..LOOKS {
            match self.try_cure(service, canvas, patient, urgency).await {
                Try::Cured => {
                    self.mends.lacking.note([&*patient.key], false);
                    self.metrics.event("cured");
                    tracing::info!(request = %patient.trace, canvas = %canvas.visit, rebuilds, "cured");
                    return;
                }
                Try::FileIsGone => {
                    self.mends.lacking.note([&*patient.key], false);
                    tracing::info!(request = %patient.trace, canvas = %canvas.visit, "not poisoned: the file of its image is gone");
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
        tracing::warn!(request = %patient.trace, canvas = %canvas.visit, rebuilds, "still poisoned; giving up until it is seen again");
    }

    async fn try_cure(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &Allowed,
        patient: &Patient,
        urgency: &Arc<Urgency>,
    ) -> Try {
        if !service.breaker_is_closed() {
            return Try::Unwell;
        }
        let is_well = match (self.ask(patient).await, self.shows(patient).await) {
            (Said::Alive(_), false) => return self.gone_or_unwell(patient).await,
            (Said::Alive(_) | Said::Nothing, true) => self.nested_is_well(patient).await,
            // Poisoned, and expired too: its own info.json cannot be well before it is registered again.
            (Said::Expired, _) | (Said::Nothing, false) => {
                self.health(service, patient).await != Health::Unwell
            }
        };
        if !is_well {
            return Try::Unwell;
        }
        // A plain GET first: somebody else may have cured it, and a good canvas is never rebuilt.
        match self.asked(service, Errand::visit(canvas), patient, urgency).await {
            CanvasAnswer::Carries => return Try::Cured,
            CanvasAnswer::Lacks => {}
            _ => return Try::Unwell,
        }
        match self.asked(service, Errand::rebuild(canvas), patient, urgency).await {
            CanvasAnswer::Carries => {}
            // Whoever builds a canvas writes the key first, unless there is no file to write it for.
            CanvasAnswer::Lacks if !self.is_back(patient).await => return Try::FileIsGone,
            // The fault is one that we cannot see: the service's own way to the image server is broken.
            _ => return Try::Unwell,
        }
        match self.asked(service, Errand::visit(canvas), patient, urgency).await {
            CanvasAnswer::Carries => Try::Cured,
            CanvasAnswer::Lacks => Try::Rebuilt,
            _ => Try::Unwell,
        }
    }

    /// The service knows where the file is: does the image server say that nothing is there, or is it in trouble?
    async fn gone_or_unwell(&self, patient: &Patient) -> Try {
        let tile = self.look_at(patient, super::climb::SMALL_TILE).await;
        if tile.is_ok_and(|status| self.is_expiry(status)) { Try::FileIsGone } else { Try::Unwell }
    }

    /// One request, shared with whoever else wants just that.
    async fn asked(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        errand: Errand,
        patient: &Patient,
        urgency: &Arc<Urgency>,
    ) -> CanvasAnswer {
        let mut seat = self.fly(service, &errand.flight, patient, urgency, Wanted::Anew);
        seat.landed().await.unwrap_or(CanvasAnswer::Unwell)
    }
}
