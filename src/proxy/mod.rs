//! The life of one request. Read [`Proxy::handle`] first: everything else is a room that it walks through.

mod bodies;
mod fields;
pub mod forwarded;
mod headers;
mod hops;
mod rate;
mod reply;
mod route;
mod sending;
mod thumbnail;
mod upgrade;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Version};
use hyper::body::{Body as _, Incoming};

#[doc(hidden)]
pub use headers::rules;
pub use hops::{Viewer, client};
pub use reply::{Malformed, Refusal};

use crate::config::Settings;
use crate::config::settings::{RouteKind, Rung, is_among};
use crate::heal::{Answered, Healer, ImageExchange, RoutedImage, Unanswered};
use crate::observe::{Metrics, REQUEST_ID, Span, Trace};
use crate::outcome::Outcome;
use crate::presentation::{Gateway, Presenter, Rewrite, Wanted, cors};
use crate::upstream::{Body, Budget, Caller, Client, Upstream, one_client};
use fields::Via;
use rate::Rates;
use route::Asked;
use thumbnail::lane_of;
use upgrade::Upgrades;

/// The reverse proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxy {
    rooms: Arc<Rooms>,
}

#[derive(Debug)]
struct Rooms {
    settings: Arc<Settings>,
    /// In the order of `settings.routes`.
    upstreams: Vec<Arc<Upstream>>,
    healer: Healer,
    presenter: Presenter,
    rewrite: Option<Arc<Rewrite>>,
    via: Via,
    rates: Option<Arc<Rates>>,
    upgrades: Upgrades,
    budget: Budget,
    metrics: Arc<Metrics>,
}

/// What goes out, and how the request ended.
#[derive(Debug)]
struct Answer {
    response: Response<Body>,
    outcome: Outcome,
    healed: Option<(Option<Rung>, Duration)>,
}

impl Answer {
    fn served(response: Response<Body>) -> Self {
        Self { response, outcome: Outcome::Served, healed: None }
    }

    /// A document: whoever asks may read it.
    fn opened(mut self, asked: &HeaderMap) -> Self {
        cors::open(asked, self.response.headers_mut());
        self
    }
}

impl Proxy {
    /// A proxy for these routes; `upstreams` stand in the order of `settings.routes`.
    pub fn new(
        settings: Arc<Settings>,
        upstreams: Vec<Arc<Upstream>>,
        healer: Healer,
        presenter: Presenter,
        budget: Budget,
        metrics: Arc<Metrics>,
    ) -> Self {
        let counts = (Rates::of(&settings.server), Upgrades::of(&settings.server));
        Self::with(settings, upstreams, healer, presenter, budget, counts, metrics)
    }

    fn with(
        settings: Arc<Settings>,
        upstreams: Vec<Arc<Upstream>>,
        healer: Healer,
        presenter: Presenter,
        budget: Budget,
        (rates, upgrades): (Option<Arc<Rates>>, Upgrades),
        metrics: Arc<Metrics>,
    ) -> Self {
        let rewrite = Rewrite::of(&settings);
        let via = Via::new(&settings.server.name);
        let rooms =
            Rooms { settings, upstreams, healer, presenter, rewrite, via, rates, upgrades, budget, metrics };
        Self { rooms: Arc::new(rooms) }
    }

    /// Creates a proxy with other settings and the same limits.
    #[must_use]
    pub fn under(
        &self,
        settings: Arc<Settings>,
        upstreams: Vec<Arc<Upstream>>,
        healer: Healer,
        presenter: Presenter,
        budget: Budget,
    ) -> Self {
        let (old, new) = (&self.rooms.settings.server, &settings.server);
        let same = (old.rate, old.rate_burst) == (new.rate, new.rate_burst);
        let rates = if same { self.rooms.rates.clone() } else { Rates::of(new) };
        let counts = (rates, self.rooms.upgrades.under(new));
        Self::with(settings, upstreams, healer, presenter, budget, counts, Arc::clone(&self.rooms.metrics))
    }

