//! Step of the ladder: one shared request, and its result.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::ask::CanvasOrder;
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_request::Freshness;
use crate::heal::evidence::Evidence;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::heal::ladder::{FollowUp, HealRun, Ladder, StepResult, VISITED_FOR};
use crate::observe::EventKind;

/// A service that was asked for a variant shows within this time whether it builds beside.
const SOON_KNOWN: Duration = Duration::from_millis(300);

/// Poll interval of background work for the health of a service.
const HEALTH_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Shortest time in which a key could be written, lost again and never be seen: the first probe comes as soon.
const FIRST_PROBE_DELAY: Duration = Duration::from_millis(50);

/// Longest pause between two probes for an image.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// First pause of the poll for health: another request may be about to show the health.
const FIRST_HEALTH_POLL: Duration = Duration::from_millis(5);

/// `CanvasRequestAttempt` is one request of a heal, as it is judged.
struct CanvasRequestAttempt<'a> {
    service: &'a Arc<CanvasService>,
    request: &'a CanvasRequest,
    /// True if the request began with this heal, and its answer holds for all who wait.
    holds_for_all: bool,
    boarded: Instant,
}

impl Ladder {
    /// Tries one shared request on one rung. Probes early: the image is good again before the request ends.
    pub(super) async fn try_rung(
        &self,
        service: &Arc<CanvasService>,
        request: CanvasRequest,
        run: &mut HealRun<'_>,
    ) -> StepResult {
        // A request that was under way may have begun before the image was found gone: it wrote the key, which was lost
        // again, or met a fault that is over. So a request that does not help those who joined it is sent once more, unless
        // it was a plain visit of a stored canvas, which would bring the same again. (So is a variant, where the service
        // cannot build beside.)
        let is_stored = |answer| {
            let is_visit = request.flight.rung == Rung::Visit
                || request.flight.rung == Rung::Variant
                    && service.variants.known(Instant::now()) == Some(false);
            is_visit && answer != CanvasResponse::Refused
        };
        match self.try_step(service, &request, run, Freshness::OrLanded).await {
            (StepResult::NoHelp(answer), false) if !answer.is_about_the_service() && !is_stored(answer) => {
                self.try_step(service, &request, run, Freshness::Anew).await.0
            }
            (step, _) => step,
        }
    }

    /// Tries once. True: the request was ours, and its answer holds for all who wait.
    async fn try_step(
        &self,
        service: &Arc<CanvasService>,
        request: &CanvasRequest,
        run: &mut HealRun<'_>,
        wanted: Freshness,
    ) -> (StepResult, bool) {
        let (image, urgency) = (run.image, run.urgency);
        let order = CanvasOrder { service, request: &request.flight, image, urgency, wanted };
        let (answer, leader, mut attempt) = loop {
            if !self.waits_until_well(service, urgency).await {
                return (StepResult::Cooling, true);
            }
            let boarded = Instant::now();
            if wanted == Freshness::OrLanded && self.services.cools(service, &request.flight) {
                return (StepResult::Cooling, true);
            }
            let (mut handle, is_leader) = Arc::clone(&self.canvases).request(&order);
            let leader = Arc::clone(&handle.urgency);
            let attempt = CanvasRequestAttempt { service, request, holds_for_all: is_leader, boarded };
            let answer = tokio::select! {
                // The request's end first: when both are ready, the answer proves more than the probe.
                biased;
                answer = handle.wait() => answer,
                () = self.poll_until_served(image, &leader) => {
                    self.helped(&attempt, image);
                    let (service, request) = (Arc::clone(service), request.clone());
                    run.follow_ups.push(FollowUp::WatchCanvas { service, request, flight: handle });
                    return (StepResult::Back, is_leader);
                }
            };
            // A fault was seen while the request waited in the queue: it waits for the end of the fault once more.
            if answer == Some(CanvasResponse::Withheld) && service.is_not_for(urgency) {
                continue;
            }
            urgency.note_answer();
            break (answer, leader, attempt);
        };
        let is_lost = answer == Some(CanvasResponse::Lacks)
            && self.may_have_been_lost(service, request, &leader, urgency);
        // A key that was lost is no failure of the request: a cool-down would keep it from being sent again.
        attempt.holds_for_all &= !is_lost;
        (self.evaluate(&attempt, answer, run).await, attempt.holds_for_all)
    }

    /// Waits until a seen fault is over, if no viewer waits for the request and its canvas would be stored without its
    /// image. False: the fault goes on.
    async fn waits_until_well(&self, service: &CanvasService, urgency: &FlightPriority) -> bool {
        let began = Instant::now();
        let until = began + self.settings.heal.backoff_max;
        let mut pause = FIRST_HEALTH_POLL;
        while service.is_not_for(urgency)
            || began.elapsed() < SOON_KNOWN && urgency.is_for_nobody() && self.is_about_to_be_known(service)
        {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(HEALTH_POLL_INTERVAL);
        }
        true
    }

    /// True if the service's ability to build beside is not known yet, and a request finds out now.
    fn is_about_to_be_known(&self, service: &CanvasService) -> bool {
        service.variants.known(Instant::now()).is_none() && self.canvases.under_way() > 0
    }

