//! Cache on the way of an image request: a stored answer goes out at once, readers of one cold tile share a request, and
//! where the image server fails a stale answer goes out.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Body as _;

use super::field_names::ProxyFields;
use super::leader_request::LeaderRequest;
use super::{Exchange, ProxyInner, ProxyResponse, Refusal, forwarding, route};
use crate::cache::{CacheRequest, CacheTarget, CachedResponse, FlightLeader, FlightResult, FlightRole};
use crate::config::Settings;
use crate::config::settings::RouteSettings;
use crate::heal::{RoutedImage, callback};
use crate::iiif::Target;
use crate::observe::{CacheResult, GaugeGuard};
use crate::outcome::Outcome;
use crate::upstream::{Body, Caller, MemoryBudget, connection_options};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Number of uncacheable answers in a row after which requests for tiles of a route are not shared any more: the followers
/// would wait in vain.
const NEVER_KEPT: u32 = 16;

/// Interval, in requests, at which such a route tries the cache again: the image server may allow more by now. The others
/// skip a cache that is empty, because a look-up costs a sixth of a request's instructions.
const LOOKS_AGAIN: u32 = 64;

/// State of the cache for a route.
#[derive(Debug)]
pub(super) struct CacheRoute {
    /// Hash of the settings that decide the upstream request, and the form of stored answers.
    scope: u64,
    /// Whole answers in a row that were not stored, and requests that bypassed the cache for that reason.
    not_kept: AtomicU32,
}

impl CacheRoute {
    pub(super) fn new(route: &RouteSettings, settings: &Settings) -> Self {
        let mut scope = DefaultHasher::new();
        format!("{route:?}{:?}{:?}", settings.rewrite, settings.server.public_hosts).hash(&mut scope);
        Self { scope: scope.finish(), not_kept: AtomicU32::new(0) }
    }

    /// True if no answer was stored for long.
    pub(super) fn is_never_kept(&self) -> bool {
        self.not_kept.load(Relaxed) >= NEVER_KEPT
    }

    /// Counts an answer that was not stored, or a bypass.
    fn count_not_kept(&self) -> u32 {
        self.not_kept.fetch_add(1, Relaxed)
    }

    /// True for all but one of `LOOKS_AGAIN` requests, where no answer was stored for long. Counts the request.
    fn passes_by(&self) -> bool {
        self.is_never_kept() && !self.count_not_kept().is_multiple_of(LOOKS_AGAIN)
    }
}

/// A request for an image that the cache has to do with.
#[derive(Debug, Clone)]
pub(super) struct CacheLookup {
    pub(super) wanted: CacheRequest,
    /// Stored answer that is stale.
    stale: Option<CachedResponse>,
    /// The count of purges when the request began.
    purges: u64,
    is_info: bool,
}

impl ProxyInner {
    /// Prepares the cache look-up of a request; `None`: the request bypasses the cache.
    ///
    /// SECURITY: the key is made of the head as it came, and must hold all of it that goes upstream and may decide the
    /// answer. A field that `Connection` names does not go upstream, so a request that names one bypasses the cache.
    pub(super) fn cache_lookup(&self, exchange: &Exchange<'_>, head: &Parts) -> Option<CacheLookup> {
        let Exchange { sender, asked, image, .. } = exchange;
        let image = image.as_ref().filter(|image| self.cache.is_on() && image.request.is_healable())?;
        if self.cache.is_empty() && self.cache_routes[asked.route].passes_by() {
            return None;
        }
        let is_info = image.request.target == Target::Info;
        let is_odd = sender.is_canvas_service
            || asked.found.has(ProxyFields::HOP_BY_HOP) && names_fields(head)
            || is_info && callback::looks_like_service(image.request.target, head);
        if is_odd {
            return None;
        }
        let key = image.request.identifier.key();
        let target = CacheTarget {
            route: self.cache_routes[asked.route].scope,
            tls: sender.viewer.tls,
            host: route::host(head).ok()?,
            path_and_query: asked.uri().path_and_query()?.as_str(),
            identifier: &key,
        };
        let named = sender.peer_is_trusted.then(|| forwarding::told_how(&head.headers));
        let named = named.into_iter().flatten();
        let wanted = CacheRequest::of(&head.method, &head.headers, &target, named, sender.is_trusted)?;
        Some(CacheLookup { wanted, stale: None, purges: self.cache.purges(), is_info })
    }

