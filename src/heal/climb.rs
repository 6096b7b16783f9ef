//! Up the ladder, for one identifier, once for all who wait.

use std::sync::Arc;
use std::time::Instant;

use super::looks::Looks;
use super::memory::RungOf;
use super::service::{CanvasAnswer, CanvasService};
use super::truth::Said;
use super::urgency::Urgency;
use super::ward::{Patient, Ward};
use crate::config::settings::Rung;
use crate::iiif::IdentifierKind;
use crate::observe::Gauged;
use crate::upstream::guard::Allowed;

/// How a climb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The image is back, by this rung.
    Healed(Rung),
    /// The canvas service knows where the file is, without our doing.
    Alive,
    /// The file is gone.
    Missing,
    /// Every rung is cooling down, or the breaker is open.
    Cooling,
    /// Nothing helped.
    Failed,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Healed(_) => "healed",
            Self::Alive => "alive",
            Self::Missing => "missing",
            Self::Cooling => "cooling",
            Self::Failed => "failed",
        }
    }
}

/// How one step on a rung ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The image is back.
    Back,
    /// The service says that it is alive without our doing.
    Alive,
    /// It did not help.
    NoHelp(CanvasAnswer),
    /// It was not tried: cooling down, or the breaker is open.
    Cooling,
    /// It was not tried: it is not for this image, or not safe now.
    Skipped,
}

/// Canvases of one image that are tried at most.
const CANVASES: usize = 3;

impl Ward {
    /// The whole climb, counted and logged.
    pub(super) async fn climb(self: Arc<Self>, patient: Patient, urgency: Arc<Urgency>) -> Verdict {
        let started = Instant::now();
        let _counted = Gauged::one(&self.metrics.flights);
        let verdict = self.ladder(&patient, &urgency).await;
        let took = started.elapsed();
        let rung = if let Verdict::Healed(rung) = verdict { rung.as_str() } else { "none" };
        self.metrics.heal(verdict.as_str(), rung, urgency.lane().as_str(), took);
        tracing::info!(
            identifier = %patient.key,
            verdict = verdict.as_str(),
            heal.rung = rung,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "heal ended"
        );
        verdict
    }

    async fn ladder(self: &Arc<Self>, patient: &Patient, urgency: &Arc<Urgency>) -> Verdict {
        // UPSTREAM: base64 identifiers need no Redis, so their 404 is always a missing file.
        if matches!(patient.kind, IdentifierKind::FileUrl { .. }) {
            return self.is_gone(patient);
        }
        if matches!(self.ask(patient).await, Said::Alive(_)) {
            return Verdict::Alive;
        }
        self.note_expired(patient);
        let canvases = self.canvases_of(patient);
        let (mut tried, mut cooling) = (false, false);
        let mut visited = [None; CANVASES];
        for &rung in &self.settings.heal.ladder {
            for (position, (service, allowed)) in canvases.iter().enumerate() {
                let step = match rung {
                    // Direct was tried before the climb, for the viewer; one registration is for all canvases.
                    Rung::Register if position == 0 => self.register(patient, urgency).await,
                    Rung::Direct | Rung::Register => Step::Skipped,
                    Rung::Visit => self.visit(service, allowed, patient, urgency).await,
                    Rung::Rebuild => {
                        self.rebuild(service, allowed, patient, urgency, visited[position]).await
                    }
                };
                match step {
                    Step::Back => return Verdict::Healed(rung),
                    Step::Alive => return Verdict::Alive,
                    Step::NoHelp(answer) => {
                        tried = true;
                        if rung == Rung::Visit {
                            visited[position] = Some(answer);
                        }
                    }
                    Step::Cooling => cooling = true,
                    Step::Skipped => {}
                }
            }
        }
        if cooling && !tried { Verdict::Cooling } else { Verdict::Failed }
    }

    fn is_gone(&self, patient: &Patient) -> Verdict {
        self.memory.file_is_missing(patient.route, &patient.key, Instant::now());
        Verdict::Missing
    }

