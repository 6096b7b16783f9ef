//! Prefetch into the cache: a reader's first requests for a page are repeated for the pages behind it (`cache.prefetch`).
//! A prefetch heals nothing: [`crate::heal`] heals the pages behind a reader by itself (`heal.ahead`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use http::request::Parts;
use http::uri::PathAndQuery;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

use super::caching::CacheLookup;
use super::route::RoutePlace;
use super::sender::Sender;
use super::{Exchange, ProxyInner, ProxyResponse, headers};
use crate::cache::FlightRole;
use crate::heal::RoutedImage;
use crate::observe::RequestTrace;
use crate::upstream::Body;

/// Requests of one page that are repeated for the next pages: info.json and the first tiles. Later tiles depend on where the
/// reader zooms.
const FIRST_REQUESTS: u32 = 5;

/// Time for which further requests of a page are not repeated.
const OPENED_FOR: Duration = Duration::from_mins(1);

/// Maximum of pages in memory.
const PAGES: u64 = 20_000;

/// Maximum of readers' requests that are repeated at once. Each of them sends one request at a time.
const AT_ONCE: usize = 8;

/// `TilePrefetch` bounds what is fetched ahead of readers.
#[derive(Debug)]
pub(super) struct TilePrefetch {
    permits: Arc<Semaphore>,
    /// Requests of each opened page, by the hash of its identifier.
    opened: moka::sync::Cache<u64, Arc<AtomicU32>>,
}

impl TilePrefetch {
    pub(super) fn new() -> Self {
        let opened = moka::sync::Cache::builder().max_capacity(PAGES).time_to_live(OPENED_FOR).build();
        Self { permits: Arc::new(Semaphore::new(AT_ONCE)), opened }
    }

    /// True for the first requests of a page.
    fn is_first(&self, page: u64) -> bool {
        self.opened.get_with(page, Arc::default).fetch_add(1, Relaxed) < FIRST_REQUESTS
    }
}

/// `PageRequest` is a reader's request that is repeated for other pages.
struct PageRequest {
    sender: Sender,
    place: RoutePlace,
    head: Parts,
    trace: RequestTrace,
}

impl PageRequest {
    /// Returns the same request for another image.
    fn of(&self, uri: Uri) -> Self {
        let mut head = self.head.clone();
        head.uri = uri;
        Self { sender: self.sender.clone(), place: self.place, head, trace: self.trace.clone() }
    }
}

impl ProxyInner {
    /// Repeats this request for the next pages, in the background.
    pub(super) fn prefetch(self: &Arc<Self>, exchange: &Exchange<'_>, lookup: &CacheLookup, head: &Parts) {
        let pages = self.cache.limits().prefetch;
        let (Some(image), asked) = (&exchange.image, &exchange.asked) else { return };
        if pages == 0 || !lookup.wanted.is_for_all() || self.cache_routes[asked.route].is_never_kept() {
            return;
        }
        // The identifier may stand in the query, of which there are many forms.
        if !asked.path_in_route().starts_with(image.request.identifier.as_sent())
            || !self.prefetches.is_first(lookup.wanted.identifier())
        {
            return;
        }
        let Ok(permit) = Arc::clone(&self.prefetches.permits).try_acquire_owned() else {
            self.cache.metrics().prefetch(false);
            return;
        };
        let (sender, place, trace) = (exchange.sender.clone(), asked.place(), asked.trace.clone());
        let request = PageRequest { sender, place, head: head.clone(), trace };
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            for uri in inner.next_pages(&request, pages) {
                inner.fetch_ahead(request.of(uri)).await;
            }
            drop(permit);
        });
    }

    /// URLs for the next images in the manifest, each with this request's region, size and format, or of its info.json.
    fn next_pages(&self, request: &PageRequest, pages: usize) -> Vec<Uri> {
        let uri = &request.head.uri;
        let asked = request.place.of(uri, &request.trace);
        let Some(image) = asked.image() else { return Vec::new() };
        let own = image.identifier.as_sent().len();
        let (before, rest) = uri.path().split_at(uri.path().len() - asked.path_in_route().len());
        let image = RoutedImage { route: asked.route, request: image, trace: asked.trace };
        let images = self.healer.images_behind(&image, pages);
        images.iter().filter_map(|sent| with_path(uri, &format!("{before}{sent}{}", &rest[own..]))).collect()
    }

    /// Sends this request and stores the answer, unless the cache has it or another request for it is under way.
    async fn fetch_ahead(&self, request: PageRequest) -> Option<()> {
        let PageRequest { sender, place, mut head, trace } = request;
        let (uri, started) = (head.uri.clone(), Instant::now());
        let asked = place.of(&uri, &trace);
        let image = asked.image()?;
        let image = Some(RoutedImage { route: asked.route, request: image, trace: &trace });
        let (waited, has_stale) = (Duration::ZERO, false);
        let exchange = Exchange { sender: &sender, asked, image, started, waited, has_stale, cached: None };
        let caller = sender.caller(exchange.asked.route_kind, head.version);
        let mut lookup = self.cache_lookup(&exchange, &head)?;
        // A reader's own requests come first.
        if self.cached(&exchange, &mut lookup, &head, started).is_some() || !caller.has_room() {
            return None;
        }
        let leader = match self.cache.join(&lookup.wanted)? {
            FlightRole::Leader(leader) => leader,
            FlightRole::Follower(_) => return None,
        };
        headers::prepare_upstream_head(&mut head, &exchange.asked, &sender.viewer, &self.onward_rules())
            .ok()?;
        if let Some(rewrite) = self.rewrite.as_ref().filter(|_| exchange.is_document()) {
            rewrite.prepare(&mut head.headers);
        }
        self.cache.metrics().prefetch(true);
        let answer = self.send(&exchange.asked, &head, Body::Empty, &caller).await.ok()?;
        let answer = (ProxyResponse::served(answer), Some(leader));
        let (answer, _) = self.keep(&exchange, &lookup, answer, (&head, &caller));
        read(answer.response.into_body(), self.cache.limits().max_body).await
    }
}

/// Reads a body to its end, so that it is stored. A body of more than `most` bytes is dropped.
async fn read(mut body: Body, most: usize) -> Option<()> {
    if body.size_hint().lower() > most as u64 {
        return None;
    }
    let mut left = most;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))?;
    }
    Some(())
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    let target = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    parts.path_and_query = Some(target.ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::upstream::BodyError;

    /// A body of ten pieces with one byte each; counts the pieces that were read.
    fn body(count: &Arc<AtomicU32>) -> Body {
        let count = Arc::clone(count);
        let pieces = stream::iter(0..10).map(move |_| {
            count.fetch_add(1, Relaxed);
            Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"x")))
        });
        Body::shaped(StreamBody::new(pieces))
    }

    #[tokio::test]
    async fn nothing_is_read_to_its_end_that_is_too_long_to_be_kept() {
        for (most, expected) in [(10, 10), (9, 10), (3, 4), (0, 1)] {
            let count = Arc::default();
            let is_whole = read(body(&count), most).await.is_some();
            assert_eq!((is_whole, count.load(Relaxed)), (most >= 10, expected), "{most}");
        }
        assert!(read(Body::from("a tile".to_owned()), 5).await.is_none());
    }
}
