//! Healing: the fastest safe way back for an image that the image server has forgotten.
//!
//! The proxy calls [`Healer::answer`], which answers the viewer's own request from the file at once where the file is known
//! (`direct`). Otherwise the request joins the one shared heal of that identifier, waits as long as the viewer can, and
//! sends the request again. `ladder` tries the rungs; every canvas request goes through `canvas_service`.

mod answer;
mod background;
mod broken_entry;
mod broken_images;
mod broken_reason;
pub mod callback;
mod canvas_service;
mod completion;
mod cooldowns;
mod evidence;
mod file_urls;
mod first_requests;
pub(crate) mod flight_priority;
mod heals;
mod image;
mod image_address;
mod image_lookup;
mod image_server;
mod knowledge;
mod ladder;
mod learned;
mod missing_files;
mod missing_images;
mod off_thread;
mod operator;
mod parts;
mod repair;
mod report;
mod respond;
#[cfg(test)]
mod scripted;
mod server;
#[cfg(test)]
mod sim;
pub(crate) mod single_flight;
#[cfg(test)]
mod stress;
mod timed_cache;
mod viewer_limits;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use tokio::time::Instant;

pub use answer::{ExchangeError, HealedExchange, ImageExchange};
pub use background::book::PagesSeen;
pub use broken_entry::Referrer;
pub use broken_reason::BrokenReason;
pub use canvas_service::circuit_breaker::{BreakerState, BreakerStatus};
pub use canvas_service::priority_semaphore::Priority;
pub use canvas_service::status::CanvasServiceStatus;
pub use canvas_service::viewer_request::{ViewerRequest, without_update};
pub use evidence::Evidence;
pub use heals::FILE_GONE;
pub use image::{IndexedImage, RoutedImage};
pub use operator::broken::{BrokenFilter, BrokenImage};
pub use operator::inspect::{DeploymentFacts, UnreachableServer};
pub use operator::{CanvasVisit, DocumentError, ImageCheck, ImageHealReport, ImageHealResult};
pub use repair::{DocumentRepair, PoisonedDocument, fingerprint};
pub use server::{ResponseFuture, SendRequest};

use crate::cluster::Cluster;
use crate::config::Settings;
use crate::config::settings::Rung;
use crate::iiif::Target;
use crate::index::history::writer::HistoryWriter;
use crate::index::{Index, Neighbour, Owner};
use crate::observe::{EventKind, Metrics, RequestTrace, now_ms};
use crate::outcome::Outcome;
use crate::upstream::{Body, UpstreamError};
use canvas_service::registration::Registration;
use first_requests::FirstRequestPermit;
use parts::{HealParts, HealState, bounds_of};

/// `Healer` heals images. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Healer {
    parts: Arc<HealParts>,
}

/// `HealResponse` is the end of a heal for one viewer.
#[derive(Debug)]
enum HealResponse {
    /// Good: the image is back; this is the answer to the viewer's own request.
    Good {
        /// The image server's answer.
        answer: Response<Body>,
        /// Rung that helped; `None`: the image was back already.
        rung: Option<Rung>,
        /// Time that the viewer waited.
        took: Duration,
    },
    /// No help: the first answer goes out.
    Original(Outcome),
    /// The heal goes on, but not for this viewer: retry after this time.
    Pending(Duration),
    /// Too many viewers wait already.
    Crowded(Duration),
}

/// `NextStep` is the first thing to do for an image request.
#[derive(Debug)]
enum NextStep {
    /// Join the heal at once: the image is being healed, or was 404 a moment ago.
    Heal(Box<IndexedImage>),
    /// Send the request, and record its status in the permit.
    Ask(FirstRequestPermit),
}

/// Size of an image whose manifest does not have it.
const UNKNOWN_SIZE: (u32, u32) = (1000, 1000);

