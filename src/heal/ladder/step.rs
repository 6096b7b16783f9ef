//! One step on one rung: one shared request, and what came of it.

use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::registration::Said;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_request::Freshness;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::evidence::Evidence;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::ladder::probe_backoff::ProbeBackoff;
use crate::heal::ladder::{StepResult, VISITED_FOR};
use crate::heal::single_flight::FlightHandle;
use crate::heal::ward::{IndexedImage, Ward};

/// It is soon known whether a service builds beside, once it was asked.
const SOON_KNOWN: Duration = Duration::from_millis(300);

/// How often a service that is not well is looked at by those who can wait.
const WELL_LOOK: Duration = Duration::from_millis(250);

/// No key is written, lost again and never seen within this time: the first look comes as soon.
const A_MOMENT: Duration = Duration::from_millis(50);

/// And at first: whoever waits may be about to say so.
const FIRST_LOOK: Duration = Duration::from_millis(5);

impl Ward {
    /// One shared request on one rung. Looks early: the image is good again before the request ends.
    pub(in crate::heal) async fn step(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        errand: CanvasRequest,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> StepResult {
        // A request that was under way may have begun before the image was found gone: it wrote the key, which was lost
        // again, or met a fault that is over. So one that helps those who joined it in no way is asked once more; but not
        // a plain visit that had the canvas stored, which would only bring what is stored.
        let is_stored = |answer| errand.flight.rung == Rung::Visit && answer != CanvasResponse::Refused;
        match self.try_step(service, errand.clone(), patient, urgency, Freshness::OrLanded).await {
            (StepResult::NoHelp(answer), false) if !answer.is_about_the_service() && !is_stored(answer) => {
                self.try_step(service, errand, patient, urgency, Freshness::Anew).await.0
            }
            (step, _) => step,
        }
    }

    /// One try. True: its request was ours, and its answer holds for all who wait.
    async fn try_step(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        errand: CanvasRequest,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
        wanted: Freshness,
    ) -> (StepResult, bool) {
        let flight = &errand.flight;
        let (answer, is_leader, boarded, leader) = loop {
            if !self.waits_until_well(service, urgency).await {
                return (StepResult::Cooling, true);
            }
            let boarded = Instant::now();
            let cools = self.memory.cooling(flight, service.recovered(), boarded).is_some();
            if cools && wanted == Freshness::OrLanded {
                return (StepResult::Cooling, true);
            }
            let (mut seat, is_leader) = self.fly(service, flight, patient, urgency, wanted);
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
            // A fault was seen while it stood in the queue: it stands aside once more.
            if answer == Some(CanvasResponse::Withheld) && service.is_not_for(urgency) {
                continue;
            }
            urgency.is_answered();
            break (answer, is_leader, boarded, leader);
        };
        let is_lost =
            answer == Some(CanvasResponse::Lacks) && may_have_been_lost(service, &errand, &leader, urgency);
        (self.judge(service, errand, answer, is_leader, patient, boarded).await, is_leader && !is_lost)
    }

    /// What nobody waits for is not built into a fault that was seen, where that would store it without its image. False:
    /// the fault goes on.
    async fn waits_until_well(&self, service: &CanvasService, urgency: &FlightPriority) -> bool {
        let began = Instant::now();
        let until = began + self.settings.heal.backoff_max;
        let mut pause = FIRST_LOOK;
        while service.is_not_for(urgency)
            || began.elapsed() < SOON_KNOWN && urgency.is_for_nobody() && self.is_about_to_be_known(service)
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
        if !urgency.is_for_nobody() {
            seat.urgency.viewer_waits();
        }
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
            CanvasResponse::Built if is_leader && !must_confirm(service) => true,
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
            match answer {
                CanvasResponse::Refused => self.rung_was_refused(service, &errand.flight, boarded),
                _ => self.rung_failed(service, &errand.flight, boarded),
            }
        }
        // The key was written and the nested request failed: poisoned. (Where it is not back, the file may be gone;
        // the rung of rebuilding finds that out.)
        match answer {
            CanvasResponse::Lacks if is_back => self.cure(service, &errand, patient),
            CanvasResponse::Built | CanvasResponse::Carries if self.touched(service, &errand).is_some() => {
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
}

/// Is it time to see whether `/resources` says "alive" of anything at all?
fn must_confirm(service: &CanvasService) -> bool {
    service.truth.is_open(Instant::now()) && !service.truth.was_confirmed(Instant::now())
}

/// A canvas that was built beside came without its image. Was its key written meanwhile, and lost again, and not the file
/// gone? The service writes the key before it asks for the image. Where its requests do not come by here, it may be so for a
/// viewer who came while the canvas was built: between two looks. (Nothing is built over: one request more does no harm.)
fn may_have_been_lost(
    service: &CanvasService,
    errand: &CanvasRequest,
    leader: &FlightPriority,
    urgency: &FlightPriority,
) -> bool {
    let came_later = |departed| urgency.viewer_came_after(departed + A_MOMENT);
    errand.flight.rung == Rung::Variant
        && service.variants.known(Instant::now()) == Some(true)
        && (leader.has_echo() || leader.departed_at().is_some_and(came_later))
}
