//! The ladder: the fastest safe way back for an image that the image server has forgotten.
//!
//! [`Healer::treat`] is what the proxy calls. It answers the viewer's own request from the file at once where the
//! file is known (`direct`); otherwise it takes a seat on the one shared climb for that identifier, waits as long
//! as the viewer can, and asks again. `climb` goes up the rungs; every canvas request goes through `service`.

mod answer;
mod background;
pub mod callback;
mod canvas_service;
mod cooldowns;
mod evidence;
mod first_requests;
pub(crate) mod flight_priority;
mod image_server;
mod knowledge;
mod ladder;
mod missing_files;
mod opening;
mod operator;
mod repair;
mod report;
mod server;
#[cfg(test)]
mod sim;
pub(crate) mod single_flight;
#[cfg(test)]
mod stress;
mod timed_cache;
mod ward;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::request::Parts;
use hyper::Response;
use tokio::time::{Instant, timeout};

pub use answer::{Answered, ImageExchange, Unanswered};
pub use background::prefetch::as_segment as image_segment;
pub use canvas_service::circuit_breaker::BreakerState;
pub use canvas_service::priority_semaphore::Priority;
pub use canvas_service::viewer_request::{ViewerRequest, without_update};
pub use evidence::Evidence;
use evidence::proves_nothing;
pub use operator::inspect::DeploymentFacts;
pub use operator::{CanvasVisit, DocumentError, ImageCheck, ImageHealReport, ImageHealResult};
pub use repair::{DocumentRepair, PoisonedDocument, fingerprint};
pub use server::{SendRequest, Sending};
pub use ward::{IndexedImage, RoutedImage};

use crate::cluster::Cluster;
use crate::config::Settings;
use crate::config::settings::Rung;
use crate::index::Index;
use crate::index::history::Bounds;
use crate::index::recorder::Recorder;
use crate::observe::{Gauged, Metrics, Span, Trace};
use crate::outcome::Outcome;
use crate::upstream::{Body, Caller, UpstreamError};
use canvas_service::registration::Said;
use first_requests::FirstRequestPermit;
use ladder::HealOutcome;
use ladder::direct::DirectResult;
use missing_files::Proof;
use ward::Ward;

/// Heals images. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Healer {
    ward: Arc<Ward>,
}

/// How a treatment ended for one viewer.
#[derive(Debug)]
enum HealResponse {
    /// The image is back; this is the answer to the viewer's own request.
    Good {
        /// The image server's answer.
        answer: Response<Body>,
        /// What helped; `None`: it was back by itself.
        rung: Option<Rung>,
        /// How long the viewer waited for it.
        took: Duration,
    },
    /// It did not help: the first answer goes out.
    Original(Outcome),
    /// It goes on, but not for this viewer: come back after this time.
    Pending(Duration),
    /// Too many viewers wait already.
    Crowded(Duration),
}

/// What comes first for an image request.
#[derive(Debug)]
enum NextStep {
    /// It is being healed, or was 404 a moment ago: straight to the treatment.
    Heal(IndexedImage),
    /// The request itself. Say what it found.
    Ask(FirstRequestPermit),
}

/// A viewer that is told "come back" should do so after this time.
const COME_BACK: Duration = Duration::from_secs(5);

impl Healer {
    /// A healer for these routes; `servers` stand in the order of `settings.routes`, `cluster` are the other nodes.
    pub fn new(
        settings: Arc<Settings>,
        servers: Vec<Arc<dyn SendRequest>>,
        index: Arc<Index>,
        cluster: Option<Arc<Cluster>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let bounds = Bounds { age: settings.index.history_age, rows: settings.index.history_rows };
        let history = Recorder::start(Arc::clone(&index), bounds, Arc::clone(&metrics));
        Self::of(Ward::new(settings, servers, index, cluster, metrics, history, None))
    }

    /// A healer for tests in virtual time: it starts no thread.
    #[cfg(test)]
    #[allow(dead_code, reason = "a simulation begins here")]
    pub(crate) fn simulated(
        settings: Arc<Settings>,
        servers: Vec<Arc<dyn SendRequest>>,
        index: Arc<Index>,
        metrics: Arc<Metrics>,
        history: Recorder,
    ) -> Self {
        Self::of(Ward::new(settings, servers, index, None, metrics, history, None))
    }