/// `Retry-After` of a viewer who would have to wait for too long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Healer {
    /// A healer for these routes. `servers` are in the order of `settings.routes`; `cluster` is the connection to the other
    /// nodes.
    pub fn new(
        settings: Arc<Settings>,
        servers: Vec<Arc<dyn SendRequest>>,
        index: Arc<Index>,
        cluster: Option<Arc<Cluster>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let history = HistoryWriter::start(Arc::clone(&index), bounds_of(&settings), Arc::clone(&metrics));
        let state = HealState::here(&settings, index, metrics, history);
        Self::of(HealParts::new(Arc::new(state), settings, servers, cluster))
    }

    /// A healer for tests in virtual time, which starts no thread.
    #[cfg(test)]
    #[allow(dead_code, reason = "a simulation begins here")]
    pub(crate) fn simulated(
        settings: Arc<Settings>,
        servers: Vec<Arc<dyn SendRequest>>,
        index: Arc<Index>,
        cluster: Option<Arc<Cluster>>,
        metrics: Arc<Metrics>,
        history: HistoryWriter,
    ) -> Self {
        let state = HealState::here(&settings, index, metrics, history);
        Self::of(HealParts::new(Arc::new(state), settings, servers, cluster))
    }

    /// The healer under other settings. All work under way and all memory is shared with this healer, on which requests
    /// that have begun end.
    #[must_use]
    pub fn reconfigure(
        &self,
        settings: Arc<Settings>,
        servers: Vec<Arc<dyn SendRequest>>,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        Self::of(HealParts::new(Arc::clone(&self.parts.state), settings, servers, cluster))
    }

    fn of(parts: HealParts) -> Self {
        let (services, broken) = (Arc::downgrade(&parts.services), Arc::clone(&parts.broken));
        parts.metrics.on_scrape(move |metrics| {
            let services = services.upgrade();
            services.map(|services| report::update_gauges(services.all(), &broken, metrics)).is_some()
        });
        Self { parts: Arc::new(parts) }
    }

    /// Decides whether to send this request first. Not after an equal one was 404 a moment ago. (While the image is being
    /// healed the request is sent: a picture in the image server's cache is not withheld.) While many requests are
    /// unanswered, waits for their result.
    async fn plan(&self, at: &RoutedImage<'_>) -> NextStep {
        let ask = self.first_ask(at).await;
        if ask.is_gone()
            && let Some(image) = self.lookup(at)
        {
            return NextStep::Heal(image);
        }
        NextStep::Ask(ask)
    }

    /// Waits for the permit of a request that is sent before the state is known. An info.json needs none: it proves
    /// nothing.
    async fn first_ask(&self, at: &RoutedImage<'_>) -> FirstRequestPermit {
        if at.request.target == Target::Info {
            return FirstRequestPermit::unlimited();
        }
        let parts = &self.parts;
        let held = || parts.metrics.event(EventKind::FirstAskHeld);
        let (mark, sent) = (parts.lookup.mark(at.route), at.request.identifier.as_sent());
        parts.heals.firsts.acquire((mark, sent), at.request.target, &parts.settings.heal, held).await
    }

    /// The image with its owners, if the index knows it and it may be healed.
    ///
    /// Boxed: every request's future has room for the result, and nearly none needs it.
    fn lookup(&self, at: &RoutedImage<'_>) -> Option<Box<IndexedImage>> {
        self.parts.lookup.admit(at).map(Box::new)
    }

    /// Gate: true if the canvas service reports this identifier expired. Checked before an info.json goes out, because
    /// viewers wait for info.json, and not for the tiles behind it. The answer is remembered, so that the check is cheap.
    async fn is_expired(&self, image: &IndexedImage) -> bool {
        // After a heal of a page of this manifest, older proofs of the others are worthless.
        let since = self.parts.prefetch.expired_at(image);
        matches!(self.parts.knowledge.check_registration_cached(image, since).await, Registration::Expired)
    }

    /// Size of an image whose file is proven to be gone, by its manifest. `None`: no proof; or the canvas service may be
    /// asking, which must not build a canvas from a placeholder.
    pub async fn size_of_missing(
        &self,
        at: &RoutedImage<'_>,
        head: &http::request::Parts,
    ) -> Option<(u32, u32)> {
        if callback::looks_like_service(at.request.target, head) {
            return None;
        }
        let image = self.lookup(at).filter(|image| self.parts.missing.is_proven(image))?;
        let index = Arc::clone(self.parts.lookup.index());
        let size = move || {
            let of = |owner: &Owner| index.canvas_size(&owner.manifest, &owner.canvas);
            image.owners.iter().find_map(of).unwrap_or(UNKNOWN_SIZE)
        };
        tokio::task::spawn_blocking(size).await.ok()
    }

    /// True if this is the canvas service's own request, which must not wait for the heal that caused it.
    pub fn is_callback(&self, at: &RoutedImage<'_>, head: &http::request::Parts, client: IpAddr) -> bool {
        self.parts.callbacks.is_callback(at, head, client)
    }

    /// Notes that the canvas service's own info.json request was answered with `status`.
    pub fn record_callback(&self, at: &RoutedImage<'_>, status: http::StatusCode) {
        self.parts.callbacks.answered(at, status);
    }

    /// Notes that a reader opened this page, and that its image is there: the pages behind it may be gone. `gone_at`: when
    /// it was found gone, if it had to be healed.
    fn record_page_view(&self, image: &IndexedImage, gone_at: Option<Instant>) {
        self.parts.prefetch.record_page_view(image, gone_at, &self.parts.starts);
    }

    /// First image of each of the `n` pages behind this image in its manifest, as requests on the same route name it. Reads the
    /// index.
    pub fn images_behind(&self, at: &RoutedImage<'_>, n: usize) -> Vec<Arc<str>> {
        let lookup = &self.parts.lookup;
        let owners = lookup.owners(at);
        let next = owners.first().and_then(|owner| lookup.index().neighbours(&owner.canvas, n).ok());
        let first = |page: &Neighbour| lookup.find(at.route, page.keys.first()?, at.trace);
        let images = next.iter().flatten().filter_map(first);
        images.filter(|image| image.route == at.route).map(|image| image.sent).collect()
    }

    /// Notes that a manifest went out to a reader, by its path (without the query).
    pub fn record_manifest_view(&self, path: &str, trace: &RequestTrace) {
        self.parts.prefetch.record_manifest_view(path, trace, &self.parts.starts);
    }

    /// Has the document rebuilt if that can help and do no harm; waits for the rebuild at most `heal.wait`.
    pub async fn mend_document(&self, poisoned: PoisonedDocument) -> DocumentRepair {
        self.parts.repairs.mend_document(poisoned, &self.parts.limits).await
    }

    /// Resumes a sweep that was interrupted, if there is one. Returns when the sweep ends.
    pub async fn resume_sweep(&self) {
        self.parts.sweep.resume(&self.parts.starts).await;
    }

    /// Begins a sweep of the whole index; `false`: there is one already.
    pub fn start_sweep(&self) -> bool {
        self.parts.sweep.start(&self.parts.starts)
    }

    /// Ends the sweep, and forgets its position; `false`: there is none. Heals under way go on.
    pub fn stop_sweep(&self) -> bool {
        self.parts.sweep.stop()
    }

    /// True while a sweep is under way.
    pub fn is_sweeping(&self) -> bool {
        self.parts.sweep.is_under_way()
    }

    /// Probes the images of sources with `warm` on a schedule. Ends at once where no source has it.
    pub async fn keep_warm(&self) {
        self.parts.warm.run(&self.parts.starts).await;
    }

    /// Follows what other nodes announce. Ends at once where there are no other nodes.
    pub async fn follow_cluster(&self) {
        let (mass_expiry, heals) =
            (Arc::clone(&self.parts.heals.mass_expiry), Arc::clone(&self.parts.starts));
        mass_expiry.heed_the_fleet(heals).await;
    }

    /// True if a canvas or manifest was last seen without this image, although the image is there. (`key`: its lookup key.)
    pub fn is_poisoned(&self, key: &str) -> bool {
        self.parts.repairs.state.poisoned_images.contains(key)
    }

    /// Status of each canvas service, in the order of the presentation routes.
    pub fn canvas_services(&self) -> Vec<CanvasServiceStatus> {
        let now = Instant::now();
        self.parts.services.all().iter().map(|service| service.status(now)).collect()
    }

    /// State of each breaker, in the order of the presentation routes.
    pub fn breakers(&self) -> Vec<BreakerState> {
        let now = Instant::now();
        self.parts.services.all().iter().map(|service| service.breaker.state(now)).collect()
    }

    /// Closes every breaker: requests go to the services again at once.
    pub fn reset_breakers(&self) {
        self.parts.services.all().iter().for_each(|service| service.close_breaker());
    }

    /// Forgets old entries. To be called every minute or so.
    pub fn prune(&self) {
        self.parts.limits.prune();
        self.parts.broken.prune(now_ms());
    }

    fn note(&self, error: &UpstreamError) {
        self.parts.metrics.upstream_error(error.kind());
    }
}