    /// The canvases that may be asked for, each once.
    fn canvases_of(&self, patient: &Patient) -> Vec<(Arc<CanvasService>, Allowed)> {
        let mut canvases: Vec<(Arc<CanvasService>, Allowed)> = Vec::new();
        for owner in &*patient.owners {
            let Some(allowed) = self.guard.allow(&owner.canvas) else {
                tracing::debug!(canvas = %owner.canvas, "not asked for: it belongs to no presentation route");
                continue;
            };
            let Some(service) = self.service(allowed.route) else { continue };
            if canvases.len() < CANVASES && !canvases.iter().any(|(_, other)| *other == allowed) {
                canvases.push((Arc::clone(service), allowed));
            }
        }
        canvases
    }

    /// Register: the service learns anew where the file is, without building anything.
    async fn register(self: &Arc<Self>, patient: &Patient, urgency: &Arc<Urgency>) -> Step {
        let IdentifierKind::Uuid { uuid, .. } = patient.kind else { return Step::Skipped };
        let path = self.file_url(uuid).as_deref().and_then(register_path);
        let (Some(path), Some(service)) = (path, self.services_of(patient).into_iter().next()) else {
            return Step::Skipped;
        };
        let flight = RungOf { service: service.route, target: path.into(), rung: Rung::Register };
        self.step(&service, Errand { flight, canvas: None }, patient, urgency).await
    }

    /// Visit: the seed's way. It helps unless the canvas JSON survived in the cache.
    async fn visit(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &Allowed,
        patient: &Patient,
        urgency: &Arc<Urgency>,
    ) -> Step {
        self.step(service, Errand::visit(canvas), patient, urgency).await
    }

    /// Rebuild: only when a visit did not help, the service is well, and it does not say that the image is alive.
    /// (Alive and 404 is a missing file: a rebuild would ruin a good canvas.)
    async fn rebuild(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &Allowed,
        patient: &Patient,
        urgency: &Arc<Urgency>,
        visited: Option<CanvasAnswer>,
    ) -> Step {
        match visited {
            Some(CanvasAnswer::Carries | CanvasAnswer::Unclear) => {}
            // Without its image it is poisoned, or its file is gone: the cure finds out, nobody waits for it.
            _ => return Step::Skipped,
        }
        if matches!(self.ask(patient).await, Said::Alive(_)) {
            return Step::Alive;
        }
        if !self.is_well(service, patient).await {
            self.metrics.event("rebuild_withheld");
            return Step::Skipped;
        }
        self.step(service, Errand::rebuild(canvas), patient, urgency).await
    }

    /// One shared request on one rung. Looks early: the image is good again before the request ends.
    async fn step(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        errand: Errand,
        patient: &Patient,
        urgency: &Arc<Urgency>,
    ) -> Step {
        let flight = &errand.flight;
        if self.memory.cooling(flight, Instant::now()).is_some() {
            return Step::Cooling;
        }
        let mut seat = self.canvases.board(flight, urgency.lane(), |own| {
            let (ward, service, flight) = (Arc::clone(self), Arc::clone(service), flight.clone());
            let image = Arc::clone(&patient.key);
            async move { ward.request(&service, &flight, &image, &own).await }
        });
        urgency.wait_on(&seat.urgency);
        let leader = Arc::clone(&seat.urgency);
        let answer = tokio::select! {
            // Landed first: when both are ready, the answer says more than the look.
            biased;
            answer = seat.landed() => answer,
            () = self.looks(patient, &leader) => {
                self.memory.succeeded(flight, Instant::now());
                self.watch(service, errand, seat, patient);
                return Step::Back;
            }
        };
        self.judge(service, errand, answer, patient).await
    }

    /// Looks again and again, once the request is on its way, until the image is back.
    async fn looks(&self, patient: &Patient, leader: &Urgency) {
        leader.departed().await;
        for pause in Looks::default() {
            tokio::time::sleep(pause).await;
            if self.is_back(patient).await {
                return;
            }
        }
    }

    async fn judge(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        errand: Errand,
        answer: Option<CanvasAnswer>,
        patient: &Patient,
    ) -> Step {
        let Some(answer) = answer else { return Step::Skipped };
        if answer == CanvasAnswer::Withheld {
            return Step::Cooling;
        }
        let is_back = self.is_back(patient).await;
        if is_back {
            self.memory.succeeded(&errand.flight, Instant::now());
        } else {
            self.memory.failed(&errand.flight, Instant::now());
        }
        if answer == CanvasAnswer::Lacks {
            self.cure(service, errand, patient);
        }
        if is_back { Step::Back } else { Step::NoHelp(answer) }
    }

