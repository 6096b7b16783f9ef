//! The ladder: the fastest safe way back for an image that the image server has forgotten.
//!
//! [`Healer::answer`] is what the proxy calls. It answers the viewer's own request from the file at once where the
//! file is known (`direct`); otherwise it takes a seat on the one shared climb for that identifier, waits as long
//! as the viewer can, and asks again. `climb` goes up the rungs; every canvas request goes through `service`.

mod answer;
mod background;
pub mod callback;
mod canvas_service;
mod completion;
mod cooldowns;
mod evidence;
mod first_requests;
pub(crate) mod flight_priority;
mod image_address;
mod image_server;
mod knowledge;
mod ladder;
mod missing_files;
mod off_thread;
mod opening;
mod operator;
mod repair;
mod report;
mod respond;
mod server;
#[cfg(test)]
mod sim;
pub(crate) mod single_flight;
#[cfg(test)]
mod stress;
mod timed_cache;
mod truthful_probe;
mod unrequested_image;
mod ward;

use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use tokio::time::Instant;

pub use answer::{Answered, ImageExchange, Unanswered};
pub use background::book::PagesSeen;
pub use canvas_service::circuit_breaker::BreakerState;
pub use canvas_service::priority_semaphore::Priority;
pub use canvas_service::status::CanvasServiceStatus;
pub use canvas_service::viewer_request::{ViewerRequest, without_update};
pub use evidence::Evidence;
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
use crate::index::history::writer::Recorder;
use crate::observe::{Metrics, Trace};
use crate::outcome::Outcome;
use crate::upstream::{Body, UpstreamError};
use canvas_service::registration::Said;
use first_requests::FirstRequestPermit;
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
    Heal(Box<IndexedImage>),
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
        cluster: Option<Arc<Cluster>>,
        metrics: Arc<Metrics>,
        history: Recorder,
    ) -> Self {
        Self::of(Ward::new(settings, servers, index, cluster, metrics, history, None))
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
            && let Some(patient) = self.admit(at)
        {
            return NextStep::Heal(patient);
        }
        NextStep::Ask(ask)
    }

    /// The identifier with its owners, if the index knows it and it may be healed.
    ///
    /// Boxed: a request carries room for it all the way, and nearly none needs it.
    fn admit(&self, patient: &RoutedImage<'_>) -> Option<Box<IndexedImage>> {
        self.ward.admit(patient).map(Box::new)
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

    /// A reader opened this page, and its image is there: the pages behind it may not be.
    fn reader_at(&self, patient: &IndexedImage) {
        self.ward.reader_at(patient, None);
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

    /// How each canvas service stands, in the order of the presentation routes.
    pub fn canvas_services(&self) -> Vec<CanvasServiceStatus> {
        let now = Instant::now();
        self.ward.services.iter().map(|service| service.status(now)).collect()
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