    /// The same healer under other settings: flights, lanes, cool-downs, breakers and all that is remembered go over.
    #[must_use]
    pub fn under(
        &self,
        settings: Arc<Settings>,
        servers: Vec<Arc<dyn SendRequest>>,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        let (index, metrics) = (Arc::clone(&self.ward.index), Arc::clone(&self.ward.metrics));
        let (old, new) = (&self.ward.settings.index, &settings.index);
        let history = if (old.history_age, old.history_rows) == (new.history_age, new.history_rows) {
            self.ward.history.clone()
        } else {
            let bounds = Bounds { age: new.history_age, rows: new.history_rows };
            Recorder::start(Arc::clone(&index), bounds, Arc::clone(&metrics))
        };
        Self::of(Ward::new(settings, servers, index, cluster, metrics, history, Some(&self.ward)))
    }

    fn of(ward: Ward) -> Self {
        let ward = Arc::new(ward);
        let weak = Arc::downgrade(&ward);
        ward.metrics.before_scrapes(move |metrics| {
            let ward = weak.upgrade();
            ward.map(|ward| ward.show(metrics)).is_some()
        });
        Self { ward }
    }

    /// Is there a point in sending this request on first? Not when the same one was 404 a moment ago. (While the image is
    /// being healed there is: what the image server has in its cache is not withheld.) While many ask already and none
    /// was answered, this waits for what they find.
    async fn approach(&self, at: &RoutedImage<'_>) -> NextStep {
        let ask = self.ward.first_ask(at).await;
        if ask.is_gone()
            && let Some(patient) = self.ward.admit(at)
        {
            return NextStep::Heal(patient);
        }
        NextStep::Ask(ask)
    }

    /// The identifier with its owners, if the index knows it and it may be healed.
    fn admit(&self, patient: &RoutedImage<'_>) -> Option<IndexedImage> {
        self.ward.admit(patient)
    }

    /// The gate: does the canvas service say that this identifier is expired? Asked before an info.json goes out,
    /// because viewers wait for that one, and not for the tiles behind it. Remembered, so that it is cheap.
    async fn is_expired(&self, patient: &IndexedImage) -> bool {
        // Where a page of the same manifest had to be healed, what was known of the others before is worth nothing.
        let manifest = patient.owners.first().map(|owner| owner.manifest.as_str());
        let since = manifest.and_then(|manifest| self.ward.readers.expired_at(manifest));
        matches!(self.ward.ask_remembered(patient, since).await, Said::Expired)
    }

    /// The canvas service's own info.json request was answered with `status`.
    pub fn echo_answered(&self, patient: &RoutedImage<'_>, status: http::StatusCode) {
        self.ward.echo_answered(patient, status);
    }

    /// Brings the image back and answers `request` (the viewer's own, as it goes upstream) within `wait`.
    async fn treat(
        &self,
        patient: &IndexedImage,
        request: &Parts,
        (client, caller): (IpAddr, &Caller),
        wait: Duration,
        lane: Priority,
    ) -> HealResponse {
        let started = Instant::now();
        let ward = &self.ward;
        let mut span = Span::step(&patient.trace, "heal");
        span.text("iiif_mender.identifier", &patient.key);
        let patient = &patient.within(&span);
        if ward.is_missing_for_all(patient).await {
            return HealResponse::Original(Outcome::Missing);
        }
        ward.doubt(patient);
        // In its time too, the file must not keep the viewer waiting for longer than he can.
        let direct =
            timeout(wait, ward.direct(patient, request, caller)).await.unwrap_or(DirectResult::NoWay);
        let lane = match direct {
            DirectResult::Answer(answer) => {
                // The viewer has the picture; the lasting repair follows without hurry.
                if ward.may_board(patient) {
                    ward.board(patient, lane.max(Priority::Prefetch));
                }
                let took = started.elapsed();
                ward.reader_at(patient, true);
                ward.metrics.heal("healed", Rung::Direct.as_str(), lane.as_str(), took, &patient.trace);
                ward.record(patient, HealOutcome::Healed(Rung::Direct), lane, took, 1);
                return HealResponse::Good { answer, rung: Some(Rung::Direct), took };
            }
            DirectResult::FileIsGone => {
                ward.file_is_missing(patient, Proof::Shown);
                ward.record(patient, HealOutcome::Missing, lane, started.elapsed(), 1);
                return HealResponse::Original(Outcome::Missing);
            }
            DirectResult::NoWay => lane,
        };
        self.wait_for_heal(patient, request, (client, lane), wait, started, &mut span).await
    }

