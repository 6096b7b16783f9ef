//! The life of one request. Read [`Proxy::handle`] first: it calls everything else.

mod bodies;
mod cache_status;
mod caching;
mod field_names;
pub mod forwarded;
mod forwarding;
mod headers;
mod healing;
mod leader_request;
mod placeholder;
mod prefetch;
mod rate_limit;
mod refusal;
mod reply;
mod route;
mod sender;
mod sending;
mod striped_picture;
mod thumbnail;
mod upgrade;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::{Body as _, Incoming};

pub use forwarding::{ClientInfo, client};
#[doc(hidden)]
pub use headers::rules;
pub use refusal::{MalformedHead, Refusal};

use crate::cache::{CacheState, CachedResponse, TileCache};
use crate::config::Settings;
use crate::config::settings::{RouteKind, Rung};
use crate::heal::{Healer, RoutedImage, callback};
use crate::iiif::Target;
use crate::observe::{EventKind, Metrics, REQUEST_ID, RequestTrace, Span};
use crate::outcome::Outcome;
use crate::presentation::{GatewayResult, PresentationProxy, PresentationRequest, RewriteRule, cors};
use crate::upstream::{Body, Caller, MemoryBudget, Routing, Upstream};
use cache_status::CacheStatusValues;
use caching::CacheRoute;
use field_names::{ProxyFields, ViaValue};
use headers::OnwardRules;
use prefetch::TilePrefetch;
use rate_limit::ClientRateLimiter;
use route::RoutedRequest;
use sender::Sender;
use upgrade::Upgrades;

/// The reverse proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxy {
    inner: Arc<ProxyInner>,
}

#[derive(Debug)]
struct ProxyInner {
    settings: Arc<Settings>,
    /// Upstreams in the order of `settings.routes`.
    upstreams: Vec<Arc<Upstream>>,
    healer: Healer,
    presenter: PresentationProxy,
    rewrite: Option<Arc<RewriteRule>>,
    via: ViaValue,
    rates: ClientRateLimiter,
    upgrades: Upgrades,
    budget: MemoryBudget,
    cache: TileCache,
    /// Cache states in the order of `settings.routes`.
    cache_routes: Box<[CacheRoute]>,
    cache_status: CacheStatusValues,
    prefetches: TilePrefetch,
    metrics: Arc<Metrics>,
}

/// State that lasts as long as the process, whatever the configuration says. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProxyState {
    rates: ClientRateLimiter,
    upgrades: Upgrades,
    budget: MemoryBudget,
    cache: CacheState,
    metrics: Arc<Metrics>,
}

impl ProxyState {
    /// Creates the state of a proxy without requests.
    pub fn new(budget: MemoryBudget, cache: CacheState, metrics: Arc<Metrics>) -> Self {
        Self { rates: ClientRateLimiter::new(), upgrades: Upgrades::default(), budget, cache, metrics }
    }
}

/// A request that has a route, with its sender and target.
struct Exchange<'a> {
    sender: &'a Sender,
    asked: RoutedRequest<'a>,
    /// On an image route, where the path names one.
    image: Option<RoutedImage<'a>>,
    /// Start of the request.
    started: Instant,
    /// Time spent waiting for the request of another reader: a heal must not add its whole wait.
    waited: Duration,
    /// True if a stale answer is stored, which goes out where the image server or a heal fails.
    has_stale: bool,
    /// Stored, fresh info.json: it goes out in the place of the image server's, unless the image expired.
    cached: Option<CachedResponse>,
}

impl Exchange<'_> {
    /// True for JSON for viewers: a manifest, a canvas, an info.json.
    fn is_document(&self) -> bool {
        self.asked.route_kind == RouteKind::Presentation
            || self.image.as_ref().is_some_and(|image| image.request.target == Target::Info)
    }
}

/// Response to the viewer, and how the request ended.
#[derive(Debug)]
struct ProxyResponse {
    response: Response<Body>,
    outcome: Outcome,
    healed: Option<(Option<Rung>, Duration)>,
    /// True if a placeholder stands in for an image that is gone.
    is_placeholder: bool,
}

impl ProxyResponse {
    fn served(response: Response<Body>) -> Self {
        Self::of(response, Outcome::Served, None)
    }

    fn of(response: Response<Body>, outcome: Outcome, healed: Option<(Option<Rung>, Duration)>) -> Self {
        Self { response, outcome, healed, is_placeholder: false }
    }

    /// Adds CORS fields to a document: scripts of all origins may read it.
    fn with_cors(mut self, asked: &HeaderMap) -> Self {
        cors::allow_any_origin(asked, self.response.headers_mut());
        self
    }
}

