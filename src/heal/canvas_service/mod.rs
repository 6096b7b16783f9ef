//! Canvas service as the ladder sees it: requests within limits, through lanes and a breaker.

pub(in crate::heal) mod ask;
pub(in crate::heal) mod build_permit;
pub(in crate::heal) mod circuit_breaker;
pub(in crate::heal) mod exchange;
pub(in crate::heal) mod failure_log;
pub(in crate::heal) mod fault_tracker;
pub(in crate::heal) mod permit_files;
pub(in crate::heal) mod priority_semaphore;
pub(in crate::heal) mod register_path;
pub(in crate::heal) mod registration;
pub(in crate::heal) mod request;
pub(in crate::heal) mod response;
pub(in crate::heal) mod services;
pub(in crate::heal) mod shared_heals;
pub(in crate::heal) mod shared_request;
pub(in crate::heal) mod status;
#[cfg(test)]
mod tests;
pub(in crate::heal) mod variants;
pub(in crate::heal) mod viewer_queue;
pub(in crate::heal) mod viewer_request;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::config::Settings;
use crate::config::settings::{Rung, Timeouts};
use crate::heal::canvas_service::circuit_breaker::CircuitBreaker;
use crate::heal::canvas_service::failure_log::FailureLog;
use crate::heal::canvas_service::fault_tracker::FaultTracker;
use crate::heal::canvas_service::permit_files::PermitFiles;
use crate::heal::canvas_service::priority_semaphore::PrioritySemaphore;
use crate::heal::canvas_service::registration::RegistrationCheck;
use crate::heal::canvas_service::response::{CacheStatus, CanvasReply, CanvasResponse, classify};
use crate::heal::canvas_service::variants::VariantSupport;
use crate::heal::canvas_service::viewer_queue::{ViewerBounds, ViewerRequests, is_canvas};
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::server::SendRequest;
use crate::iiif::identifier;
use crate::index::Index;
use crate::observe::{Metrics, RequestTrace};
use crate::upstream::UpstreamError;
use crate::upstream::guard::CanvasGuard;

/// The longest canvas that is read; the contents of a longer canvas are unknown.
const LONGEST_CANVAS: usize = 16 << 20;

/// The longest answer to `/resources/{uuid}` that is read.
const LONGEST_RESOURCE: usize = 16 << 10;

/// Requests without a permit that may hang at once, for each permit (`heal.concurrency`).
const HANGING: usize = 4;

/// Timeout of `/resources/{uuid}`: the service only reads Redis.
const RESOURCE_PATIENCE: Duration = Duration::from_secs(2);

/// `CanvasService` is one canvas service.
#[derive(Debug)]
pub(in crate::heal) struct CanvasService {
    /// Position of the route in `settings.routes`.
    pub(in crate::heal) route: usize,
    /// [Mark](crate::config::settings::RouteSettings::mark) of the route.
    pub(in crate::heal) mark: u64,
    server: Arc<dyn SendRequest>,
    /// Decides which redirects are followed.
    guard: CanvasGuard,
    /// Reads the service's documents.
    index: Arc<Index>,
    scheme: String,
    /// Host and port as configured.
    authority: String,
    /// Path that ends in `/`, before `fedora/…` and `resources/…`.
    base: String,
    /// `Host` of requests to the service.
    host: String,
    /// Name in `Via` of requests to the service.
    name: String,
    times: Timeouts,
    patience: Duration,
    /// The longest document that is read.
    longest: usize,
    pub(in crate::heal) lanes: Arc<PrioritySemaphore>,
    /// The other nodes, which share the service's permits.
    cluster: Option<Arc<Cluster>>,
    permits: usize,
    pub(in crate::heal) bounds: ViewerBounds,
    open_for: Duration,
    /// True if `variant` is a rung of the ladder.
    uses_variants: bool,
    pub(in crate::heal) breaker: Arc<CircuitBreaker>,
    pub(in crate::heal) registrations: Arc<RegistrationCheck>,
    pub(in crate::heal) variants: Arc<VariantSupport>,
    pub(in crate::heal) viewers: Arc<ViewerRequests>,
    /// Permits shared with other processes, where there are no other nodes.
    files: PermitFiles,
    /// Hanging requests that have passed their permits on.
    hanging: Arc<Semaphore>,
    /// Requests that made the service build something, or register a file, since the program began.
    sent: Arc<AtomicU64>,
    /// Held by the one rebuild that finds out whether the service is well.
    finds_out: Arc<Semaphore>,
    /// Time to build a canvas, in microseconds.
    build_time: Arc<AtomicU64>,
    /// Held by the one background request that has a whole manifest built.
    pub(in crate::heal) books: Arc<Semaphore>,
    /// Time at which the breaker last closed.
    recovered: Arc<Mutex<Option<Instant>>>,
    pub(in crate::heal) fault_tracker: Arc<FaultTracker>,
    pub(in crate::heal) failures: Arc<FailureLog>,
    pub(in crate::heal) metrics: Arc<Metrics>,
}