    /// Answers one request, whatever happens.
    ///
    /// What can be done at once is done before there is a future: it would have room for the request twice.
    pub fn handle(
        self,
        viewer: Viewer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        let started = Instant::now();
        let (mut head, body) = request.into_parts();
        let rooms = self.rooms;
        let trusted = is_among(viewer.peer.ip(), &rooms.settings.server.trusted_proxies);
        let (trace, span) = rooms.metrics.spans.begin(Trace::of(&head.headers, trusted));
        let client = hops::client(&head.headers, &viewer, &rooms.settings.server.trusted_proxies);
        let asking = reply::Asking::new(&head, client, trace);
        // First of all, because no other refusal ends the connection.
        let checked = route::readable(&head)
            .and_then(|()| route::framed(&head, asking.found))
            .and_then(|()| rooms.fits(client));
        async move {
            let (route, answer) = if let Err(refusal) = checked {
                ("none", Err(refusal))
            } else if let Some(answer) = rooms.gateway(&viewer, client, &head).await {
                ("manifests", answer)
            } else {
                rooms.routed(&viewer, &asking, &mut head, body).await
            };
            rooms.reply(&asking, &head.headers, span, route, answer, started)
        }
    }
}

impl Rooms {
    /// Does this client ask no more often than it may?
    fn fits(&self, client: IpAddr) -> Result<(), Refusal> {
        let Some(rates) = &self.rates else { return Ok(()) };
        // The canvas service must never wait for viewers who wait for it.
        if is_among(client, &self.settings.server.trusted_proxies)
            || is_among(client, &self.settings.heal.origins)
        {
            return Ok(());
        }
        rates.check(client).map_err(|after| {
            self.metrics.event("rate_limited");
            Refusal::TooOften(after)
        })
    }

    /// Stored manifests are served before all routes, where they are at all.
    async fn gateway(
        &self,
        viewer: &Viewer,
        client: IpAddr,
        head: &Parts,
    ) -> Option<Result<Answer, Refusal>> {
        let base = || headers::own_base(head, viewer, &self.settings);
        match self.presenter.gateway(head, base, || Self::client_at(viewer, client)).await {
            Gateway::Elsewhere => None,
            Gateway::Unknown => Some(Err(Refusal::NoRoute)),
            Gateway::Answer(presented) => Some(Ok(Answer::served(presented.response))),
        }
    }

    /// By its route, or to a refusal.
    async fn routed(
        &self,
        viewer: &Viewer,
        asking: &reply::Asking,
        head: &mut Parts,
        body: Incoming,
    ) -> (&'static str, Result<Answer, Refusal>) {
        let step = Span::step(&asking.trace, "route");
        let routed = route::route(&self.settings, head, (asking.uri(), asking.found), &asking.trace);
        drop(step);
        let asked = match routed {
            Ok(asked) => asked,
            Err(refusal) => return ("none", Err(refusal)),
        };
        if let Some(protocols) = self.protocols(asked.route_kind, head, !body.is_end_stream()) {
            let answer = Box::pin(self.upgrade(&asked, protocols, (viewer, asking.client), head)).await;
            return (asked.kind(), answer);
        }
        let image = asked.image();
        let is_document = asked.is_document(image.as_ref());
        let answer = self.answer(viewer, asking.client, &asked, image.as_ref(), head, body).await;
        (asked.kind(), answer.map(|answer| if is_document { answer.opened(&head.headers) } else { answer }))
    }

    /// Sends it on; an expired image is healed on the way. Anything but an expiry streams straight back.
    ///
    /// What is rare is boxed, and the head is changed where it lies: a request has room for the largest way that it may
    /// take.
    async fn answer(
        &self,
        viewer: &Viewer,
        client: IpAddr,
        asked: &Asked<'_>,
        image: Option<&RoutedImage<'_>>,
        head: &mut Parts,
        body: Incoming,
    ) -> Result<Answer, Refusal> {
        let echo = image.is_some_and(|image| self.healer.is_callback(image, head, client));
        let raw = echo || self.skips_healing(head, viewer);
        let caller = self.caller(viewer, client, asked.route_kind, head.version);
        let body = bodies::taken(asked, &head.method, body, &self.settings.server)?;
        headers::onward(head, asked, viewer, &self.settings, &self.via, self.rewrite.as_deref())?;
        if let Some(rewrite) = self.rewrite.as_ref().filter(|_| asked.is_document(image)) {
            rewrite.prepare(&mut head.headers);
        }
        let onward = &*head;
        if cors::concerns(asked.route_kind, onward) {
            let answer = self.send(asked, onward, body, &caller).await;
            return Ok(Answer::served(cors::options(onward, answer.ok())));
        }
        if asked.route_kind == RouteKind::Presentation {
            let trusted = &self.settings.server.trusted_proxies;
            let may_update = is_among(client, trusted) || is_among(client, &self.settings.heal.origins);
            return Box::pin(self.present(asked, onward, body, caller, may_update)).await;
        }
        // A GET that comes with a body (nobody's viewer does that) cannot be repeated, so it is not healed.
        let repeatable = matches!(onward.method, Method::GET | Method::HEAD) && matches!(body, Body::Empty);
        let heals = |image: &&RoutedImage<'_>| repeatable && !raw && image.request.may_heal();
        let Some(image) = image.filter(heals) else {
            let answer = self.send(asked, onward, body, &caller).await?;
            if let (true, Some(image)) = (echo, image) {
                self.healer.echo_answered(image, answer.status());
            }
            return Ok(Answer::served(answer));
        };
        let exchange = ImageExchange {
            image,
            head: onward,
            client: one_client(client),
            lane: lane_of,
            budget: &self.budget,
            caller: &caller,
        };
        match self.healer.answer(&exchange, || self.send(asked, onward, Body::Empty, &caller)).await {
            Ok(Answered { response, outcome, healed }) => Ok(Answer { response, outcome, healed }),
            Err(Unanswered::Pending(after)) => Err(Refusal::Pending(after)),
            Err(Unanswered::Crowded(after)) => Err(Refusal::Crowded(after)),
            Err(Unanswered::Failed(refusal)) => Err(refusal),
        }
    }