impl Proxy {
    /// A proxy under one configuration.
    pub fn new(routing: Routing, healer: Healer, presenter: PresentationProxy, state: &ProxyState) -> Self {
        let Routing { settings, upstreams } = routing;
        let ProxyState { rates, upgrades, budget, cache, metrics } = state.clone();
        let cache = TileCache::new(settings.cache.clone(), cache);
        let cache_routes = settings.routes.iter().map(|route| CacheRoute::new(route, &settings)).collect();
        let cache_status = CacheStatusValues::new(&settings.server.name);
        let rewrite = RewriteRule::of(&settings);
        let via = ViaValue::new(&settings.server.name);
        let inner = ProxyInner {
            settings,
            upstreams,
            healer,
            presenter,
            rewrite,
            via,
            rates,
            upgrades,
            budget,
            cache,
            cache_routes,
            cache_status,
            prefetches: TilePrefetch::new(),
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Answers one request, without an error.
    ///
    /// Synchronous work is done outside the future, which would otherwise hold the request twice.
    pub fn handle(
        self,
        viewer: ClientInfo,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        let started = Instant::now();
        let (mut head, body) = request.into_parts();
        let inner = self.inner;
        let sender = Sender::new(viewer, &head, &inner.settings);
        let (trace, span) =
            inner.metrics.spans.begin(RequestTrace::of(&head.headers, sender.peer_is_trusted));
        let asking = reply::RequestContext::new(&head, sender.client, trace, started);
        // Checked before all else, because no other refusal ends the connection.
        let checked = route::readable(&head)
            .and_then(|()| route::check_framing(&head, asking.found))
            .and_then(|()| inner.check_rate_limit(&sender));
        async move {
            let ended = if let Err(refusal) = checked {
                ("none", Err(refusal))
            } else if let Some(answer) = inner.gateway(&sender, &head).await {
                ("manifests", answer)
            } else {
                inner.dispatch(&sender, &asking, &mut head, body).await
            };
            inner.reply(&asking, &head.headers, span, ended)
        }
    }
}

impl ProxyInner {
    /// Checks the client's request rate.
    fn check_rate_limit(&self, sender: &Sender) -> Result<(), Refusal> {
        // The canvas service must never wait for viewers who wait for it.
        if self.settings.server.rate == 0 || sender.is_trusted || sender.is_canvas_service {
            return Ok(());
        }
        self.rates.check(sender.client, &self.settings.server).map_err(|after| {
            self.metrics.event(EventKind::RateLimited);
            Refusal::TooOften(after)
        })
    }

    /// Stored manifests are served before all routes, where they are at all.
    async fn gateway(&self, sender: &Sender, head: &Parts) -> Option<Result<ProxyResponse, Refusal>> {
        let base = || headers::own_base(head, &sender.viewer, &self.settings);
        match self.presenter.gateway(head, base, || sender.client()).await {
            GatewayResult::Elsewhere => None,
            GatewayResult::Unknown => Some(Err(Refusal::NoRoute)),
            GatewayResult::Answer(presented) => Some(Ok(ProxyResponse::served(presented.response))),
        }
    }

    /// Sends the request to its route, or refuses it. Returns the kind of the route, and the answer.
    async fn dispatch(
        self: &Arc<Self>,
        sender: &Sender,
        asking: &reply::RequestContext,
        head: &mut Parts,
        body: Incoming,
    ) -> (&'static str, Result<ProxyResponse, Refusal>) {
        let step = Span::step(&asking.trace, "route");
        let routed = route::route(&self.settings, head, (asking.uri(), asking.found), &asking.trace);
        drop(step);
        let asked = match routed {
            Ok(_) if self.is_loop(asking, head) => return ("none", Err(Refusal::Loop)),
            Ok(asked) => asked,
            Err(refusal) => return ("none", Err(refusal)),
        };
        let image = asked.image();
        let image = image.map(|request| RoutedImage { route: asked.route, request, trace: asked.trace });
        let (started, waited) = (asking.started, Duration::ZERO);
        let mut exchange = Exchange { sender, asked, image, started, waited, has_stale: false, cached: None };
        let kind = exchange.asked.kind();
        if let Some(protocols) = self.protocols(exchange.asked.route_kind, head, !body.is_end_stream()) {
            return (kind, Box::pin(self.upgrade(&exchange, protocols, head)).await);
        }
        let answer = self.handle_routed(&mut exchange, head, body).await;
        let opened = |answer: ProxyResponse| {
            if exchange.is_document() { answer.with_cors(&head.headers) } else { answer }
        };
        (kind, answer.map(opened))
    }

    /// True if `Via` names us more than once. (Once is a callback of the canvas service.)
    fn is_loop(&self, asking: &reply::RequestContext, head: &Parts) -> bool {
        asking.found.has(ProxyFields::VIA)
            && callback::own_vias(&head.headers, &self.settings.server.name) > 1
    }

    /// Sends the request to its upstream; an expired image is healed on the way. Any other answer streams straight back.
    ///
    /// Rare futures are boxed, and the head is changed in place: a future is as large as its largest branch.
    async fn handle_routed(
        self: &Arc<Self>,
        exchange: &mut Exchange<'_>,
        head: &mut Parts,
        body: Incoming,
    ) -> Result<ProxyResponse, Refusal> {
        let Exchange { sender, asked, image, .. } = &*exchange;
        let echo = image.as_ref().is_some_and(|image| self.healer.is_callback(image, head, sender.client));
        let raw = echo || self.skips_healing(head, sender);
        let mut lookup = if raw || !body.is_end_stream() { None } else { self.cache_lookup(exchange, head) };
        if let Some(lookup) = &lookup {
            self.prefetch(exchange, lookup, head);
        }
        if let Some(hit) = lookup.as_mut().and_then(|lookup| self.tile_hit(exchange, lookup, head)) {
            return Ok(hit);
        }
        let caller = sender.caller(asked.route_kind, head.version);
        let body = bodies::request_body(asked, &head.method, body, &self.settings.server)?;
        headers::prepare_upstream_head(head, asked, &sender.viewer, &self.onward_rules())?;
        if let Some(rewrite) = self.rewrite.as_ref().filter(|_| exchange.is_document()) {
            rewrite.prepare(&mut head.headers);
        }
        let onward = &*head;
        if cors::is_preflight_for(asked.route_kind, onward) {
            let answer = self.send(asked, onward, body, &caller).await;
            return Ok(ProxyResponse::served(cors::options(onward, answer.ok())));
        }
        if asked.route_kind == RouteKind::Presentation {
            return Box::pin(self.present(exchange, onward, body, caller)).await;
        }
        // A GET with a body, which no viewer sends, cannot be repeated, so it is not healed.
        let repeatable = matches!(onward.method, Method::GET | Method::HEAD) && matches!(body, Body::Empty);
        let heals = |image: &&RoutedImage<'_>| repeatable && !raw && image.request.is_healable();
        if let Some(lookup) = lookup.filter(|_| repeatable) {
            return Box::pin(self.through_cache(exchange, lookup, onward, &caller)).await;
        }
        if let Some(image) = image.as_ref().filter(heals) {
            let answer = self.heal(exchange, image, onward, &caller).await;
            return answer.map(|answer| self.past_cache(image, answer));
        }
        let answer = self.send(asked, onward, body, &caller).await?;
        if let Some(image) = image.as_ref().filter(|_| echo) {
            self.healer.record_callback(image, answer.status());
        }
        Ok(ProxyResponse::served(answer))
    }

    fn onward_rules(&self) -> OnwardRules<'_> {
        OnwardRules { settings: &self.settings, via: &self.via, rewrite: self.rewrite.as_deref() }
    }

    /// Answers requests for manifests and canvases, by way of `presentation`.
    async fn present(
        &self,
        exchange: &Exchange<'_>,
        onward: &Parts,
        body: Body,
        caller: Caller,
    ) -> Result<ProxyResponse, Refusal> {
        let Exchange { sender, asked, .. } = exchange;
        let step = Span::step(asked.trace, "presentation");
        let (trace, onward) = (step.within(asked.trace), step.inject(onward).into_owned());
        let public = asked.uri().clone();
        let may_update = sender.is_trusted || sender.is_canvas_service;
        let wanted = PresentationRequest { route: asked.route, public, onward, trace, caller, may_update };
        let presented = self.presenter.answer(wanted, body).await.map_err(Refusal::Upstream)?;
        let healed = presented.cured.map(|took| (Some(Rung::Rebuild), took));
        Ok(ProxyResponse::of(presented.response, presented.outcome, healed))
    }

    /// True if a trusted peer wants the raw answer (`heal.skip_header`).
    fn skips_healing(&self, head: &Parts, sender: &Sender) -> bool {
        let header = self.settings.heal.skip_header.as_ref();
        sender.peer_is_trusted && header.is_some_and(|name| head.headers.contains_key(name))
    }

    /// Completes the answer: headers, one log line, one metrics update.
    fn reply(
        &self,
        asking: &reply::RequestContext,
        asked: &HeaderMap,
        mut span: Span,
        (route, answer): (&'static str, Result<ProxyResponse, Refusal>),
    ) -> Response<Body> {
        let step = Span::step(&asking.trace, "reply");
        let name = &self.settings.server.name;
        let (outcome, mut response) = match answer {
            Ok(mut answer) => {
                if let Some(rewrite) = &self.rewrite {
                    answer.response = rewrite.apply(answer.response);
                }
                (answer.outcome, reply::finish(answer, &self.via))
            }
            Err(refusal) => (refusal.outcome(), reply::refuse(&refusal, asking, asked, name)),
        };
        response.headers_mut().insert(REQUEST_ID, asking.trace.id().clone());
        let (status, took) = (response.status(), asking.started.elapsed());
        let end = reply::ResponseEnd { route, outcome, status, took };
        self.metrics.request(route, outcome, status.as_u16(), took);
        asking.log(&self.settings.log, &end);
        drop(step);
        asking.describe(&mut span, &end);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future that `begin` returns.
    fn size_of_future<A, B, C, F>(_begin: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// A future is allocated, zeroed and moved for each request: what is rare in it belongs into a box.
    #[test]
    fn the_future_of_a_request_is_small() {
        let size = size_of_future(Proxy::handle);
        assert!(size <= 3_700, "{size} bytes");
    }
}