    /// Returns the stored answer, if it is fresh, and records a stale one. `None` as well where the client holds too much
    /// already.
    pub(super) fn cached(
        &self,
        exchange: &Exchange<'_>,
        lookup: &mut CacheLookup,
        head: &Parts,
        now: Instant,
    ) -> Option<CachedResponse> {
        let (kept, is_fresh) = self.cache.find(&lookup.wanted, &head.headers, now)?;
        let kept = kept.with_permit(|| self.body_budget(exchange, head))?;
        if is_fresh {
            return Some(kept);
        }
        lookup.stale = Some(kept);
        None
    }

    /// Memory for bodies that this client holds.
    fn body_budget(&self, exchange: &Exchange<'_>, head: &Parts) -> MemoryBudget {
        self.budget.of(exchange.sender.caller(exchange.asked.route_kind, head.version).holder())
    }

    /// Answers a request for a tile from the cache.
    pub(super) fn tile_hit(
        &self,
        exchange: &Exchange<'_>,
        lookup: &mut CacheLookup,
        head: &Parts,
    ) -> Option<ProxyResponse> {
        if lookup.is_info {
            return None;
        }
        let now = exchange.started;
        let kept = self.cached(exchange, lookup, head, now)?;
        Some(self.finish_cached(lookup, ProxyResponse::served(kept.answer(head, now)), CacheResult::Hit))
    }

    /// Counts and marks an answer that came from the cache.
    fn finish_cached(
        &self,
        lookup: &CacheLookup,
        answer: ProxyResponse,
        result: CacheResult,
    ) -> ProxyResponse {
        if let Some(bytes) = answer.response.body().size_hint().exact() {
            self.cache.metrics().sent(bytes);
        }
        let told = match result {
            CacheResult::Stale => &self.cache_status.stale,
            CacheResult::Collapsed => &self.cache_status.collapsed,
            _ => &self.cache_status.hit,
        };
        self.marked(lookup, answer, (result, told))
    }

    fn marked(
        &self,
        lookup: &CacheLookup,
        mut answer: ProxyResponse,
        (result, told): (CacheResult, &HeaderValue),
    ) -> ProxyResponse {
        self.cache.metrics().request(lookup.is_info, result);
        answer.response.headers_mut().append(CACHE_STATUS, told.clone());
        answer
    }

    /// Counts and marks the answer to an image request that the cache has nothing to do with.
    pub(super) fn past_cache(&self, image: &RoutedImage<'_>, mut answer: ProxyResponse) -> ProxyResponse {
        if self.cache.is_on() {
            if matches!(answer.response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                self.cache.protect(&image.request.identifier.key());
            }
            self.cache.metrics().request(image.request.target == Target::Info, CacheResult::Bypass);
            answer.response.headers_mut().append(CACHE_STATUS, self.cache_status.bypass.clone());
        }
        answer
    }

