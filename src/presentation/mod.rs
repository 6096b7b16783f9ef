//! Manifests and canvases on their way to a viewer: requested once, complete, and under the host name that the viewer
//! knows.
//!
//! [`PresentationProxy::answer`] is the only entry. Concurrent requests for a document share one flight (`collapse`). The
//! document is fetched and learned from (`fetch`), buffered up to a limit (`buffer`), made valid JSON where it is not
//! (`json_repair`), and rebuilt where it lacks images that the index knows (`poison`).

mod buffer;
mod collapse;
pub mod cors;
mod fetch;
pub mod gateway;
mod json_repair;
mod poison;
mod rewrite;
mod rewriting_body;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Response, Uri, header};

use crate::config::Settings;
use crate::heal::single_flight::SingleFlight;
use crate::heal::{DocumentRepair, Healer, PoisonedDocument, Priority, without_update};
use crate::index::Index;
use crate::index::learn::traffic::TrafficLearner;
use crate::observe::{EventKind, Metrics, RequestTrace};
use crate::outcome::Outcome;
use crate::upstream::coding;
use crate::upstream::{Body, Caller, MemoryBudget, Routing, Upstream, UpstreamError};
pub use gateway::GatewayResult;
pub use rewrite::{RewriteRule, Rewriter};

use buffer::{BufferedDocument, ParsePermits};
use collapse::{CollapseKey, DirectFlights, SharedResponse};
use fetch::is_document;

/// Repairs of a document for one viewer if it comes back with other images missing.
const MAX_REPAIRS: usize = 2;

/// Answers requests on presentation routes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PresentationProxy {
    inner: Arc<PresentationInner>,
}

#[derive(Debug)]
struct PresentationInner {
    settings: Arc<Settings>,
    /// Upstreams in the order of `settings.routes`.
    upstreams: Vec<Arc<Upstream>>,
    healer: Healer,
    index: Arc<Index>,
    learner: Option<TrafficLearner>,
    budget: MemoryBudget,
    metrics: Arc<Metrics>,
    flights: SingleFlight<CollapseKey, SharedResponse>,
    rewrite: Option<Arc<RewriteRule>>,
    direct_flights: Arc<DirectFlights>,
    parse_permits: ParsePermits,
    /// Hash of the settings that determine a document's content: a document under another host name, or no longer repaired,
    /// is a different one.
    kind: u64,
}

/// State that lasts as long as the process: a document requested under one configuration is not requested once more under
/// the next. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PresentationState {
    index: Arc<Index>,
    budget: MemoryBudget,
    metrics: Arc<Metrics>,
    flights: SingleFlight<CollapseKey, SharedResponse>,
    direct_flights: Arc<DirectFlights>,
    parse_permits: ParsePermits,
}

impl PresentationState {
    /// Creates the state, without flights. Must be called in the runtime on which documents are fetched.
    pub fn new(index: Arc<Index>, budget: MemoryBudget, metrics: Arc<Metrics>) -> Self {
        let (flights, parse_permits) = (SingleFlight::here(), ParsePermits::default());
        Self { index, budget, metrics, flights, direct_flights: Arc::default(), parse_permits }
    }
}

/// A request for a presentation, as it goes upstream.
#[derive(Debug)]
pub struct PresentationRequest {
    /// Position in `settings.routes`.
    pub route: usize,
    /// URL that the viewer asked for.
    pub public: Uri,
    /// The head as it goes upstream.
    pub onward: Parts,
    /// Id of the request.
    pub trace: RequestTrace,
    /// Caller of the upstream request: of the first request, where several share it.
    pub caller: Caller,
    /// True where the viewer may have documents built anew (`update=true`).
    pub may_update: bool,
}

/// An answer, and how it came about.
#[derive(Debug)]
pub struct PresentationResponse {
    /// Response to the viewer.
    pub response: Response<Body>,
    /// Outcome of the request.
    pub outcome: Outcome,
    /// Duration of the rebuild, where one was needed.
    pub cured: Option<Duration>,
}

impl PresentationRequest {
    /// Removes the parameters that would have a document built anew: during a fault a rebuild makes a good one worse.
    fn never_builds_anew(&mut self) -> Result<(), UpstreamError> {
        for uri in [&mut self.public, &mut self.onward.uri] {
            let Some(plain) = uri.path_and_query().and_then(|target| without_update(target.as_str())) else {
                continue;
            };
            let mut parts = uri.clone().into_parts();
            parts.path_and_query = Some(plain.parse().map_err(|_| UpstreamError::Target)?);
            *uri = Uri::from_parts(parts).map_err(|_| UpstreamError::Target)?;
        }
        Ok(())
    }
}

impl From<Response<Body>> for PresentationResponse {
    fn from(response: Response<Body>) -> Self {
        Self { response, outcome: Outcome::Served, cured: None }
    }
}