    /// A seat on the one heal of this image, and the viewer's own request once more after it.
    async fn wait_for_heal(
        &self,
        patient: &IndexedImage,
        request: &Parts,
        (client, lane): (IpAddr, Priority),
        wait: Duration,
        started: Instant,
        span: &mut Span,
    ) -> HealResponse {
        let ward = &self.ward;
        let waiting = ward.wait_place().filter(|_| ward.may_board(patient));
        let Some(_waiting) = waiting else { return HealResponse::Crowded(COME_BACK) };
        let _counted = Gauged::one(&ward.metrics.waiting);
        let lane = ward.fair(patient, client, lane);
        // A climb that was under way may have brought the image back before it was lost again, as this viewer found it.
        let (mut tries, was_under_way) = (0, ward.is_under_way(patient));
        let response = loop {
            tries += 1;
            let mut seat = ward.board(patient, lane);
            seat.urgency.viewer_waits();
            patient.joins(&seat.urgency);
            let landed = timeout(wait.saturating_sub(started.elapsed()), seat.landed()).await;
            // Known by now, even to one who came at the same moment.
            span.link(seat.urgency.leader());
            let rung = match landed {
                Err(_) => {
                    let pending = HealResponse::Pending(COME_BACK);
                    break self.last_try(patient, (request, caller), started, pending).await;
                }
                Ok(Some(HealOutcome::Healed(rung))) => Some(rung),
                Ok(Some(HealOutcome::Alive)) => None,
                Ok(other) => {
                    let original = HealResponse::Original(match other {
                        Some(HealOutcome::Missing) => Outcome::Missing,
                        Some(HealOutcome::Cooling) => Outcome::Cooling,
                        _ => Outcome::Failed,
                    });
                    break self.last_try(patient, (request, caller), started, original).await;
                }
            };
            match self.ask_again(patient, (request, caller), rung, started).await {
                Some(response) => break response,
                None if tries == 1 && was_under_way => {}
                // Nothing proved that it was back, and it is not: the first canvas beside may have been an old one.
                None if tries == 1 && rung == Some(Rung::Variant) => {
                    self.a_probe_may_have_lied(patient).await;
                }
                None => break self.came_to_nothing(patient, rung).await,
            }
        };
        ward.metrics.waited(started.elapsed(), &patient.trace);
        response
    }

    /// The image server is unwell, not forgetful (`heal.direct_statuses`): only the file itself can help, within
    /// `heal.wait`.
    async fn bypass(
        &self,
        patient: &IndexedImage,
        request: &Parts,
        caller: &Caller,
    ) -> Option<(Response<Body>, Duration)> {
        let started = Instant::now();
        match timeout(self.ward.settings.heal.wait, self.ward.direct(patient, request, caller)).await {
            Ok(DirectResult::Answer(answer)) => Some((answer, started.elapsed())),
            Ok(DirectResult::FileIsGone | DirectResult::NoWay) | Err(_) => None,
        }
    }

