//! Answers of image servers, kept in memory for as long as they allow it.
//!
//! [`TileCache`] is the cache under one configuration, [`CacheState`] the part that lasts as long as the process.
//! `cache_control` decides what may be kept, `request` makes the key, `cached_response` and `conditional` make the
//! response, `store` bounds the memory, `flight` lets the readers of one tile share a request.

mod cache_control;
mod cached_response;
mod conditional;
mod flight;
mod request;
mod store;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};

pub(crate) use cache_control::ADDRESS_FIELDS;
pub use cached_response::{CachedHead, CachedResponse};
pub use flight::{FlightFollower, FlightLeader, FlightResult, FlightRole, FlightWatch, StreamingResponse};
pub use request::{CacheRequest, CacheTarget};

use crate::config::settings::CacheSettings;
use crate::observe::{CacheMetrics, Metrics};
use crate::upstream::{Body, MemoryBudget};
use cache_control::lifetime;
use flight::{SharedBodyBounds, TileFlights};
use request::identifier_hash;
use store::{CacheStore, ProtectedIdentifiers};

/// State of the cache that lasts as long as the process: a reload drops no answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CacheState {
    parts: Arc<CacheParts>,
}

#[derive(Debug)]
struct CacheParts {
    store: ArcSwap<CacheStore>,
    flights: TileFlights,
    protected: ProtectedIdentifiers,
    /// Count of purges: an answer to a request from before a purge is not kept.
    purges: AtomicU64,
    metrics: CacheMetrics,
}

/// The cache under one configuration.
#[derive(Debug, Clone)]
pub struct TileCache {
    state: CacheState,
    limits: CacheSettings,
}

/// Answer that is to be stored once all of it is here.
#[derive(Debug, Clone)]
pub struct CacheCandidate {
    wanted: CacheRequest,
    /// The fields of the request that `Vary` names.
    asked: HeaderMap,
    head: Arc<CachedHead>,
    /// The count of purges when the request began.
    purges: u64,
}

impl CacheState {
    /// An empty cache of so many bytes.
    pub fn new(memory: usize, metrics: &Metrics) -> Self {
        let counts = metrics.cache.clone();
        let parts = Arc::new(CacheParts {
            store: ArcSwap::from_pointee(CacheStore::new(memory, &counts)),
            flights: TileFlights::default(),
            protected: ProtectedIdentifiers::default(),
            purges: AtomicU64::new(0),
            metrics: counts,
        });
        let shown = Arc::downgrade(&parts);
        metrics.on_scrape(move |metrics| {
            let Some(parts) = shown.upgrade() else { return false };
            let (entries, bytes) = parts.store.load().settle();
            metrics.cache.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
            metrics.cache.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            true
        });
        Self { parts }
    }

    /// Begins with an empty cache of so many bytes, if they are others than before.
    pub fn resize(&self, memory: usize) {
        if self.parts.store.load().memory() != memory {
            self.parts.purges.fetch_add(1, SeqCst);
            self.parts.store.store(Arc::new(CacheStore::new(memory, &self.parts.metrics)));
        }
    }

    /// Removes stored answers of these identifiers (lookup keys), and returns how many. May take a while: all entries are
    /// visited.
    pub fn purge<'a>(&self, identifiers: impl Iterator<Item = &'a str>) -> usize {
        let hashes: HashSet<u64> = identifiers.map(identifier_hash).collect();
        self.parts.purges.fetch_add(1, SeqCst);
        self.parts.store.load().purge(|identifier| hashes.contains(&identifier))
    }

    /// Removes all stored answers, and returns how many.
    pub fn purge_all(&self) -> usize {
        self.parts.purges.fetch_add(1, SeqCst);
        self.parts.store.load().purge(|_| true)
    }

    /// Removes stored answers of identifiers that were found to be protected. To be called every few seconds.
    pub fn prune(&self) {
        let CacheParts { protected, store, .. } = &*self.parts;
        if protected.take_news() {
            store.load().purge(|identifier| protected.contains(identifier));
        }
    }
}

impl TileCache {
    /// The cache under these settings.
    pub fn new(limits: CacheSettings, state: CacheState) -> Self {
        Self { state, limits }
    }

    /// True if the cache is empty now.
    pub fn is_empty(&self) -> bool {
        self.state.parts.store.load().is_empty()
    }

    /// Marks an identifier (a lookup key) whose answers depend on the client.
    pub fn protect(&self, identifier: &str) {
        self.state.parts.protected.add(identifier_hash(identifier));
    }