/// `ServiceContext` has the parts that a canvas service needs for requests and reports.
#[derive(Debug)]
pub(in crate::heal) struct ServiceContext {
    pub(in crate::heal) server: Arc<dyn SendRequest>,
    /// Reads the service's documents.
    pub(in crate::heal) index: Arc<Index>,
    /// The other nodes, which share the service's permits.
    pub(in crate::heal) cluster: Option<Arc<Cluster>>,
    pub(in crate::heal) metrics: Arc<Metrics>,
}

/// `Host` of requests to the service of this route.
fn host_of(settings: &Settings, route: usize) -> &str {
    let route = &settings.routes[route];
    let public = settings.server.public_hosts.first().filter(|_| route.preserve_host);
    public.map_or(route.upstream.authority.as_str(), String::as_str)
}

impl CanvasService {
    /// Creates a canvas service. `before`: the service under the settings before, whose state is kept.
    pub(in crate::heal) fn new(
        route: usize,
        settings: &Arc<Settings>,
        context: ServiceContext,
        lanes: Arc<PrioritySemaphore>,
        before: Option<&Self>,
    ) -> Self {
        let ServiceContext { server, index, cluster, metrics } = context;
        let (heal, upstream) = (&settings.heal, &settings.routes[route].upstream);
        let (failures, open_for) = (heal.breaker_failures, heal.breaker_open);
        let breaker = match before.map(|before| &before.breaker) {
            Some(breaker) if breaker.has_limits(failures, open_for) => Arc::clone(breaker),
            Some(breaker) => Arc::new(breaker.under(failures, open_for)),
            None => Arc::new(CircuitBreaker::new(failures, open_for)),
        };
        let base = format!("{}/", upstream.path.trim_end_matches('/'));
        Self {
            route,
            mark: settings.routes[route].mark(),
            base,
            host: host_of(settings, route).to_owned(),
            name: settings.server.name.clone(),
            server,
            guard: CanvasGuard::new(Arc::clone(settings)),
            index,
            longest: settings.presentation.max_body.max(LONGEST_CANVAS),
            scheme: upstream.scheme.to_string(),
            authority: upstream.authority.to_string(),
            times: settings.timeouts(route),
            patience: heal.timeout,
            lanes,
            cluster,
            permits: heal.concurrency,
            bounds: ViewerBounds::of(heal),
            open_for,
            uses_variants: heal.ladder.contains(&Rung::Variant),
            breaker,
            registrations: before
                .map(|before| &before.registrations)
                .filter(|check| check.keeps_to(heal.alive_for, heal.resources_recheck))
                .cloned()
                .unwrap_or_else(|| Arc::new(RegistrationCheck::new(heal.alive_for, heal.resources_recheck))),
            variants: before.map(|before| Arc::clone(&before.variants)).unwrap_or_default(),
            viewers: before.map_or_else(
                || Arc::new(ViewerRequests::new(heal.document_concurrency)),
                |before| before.viewers.under(heal.document_concurrency),
            ),
            files: PermitFiles::new(&settings.index.path, upstream.authority.as_str()),
            sent: before.map(|before| Arc::clone(&before.sent)).unwrap_or_default(),
            hanging: before.filter(|before| before.permits == heal.concurrency).map_or_else(
                || Arc::new(Semaphore::new(heal.concurrency.saturating_mul(HANGING))),
                |before| Arc::clone(&before.hanging),
            ),
            finds_out: before
                .map_or_else(|| Arc::new(Semaphore::new(1)), |before| Arc::clone(&before.finds_out)),
            build_time: before.map(|before| Arc::clone(&before.build_time)).unwrap_or_default(),
            books: before.map_or_else(|| Arc::new(Semaphore::new(1)), |before| Arc::clone(&before.books)),
            recovered: before.map(|before| Arc::clone(&before.recovered)).unwrap_or_default(),
            fault_tracker: before.map(|before| Arc::clone(&before.fault_tracker)).unwrap_or_default(),
            failures: before.map(|before| Arc::clone(&before.failures)).unwrap_or_default(),
            metrics,
        }
    }

    /// Name of a flight on every node: nodes need not number their routes alike. Two flights of one node never have the
    /// same name: all that makes a [mark](crate::config::settings::RouteSettings::mark) is in it.
    pub(in crate::heal) fn name_of(&self, flight: &CanvasRequestKey) -> String {
        format!("{}://{}{} {}", self.scheme, self.authority, self.base, flight.cluster_key())
    }