    /// Answers an image request that is not answered yet: by the request of another reader, or by one of its own.
    pub(super) async fn through_cache(
        self: &Arc<Self>,
        exchange: &mut Exchange<'_>,
        mut lookup: CacheLookup,
        onward: &Parts,
        caller: &Caller,
    ) -> Result<ProxyResponse, Refusal> {
        if lookup.is_info {
            exchange.cached = self.cached(exchange, &mut lookup, onward, exchange.started);
        }
        let leader = match self.share(exchange, &mut lookup, (onward, caller)).await {
            Ok(leader) => leader,
            Err(answer) => return Ok(answer),
        };
        (exchange.waited, exchange.has_stale) = (exchange.started.elapsed(), lookup.stale.is_some());
        let Some(leader) = leader else { return self.fetch(exchange, lookup, None, (onward, caller)).await };
        let (flight, waited, has_stale) = (leader.watch(), exchange.waited, exchange.has_stale);
        let (inner, sender, head, caller) =
            (Arc::clone(self), exchange.sender.clone(), onward.clone(), caller.clone());
        let (uri, trace) = (exchange.asked.uri().clone(), exchange.asked.trace.clone());
        let (route, started) = (exchange.asked.place(), exchange.started);
        let request = Box::pin(async move {
            let asked = route.of(&uri, &trace);
            let image = asked.image();
            let image = image.map(|request| RoutedImage { route: asked.route, request, trace: asked.trace });
            let own = Exchange { sender: &sender, asked, image, started, waited, has_stale, cached: None };
            inner.fetch(&own, lookup, Some(leader), (&head, &caller)).await
        });
        LeaderRequest::new(request, flight).await
    }

    /// Waits for the request of another reader for the same tile. `Err` is the answer; `Ok`: this reader sends a request,
    /// as the leader (`Some`) for all who come after.
    async fn share(
        &self,
        exchange: &Exchange<'_>,
        lookup: &mut CacheLookup,
        (onward, caller): (&Parts, &Caller),
    ) -> Result<Option<FlightLeader>, ProxyResponse> {
        let is_never_kept = self.cache_routes[exchange.asked.route].is_never_kept();
        // SECURITY: a client without a free permit would make others wait in its own queue.
        if lookup.is_info || is_never_kept || !caller.has_room() {
            return Ok(None);
        }
        // A heal must have its share of the time: it waits for what is left of `heal.wait`.
        let timeout = self.cache.limits().collapse_wait.min(self.settings.heal.wait / 2);
        loop {
            let waited = exchange.started.elapsed();
            let follower = match self.cache.join(&lookup.wanted) {
                None => return Ok(None),
                Some(FlightRole::Follower(follower)) => follower,
                // Another leader may have ended since the look-up.
                Some(FlightRole::Leader(leader)) => {
                    let now = Instant::now();
                    return match self.cached(exchange, lookup, onward, now) {
                        Some(kept) => {
                            let answer = ProxyResponse::served(kept.answer(onward, now));
                            Err(self.finish_cached(lookup, answer, CacheResult::Hit))
                        }
                        None => Ok(Some(leader)),
                    };
                }
            };
            let _waiting = GaugeGuard::inc(&self.cache.metrics().waiting);
            let left = timeout.saturating_sub(waited);
            let result = follower.wait(&lookup.wanted, &onward.headers, left).await;
            let now = Instant::now();
            let response = match result {
                FlightResult::Whole(response) => {
                    match response.with_permit(|| self.budget.of(caller.holder())) {
                        Some(response) => response.answer(onward, now),
                        None => return Ok(None),
                    }
                }
                FlightResult::Streaming(streaming) => streaming.into_answer(now),
                FlightResult::Abandoned => continue,
                FlightResult::NotShared if exchange.started.elapsed() < timeout => return Ok(None),
                FlightResult::Failed | FlightResult::NotShared => {
                    return self.stale_answer(lookup, onward).map_or(Ok(None), Err);
                }
            };
            let answer = ProxyResponse::served(response);
            return Err(self.finish_cached(lookup, answer, CacheResult::Collapsed));
        }
    }

    /// Stored stale answer, where a request failed.
    fn stale_answer(&self, lookup: &CacheLookup, onward: &Parts) -> Option<ProxyResponse> {
        let now = Instant::now();
        let stale = lookup.stale.as_ref()?;
        let answer = ProxyResponse::served(stale.answer(onward, now));
        Some(self.finish_cached(lookup, answer, CacheResult::Stale))
    }

