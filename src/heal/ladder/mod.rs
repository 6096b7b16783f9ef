//! Up the ladder, for one identifier, once for all who wait.

pub(in crate::heal) mod direct;
pub(in crate::heal) mod direct_support;
pub(in crate::heal) mod outcome;
mod probe_backoff;
pub(in crate::heal) mod rebuild;
mod step;
mod variant;

use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::register_path::register_path;
use crate::heal::canvas_service::registration::Said;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;
pub(in crate::heal) use crate::heal::ladder::outcome::HealOutcome;
use crate::heal::missing_files::Proof;
use crate::heal::ward::{IndexedImage, Ward};
use crate::iiif::IdentifierKind;
use crate::observe::{Event, Gauged};
use crate::upstream::guard::Allowed;

/// How one step on a rung ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum StepResult {
    /// The image is back.
    Back,
    /// The service says that it is alive without our doing.
    Alive,
    /// Built anew by a service that is well, and still without the image: its file is gone.
    Gone,
    /// It did not help.
    NoHelp(CanvasResponse),
    /// It was not tried: cooling down, or the breaker is open.
    Cooling,
    /// It was not tried: it is not for this image, or not safe now.
    Skipped,
}

/// What the visit of a canvas brought, on this climb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum VisitResult {
    /// Visit comes later on the ladder, or not at all.
    Never,
    /// Nothing: it cools down, or the breaker is open.
    InVain,
    /// This, and the image is not back.
    Got(CanvasResponse),
}

/// One canvas that may own the image, on this climb.
pub(in crate::heal) struct Turn {
    service: Arc<CanvasService>,
    canvas: Allowed,
    visited: VisitResult,
    /// It was seen on this climb that the stored canvas itself may be asked for. That is forgotten now and then, but not
    /// in the middle of a climb.
    overwrites: bool,
}

/// What a visit brought in vain is remembered for so long: a stored canvas does not change by being asked for.
pub(in crate::heal) const VISITED_FOR: Duration = Duration::from_secs(30);

/// Canvases of one image that are asked for at most; those that are refused do not count.
const CANVASES: usize = 3;

impl Ward {
    /// The whole climb, counted and logged.
    pub(in crate::heal) async fn climb(
        self: Arc<Self>,
        patient: IndexedImage,
        urgency: Arc<FlightPriority>,
    ) -> HealOutcome {
        let started = Instant::now();
        let _counted = Gauged::one(&self.metrics.flights);
        self.metrics.tell(|| Event::HealStarted {
            request: patient.trace.to_string(),
            identifier: patient.key.to_string(),
            lane: urgency.lane().as_str(),
        });
        let verdict = self.ladder(&patient, &urgency).await;
        let took = started.elapsed();
        let rung = if let HealOutcome::Healed(rung) = verdict { rung.as_str() } else { "none" };
        self.metrics.heal(verdict.as_str(), rung, urgency.lane().as_str(), took, &patient.trace);
        self.metrics.tell(|| Event::HealEnded {
            request: patient.trace.to_string(),
            identifier: patient.key.to_string(),
            lane: urgency.lane().as_str(),
            verdict: verdict.as_str(),
            rung,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            waiting: urgency.viewers(),
        });
        self.record(&patient, verdict, urgency.lane(), took, urgency.viewers());
        tracing::info!(
            request = %patient.trace,
            identifier = %patient.key,
            verdict = verdict.as_str(),
            heal.rung = rung,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "heal ended"
        );
        verdict
    }

    async fn ladder(self: &Arc<Self>, patient: &IndexedImage, urgency: &Arc<FlightPriority>) -> HealOutcome {
        // UPSTREAM: base64 identifiers need no Redis, so their 404 is always a missing file.
        if matches!(patient.kind, IdentifierKind::FileUrl { .. }) {
            self.file_is_missing(patient, Proof::Shown);
            return HealOutcome::Missing;
        }
        if self.is_missing_elsewhere(patient).await {
            return HealOutcome::Missing;
        }
        if matches!(self.ask_lately(patient).await, Said::Alive(_)) {
            return HealOutcome::Alive;
        }
        let mut turns = self.turns(patient);
        let (mut tried, mut cooling, mut gone) = (false, false, None);
        for &rung in &self.settings.heal.ladder {
            // Registering needs no canvas: it works where all canvases of an image are somebody else's, too.
            let most = if rung == Rung::Register { 1 } else { turns.len() };
            let mut asked = 0;
            for turn in 0..most {
                let step = match (rung, turns.get_mut(turn)) {
                    (Rung::Register, _) => self.register(patient, urgency).await,
                    (_, Some(turn)) => self.canvas_step(rung, turn, patient, urgency).await,
                    (_, None) => StepResult::Skipped,
                };
                if matches!(step, StepResult::Gone | StepResult::NoHelp(_))
                    && step != StepResult::NoHelp(CanvasResponse::Refused)
                {
                    urgency.sees();
                }
                match step {
                    StepResult::Back => return HealOutcome::Healed(rung),
                    StepResult::Alive => return HealOutcome::Alive,
                    // Another canvas may own it; but nothing more is built over what is stored.
                    StepResult::Gone if rung == Rung::Variant => {
                        (gone, asked) = (gone.or(Some(urgency.answered_at())), asked + 1);
                    }
                    StepResult::Gone => {
                        return self.gone_or_in_trouble(patient, urgency.answered_at()).await;
                    }
                    StepResult::NoHelp(CanvasResponse::Refused) => tried = true,
                    StepResult::NoHelp(_) => (tried, asked) = (true, asked + 1),
                    StepResult::Cooling => cooling = true,
                    StepResult::Skipped => {}
                }
                if asked == CANVASES {
                    break;
                }
            }
        }
        if let Some(seen) = gone {
            return self.gone_or_in_trouble(patient, seen).await;
        }
        if cooling && !tried { HealOutcome::Cooling } else { HealOutcome::Failed }
    }