/// Result of one upstream request.
enum UpstreamDocument {
    Whole(BufferedDocument),
    /// Not buffered: too long, or not to be read.
    Streams(Response<Body>),
}

impl PresentationProxy {
    /// A presenter under one configuration.
    pub fn new(
        routing: Routing,
        healer: Healer,
        learner: Option<TrafficLearner>,
        state: &PresentationState,
    ) -> Self {
        let Routing { settings, upstreams } = routing;
        let PresentationState { index, budget, metrics, flights, direct_flights, parse_permits } =
            state.clone();
        let rewrite = RewriteRule::of(&settings);
        let mut kind = DefaultHasher::new();
        let own = (&settings.rewrite, &settings.presentation, &settings.server.public_hosts);
        format!("{own:?}").hash(&mut kind);
        let kind = kind.finish();
        let inner = PresentationInner {
            settings,
            upstreams,
            healer,
            index,
            learner,
            budget,
            metrics,
            flights,
            rewrite,
            direct_flights,
            parse_permits,
            kind,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Answers one request.
    pub async fn answer(
        &self,
        mut wanted: PresentationRequest,
        body: Body,
    ) -> Result<PresentationResponse, UpstreamError> {
        if !wanted.may_update {
            wanted.never_builds_anew()?;
        }
        if self.inner.reads_documents() {
            coding::narrow(&mut wanted.onward.headers);
        }
        let key = CollapseKey::of(self.inner.mark(&wanted) ^ self.inner.kind, &wanted.onward, &body)
            .filter(|_| self.inner.collapses());
        match key {
            Some(key) => self.share(key, wanted).await,
            None => self.inner.alone(&wanted, body).await,
        }
    }

    /// Waits for the shared flight that fetches this document. A flight is a task, so a client that leaves does not end it.
    async fn share(
        &self,
        key: CollapseKey,
        wanted: PresentationRequest,
    ) -> Result<PresentationResponse, UpstreamError> {
        let inner = &self.inner;
        let is_in_flight = inner.flights.find(&key).is_some();
        if is_in_flight || inner.direct_flights.has(&key) {
            inner.metrics.event(EventKind::Collapsed);
            tracing::debug!(request = %wanted.trace, target = &*key.target.1, "shares the request of another viewer");
        }
        let wanted = Arc::new(wanted);
        let result = if is_in_flight || inner.flights.len() < inner.settings.presentation.max_flights {
            let mut handle = inner.flights.join_or_start(&key, Priority::Viewer, |_| {
                let (inner, wanted) = (Arc::clone(inner), Arc::clone(&wanted));
                async move { inner.send_shared(&wanted).await }
            });
            handle.wait().await
        } else {
            Some(inner.direct_flights.result(&key, Box::pin(inner.send_shared(&wanted))).await)
        };
        match result {
            Some(SharedResponse::Shared(whole, cookies)) => {
                let mut presented = whole.answer();
                let cookies = std::mem::take(&mut *cookies.lock());
                for cookie in cookies {
                    presented.response.headers_mut().append(header::SET_COOKIE, cookie);
                }
                Ok(presented)
            }
            Some(SharedResponse::Failed(error)) => Err(collapse::again(error)),
            Some(SharedResponse::One(for_one)) => {
                let taken = for_one.lock().take();
                match taken {
                    Some(presented) => Ok(presented),
                    None => inner.alone(&wanted, Body::Empty).await,
                }
            }
            None => inner.alone(&wanted, Body::Empty).await,
        }
    }
}

impl PresentationInner {
    /// Mark of the request's route: its identity across reloads.
    fn mark(&self, wanted: &PresentationRequest) -> u64 {
        self.settings.routes[wanted.route].mark()
    }

    /// True if anything here depends on the content of documents.
    fn reads_documents(&self) -> bool {
        let presentation = &self.settings.presentation;
        self.learner.is_some() || presentation.watch || presentation.repair || self.rewrite.is_some()
    }

    fn collapses(&self) -> bool {
        self.settings.presentation.collapse
    }

    /// Sends one request for many viewers.
    async fn send_shared(&self, wanted: &PresentationRequest) -> SharedResponse {
        let budget = self.budget.of(wanted.caller.holder());
        match self.make(wanted, Body::Empty, true).await.map(|made| self.under_our_name(made, &budget)) {
            Ok(UpstreamDocument::Whole(whole)) if collapse::may_be_shared(&whole.head) => {
                SharedResponse::shared(whole)
            }
            Ok(UpstreamDocument::Whole(whole)) => SharedResponse::one(whole.answer()),
            Ok(UpstreamDocument::Streams(response)) => SharedResponse::one(response.into()),
            Err(error) => SharedResponse::Failed(Arc::new(error)),
        }
    }

    /// Rewrites a document once for all requests that share it. A streaming body is rewritten on its way out.
    fn under_our_name(&self, made: UpstreamDocument, budget: &MemoryBudget) -> UpstreamDocument {
        match (made, &self.rewrite) {
            (UpstreamDocument::Whole(mut whole), Some(rewrite)) => {
                let before = whole.body.clone();
                rewrite.apply_whole(&mut whole.head, &mut whole.body);
                if before.as_ptr() != whole.body.as_ptr() {
                    whole.body = budget.count(whole.body.len()).keep(whole.body);
                }
                UpstreamDocument::Whole(whole)
            }
            (made, _) => made,
        }
    }

    /// Sends a request for one viewer.
    async fn alone(
        &self,
        wanted: &PresentationRequest,
        body: Body,
    ) -> Result<PresentationResponse, UpstreamError> {
        Ok(match self.make(wanted, body, false).await? {
            UpstreamDocument::Whole(whole) => whole.answer(),
            UpstreamDocument::Streams(response) => response.into(),
        })
    }

    /// Fetches the document from upstream, and repairs and compares it. `holds`: several viewers wait for it, so it is
    /// buffered even without a repair.
    async fn make(
        &self,
        wanted: &PresentationRequest,
        body: Body,
        holds: bool,
    ) -> Result<UpstreamDocument, UpstreamError> {
        let may_repeat = matches!(body, Body::Empty);
        let mut whole = match self.repaired(wanted, body, holds).await? {
            UpstreamDocument::Whole(whole) => whole,
            streams @ UpstreamDocument::Streams(_) => return Ok(streams),
        };
        for _ in 0..=MAX_REPAIRS {
            let Some(poisoned) = self.suspect(wanted, &whole).await.filter(|_| may_repeat) else {
                return Ok(UpstreamDocument::Whole(whole));
            };
            let outcome = match self.healer.mend_document(poisoned).await {
                // Rebuilt for the sake of one image; the next answer shows whether all are back.
                DocumentRepair::Whole(took) => match self.repaired(wanted, Body::Empty, holds).await? {
                    UpstreamDocument::Whole(mended) => {
                        let cured = whole.cured.map_or(took, |before| before + took);
                        whole = BufferedDocument { outcome: Outcome::Healed, cured: Some(cured), ..mended };
                        continue;
                    }
                    streams @ UpstreamDocument::Streams(_) => return Ok(streams),
                },
                DocumentRepair::Pending => Outcome::Pending,
                DocumentRepair::Cooling => Outcome::Cooling,
                DocumentRepair::Failed => Outcome::Failed,
                // Final answer; for a document repaired before, after the last repair.
                DocumentRepair::Truth | DocumentRepair::Off => whole.outcome,
            };
            let cured = whole.cured.filter(|_| outcome == Outcome::Healed);
            return Ok(UpstreamDocument::Whole(BufferedDocument { outcome, cured, ..whole }));
        }
        Ok(UpstreamDocument::Whole(BufferedDocument { outcome: Outcome::Failed, cured: None, ..whole }))
    }

    /// Fetches the document from upstream; broken JSON is repaired.
    async fn repaired(
        &self,
        wanted: &PresentationRequest,
        body: Body,
        holds: bool,
    ) -> Result<UpstreamDocument, UpstreamError> {
        let mut made = self.fetch(wanted, body, holds).await?;
        let presentation = &self.settings.presentation;
        if let UpstreamDocument::Whole(whole) = &mut made
            && presentation.repair
            && is_document(&wanted.onward.method, &whole.head)
        {
            let budget = self.budget.of(wanted.caller.holder());
            json_repair::repair(whole, presentation.max_body, &self.parse_permits, &budget, &self.metrics)
                .await;
        }
        Ok(made)
    }

    /// Finds images that the index knows and the document lacks.
    async fn suspect(
        &self,
        wanted: &PresentationRequest,
        whole: &BufferedDocument,
    ) -> Option<PoisonedDocument> {
        let presentation = &self.settings.presentation;
        let onward = &wanted.onward;
        let query = wanted.public.query();
        if !presentation.watch || !is_document(&onward.method, &whole.head) || !poison::is_comparable(query) {
            return None;
        }
        let (index, whole, most) = (Arc::clone(&self.index), whole.clone(), presentation.max_body);
        let target = (wanted.route, self.mark(wanted), onward.uri.path_and_query()?.as_str().to_owned());
        let public = wanted.public.path_and_query()?;
        let hosts = self.settings.server.public_hosts.iter();
        let names =
            hosts.flat_map(|host| ["https", "http"].map(|scheme| format!("{scheme}://{host}{public}")));
        let names = names.collect();
        let length = whole.body.len();
        let looked = move || poison::find_missing_images(&index, names, target, &whole.plain(most)?);
        let suspected = self.parse_permits.parse(length, looked).await.flatten()?;
        Some(PoisonedDocument { trace: wanted.trace.clone(), ..suspected })
    }
}