    /// Has the request answered by the image server, or healed, and stores a cacheable answer.
    async fn fetch(
        &self,
        exchange: &Exchange<'_>,
        lookup: CacheLookup,
        leader: Option<FlightLeader>,
        (onward, caller): (&Parts, &Caller),
    ) -> Result<ProxyResponse, Refusal> {
        let Some(image) = &exchange.image else { return Err(Refusal::NoRoute) };
        let answer = match self.heal(exchange, image, onward, caller).await {
            Ok(answer) => answer,
            Err(refusal) => {
                let fails = refusal.is_failure();
                if let Some(leader) = leader {
                    leader.stop_sharing(fails);
                }
                let stale = if fails { self.stale_answer(&lookup, onward) } else { None };
                return stale.ok_or(refusal);
            }
        };
        if answer.response.extensions().get::<FromCache>().is_some() {
            // The gate's finding about the image is kept: an info.json whose tiles are gone must not look well.
            return Ok(self.finish_cached(&lookup, answer, CacheResult::Hit));
        }
        let is_broken = answer.response.body().is_broken();
        if (is_broken || is_in_need(answer.outcome, answer.response.status()))
            && let Some(stale) = self.stale_answer(&lookup, onward)
        {
            if let Some(leader) = leader {
                leader.stop_sharing(true);
            }
            return Ok(stale);
        }
        let (answer, told) = self.keep(exchange, &lookup, (answer, leader), (onward, caller));
        Ok(self.marked(&lookup, answer, (CacheResult::Miss, told)))
    }

    /// Stores the answer if it is cacheable, and shares it. Returns the answer, and the value of `Cache-Status`.
    pub(super) fn keep(
        &self,
        exchange: &Exchange<'_>,
        lookup: &CacheLookup,
        (mut answer, leader): (ProxyResponse, Option<FlightLeader>),
        (onward, caller): (&Parts, &Caller),
    ) -> (ProxyResponse, &HeaderValue) {
        let route = &self.cache_routes[exchange.asked.route];
        let (was_stale, status) = (lookup.stale.is_some(), answer.response.status());
        // A placeholder stands for a 404, whatever its own status is.
        let noted = if answer.is_placeholder { StatusCode::NOT_FOUND } else { status };
        self.cache.note(&lookup.wanted, &onward.headers, noted);
        // An info.json may be 200 although its tiles are gone.
        let is_well = matches!(answer.outcome, Outcome::Served | Outcome::Healed);
        let candidate = if is_well {
            self.cache.candidate(&lookup.wanted, &onward.headers, &answer.response, lookup.purges)
        } else {
            None
        };
        let values = &self.cache_status;
        let told = match (candidate.is_some(), was_stale) {
            (true, true) => &values.renewed,
            (true, false) => &values.stored,
            (false, true) => &values.refreshed,
            (false, false) => &values.miss,
        };
        answer.response = if let Some(candidate) = candidate {
            route.not_kept.store(0, Relaxed);
            self.cache.take_in(candidate, answer.response, leader, self.budget.of(caller.holder()))
        } else {
            // SECURITY: a stranger with a cookie or `no-store` would else end the sharing for everybody.
            if is_well && status == StatusCode::OK && lookup.wanted.is_for_all() {
                route.count_not_kept();
            }
            if let Some(leader) = leader {
                leader.stop_sharing(false);
            }
            answer.response
        };
        (answer, told)
    }
}

/// Marks an answer that came from the cache and not from the image server.
#[derive(Debug, Clone, Copy)]
struct FromCache;

/// Marks an answer as one from the cache.
pub(super) fn from_cache(mut response: Response<Body>) -> Response<Body> {
    response.extensions_mut().insert(FromCache);
    response
}

/// True if a stale answer is to replace this one: the image server or a heal failed, and there is no picture.
pub(super) fn is_in_need(outcome: Outcome, status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
        || matches!(outcome, Outcome::Failed | Outcome::Cooling) && !status.is_success()
}

/// True if `Connection` names fields of the request.
fn names_fields(head: &Parts) -> bool {
    let plain = [&b"keep-alive"[..], b"close", b""];
    connection_options(&head.headers)
        .any(|option| !plain.iter().any(|plain| option.eq_ignore_ascii_case(plain)))
}
