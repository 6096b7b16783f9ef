//! Up the ladder, for one identifier, once for all who wait.

pub(in crate::heal) mod direct;
mod probe_backoff;
pub(in crate::heal) mod rebuild;
mod variant;

use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::register_path::register_path;
use crate::heal::canvas_service::registration::Said;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_request::Freshness;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::evidence::Evidence;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::ladder::probe_backoff::ProbeBackoff;
use crate::heal::missing_files::Proof;
use crate::heal::single_flight::FlightHandle;
use crate::heal::ward::{IndexedImage, Ward};
use crate::iiif::IdentifierKind;
use crate::observe::{Event, Gauged};
use crate::upstream::guard::Allowed;

/// How a climb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum HealOutcome {
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
}

/// It is soon known whether a service builds beside, once it was asked.
const SOON_KNOWN: Duration = Duration::from_millis(300);

/// How often a service that is not well is looked at by those who can wait.
const WELL_LOOK: Duration = Duration::from_millis(250);

/// And at first: whoever waits may be about to say so.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// What a visit brought in vain is remembered for so long: a stored canvas does not change by being asked for.
const VISITED_FOR: Duration = Duration::from_secs(30);

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
        let (mut tried, mut cooling, mut gone) = (false, false, false);
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
                match step {
                    StepResult::Back => return HealOutcome::Healed(rung),
                    StepResult::Alive => return HealOutcome::Alive,
                    // Another canvas may own it; but nothing more is built over what is stored.
                    StepResult::Gone if rung == Rung::Variant => (gone, asked) = (true, asked + 1),
                    StepResult::Gone => return self.gone_or_in_trouble(patient).await,
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
        if gone {
            return self.gone_or_in_trouble(patient).await;
        }
        if cooling && !tried { HealOutcome::Cooling } else { HealOutcome::Failed }
    }

    /// A canvas came without the image, and no key was written: its file is gone, or the file store is in trouble. Where
    /// it is known which file that is, one look at it tells.
    async fn gone_or_in_trouble(&self, patient: &IndexedImage) -> HealOutcome {
        let proof = match self.look_at_file(patient).await {
            Some(true) => Proof::Shown,
            None => Proof::Likely { well_at: self.well_at(patient) },
            Some(false) => return HealOutcome::Failed,
        };
        self.file_is_missing(patient, proof);
        HealOutcome::Missing
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
                turns.push(Turn { service: Arc::clone(service), canvas, visited: VisitResult::Never });
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
        let may_overwrite = self.may_overwrite(&turn.service, &turn.canvas);
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

    /// One shared request on one rung. Looks early: the image is good again before the request ends.
    ///
    /// A request that was under way may have begun before the image was found gone: it wrote the key, which was lost
    /// again, or met a fault that is over. So one that helps those who joined it in no way is asked once more.
    pub(in crate::heal) async fn step(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        errand: CanvasRequest,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> StepResult {
        if !self.waits_until_well(service, urgency).await {
            return StepResult::Cooling;
        }
        let boarded = Instant::now();
        if self.memory.cooling(&errand.flight, service.recovered(), boarded).is_some() {
            return StepResult::Cooling;
        }
        let seat = self.fly(service, &errand.flight, patient, urgency, Freshness::OrLanded);
        match self.step_on(service, errand.clone(), seat, patient).await {
            (StepResult::NoHelp(answer), false) if !answer.is_about_the_service() => {
                let seat = self.fly(service, &errand.flight, patient, urgency, Freshness::Anew);
                self.step_on(service, errand, seat, patient).await.0
            }
            (step, _) => step,
        }
    }

    /// The step with this seat. True: its request is ours.
    async fn step_on(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        errand: CanvasRequest,
        (mut seat, is_leader): (FlightHandle<CanvasResponse>, bool),
        patient: &IndexedImage,
    ) -> (StepResult, bool) {
        let (flight, boarded) = (&errand.flight, Instant::now());
        let leader = Arc::clone(&seat.urgency);
        let answer = tokio::select! {
            // Landed first: when both are ready, the answer says more than the look.
            biased;
            answer = seat.landed() => answer,
            () = self.looks(patient, &leader) => {
                self.no_longer_expired(patient);
                self.memory.succeeded(flight, boarded, Instant::now());
                self.was_healed(patient);
                self.note_expired(patient);
                self.watch(service, errand, seat, patient);
                return (StepResult::Back, is_leader);
            }
        };
        (self.judge(service, errand, answer, is_leader, patient, boarded).await, is_leader)
    }

    /// What nobody waits for is not built into a fault that was seen, where that would store it without its image. False:
    /// the fault goes on.
    async fn waits_until_well(&self, service: &CanvasService, urgency: &FlightPriority) -> bool {
        let began = Instant::now();
        let until = began + self.settings.heal.backoff_max;
        let mut pause = FIRST_LOOK;
        // A thumbnail is wanted less soon than a page, but somebody waits for it.
        while urgency.lane() != Priority::Viewer
            && urgency.viewers() == 0
            && service.variants.known(Instant::now()) != Some(true)
            && (!service.wellness.is_well()
                || began.elapsed() < SOON_KNOWN && self.is_about_to_be_known(service))
        {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(WELL_LOOK);
        }
        true
    }

    /// Nobody knows yet whether the service builds beside, and somebody finds out now.
    fn is_about_to_be_known(&self, service: &CanvasService) -> bool {
        service.variants.known(Instant::now()).is_none() && self.canvases.len() > 0
    }

    /// A seat on the one request to this canvas on this rung, made as urgent as we are. True: it is ours.
    pub(in crate::heal) fn fly(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        flight: &CanvasRequestKey,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
        wanted: Freshness,
    ) -> (FlightHandle<CanvasResponse>, bool) {
        let mut is_leader = false;
        let seat = self.canvases.board(flight, urgency.lane(), |own| {
            is_leader = true;
            let (ward, service, flight) = (Arc::clone(self), Arc::clone(service), flight.clone());
            let patient = patient.clone();
            async move { ward.take_off(&service, &flight, &patient, &own, wanted).await }
        });
        urgency.wait_on(&seat.urgency);
        (seat, is_leader)
    }

    /// Looks again and again, once the request is on its way, until the image is back.
    async fn looks(&self, patient: &IndexedImage, leader: &FlightPriority) {
        leader.departed().await;
        for pause in ProbeBackoff::default() {
            tokio::time::sleep(pause).await;
            if self.is_back(patient).await {
                return;
            }
        }
    }

    async fn judge(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        errand: CanvasRequest,
        answer: Option<CanvasResponse>,
        is_leader: bool,
        patient: &IndexedImage,
        boarded: Instant,
    ) -> StepResult {
        let Some(answer) = answer else { return StepResult::Skipped };
        match answer {
            CanvasResponse::Withheld => return StepResult::Cooling,
            CanvasResponse::Needless => return StepResult::Alive,
            _ => {}
        }
        let is_back = match answer {
            // The key is written before the canvas is built: that needs no look, as long as /resources is known to
            // tell the truth.
            CanvasResponse::Built if is_leader && !self.must_confirm(service) => true,
            _ => self.is_back_after(service, answer, patient).await,
        };
        if is_back {
            self.no_longer_expired(patient);
            self.memory.succeeded(&errand.flight, boarded, Instant::now());
            self.was_healed(patient);
            self.note_expired(patient);
        } else if answer == CanvasResponse::Carries && errand.flight.rung == Rung::Visit {
            // It is stored, and asking for it again changes nothing.
            self.memory.cool(&errand.flight, VISITED_FOR, Instant::now());
        } else if is_leader && !answer.is_about_the_service() {
            self.rung_failed(service, &errand.flight, boarded);
        }
        // The key was written and the nested request failed: poisoned. (Where it is not back, the file may be gone;
        // the rung of rebuilding finds that out.)
        match answer {
            CanvasResponse::Lacks if is_back => self.cure(service, errand, patient),
            CanvasResponse::Built | CanvasResponse::Carries if errand.canvas.is_some() => {
                self.mends.lacking.note([&*patient.key], false);
            }
            _ => {}
        }
        if is_back { StepResult::Back } else { StepResult::NoHelp(answer) }
    }

    /// Is the image back, as far as anything proves it? Where nothing does, a canvas that was built for this request and
    /// carries it is believed: the viewer's own request tells.
    async fn is_back_after(
        &self,
        service: &CanvasService,
        answer: CanvasResponse,
        patient: &IndexedImage,
    ) -> bool {
        match self.evidence(patient).await {
            Evidence::Alive => true,
            Evidence::Nothing => matches!(answer, CanvasResponse::Built | CanvasResponse::Carries),
            Evidence::Expired => answer == CanvasResponse::Built && self.was_misled(service, patient).await,
        }
    }

    /// A canvas was built with the image, yet `/resources` says "expired": is it the service that says so? Asked of the
    /// image server, by a probe that no cache can answer, because a gateway whose 404 reads like the service's would
    /// keep every heal from being seen.
    async fn was_misled(&self, service: &CanvasService, patient: &IndexedImage) -> bool {
        if !service.truth.is_open(Instant::now()) || self.probe(patient).await != Evidence::Alive {
            return false;
        }
        if self.ask(patient).await == Said::Expired {
            service.truth.distrust(Instant::now());
            self.metrics.event("resources_distrusted");
        }
        true
    }

    /// Is it time to see whether `/resources` says "alive" of anything at all?
    fn must_confirm(&self, service: &CanvasService) -> bool {
        service.truth.is_open(Instant::now()) && !service.truth.was_confirmed(Instant::now())
    }
}