    /// Requests a canvas; the answer tells whether it holds the image with this lookup key. Returns the status, too, unless
    /// there was no answer.
    pub(in crate::heal) async fn get_canvas(
        &self,
        target: &str,
        key: &str,
        trace: &RequestTrace,
        made: CacheStatus,
    ) -> (CanvasResponse, Option<StatusCode>) {
        let _counted = crate::observe::GaugeGuard::inc(&self.metrics.canvas_in_flight);
        self.count_request();
        let began = Instant::now();
        let built_since = (made == CacheStatus::Now).then_some(began);
        let (answer, status) = match self.follow(target, trace, self.patience, LONGEST_CANVAS).await {
            Ok(reply) => (self.read_canvas(target, &reply, key, built_since), Some(reply.status)),
            Err(error) => {
                self.metrics.upstream_error(error.kind());
                tracing::warn!(request = %trace, canvas = target, error = %crate::upstream::ErrorChain(&error), "canvas request failed");
                (CanvasResponse::Unwell, None)
            }
        };
        self.took(target, answer, began.elapsed());
        self.record(answer);
        (answer, status)
    }

    /// Requests the file of `uuid`, as the service knows it. The answer must be the service's own, not a cached copy.
    pub(in crate::heal) async fn get_resource(
        &self,
        uuid: Uuid,
        trace: &RequestTrace,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        let target = format!("{}resources/{uuid}", self.base);
        let asked = self.get(&target, trace, RESOURCE_PATIENCE, LONGEST_RESOURCE);
        // One timeout for the whole request: queueing and dialling have timeouts of their own, and a viewer waits for this.
        let answer = tokio::time::timeout(RESOURCE_PATIENCE, asked).await;
        answer.unwrap_or(Err(UpstreamError::FirstByteTimeout)).map(|reply| (reply.status, reply.body))
    }

    /// Registers one image anew: `{base}{path}?update=true`, where `path` is `fedora/image/…`.
    pub(in crate::heal) async fn register(&self, path: &str, trace: &RequestTrace) -> CanvasResponse {
        let target = format!("{}{path}?update=true", self.base);
        self.count_request();
        let answer = match self.get(&target, trace, self.patience, LONGEST_CANVAS).await {
            Ok(reply) if reply.status.is_success() => CanvasResponse::Built,
            Ok(reply) => classify(reply.status),
            Err(_) => CanvasResponse::Unwell,
        };
        // UPSTREAM: the service registers a file without a look at it: nothing was built, and the file store may fail.
        if answer == CanvasResponse::Built {
            self.record_success();
        } else {
            self.record(answer);
        }
        answer
    }

    /// Requests a document of any kind. `Err`: any other answer.
    pub(in crate::heal) async fn document(
        &self,
        target: &str,
        trace: &RequestTrace,
    ) -> Result<Bytes, CanvasResponse> {
        self.count_request();
        match self.follow(target, trace, self.patience, self.longest).await {
            Ok(reply) if reply.status.is_success() => Ok(reply.body),
            Ok(reply) => {
                let answer = classify(reply.status);
                self.record(answer);
                Err(answer)
            }
            Err(_) => {
                self.record(CanvasResponse::Unwell);
                Err(CanvasResponse::Unwell)
            }
        }
    }

    /// The permit to have a canvas built while the service's health is unknown. `None`: another request has it.
    pub(in crate::heal) fn try_alone(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.finds_out).try_acquire_owned().ok()
    }

    /// Waits for the permit to find out alone. Facts about the service from before may not hold any more.
    pub(in crate::heal) async fn alone(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.finds_out).acquire_owned().await.ok()
    }

    /// Name of the service on every node.
    pub(in crate::heal) fn cluster_name(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.base)
    }

    /// Reads the answer to a canvas request: what it proves about one image, and about the service. `built_since`: start of
    /// the request, if the answer was built for it for certain. (A redirect may have dropped the parameter of a variant.)
    fn read_canvas(
        &self,
        requested: &str,
        CanvasReply { target, status, body }: &CanvasReply,
        image: &str,
        built_since: Option<Instant>,
    ) -> CanvasResponse {
        if !status.is_success() {
            return classify(*status);
        }
        let is_book = !is_canvas(target);
        // An answer to a request for a whole manifest that is no manifest: a retry would not help.
        let nonsense = if is_book { CanvasResponse::Refused } else { CanvasResponse::Unclear };
        let Ok(read) = self.index.read_document(body) else { return nonsense };
        // A cache or a gateway may answer with another document: that proves nothing about this canvas, or the service.
        let asked = target.strip_prefix(&self.base).unwrap_or(target);
        let is_another = read.document.id.as_ref().is_some_and(|id| !variants::is_of(id, asked));
        if let (Some(id), true, false) = (&read.document.id, variants::is_honoured(requested), is_another) {
            self.heard_of_variants(variants::is_honoured(id));
        }
        if is_book && (is_another || read.document.id.is_none()) {
            return nonsense;
        }
        if let (Some(began), true) = (built_since, is_book) {
            self.registrations.note_built(read.images(), began);
        }
        let mut images = read.images().peekable();
        if !read.canvases.is_empty() && images.peek().is_none() && !is_another {
            CanvasResponse::Lacks
        } else if !images.any(|own| identifier::same_file(own, image)) {
            CanvasResponse::Unclear
        } else if built_since.is_some() {
            CanvasResponse::Built
        } else {
            CanvasResponse::Carries
        }
    }
}
