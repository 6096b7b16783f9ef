//! Up the ladder, for one identifier, once for all who wait.

use std::sync::Arc;
use tokio::time::Instant;

use super::fleet::Wanted;
use super::flight::Seat;
use super::looks::Looks;
use super::memory::RungOf;
use super::register::register_path;
use super::service::{CanvasAnswer, CanvasService, Made};
use super::truth::Said;
use super::urgency::Urgency;
use super::ward::{Patient, Ward};
use crate::cluster::Flight;
use crate::config::settings::Rung;
use crate::iiif::IdentifierKind;
use crate::observe::{Event, Gauged, Span};
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

/// How one step on a rung ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The image is back.
    Back,
    /// The service says that it is alive without our doing.
    Alive,
    /// Built anew by a service that is well, and still without the image: its file is gone.
    Gone,
    /// It did not help.
    NoHelp(CanvasAnswer),
    /// It was not tried: cooling down, or the breaker is open.
    Cooling,
    /// It was not tried: it is not for this image, or not safe now.
    Skipped,
}

/// What the visit of a canvas brought, on this climb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visited {
    /// Visit comes later on the ladder, or not at all.
    Never,
    /// Nothing: it cools down, or the breaker is open.
    InVain,
    /// This, and the image is not back.
    Got(CanvasAnswer),
}

/// Canvases of one image that are tried at most.
const CANVASES: usize = 3;