    /// The viewer's own request once more. `None`: the image server still does not find it, and nobody says that its file
    /// is gone.
    async fn ask_again(
        &self,
        patient: &IndexedImage,
        (request, caller): (&Parts, &Caller),
        rung: Option<Rung>,
        started: Instant,
    ) -> Option<HealResponse> {
        let ward = &self.ward;
        let took = started.elapsed();
        // A live image refuses some sizes; its info.json it never does.
        let is_picture = !request.uri.path().ends_with("/info.json");
        Some(match ward.ask_image(patient, request, caller).await {
            // The image server is in trouble now: that is no healed image.
            Ok(answer)
                if proves_nothing(answer.status())
                    && !(is_picture && matches!(answer.status().as_u16(), 401 | 403)) =>
            {
                HealResponse::Original(Outcome::Failed)
            }
            Ok(answer) if !ward.is_expiry(answer.status()) => {
                ward.found(patient);
                ward.image_route.store(patient.route, Ordering::Relaxed);
                ward.firsts.found_well(ward.mark(patient), &patient.sent);
                ward.reader_at(patient, rung.is_some());
                HealResponse::Good { answer, rung, took }
            }
            Ok(_) if ward.is_missing(patient).await => HealResponse::Original(Outcome::Missing),
            Ok(_) => return None,
            Err(error) => {
                self.note(&error);
                HealResponse::Original(Outcome::Failed)
            }
        })
    }

    /// The image was said to be back, and is not. Nothing proved it. Not tried again with every request.
    async fn came_to_nothing(&self, patient: &IndexedImage, rung: Option<Rung>) -> HealResponse {
        if rung.is_some() {
            self.a_probe_may_have_lied(patient).await;
            self.ward.file_is_missing(patient, Proof::Likely { well_at: None });
        }
        HealResponse::Original(Outcome::Failed)
    }

    /// A probe that still says that the image is there is not asked any more.
    async fn a_probe_may_have_lied(&self, patient: &IndexedImage) {
        if self.ward.probe(patient).await == Evidence::Alive {
            self.ward.probe_lied(patient);
        }
    }

    /// The heal takes longer than this viewer can wait, or came to nothing. What he asks for may be there all the same: a
    /// probe may be 404 for a reason of its own, and a cache may hold it.
    async fn last_try(
        &self,
        patient: &IndexedImage,
        (request, caller): (&Parts, &Caller),
        started: Instant,
        otherwise: HealResponse,
    ) -> HealResponse {
        // An info.json may be out of the image server's memory, and its tiles would fail.
        if request.uri.path().ends_with("/info.json") {
            return otherwise;
        }
        match self.ward.ask_image(patient, request, caller).await {
            Ok(answer) if !self.ward.is_expiry(answer.status()) && !proves_nothing(answer.status()) => {
                self.ward.found(patient);
                HealResponse::Good { answer, rung: None, took: started.elapsed() }
            }
            _ => otherwise,
        }
    }

    /// A reader opened this page, and its image is there: the pages behind it may not be.
    fn reader_at(&self, patient: &IndexedImage) {
        self.ward.reader_at(patient, false);
    }

    /// A manifest went out to a reader, asked for by this path (without the query).
    pub fn manifest_opened(&self, path: &str, trace: &Trace) {
        self.ward.manifest_opened(path, trace);
    }

    /// Goes on with a sweep that was interrupted, if there is one. Ends when it ends.
    pub async fn resume_sweep(&self) {
        Arc::clone(&self.ward).resume_sweep().await;
    }

    /// Looks at the images of sources that ask to be kept warm, again and again. Ends at once where none does.
    pub async fn keep_warm(&self) {
        Arc::clone(&self.ward).keep_warm().await;
    }

    /// Heeds what other nodes find out about all. Ends at once where there are none.
    pub async fn heed_the_fleet(&self) {
        Arc::clone(&self.ward).heed_the_fleet().await;
    }

    /// Was a canvas or manifest last seen without this image, although the image is there? (`key`: its lookup key.)
    pub fn is_poisoned(&self, key: &str) -> bool {
        self.ward.mends.lacking.holds(key)
    }

    /// The breaker of each canvas service, in the order of the presentation routes.
    pub fn breakers(&self) -> Vec<BreakerState> {
        let now = Instant::now();
        self.ward.services.iter().map(|service| service.breaker.state(now)).collect()
    }

    /// Closes every breaker: the services are asked again at once.
    pub fn reset_breakers(&self) {
        self.ward.services.iter().for_each(|service| service.close_breaker());
    }

    /// Forgets what is old. Call it every minute or so.
    pub fn prune(&self) {
        self.ward.prune();
    }

    fn note(&self, error: &UpstreamError) {
        self.ward.metrics.upstream_error(error.kind());
    }
}