    /// True if the cache is on.
    pub fn is_on(&self) -> bool {
        self.limits.memory > 0
    }

    /// The settings.
    pub fn limits(&self) -> &CacheSettings {
        &self.limits
    }

    /// Metrics of the cache.
    pub fn metrics(&self) -> &CacheMetrics {
        &self.state.parts.metrics
    }

    /// Finds a stored answer for a request, and whether it is fresh. A stale one goes out only where the image server
    /// fails.
    pub fn find(
        &self,
        wanted: &CacheRequest,
        asked: &HeaderMap,
        now: Instant,
    ) -> Option<(CachedResponse, bool)> {
        let parts = &*self.state.parts;
        let found = parts.store.load().find(wanted, asked)?;
        if parts.protected.contains(wanted.identifier) || !found.head.is_usable(now) {
            return None;
        }
        let is_fresh = found.head.is_fresh(now) && !wanted.refreshes;
        Some((found, is_fresh))
    }

    /// Joins or begins the one request for a tile. `None`: this request shares nothing. A request that wants a new answer
    /// must not get that of a request which was sent before it.
    pub fn join(&self, wanted: &CacheRequest) -> Option<FlightRole> {
        let parts = &*self.state.parts;
        let shares = wanted.is_shareable && !wanted.refreshes && !parts.protected.contains(wanted.identifier);
        shares.then(|| parts.flights.join(wanted))
    }

    /// Count of purges so far: an answer is stored only if none came while it was on its way.
    pub fn purges(&self) -> u64 {
        self.state.parts.purges.load(SeqCst)
    }

    /// Decides what of an answer to this request is to be kept; `None`: nothing. `purges`: the count when the request
    /// began.
    pub fn candidate(
        &self,
        wanted: &CacheRequest,
        asked: &HeaderMap,
        answer: &Response<Body>,
        purges: u64,
    ) -> Option<CacheCandidate> {
        let parts = &*self.state.parts;
        if !wanted.is_shareable || parts.protected.contains(wanted.identifier) {
            return None;
        }
        let lifetime = lifetime(answer, &self.limits, SystemTime::now())?;
        if wanted.has_cookie && !lifetime.is_public
            || announced(answer.headers()) > Some(self.limits.max_body)
        {
            return None;
        }
        let head = Arc::new(CachedHead::new(wanted, asked, answer, lifetime, Instant::now())?);
        let selecting = asked.iter().filter(|(name, _)| head.is_selected_by(name));
        let asked = selecting.map(|(name, value)| (name.clone(), value.clone())).collect();
        Some(CacheCandidate { wanted: wanted.clone(), asked, head, purges })
    }

    /// Records the status of an answer: after a refusal (401, 403) nothing of the image is kept, and a missing image is
    /// removed.
    pub fn note(&self, wanted: &CacheRequest, asked: &HeaderMap, status: StatusCode) {
        let parts = &*self.state.parts;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => parts.protected.add(wanted.identifier),
            StatusCode::NOT_FOUND | StatusCode::GONE => parts.store.load().remove(wanted, asked),
            _ => {}
        }
    }

    /// Stores the whole answer, unless a purge or a refusal came since.
    fn keep(&self, candidate: &CacheCandidate, body: Bytes) -> CachedResponse {
        let parts = &*self.state.parts;
        let CacheCandidate { wanted, asked, head, purges } = candidate;
        let response = CachedResponse { head: Arc::clone(head), body };
        if *purges == self.purges() && !parts.protected.contains(wanted.identifier) {
            let store = parts.store.load();
            let key = store.keep(wanted, asked, response.clone(), Instant::now());
            parts.metrics.stored();
            // A purge may have run just before the answer was stored.
            if *purges != self.purges() {
                store.discard(&key);
            }
        }
        response
    }

    /// Stores an answer when it was read to its end, and gives it to those who wait for the leader. The returned answer is
    /// the reader's own. `budget`: the reader's memory for bytes on their way.
    pub fn take_in(
        &self,
        candidate: CacheCandidate,
        answer: Response<Body>,
        leader: Option<FlightLeader>,
        budget: MemoryBudget,
    ) -> Response<Body> {
        let most = self.limits.max_body;
        let length = announced(answer.headers());
        let fits = move |size: usize| size <= most && length.is_none_or(|length| length == size);
        let (head, body) = answer.into_parts();
        if let Some(pieces) = body.whole() {
            let whole = copied(&pieces, fits).map(|bytes| self.keep(&candidate, bytes));
            match (whole, leader) {
                (Some(response), Some(leader)) => leader.share_whole(response),
                (None, Some(leader)) => leader.stop_sharing(false),
                (_, None) => {}
            }
            return Response::from_parts(head, body);
        }
        let cache = self.clone();
        let body = match leader {
            Some(leader) => {
                let kept = Arc::clone(&candidate.head);
                let keep = move |body: Bytes| cache.keep(&candidate, body);
                leader.share_stream(kept, body, SharedBodyBounds { length, most, budget }, keep)
            }
            None => match budget.take(length.unwrap_or(most)) {
                None => body,
                Some(permit) => body.tee(most, move |pieces| {
                    let _until_the_end = permit;
                    // A body that is too long has no pieces here.
                    let pieces = pieces.as_ref().map(|pieces| pieces.iter().collect::<Vec<_>>());
                    if let Some(bytes) = pieces.and_then(|pieces| copied(&pieces, fits)) {
                        cache.keep(&candidate, bytes);
                    }
                }),
            },
        };
        Response::from_parts(head, body)
    }
}

