//! Ladder: tries the rungs for one image, once for all who wait.

pub(in crate::heal) mod direct;
pub(in crate::heal) mod outcome;
pub(in crate::heal) mod rebuild;
mod step;
#[cfg(test)]
mod tests;
mod variant;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::config::Settings;
use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::ask::AskCanvasService;
use crate::heal::canvas_service::failure_log::FailureReason;
use crate::heal::canvas_service::register_path::register_path;
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::services::{AskedCanvas, CanvasServices};
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::evidence::{Evidence, is_expiry};
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::heal::image_server::{AskImageServer, evidence};
pub(in crate::heal) use crate::heal::ladder::outcome::{FollowUp, HealOutcome, HealReport};
use crate::heal::learned::ServerSupport;
use crate::heal::missing_files::Proof;
use crate::heal::missing_images::MissingImages;
use crate::heal::timed_cache::TimedCache;
use crate::iiif::IdentifierKind;
use crate::observe::Metrics;
use crate::upstream::UpstreamError;
use crate::upstream::guard::CanvasTarget;

/// `StepResult` says how one step on a rung ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum StepResult {
    /// The image is back.
    Back,
    /// Alive before: the service knows the file without our doing.
    Alive,
    /// Gone: built anew by a service that is well, and still without the image.
    Gone,
    /// No help.
    NoHelp(CanvasResponse),
    /// Not tried: cooling down, or the breaker is open.
    Cooling,
    /// Not tried: the rung does not fit this image, or is not safe now.
    Skipped,
}

/// `VisitResult` is the result of visiting a canvas, during this heal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum VisitResult {
    /// Visit comes later on the ladder, or not at all.
    Never,
    /// No answer: the visit cools down, or the breaker is open.
    InVain,
    /// An answer, and the image is not back.
    Got(CanvasResponse),
}

/// `CanvasAttempt` is one canvas that may own the image, during this heal.
#[derive(Debug)]
struct CanvasAttempt {
    service: Arc<CanvasService>,
    canvas: CanvasTarget,
    visited: VisitResult,
    /// True if, during this heal, the stored canvas itself may be requested. The service's memory of that may end in the
    /// middle of a heal; this flag stays.
    overwrites: bool,
}

/// `HealRun` is one heal under way: its image, priority, and follow-up work.
#[derive(Debug)]
struct HealRun<'a> {
    image: &'a IndexedImage,
    urgency: &'a Arc<FlightPriority>,
    follow_ups: Vec<FollowUp>,
}

impl HealRun<'_> {
    /// Leaves a repair to be done: the canvas of this request came without the image.
    fn repair(&mut self, service: &Arc<CanvasService>, request: CanvasRequest) {
        self.follow_ups.push(FollowUp::RepairCanvas { service: Arc::clone(service), request });
    }

    /// Leaves repairs when the image is back: canvases that came without the image are stored so, unless they were built
    /// anew since.
    ///
    /// UPSTREAM: then a poisoned duplicate may stand behind the good one. Only plain GETs show it.
    fn repair_empty(&mut self, attempts: &[CanvasAttempt]) {
        for attempt in
            attempts.iter().filter(|attempt| attempt.visited == VisitResult::Got(CanvasResponse::Lacks))
        {
            self.repair(&attempt.service, CanvasRequest::visit(&attempt.canvas));
        }
    }
}

/// Time for which the result of a visit in vain is remembered: a request does not change a stored canvas.
const VISITED_FOR: Duration = Duration::from_secs(30);

/// Reason where nothing failed and the image is not back.
pub(in crate::heal) const NO_ROUTE: &str =
    "its canvas belongs to no presentation route ([server] public_hosts, [[routes]])";
pub(in crate::heal) const NO_HELP: &str = "its canvas was asked for, and the image did not come back";

/// Canvases of one image that are requested at most; refused ones do not count.
const CANVASES: usize = 3;

/// Results of the last visits that did not help.
pub(in crate::heal) type Visits = TimedCache<CanvasRequestKey, CanvasResponse>;

/// `Ladder` heals one image, rung by rung. Its requests go through two traits, and its clock is tokio's.
#[derive(Debug)]
pub(in crate::heal) struct Ladder {
    settings: Arc<Settings>,
    images: Arc<dyn AskImageServer>,
    canvases: Arc<dyn AskCanvasService>,
    services: Arc<CanvasServices>,
    missing: Arc<MissingImages>,
    visits: Visits,
    /// Support for base64 identifiers, and for those with an encoded slash.
    base64: ServerSupport,
    base64_with_slash: ServerSupport,
    metrics: Arc<Metrics>,
}

impl Ladder {
    pub(in crate::heal) fn new(
        settings: Arc<Settings>,
        (images, canvases): (Arc<dyn AskImageServer>, Arc<dyn AskCanvasService>),
        services: Arc<CanvasServices>,
        missing: Arc<MissingImages>,
        visits: Visits,
    ) -> Self {
        let metrics = Arc::clone(services.metrics());
        let (base64, base64_with_slash) = (ServerSupport::default(), ServerSupport::default());
        Self { settings, images, canvases, services, missing, visits, base64, base64_with_slash, metrics }
    }