    /// On whose behalf this request goes upstream. The canvas service asks on behalf of our own heals.
    fn caller(&self, viewer: &Viewer, client: IpAddr, kind: RouteKind, version: Version) -> Caller {
        if is_among(client, &self.settings.heal.origins) {
            return Caller::default();
        }
        let caller = Caller::viewer(Self::client_at(viewer, client), kind, version);
        if is_among(client, &self.settings.server.trusted_proxies) { caller.unbounded() } else { caller }
    }

    /// The client at this address, which is mostly that of the connection.
    fn client_at(viewer: &Viewer, address: IpAddr) -> Arc<Client> {
        let is_peer = address == viewer.peer.ip().to_canonical();
        if is_peer { Arc::clone(&viewer.client) } else { viewer.client.at(address) }
    }

    /// Under the host name that viewers know, if that is another one.
    fn under_our_name(&self, mut answer: Answer) -> Answer {
        if let Some(rewrite) = &self.rewrite {
            answer.response = rewrite.apply(answer.response);
        }
        answer
    }

    /// Manifests and canvases have a room of their own.
    async fn present(
        &self,
        asked: &Asked<'_>,
        onward: &Parts,
        body: Body,
        caller: Caller,
        may_update: bool,
    ) -> Result<Answer, Refusal> {
        let step = Span::step(asked.trace, "presentation");
        let (trace, onward) = (step.within(asked.trace), step.onward(onward).into_owned());
        let public = asked.uri().clone();
        let wanted = Wanted { route: asked.route, public, onward, trace, caller, may_update };
        let presented = self.presenter.answer(wanted, body).await.map_err(Refusal::Upstream)?;
        let healed = presented.cured.map(|took| (Some(Rung::Rebuild), took));
        Ok(Answer { response: presented.response, outcome: presented.outcome, healed })
    }

    /// A trusted peer asks for the raw answer (`heal.skip_header`).
    fn skips_healing(&self, head: &Parts, viewer: &Viewer) -> bool {
        let header = self.settings.heal.skip_header.as_ref();
        header.is_some_and(|name| head.headers.contains_key(name))
            && is_among(viewer.peer.ip(), &self.settings.server.trusted_proxies)
    }

    /// The last room: headers, one log line, one metrics update.
    fn reply(
        &self,
        asking: &reply::Asking,
        asked: &HeaderMap,
        mut span: Span,
        route: &'static str,
        answer: Result<Answer, Refusal>,
        started: Instant,
    ) -> Response<Body> {
        let step = Span::step(&asking.trace, "reply");
        let name = &self.settings.server.name;
        let (outcome, mut response) = match answer {
            Ok(answer) => (answer.outcome, reply::finish(self.under_our_name(answer), &self.via)),
            Err(refusal) => (refusal.outcome(), reply::refuse(&refusal, asking, asked, name)),
        };
        response.headers_mut().insert(REQUEST_ID, asking.trace.id().clone());
        let took = started.elapsed();
        self.metrics.request(route, outcome, response.status().as_u16(), took);
        asking.log(&self.settings.log, route, outcome, response.status(), took);
        drop(step);
        asking.describe(&mut span, route, outcome);
        span.status(response.status());
        response
    }
}