    /// One canvas request, in its lane, past the breaker.
    pub(super) async fn request(
        &self,
        service: &CanvasService,
        flight: &RungOf,
        image: &str,
        urgency: &Urgency,
    ) -> CanvasAnswer {
        let _place = urgency.place(&service.lanes).await;
        if service.rests_from(urgency) {
            return CanvasAnswer::Withheld;
        }
        let answer = match (service.breaker.pass(Instant::now()), flight.rung) {
            (Err(_), _) => CanvasAnswer::Withheld,
            (Ok(()), Rung::Register) => service.register(&flight.target).await,
            (Ok(()), _) => service.canvas(&flight.target, image).await,
        };
        self.metrics.canvas_request(flight.rung.as_str(), answer.as_str());
        answer
    }

    /// Is the image back? The cheapest truthful look: the service's word where it gives one, else a small tile.
    async fn is_back(&self, patient: &Patient) -> bool {
        match self.ask(patient).await {
            Said::Alive(_) => true,
            Said::Expired => false,
            Said::Nothing => match self.look_at(patient, SMALL_TILE).await {
                Ok(status) => !self.is_expiry(status) && !status.is_server_error(),
                Err(_) => false,
            },
        }
    }

    /// May a canvas be rebuilt now? A rebuild during a fault overwrites a good canvas with a poisoned one.
    pub(super) async fn is_well(&self, service: &CanvasService, patient: &Patient) -> bool {
        if !service.wellness.is_well() || !service.breaker_is_closed() {
            return false;
        }
        // UPSTREAM: only `cache=nocache` makes the image server tell the truth about info.json. For the patient
        // itself 404 is what we expect; anything worse is a fault that the nested request would meet too.
        let own = self.look_at(patient, INFO_TRUTH).await;
        let is_fault = |status: http::StatusCode| !status.is_success() && !self.is_expiry(status);
        let well = match own {
            Err(_) => false,
            Ok(status) if is_fault(status) => false,
            Ok(status) if status.is_success() => true,
            Ok(_) => self.witness_is_well(patient).await,
        };
        if !well {
            service.wellness.fault();
        }
        well
    }

    /// An identifier that is alive must have an info.json; if it has none, info.json is what is broken.
    async fn witness_is_well(&self, patient: &Patient) -> bool {
        let Some(witness) = self.witness().filter(|witness| witness.key != patient.key) else { return true };
        match self.look_at(&witness, INFO_TRUTH).await {
            Ok(status) if status.is_success() => true,
            Ok(_) => !matches!(self.ask(&witness).await, Said::Alive(_)),
            Err(_) => false,
        }
    }
}

/// A small tile: an image request that a live identifier answers quickly whatever its size.
pub(super) const SMALL_TILE: &str = "full/16,/0/default.jpg";

/// info.json past the image server's own memory.
pub(super) const INFO_TRUTH: &str = "info.json?cache=nocache";

/// One request to a canvas service, and the canvas it is about.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    pub(super) flight: RungOf,
    /// `None` for a registration, which leaves the canvas alone.
    pub(super) canvas: Option<Allowed>,
}

impl Errand {
    pub(super) fn visit(canvas: &Allowed) -> Self {
        let flight =
            RungOf { service: canvas.route, target: canvas.visit.as_str().into(), rung: Rung::Visit };
        Self { flight, canvas: Some(canvas.clone()) }
    }

    pub(super) fn rebuild(canvas: &Allowed) -> Self {
        let flight =
            RungOf { service: canvas.route, target: canvas.rebuild.as_str().into(), rung: Rung::Rebuild };
        Self { flight, canvas: Some(canvas.clone()) }
    }
}

/// `…/fcrepo/rest/{path}/files/{name}` is registered by `fedora/image/{path}/files/{name}`.
fn register_path(file_url: &str) -> Option<String> {
    let (_, path) = file_url.split_once("/fcrepo/rest/")?;
    path.contains("/files/").then(|| format!("fedora/image/{path}"))
}