impl Ward {
    /// The whole climb, counted and logged.
    pub(super) async fn climb(self: Arc<Self>, patient: Patient, urgency: Arc<Urgency>) -> Verdict {
        let started = Instant::now();
        let _counted = Gauged::one(&self.metrics.flights);
        self.metrics.tell(|| Event::HealStarted {
            request: patient.trace.to_string(),
            identifier: patient.key.to_string(),
            lane: urgency.lane().as_str(),
        });
        let verdict = self.ladder(&patient, &urgency).await;
        let took = started.elapsed();
        let rung = if let Verdict::Healed(rung) = verdict { rung.as_str() } else { "none" };
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

    async fn ladder(self: &Arc<Self>, patient: &Patient, urgency: &Arc<Urgency>) -> Verdict {
        // UPSTREAM: base64 identifiers need no Redis, so their 404 is always a missing file.
        if matches!(patient.kind, IdentifierKind::FileUrl { .. }) {
            return self.is_gone(patient);
        }
        if self.is_missing_elsewhere(patient).await {
            return Verdict::Missing;
        }
        if matches!(self.ask(patient).await, Said::Alive(_)) {
            return Verdict::Alive;
        }
        self.note_expired(patient);
        let canvases = self.canvases_of(patient);
        let (mut tried, mut cooling) = (false, false);
        let mut visited = vec![Visited::Never; canvases.len()];
        for &rung in &self.settings.heal.ladder {
            // Registering needs no canvas: it works where all canvases of an image are somebody else's, too.
            let turns = if rung == Rung::Register { 1 } else { canvases.len() };
            for turn in 0..turns {
                let step = match (rung, canvases.get(turn)) {
                    (Rung::Register, _) => self.register(patient, urgency).await,
                    (Rung::Visit, Some((service, canvas))) => {
                        visited[turn] = Visited::InVain;
                        self.step(service, Errand::visit(canvas), patient, urgency).await
                    }
                    (Rung::Rebuild, Some((service, canvas))) => {
                        self.rebuild(service, canvas, patient, urgency, visited[turn]).await
                    }
                    // Direct was tried before the climb, for the viewer.
                    (Rung::Direct | Rung::Visit | Rung::Rebuild, _) => Step::Skipped,
                };
                match step {
                    Step::Back => return Verdict::Healed(rung),
                    Step::Alive => return Verdict::Alive,
                    Step::Gone => return self.is_gone(patient),
                    Step::NoHelp(answer) => {
                        tried = true;
                        if let (Rung::Visit, Some(visited)) = (rung, visited.get_mut(turn)) {
                            *visited = Visited::Got(answer);
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
        self.file_is_missing(patient);
        Verdict::Missing
    }

    /// The canvases that may be asked for, each once.
    fn canvases_of(&self, patient: &Patient) -> Vec<(Arc<CanvasService>, Allowed)> {
        let mut canvases: Vec<(Arc<CanvasService>, Allowed)> = Vec::new();
        for owner in &*patient.owners {
            let Some(allowed) = self.guard.allow(&owner.canvas) else {
                tracing::debug!(request = %patient.trace, canvas = %owner.canvas, "not asked for: no presentation route");
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
        let Some((service, errand)) = self.registration(patient) else { return Step::Skipped };
        self.step(&service, errand, patient, urgency).await
    }

    /// `None`: it is not known where its file is, or not by a name that can be registered.
    pub(super) fn registration(&self, patient: &Patient) -> Option<(Arc<CanvasService>, Errand)> {
        let IdentifierKind::Uuid { uuid, .. } = patient.kind else { return None };
        let path = register_path(&self.file_url(uuid)?)?;
        let service = self.services_of(patient).into_iter().next()?;
        let flight = RungOf { service: service.mark, target: path.into(), rung: Rung::Register };
        Some((service, Errand { flight, canvas: None }))
    }

    /// One shared request on one rung. Looks early: the image is good again before the request ends.
    pub(super) async fn step(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        errand: Errand,
        patient: &Patient,
        urgency: &Arc<Urgency>,
    ) -> Step {
        let flight = &errand.flight;
        let boarded = Instant::now();
        if self.memory.cooling(flight, boarded).is_some() {
            return Step::Cooling;
        }
        let mut seat = self.fly(service, flight, patient, urgency, Wanted::OrLanded);
        let leader = Arc::clone(&seat.urgency);
        let answer = tokio::select! {
            // Landed first: when both are ready, the answer says more than the look.
            biased;
            answer = seat.landed() => answer,
            () = self.looks(patient, &leader) => {
                self.memory.succeeded(flight, boarded, Instant::now());
                self.watch(service, errand, seat, patient);
                return Step::Back;
            }
        };
        self.judge(service, errand, answer, patient, boarded).await
    }

    /// A seat on the one request to this canvas on this rung, made as urgent as we are.
    pub(super) fn fly(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        flight: &RungOf,
        patient: &Patient,
        urgency: &Arc<Urgency>,
        wanted: Wanted,
    ) -> Seat<CanvasAnswer> {
        let seat = self.canvases.board(flight, urgency.lane(), |own| {
            let (ward, service, flight) = (Arc::clone(self), Arc::clone(service), flight.clone());
            let patient = patient.clone();
            async move { ward.take_off(&service, &flight, &patient, &own, wanted).await }
        });
        urgency.wait_on(&seat.urgency);
        seat
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
        boarded: Instant,
    ) -> Step {
        let Some(answer) = answer else { return Step::Skipped };
        if answer == CanvasAnswer::Withheld {
            return Step::Cooling;
        }
        let is_back = self.is_back(patient).await || self.was_misled(service, answer, patient).await;
        if is_back {
            self.memory.succeeded(&errand.flight, boarded, Instant::now());
        } else {
            self.rung_failed(service, &errand.flight, boarded);
        }
        // The key was written and the nested request failed: poisoned. (Where it is not back, the file may be gone;
        // the rung of rebuilding finds that out.)
        match answer {
            CanvasAnswer::Lacks if is_back => self.cure(service, errand, patient),
            CanvasAnswer::Carries => self.mends.lacking.note([&*patient.key], false),
            _ => {}
        }
        if is_back { Step::Back } else { Step::NoHelp(answer) }
    }

    /// A canvas came back whole, yet `/resources` says "expired": is it the service that says so? Asked of the image
    /// itself, because a gateway whose 404 reads like the service's would keep every heal from being seen.
    async fn was_misled(&self, service: &CanvasService, answer: CanvasAnswer, patient: &Patient) -> bool {
        let whole = matches!(answer, CanvasAnswer::Carries | CanvasAnswer::Unclear);
        if !whole || !service.truth.is_open(Instant::now()) || !self.shows(patient).await {
            return false;
        }
        if self.ask(patient).await == Said::Expired {
            service.truth.distrust(Instant::now());
            self.metrics.event("resources_distrusted");
        }
        true
    }

    /// One canvas request, in its lane, past the breaker.
    pub(super) async fn request(
        &self,
        service: &CanvasService,
        flight: &RungOf,
        patient: &Patient,
        urgency: &Urgency,
        own: &Flight,
    ) -> CanvasAnswer {
        let started = Instant::now();
        let mut span = Span::step(&patient.trace, flight.rung.as_str());
        let patient = &patient.within(&span);
        let Some(_place) = service.place(urgency).await else { return CanvasAnswer::Withheld };
        urgency.departs();
        own.departs();
        if service.rests_from(urgency) {
            return CanvasAnswer::Withheld;
        }
        let answer = match (service.breaker.pass(Instant::now()), flight.rung) {
            (Err(_), _) => CanvasAnswer::Withheld,
            (Ok(()), Rung::Register) => service.register(&flight.target, &patient.trace).await,
            (Ok(()), Rung::Rebuild) => service.canvas(&flight.target, patient, Made::Now).await,
            (Ok(()), _) => service.canvas(&flight.target, patient, Made::NowOrLongAgo).await,
        };
        self.step_ended(flight, answer, patient, started.elapsed());
        span.text("iiif_mender.answer", answer.as_str());
        answer
    }

    /// Is the image back? The cheapest truthful look: the service's word where it gives one, else a small tile.
    pub(super) async fn is_back(&self, patient: &Patient) -> bool {
        match self.ask(patient).await {
            Said::Alive(_) => true,
            Said::Expired => false,
            Said::Nothing => self.shows(patient).await,
        }
    }

    /// Does the image server show it?
    pub(super) async fn shows(&self, patient: &Patient) -> bool {
        let tile = self.look_at(patient, SMALL_TILE).await;
        tile.is_ok_and(|status| !self.is_expiry(status) && !status.is_server_error())
    }
}

/// A small tile: an image request that a live identifier answers quickly whatever its size.
pub(super) const SMALL_TILE: &str = "full/16,/0/default.jpg";

/// One request to a canvas service, and the canvas it is about.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    pub(super) flight: RungOf,
    /// `None` for a registration, which leaves the canvas alone.
    pub(super) canvas: Option<Allowed>,
}

impl Errand {
    pub(super) fn visit(canvas: &Allowed) -> Self {
        let flight = RungOf { service: canvas.mark, target: canvas.visit.as_str().into(), rung: Rung::Visit };
        Self { flight, canvas: Some(canvas.clone()) }
    }

    pub(super) fn rebuild(canvas: &Allowed) -> Self {
        let flight =
            RungOf { service: canvas.mark, target: canvas.rebuild.as_str().into(), rung: Rung::Rebuild };
        Self { flight, canvas: Some(canvas.clone()) }
    }

    /// The canvas built anew beside the good one, which stays as it is. The key is written all the same.
    ///
    /// UPSTREAM: what is stored belongs to path, `allow` and `disallow` together; a `disallow` that fits no file
    /// leaves nothing out of the canvas, and has a place of its own in the cache. A service that knows no
    /// `disallow` does what it does for any rebuild.
    pub(super) fn aside(canvas: &Allowed) -> Self {
        let target = format!("{}&disallow=x-iiif-mender/none", canvas.rebuild);
        Self {
            flight: RungOf { service: canvas.mark, target: target.into(), rung: Rung::Rebuild },
            canvas: None,
        }
    }
}