/// `Content-Length`, if it is a number.
fn announced(fields: &HeaderMap) -> Option<usize> {
    fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Copies the pieces into memory of their own; `None`: their size does not fit. A piece from an upstream is a slice of a 64
/// KiB buffer, which it would keep alive, and counts against its client's share of `server.max_held_total`.
fn copied(pieces: &[&Bytes], fits: impl Fn(usize) -> bool) -> Option<Bytes> {
    let size = pieces.iter().map(|piece| piece.len()).sum();
    fits(size).then(|| {
        let mut all = Vec::with_capacity(size);
        for piece in pieces {
            all.extend_from_slice(piece);
        }
        all.into()
    })
}

#[cfg(test)]
mod tests {
    use http::Method;
    use std::sync::Barrier;

    use super::*;

    fn cache() -> TileCache {
        let metrics = Metrics::new();
        TileCache::new(CacheSettings::default(), CacheState::new(1 << 20, &metrics))
    }

    fn wanted(fields: &HeaderMap, is_ours: bool) -> CacheRequest {
        let target =
            CacheTarget { route: 1, tls: false, host: "a.test", path_and_query: "/x", identifier: "x" };
        CacheRequest::of(&Method::GET, fields, &target, std::iter::empty(), is_ours).expect("cacheable")
    }

    fn candidate(cache: &TileCache, wanted: &CacheRequest) -> CacheCandidate {
        let answer = Response::builder().header("cache-control", "max-age=60").header("content-length", "1");
        let answer = answer.body(Body::Empty).expect("a response");
        cache.candidate(wanted, &HeaderMap::new(), &answer, cache.purges()).expect("it may be kept")
    }

    #[test]
    fn what_was_asked_for_before_a_purge_is_not_kept_behind_it() {
        let (cache, wanted) = (cache(), wanted(&HeaderMap::new(), false));
        for round in 0..2_000 {
            let (candidate, begin) = (candidate(&cache, &wanted), Barrier::new(2));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    begin.wait();
                    cache.keep(&candidate, Bytes::from_static(b"x"));
                });
                begin.wait();
                cache.state.purge_all();
            });
            let found = cache.find(&wanted, &HeaderMap::new(), Instant::now());
            assert!(found.is_none(), "round {round}");
        }
    }

    #[test]
    fn a_short_body_is_copied_out_of_the_buffer_that_it_was_read_into() {
        let (cache, wanted) = (cache(), wanted(&HeaderMap::new(), false));
        let buffer = Bytes::from(vec![7; 64 << 10]);
        let budget = MemoryBudget::new(1 << 20, prometheus_client::metrics::gauge::Gauge::default());
        let answer = Response::new(Body::from(buffer.slice(9..10)));
        cache.take_in(candidate(&cache, &wanted), answer, None, budget);
        let (kept, _) = cache.find(&wanted, &HeaderMap::new(), Instant::now()).expect("it is kept");
        let range = buffer.as_ptr_range();
        assert!(kept.body.len() == 1 && !range.contains(&kept.body.as_ptr()));
    }

    #[test]
    fn a_trusted_no_cache_gets_no_answer_to_an_earlier_request() {
        let cache = cache();
        let leader = cache.join(&wanted(&HeaderMap::new(), false));
        assert!(matches!(leader, Some(FlightRole::Leader(_))));
        let fields =
            HeaderMap::from_iter([(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"))]);
        assert!(matches!(cache.join(&wanted(&fields, false)), Some(FlightRole::Follower(_))), "a stranger's");
        assert!(cache.join(&wanted(&fields, true)).is_none());
    }
}
