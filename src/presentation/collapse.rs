//! Collapse: concurrent requests for one document share one upstream request.
//!
//! UPSTREAM: the canvas service has no single flight. N concurrent requests for an uncached document build it N times
//! and leave N duplicates in Redis, which later hide a cure behind one another (upstream.md "Load").

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, response};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::PresentationResponse;
use super::buffer::BufferedDocument;
use crate::upstream::{Body, PARTIAL, UpstreamError};

/// Request fields that the answer may depend on besides its target: those that the servers behind us name in `Vary`
/// (upstream.md "Headers"), and those that they write into their answers.
static CHOOSING: [HeaderName; 11] = [
    header::ORIGIN,
    header::ACCESS_CONTROL_REQUEST_METHOD,
    header::ACCESS_CONTROL_REQUEST_HEADERS,
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::HOST,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-port"),
];

/// A request with one of these, or with a field of [`PARTIAL`], is about its viewer: it is not shared.
static OWN: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// A document behind the route with this mark: path and query as they go upstream.
pub(super) type DocumentTarget = (u64, Arc<str>);

/// Key of a shared request: the target and the values of these fields.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CollapseKey {
    pub(super) target: DocumentTarget,
    chosen_by: Vec<(usize, HeaderValue)>,
}

impl CollapseKey {
    /// Builds the key; `None`: this request shares nothing.
    pub(super) fn of(mark: u64, onward: &Parts, body: &Body) -> Option<Self> {
        let fields = &onward.headers;
        let shares = onward.method == Method::GET
            && matches!(body, Body::Empty)
            && !OWN.iter().chain(&PARTIAL).any(|name| fields.contains_key(name));
        let target = onward.uri.path_and_query().filter(|_| shares)?.as_str();
        let chosen = CHOOSING.iter().enumerate();
        let chosen_by =
            chosen.flat_map(|(at, name)| fields.get_all(name).iter().map(move |value| (at, value.clone())));
        Some(Self { target: (mark, target.into()), chosen_by: chosen_by.collect() })
    }
}

/// True if an answer may go out to other viewers as well.
///
/// SECURITY: an answer that depends on a field which is not in the key would reach the wrong viewer. Fields that a shared
/// request never has (a cookie) are the same for all of them. A cookie that the answer sets goes to one of them only
/// ([`SharedResponse::shared`]).
pub(super) fn may_be_shared(head: &response::Parts) -> bool {
    let listed = |name: HeaderName| {
        let values = head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(str::trim)
    };
    let chosen =
        |name: &str| CHOOSING.iter().chain(&OWN).any(|known| name.eq_ignore_ascii_case(known.as_str()));
    !listed(header::CACHE_CONTROL).any(|word| word.eq_ignore_ascii_case("private"))
        && listed(header::VARY).filter(|name| !name.is_empty()).all(chosen)
}

/// Result of a shared request.
#[derive(Debug, Clone)]
pub(super) enum SharedResponse {
    /// Answer for all waiters, and the cookies that came with it, for the first waiter.
    Shared(Arc<BufferedDocument>, Arc<Mutex<Vec<HeaderValue>>>),
    /// Answer that is too long to be buffered, or private: for the first waiter. The others send their own requests.
    One(Arc<Mutex<Option<PresentationResponse>>>),
    /// Failed for all who wait.
    Failed(Arc<UpstreamError>),
}

impl SharedResponse {
    /// An answer for all.
    pub(super) fn shared(mut whole: BufferedDocument) -> Self {
        let fields = &mut whole.head.headers;
        let cookies = fields.get_all(header::SET_COOKIE).iter().cloned().collect();
        fields.remove(header::SET_COOKIE);
        Self::Shared(Arc::new(whole), Arc::new(Mutex::new(cookies)))
    }

    pub(super) fn one(presented: PresentationResponse) -> Self {
        Self::One(Arc::new(Mutex::new(Some(presented))))
    }
}

/// Requests shared beyond `presentation.max_flights`: the first of the viewers carries each, and when he leaves the next
/// one begins it anew. So there are never more than there are viewers.
#[derive(Debug, Default)]
pub(super) struct DirectFlights {
    all: Mutex<HashMap<CollapseKey, Arc<OnceCell<SharedResponse>>>>,
}

/// Takes the request off the list when the last viewer of it goes.
struct DirectFlight<'a> {
    flights: &'a DirectFlights,
    key: &'a CollapseKey,
    cell: Option<Arc<OnceCell<SharedResponse>>>,
}

impl DirectFlights {
    /// True if a request for this document is in flight.
    pub(super) fn has(&self, key: &CollapseKey) -> bool {
        self.all.lock().contains_key(key)
    }

    /// Result of the shared request for this document; `start` starts one if none is in flight.
    pub(super) async fn result(
        &self,
        key: &CollapseKey,
        start: impl Future<Output = SharedResponse> + Send,
    ) -> SharedResponse {
        let cell = Arc::clone(self.all.lock().entry(key.clone()).or_default());
        let guard = DirectFlight { flights: self, key, cell: Some(Arc::clone(&cell)) };
        let result = cell.get_or_init(|| start).await.clone();
        drop(cell);
        drop(guard);
        result
    }
}

