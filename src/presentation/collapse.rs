//! Collapse: who asks for the same document at the same time shares one upstream request.
//!
//! UPSTREAM: the canvas service has no single flight. N concurrent requests for an uncached document build it N times
//! and leave N duplicates in Redis, which later hide a cure behind one another (upstream.md "Load").

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, response};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::Presented;
use super::whole::Whole;
use crate::upstream::{Body, UpstreamError};

/// What the answer may depend on besides its target: the fields that the servers behind us name in `Vary`
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

/// A request with one of these is about its viewer, or about a copy that its viewer has: it goes alone.
static OWN: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// A document behind the route with this mark: path and query as they go upstream.
pub(super) type Target = (u64, Arc<str>);

/// What makes two requests the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) target: Target,
    chosen_by: Vec<(usize, HeaderValue)>,
}

impl Key {
    /// `None`: this request shares nothing.
    pub(super) fn of(mark: u64, onward: &Parts, body: &Body) -> Option<Self> {
        let fields = &onward.headers;
        let shares = onward.method == Method::GET
            && matches!(body, Body::Empty)
            && !OWN.iter().any(|name| fields.contains_key(name));
        let target = onward.uri.path_and_query().filter(|_| shares)?.as_str();
        let chosen = CHOOSING.iter().enumerate();
        let chosen_by =
            chosen.flat_map(|(at, name)| fields.get_all(name).iter().map(move |value| (at, value.clone())));
        Some(Self { target: (mark, target.into()), chosen_by: chosen_by.collect() })
    }
}

/// May an answer go out to others than the one who asked?
///
/// SECURITY: a cookie, or an answer that depends on a field which is not in the key, would reach the wrong viewer.
pub(super) fn may_be_shared(head: &response::Parts) -> bool {
    let listed = |name: HeaderName| {
        let values = head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(str::trim)
    };
    let chosen = |name: &str| CHOOSING.iter().any(|known| name.eq_ignore_ascii_case(known.as_str()));
    !head.headers.contains_key(header::SET_COOKIE)
        && !listed(header::CACHE_CONTROL).any(|word| word.eq_ignore_ascii_case("private"))
        && listed(header::VARY).filter(|name| !name.is_empty()).all(chosen)
}

/// How a shared request ended.
#[derive(Debug, Clone)]
pub(super) enum Landed {
    /// The answer, for all.
    Shared(Arc<Whole>),
    /// Too long to be held, or somebody's own: for the first who takes it. The others ask for themselves.
    One(Arc<Mutex<Option<Presented>>>),
    /// No answer, for anybody.
    Failed(Arc<UpstreamError>),
}

impl Landed {
    pub(super) fn one(presented: Presented) -> Self {
        Self::One(Arc::new(Mutex::new(Some(presented))))
    }
}

/// Documents that are being asked for, each by one request at a time.
///
/// Requests that differ in `Origin` or `Accept` share no answer, but the document behind it is the same: the
/// second one waits until the first has made the service build and cache it.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: Mutex<HashMap<Target, Arc<Turn<()>>>>,
}

/// One's turn; the next one comes when it is dropped.
#[derive(Debug)]
pub(super) struct OwnTurn<'a> {
    turns: &'a Turns,
    target: &'a Target,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    pub(super) async fn take<'a>(&'a self, target: &'a Target) -> OwnTurn<'a> {
        let turn = Arc::clone(self.lock().entry(target.clone()).or_default());
        OwnTurn { turns: self, target, turn: Some(turn.lock_owned().await) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Target, Arc<Turn<()>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OwnTurn<'_> {
    fn drop(&mut self) {
        let mut waiting = self.turns.lock();
        self.turn = None;
        // Only the list knows it: nobody waits, and nobody can come while the list is locked.
        if waiting.get(self.target).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            waiting.remove(self.target);
        }
    }
}

/// The same failure once more, for another viewer.
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
            UpstreamError::Connect(Box::new(Another(error)))
        }
    }
}

/// Keeps the causes of a failure that several viewers share.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Another(#[source] Arc<UpstreamError>);

/// The value of a field, where it has just one.
pub(super) fn text(fields: &HeaderMap, name: HeaderName) -> &str {
    fields.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, fields: &[(&'static str, &'static str)]) -> Option<Key> {
        let mut request = http::Request::builder().method(method).uri("/canvas/a?b=c");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        Key::of(0, &head, &Body::Empty)
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
        for (name, value) in [
            ("set-cookie", "a=b"),
            ("cache-control", "max-age=1, Private"),
            ("vary", "User-Agent"),
            ("vary", "*"),
        ] {
            assert!(!may_be_shared(&head(name, value)), "{name}: {value}");
        }
        assert!(may_be_shared(&head("vary", "Origin, Accept-Encoding")));
        assert!(may_be_shared(&head("cache-control", "no-store")));
    }
}