    /// A canvas came without the image, and no key was written: its file is gone, or the file store is in trouble. Where
    /// it is known which file that is, one look at it tells. Where it is not, a trouble may have passed since that canvas
    /// was `seen` (other canvases were asked for meanwhile): what is remembered is as old as the canvas.
    pub(in crate::heal) async fn gone_or_in_trouble(
        &self,
        patient: &IndexedImage,
        seen: Instant,
    ) -> HealOutcome {
        let was_doubted = self.is_settled(patient);
        match self.look_at_file(patient).await {
            Some(true) => self.file_is_missing(patient, Proof::Shown),
            // The service knows it, the image server does not find it, and a canvas came without it.
            None if was_doubted => self.file_was_missing(patient, Proof::Shown, seen),
            None => {
                self.file_was_missing(patient, Proof::Likely { well_at: self.well_at(patient) }, seen);
            }
            Some(false) => return HealOutcome::Failed,
        }
        HealOutcome::Missing
    }

    /// A stored canvas was believed, and the viewer's own request shows that it healed nothing. Asking for it again would
    /// change nothing.
    pub(in crate::heal) fn visits_were_in_vain(&self, patient: &IndexedImage) {
        for turn in self.turns(patient) {
            if self.may_overwrite(&turn.service, &turn.canvas) {
                let visit = CanvasRequest::visit(&turn.canvas).flight;
                self.memory.cool(&visit, VISITED_FOR, Instant::now());
                self.visited.insert(visit, CanvasResponse::Carries, VISITED_FOR);
            }
        }
    }

    /// Its file is there: that a canvas came without it speaks against none of them any more.
    pub(in crate::heal) fn canvases_may_help(&self, patient: &IndexedImage) {
        for turn in self.turns(patient) {
            if let Some(variant) = CanvasRequest::variant(&turn.canvas) {
                self.may_try_again(&turn.service, &variant.flight);
            }
        }
    }

    /// The canvases that may be asked for, each once, newest first.
    fn turns(&self, patient: &IndexedImage) -> Vec<Turn> {
        let mut turns: Vec<Turn> = Vec::new();
        for owner in &*patient.owners {
            let Some(canvas) = self.guard.allow(&owner.canvas) else {
                tracing::debug!(request = %patient.trace, canvas = %owner.canvas, "not asked for: no presentation route");
                continue;
            };
            let Some(service) = self.service(canvas.route) else { continue };
            if !turns.iter().any(|other| other.canvas == canvas) {
                turns.push(Turn {
                    service: Arc::clone(service),
                    canvas,
                    visited: VisitResult::Never,
                    overwrites: false,
                });
            }
        }
        turns
    }

    async fn canvas_step(
        self: &Arc<Self>,
        rung: Rung,
        turn: &mut Turn,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> StepResult {
        // What may overwrite is only for services that cannot build beside.
        turn.overwrites |= self.may_overwrite(&turn.service, &turn.canvas);
        let may_overwrite = turn.overwrites;
        match rung {
            Rung::Variant => self.variant(turn, patient, urgency).await,
            Rung::Visit if may_overwrite && turn.visited == VisitResult::Never => {
                let visit = CanvasRequest::visit(&turn.canvas);
                let key = visit.flight.clone();
                let step = self.step(&turn.service, visit, patient, urgency).await;
                turn.visited = match step {
                    StepResult::NoHelp(answer) => {
                        self.visited.insert(key, answer, VISITED_FOR);
                        VisitResult::Got(answer)
                    }
                    // What it brought a moment ago still holds.
                    StepResult::Cooling => {
                        self.visited.get(&key).map_or(VisitResult::InVain, VisitResult::Got)
                    }
                    _ => VisitResult::InVain,
                };
                step
            }
            Rung::Rebuild if may_overwrite => {
                self.rebuild(&turn.service, &turn.canvas, patient, urgency, turn.visited).await
            }
            // Direct was tried before the climb, for the viewer.
            Rung::Direct | Rung::Register | Rung::Visit | Rung::Rebuild => StepResult::Skipped,
        }
    }

    /// Register: the service learns anew where the file is, without building anything.
    async fn register(self: &Arc<Self>, patient: &IndexedImage, urgency: &Arc<FlightPriority>) -> StepResult {
        let Some((service, errand)) = self.registration(patient) else { return StepResult::Skipped };
        self.step(&service, errand, patient, urgency).await
    }

    /// `None`: it is not known where its file is, or not by a name that can be registered.
    pub(in crate::heal) fn registration(
        &self,
        patient: &IndexedImage,
    ) -> Option<(Arc<CanvasService>, CanvasRequest)> {
        let IdentifierKind::Uuid { uuid, .. } = patient.kind else { return None };
        let path = register_path(&self.file_url(uuid)?)?;
        let service = self.services_of(patient).into_iter().next()?;
        let flight = CanvasRequestKey { service: service.mark, target: path.into(), rung: Rung::Register };
        Some((service, CanvasRequest { flight, canvas: None }))
    }
}