impl Drop for DirectFlight<'_> {
    fn drop(&mut self) {
        let mut all = self.flights.all.lock();
        self.cell = None;
        // A result is for those who wait, and for no later request.
        let is_last =
            |cell: &Arc<OnceCell<SharedResponse>>| cell.initialized() || Arc::strong_count(cell) <= 2;
        if all.get(self.key).is_some_and(is_last) {
            all.remove(self.key);
        }
    }
}

/// Copies a shared failure for another viewer.
pub(super) fn again(error: Arc<UpstreamError>) -> UpstreamError {
    let error = match Arc::try_unwrap(error) {
        Ok(own) => return own,
        Err(shared) => shared,
    };
    match &*error {
        UpstreamError::ConnectTimeout => UpstreamError::ConnectTimeout,
        UpstreamError::FirstByteTimeout => UpstreamError::FirstByteTimeout,
        UpstreamError::Busy => UpstreamError::Busy,
        UpstreamError::Target => UpstreamError::Target,
        UpstreamError::Switched => UpstreamError::Switched,
        UpstreamError::Coding => UpstreamError::Coding,
        UpstreamError::Length => UpstreamError::Length,
        // A shared request has no body that its viewer could fail to send.
        UpstreamError::Closed | UpstreamError::Exchange(_) | UpstreamError::Viewer(_) => {
            UpstreamError::Closed
        }
        UpstreamError::Connect(_) | UpstreamError::Handshake(_) => {
            UpstreamError::Connect(Box::new(SharedError(error)))
        }
    }
}

/// Keeps the causes of a failure that several viewers share.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SharedError(#[source] Arc<UpstreamError>);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::watch;

    use super::*;

    /// Test: the viewer that carries the shared request leaves.
    #[tokio::test]
    async fn who_carries_a_request_and_leaves_hands_it_to_the_next() {
        let (flights, begun) = (Arc::new(DirectFlights::default()), Arc::new(AtomicUsize::new(0)));
        let key = asked(Method::GET, &[]).expect("a key");
        let (open, gate) = watch::channel(false);
        let joins = || {
            let (flights, key, begun, mut gate) =
                (Arc::clone(&flights), key.clone(), Arc::clone(&begun), gate.clone());
            tokio::spawn(async move {
                let start = async {
                    begun.fetch_add(1, Ordering::SeqCst);
                    let _open = gate.wait_for(|open| *open).await;
                    SharedResponse::Failed(Arc::new(UpstreamError::Busy))
                };
                let _landed = flights.result(&key, start).await;
            })
        };
        let first = joins();
        while begun.load(Ordering::SeqCst) < 1 {
            tokio::task::yield_now().await;
        }
        let rest: Vec<_> = (0..5).map(|_| joins()).collect();
        first.abort();
        let _aborted = first.await;
        while begun.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        open.send_replace(true);
        for one in rest {
            one.await.expect("it ends");
        }
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        assert!(!flights.has(&key), "nothing is left behind");
    }

    fn asked(method: Method, fields: &[(&'static str, &'static str)]) -> Option<CollapseKey> {
        let mut request = http::Request::builder().method(method).uri("/canvas/a?b=c");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        CollapseKey::of(0, &head, &Body::Empty)
    }

    #[test]
    fn the_same_request_of_two_viewers_is_shared_whatever_they_call_themselves() {
        let one = asked(Method::GET, &[("origin", "https://a.example"), ("user-agent", "one")]);
        let other = asked(Method::GET, &[("user-agent", "two"), ("origin", "https://a.example")]);
        assert!(one.is_some() && one == other);
    }

    #[test]
    fn another_origin_or_media_type_is_another_request() {
        let plain = asked(Method::GET, &[]);
        for field in [("origin", "https://a.example"), ("accept", "text/html"), ("accept-encoding", "gzip")] {
            assert_ne!(asked(Method::GET, &[field]), plain, "{field:?}");
        }
    }

    #[test]
    fn who_says_who_it_is_or_what_it_has_goes_alone() {
        for name in ["authorization", "cookie", "range", "if-none-match", "if-modified-since"] {
            assert_eq!(asked(Method::GET, &[(name, "x")]), None, "{name}");
        }
        assert_eq!(asked(Method::HEAD, &[]), None);
    }

    #[test]
    fn what_is_somebodys_own_or_depends_on_more_is_not_shared() {
        let head = |name: &'static str, value: &'static str| {
            let response = http::Response::builder().header(name, value).body(());
            response.expect("a response").into_parts().0
        };
        for (name, value) in [("cache-control", "max-age=1, Private"), ("vary", "User-Agent"), ("vary", "*")]
        {
            assert!(!may_be_shared(&head(name, value)), "{name}: {value}");
        }
        assert!(may_be_shared(&head("vary", "Origin, Accept-Encoding")));
        assert!(may_be_shared(&head("vary", "Cookie, Authorization")), "none of those who share has one");
        assert!(may_be_shared(&head("cache-control", "no-store")));
    }
}