    /// Heals this image for all who wait. Returns the outcome, and the follow-up work.
    pub(in crate::heal) async fn run(
        &self,
        image: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> HealReport {
        let mut run = HealRun { image, urgency, follow_ups: Vec::new() };
        let outcome = self.try_rungs(&mut run).await;
        HealReport { outcome, follow_ups: run.follow_ups }
    }

    async fn try_rungs(&self, run: &mut HealRun<'_>) -> HealOutcome {
        let (image, urgency) = (run.image, run.urgency);
        // UPSTREAM: base64 identifiers need no Redis, so their 404 is always a missing file.
        if matches!(image.kind, IdentifierKind::FileUrl { .. }) {
            self.missing.note(image, Proof::Shown);
            return HealOutcome::Missing;
        }
        if self.missing.is_known_elsewhere(image).await {
            return HealOutcome::Missing;
        }
        // "Expired" is believed for a moment: the probe before this heal has asked already.
        if !self.services.remember_expired(image)
            && matches!(self.canvases.registration(image).await, Registration::Alive(_))
        {
            return HealOutcome::Alive;
        }
        let mut attempts = self.canvas_attempts(image);
        let (mut tried, mut cooling, mut gone) = (false, false, None);
        for &rung in &self.settings.heal.ladder {
            // Registering needs no canvas: it also works where no canvas of the image may be requested.
            let most = if rung == Rung::Register { 1 } else { attempts.len() };
            let mut asked = 0;
            for position in 0..most {
                let step = match (rung, attempts.get_mut(position)) {
                    (Rung::Register, _) => self.register(run).await,
                    (_, Some(attempt)) => self.canvas_step(rung, attempt, run).await,
                    (_, None) => StepResult::Skipped,
                };
                if matches!(step, StepResult::Gone | StepResult::NoHelp(_))
                    && step != StepResult::NoHelp(CanvasResponse::Refused)
                {
                    urgency.note_evidence();
                }
                match step {
                    StepResult::Back => {
                        run.repair_empty(&attempts);
                        return HealOutcome::Healed(rung);
                    }
                    StepResult::Alive => {
                        run.repair_empty(&attempts);
                        return HealOutcome::Alive;
                    }
                    // Another canvas may own the image; but nothing more is built over a stored one.
                    StepResult::Gone if rung == Rung::Variant => {
                        (gone, asked) = (gone.or(Some(urgency.answered_at())), asked + 1);
                    }
                    StepResult::Gone => return self.gone_after_rebuild(attempts.get(position), run).await,
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
            return self.gone_or_in_trouble(image, seen).await;
        }
        HealOutcome::without_help(tried, cooling)
    }

    /// Judges a canvas that was built anew without the image. If the file is there, the canvas was emptied by a fault.
    async fn gone_after_rebuild(
        &self,
        attempt: Option<&CanvasAttempt>,
        run: &mut HealRun<'_>,
    ) -> HealOutcome {
        let outcome = self.gone_or_in_trouble(run.image, run.urgency.answered_at()).await;
        if let (HealOutcome::Failed, Some(attempt)) = (outcome, attempt) {
            run.repair(&attempt.service, CanvasRequest::visit(&attempt.canvas));
        }
        outcome
    }

    /// Judges a canvas that came without the image, while no key was written: its file is gone, or the file store is in
    /// trouble. With a known file URL, one request for the file tells. Without, a fault may have passed since that canvas
    /// was `seen` (other canvases were requested after it): the evidence is as old as the canvas.
    pub(in crate::heal) async fn gone_or_in_trouble(
        &self,
        image: &IndexedImage,
        seen: Instant,
    ) -> HealOutcome {
        let was_doubted = self.services.end_doubt(image);
        match self.look_at_file(image).await {
            Some(true) => self.missing.note(image, Proof::Shown),
            // The service knows the image, the image server does not find it, and a canvas came without it.
            None if was_doubted => self.missing.note_since(image, Proof::Shown, seen),
            None => {
                let well_at = self.services.well_at(image);
                self.missing.note_since(image, Proof::Likely { well_at }, seen);
            }
            Some(false) => return HealOutcome::Failed,
        }
        HealOutcome::Missing
    }

    /// Notes that visits were in vain: a stored canvas was believed, and the viewer's own request shows that it healed
    /// nothing. A second visit would change nothing.
    pub(in crate::heal) fn visits_were_in_vain(&self, image: &IndexedImage) {
        for attempt in self.canvas_attempts(image) {
            if attempt.service.may_overwrite(&attempt.canvas) {
                let visit = CanvasRequest::visit(&attempt.canvas).flight;
                self.services.cooldowns.set_remaining(&visit, VISITED_FOR, Instant::now());
                self.visits.insert(visit, CanvasResponse::Carries, VISITED_FOR);
            }
        }
    }

    /// Canvases that may be requested, each once: newest first, and behind them those that failed, the last one last. So
    /// every canvas is tried at last, however many newer ones were in vain.
    fn canvas_attempts(&self, image: &IndexedImage) -> Vec<CanvasAttempt> {
        let canvases = self.services.asked_canvases(image).into_iter();
        let attempt = |(service, canvas)| CanvasAttempt {
            service,
            canvas,
            visited: VisitResult::Never,
            overwrites: false,
        };
        let mut attempts: Vec<CanvasAttempt> = canvases.map(attempt).collect();
        attempts.sort_by_cached_key(|attempt| self.failed_at(attempt));
        attempts
    }

    /// Time of the last failure of the requests for this canvas; `None`, which comes first: there is none. (A failure that
    /// speaks against the service begins no cool-down. It may be of this canvas alone nevertheless: its repository is away.)
    fn failed_at(&self, attempt: &CanvasAttempt) -> Option<Instant> {
        let requests = CanvasRequest::variant(&attempt.canvas)
            .into_iter()
            .chain([CanvasRequest::visit(&attempt.canvas)]);
        let failed_at = |request: CanvasRequest| {
            let of_service = attempt.service.failed_at(&request.flight);
            self.services.cooldowns.failed_at(&request.flight).max(of_service)
        };
        requests.map(failed_at).max().flatten()
    }

    async fn canvas_step(
        &self,
        rung: Rung,
        attempt: &mut CanvasAttempt,
        run: &mut HealRun<'_>,
    ) -> StepResult {
        // A request that may overwrite is only for services that cannot build beside.
        attempt.overwrites |= attempt.service.may_overwrite(&attempt.canvas);
        let may_overwrite = attempt.overwrites;
        match rung {
            Rung::Variant => self.variant(attempt, run).await,
            Rung::Visit if may_overwrite && attempt.visited == VisitResult::Never => {
                let visit = CanvasRequest::visit(&attempt.canvas);
                let key = visit.flight.clone();
                let step = self.try_rung(&attempt.service, visit, run).await;
                attempt.visited = match step {
                    StepResult::NoHelp(answer) => {
                        self.visits.insert(key, answer, VISITED_FOR);
                        VisitResult::Got(answer)
                    }
                    // The result of a moment ago still holds.
                    StepResult::Cooling => {
                        self.visits.get(&key).map_or(VisitResult::InVain, VisitResult::Got)
                    }
                    _ => VisitResult::InVain,
                };
                step
            }
            Rung::Rebuild if may_overwrite => self.rebuild(attempt, run).await,
            // Direct was tried before the heal, for the viewer.
            Rung::Direct | Rung::Register | Rung::Visit | Rung::Rebuild => StepResult::Skipped,
        }
    }

    /// Register: the service looks the file up anew, without building anything. Where it knows the file, and the image
    /// server does not find it, that would show nothing: a key is written whether the file is there or not. A canvas that
    /// is built beside shows it.
    async fn register(&self, run: &mut HealRun<'_>) -> StepResult {
        let builds_beside =
            |service: &Arc<CanvasService>| service.variants.known(Instant::now()) == Some(true);
        if self.services.is_doubted(run.image) && self.services.of(run.image).iter().any(builds_beside) {
            return StepResult::Skipped;
        }
        let Some((service, request)) = self.register_request(run.image) else { return StepResult::Skipped };
        self.try_rung(&service, request, run).await
    }

    /// The request that registers the file. `None`: its URL is not known, or cannot be registered.
    pub(in crate::heal) fn register_request(
        &self,
        image: &IndexedImage,
    ) -> Option<(Arc<CanvasService>, CanvasRequest)> {
        let path = register_path(&self.services.files().of(image.uuid()?)?)?;
        let service = self.services.of(image).into_iter().next()?;
        let flight = CanvasRequestKey { service: service.mark, target: path.into(), rung: Rung::Register };
        Some((service, CanvasRequest { flight, canvas: None }))
    }

    /// Evidence about the image now.
    async fn evidence(&self, image: &IndexedImage) -> Evidence {
        evidence(self.canvases.registration(image).await, &*self.images, image).await
    }

    async fn look_at(&self, image: &IndexedImage, tail: &str) -> Result<StatusCode, UpstreamError> {
        self.images.status(image, &image.sent, tail).await
    }

    fn is_expiry(&self, status: StatusCode) -> bool {
        is_expiry(&self.settings.heal, status)
    }
}

/// Reason why the last requests for these canvases failed. A failure that may pass comes first: a retry is worth it.
pub(in crate::heal) fn last_failure(canvases: &[AskedCanvas]) -> Option<FailureReason> {
    let failures = canvases.iter().filter_map(|(service, canvas)| {
        let variant = || service.failure(&CanvasRequest::variant(canvas)?.flight);
        let stored = || service.failure(&CanvasRequest::visit(canvas).flight);
        service.failure(&CanvasRequest::rebuild(canvas).flight).or_else(stored).or_else(variant)
    });
    failures.max_by_key(|failure| failure.passing)
}