    /// Probes again and again, once the request is on its way, until the image is back.
    ///
    /// UPSTREAM: the image is good again before the canvas request ends (upstream.md "Ways back to life"), so the first probe
    /// comes soon, then fewer and fewer.
    async fn poll_until_served(&self, image: &IndexedImage, leader: &FlightPriority) {
        leader.sent().await;
        let mut pause = FIRST_PROBE_DELAY;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            if self.evidence(image).await == Evidence::Alive {
                return;
            }
        }
    }

    /// Notes that this request brought the image back.
    fn helped(&self, attempt: &CanvasRequestAttempt<'_>, image: &IndexedImage) {
        self.services.note_back(image);
        self.services.cooldowns.record_success(&attempt.request.flight, attempt.boarded, Instant::now());
    }

    async fn evaluate(
        &self,
        attempt: &CanvasRequestAttempt<'_>,
        answer: Option<CanvasResponse>,
        run: &mut HealRun<'_>,
    ) -> StepResult {
        let (service, request) = (attempt.service, attempt.request);
        let Some(answer) = answer else { return StepResult::Skipped };
        match answer {
            CanvasResponse::Withheld => return StepResult::Cooling,
            CanvasResponse::Needless => return StepResult::Alive,
            _ => {}
        }
        let is_back = match answer {
            // The key is written before the canvas is built: no probe is needed, as long as `/resources` is known to tell
            // the truth.
            CanvasResponse::Built if attempt.holds_for_all && !must_confirm(service) => true,
            _ => self.is_back_after(service, answer, run.image).await,
        };
        if is_back {
            self.helped(attempt, run.image);
        } else if answer == CanvasResponse::Carries && request.flight.rung == Rung::Visit {
            // The canvas is stored, and a second visit changes nothing.
            self.services.cooldowns.set_remaining(&request.flight, VISITED_FOR, Instant::now());
        } else if attempt.holds_for_all && !answer.is_about_the_service() {
            let was_refused = answer == CanvasResponse::Refused;
            self.services.request_failed(service, &request.flight, attempt.boarded, was_refused);
        }
        // The key was written and the nested request failed: poisoned. (Where the image is not back, the file may be gone;
        // the rebuild rung finds that out.)
        match answer {
            CanvasResponse::Lacks if is_back => run.repair(service, request.clone()),
            CanvasResponse::Built | CanvasResponse::Carries if service.touched(request).is_some() => {
                run.follow_ups.push(FollowUp::CanvasIsWhole);
            }
            _ => {}
        }
        if is_back { StepResult::Back } else { StepResult::NoHelp(answer) }
    }

    /// True if the image is back, as far as anything proves it. Without proof, a canvas that was built for this request and
    /// holds the image is believed: the viewer's own request decides.
    async fn is_back_after(
        &self,
        service: &CanvasService,
        answer: CanvasResponse,
        image: &IndexedImage,
    ) -> bool {
        match self.evidence(image).await {
            Evidence::Alive => true,
            Evidence::Nothing => matches!(answer, CanvasResponse::Built | CanvasResponse::Carries),
            Evidence::Expired => {
                answer == CanvasResponse::Built && self.registration_check_is_wrong(service, image).await
            }
        }
    }

    /// True if a server other than the service answers `/resources`: a canvas was built with the image, yet `/resources`
    /// reports it expired. The image server decides, by a probe that no cache can answer, because a gateway whose 404 reads
    /// like the service's would keep every heal from being seen.
    async fn registration_check_is_wrong(&self, service: &CanvasService, image: &IndexedImage) -> bool {
        if !service.registrations.is_available(Instant::now())
            || self.images.probe(image).await != Evidence::Alive
        {
            return false;
        }
        if self.canvases.registration(image).await == Registration::Expired {
            service.registrations.suspend(Instant::now());
            self.metrics.event(EventKind::ResourcesDistrusted);
        }
        true
    }

    /// True if the key of a canvas that was built beside without its image may have been written and lost again, with the
    /// file still there. The service writes the key before it requests the image. Where its requests do not come through
    /// this node, a viewer who came while the canvas was built may have seen the image in between two probes. (Nothing is
    /// overwritten: one request more does no harm.)
    fn may_have_been_lost(
        &self,
        service: &CanvasService,
        request: &CanvasRequest,
        leader: &FlightPriority,
        urgency: &FlightPriority,
    ) -> bool {
        let came_later = |departed| urgency.viewer_came_after(departed + FIRST_PROBE_DELAY);
        let may_be_seen = leader.has_echo()
            || self.services.has_other_nodes()
            || leader.departed_at().is_some_and(came_later);
        request.flight.rung == Rung::Variant
            && service.variants.known(Instant::now()) == Some(true)
            && may_be_seen
    }
}

/// True if `/resources` must first be seen to report any identifier alive.
fn must_confirm(service: &CanvasService) -> bool {
    service.registrations.is_available(Instant::now()) && !service.registrations.was_confirmed(Instant::now())
}
