//! Stored answers, and the responses made of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode, Version, request};

use super::cache_control::{CacheLifetime, varies};
use super::conditional::{ResponsePart, Validators, part};
use super::request::CacheRequest;
use crate::upstream::{Body, MemoryBudget};

/// Memory of an answer besides the bytes of its head, body and key: entries in the store and in lists.
const OVERHEAD: usize = 640;

/// The longest body that goes out without a permit: connections are bounded, and a permit costs an allocation.
const UNCOUNTED: usize = 16 << 10;

/// Fields that are written from the key.
const KEYED: [&str; 5] =
    ["host", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-path"];

/// Fields of a 304 (RFC 9110 section 15.4.5), besides those that tell how a script may use it.
const NOT_MODIFIED: [HeaderName; 13] = [
    header::CACHE_CONTROL,
    header::CONTENT_LOCATION,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::VARY,
    header::SERVER,
    header::LINK,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::CONNECTION,
];

/// The head of an answer, with all that is needed to give it to others.
#[derive(Debug)]
pub struct CachedHead {
    fields: Box<[(HeaderName, HeaderValue)]>,
    version: Version,
    /// Values of the request's fields that `Vary` names.
    selected_by: Box<[(HeaderName, Option<HeaderValue>)]>,
    pub(super) identifier: u64,
    lifetime: CacheLifetime,
    received: Instant,
}

/// Whole stored answer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CachedResponse {
    pub(super) head: Arc<CachedHead>,
    pub(super) body: Bytes,
}

impl CachedHead {
    /// Makes the head; `None`: a name in `Vary` is no field name.
    pub(super) fn new(
        wanted: &CacheRequest,
        asked: &HeaderMap,
        answer: &Response<Body>,
        lifetime: CacheLifetime,
        received: Instant,
    ) -> Option<Self> {
        let selecting = varies(answer.headers())
            .filter(|name| !KEYED.iter().any(|keyed| name.eq_ignore_ascii_case(keyed)));
        let selected_by = selecting.map(|name| {
            let name = HeaderName::try_from(name).ok()?;
            let value = joined(asked, &name).map(|value| own(&value));
            Some((name, value))
        });
        Some(Self {
            fields: own_fields(answer.headers()),
            version: answer.version(),
            selected_by: selected_by.collect::<Option<_>>()?,
            identifier: wanted.identifier,
            lifetime,
            received,
        })
    }

    /// True if the request would get this answer: the fields that `Vary` names are equal (RFC 9111 section 4.1), and for a
    /// request with a cookie the answer is public.
    pub(super) fn is_for(&self, wanted: &CacheRequest, asked: &HeaderMap) -> bool {
        (!wanted.has_cookie || self.lifetime.is_public)
            && self.selected_by.iter().all(|(name, value)| joined(asked, name) == *value)
    }

    /// Key of the answer to a request that differs in the fields of `Vary`.
    pub(super) fn variant_key(&self, wanted: &CacheRequest, asked: &HeaderMap) -> Box<[u8]> {
        let mut key = wanted.key.to_vec();
        for (name, _) in &self.selected_by {
            key.extend_from_slice(b"\n\n");
            key.extend_from_slice(name.as_str().as_bytes());
            if let Some(value) = joined(asked, name) {
                key.push(b':');
                key.extend_from_slice(value.as_bytes());
            }
        }
        key.into()
    }

    /// True if `Vary` names this field.
    pub(super) fn is_selected_by(&self, name: &HeaderName) -> bool {
        self.selected_by.iter().any(|(own, _)| own == name)
    }

    /// True if both answers are selected by the same fields.
    pub(super) fn varies_as(&self, other: &Self) -> bool {
        self.selected_by.len() == other.selected_by.len()
            && self.selected_by.iter().zip(&other.selected_by).all(|((own, _), (other, _))| own == other)
    }

    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.received) < self.lifetime.fresh
    }

    /// True until fresh and stale time are over.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.received) < self.kept_for()
    }

    /// Time for which the answer is of any use.
    pub(super) fn kept_for(&self) -> Duration {
        self.lifetime.fresh.saturating_add(self.lifetime.stale)
    }

    /// Memory that it takes.
    pub(super) fn weight(&self) -> usize {
        let text = |name: &HeaderName, value: usize| {
            size_of::<(HeaderName, HeaderValue)>() + 32 + name.as_str().len() + value
        };
        let fields: usize = self.fields.iter().map(|(name, value)| text(name, value.len())).sum();
        let selected = self.selected_by.iter();
        let selected: usize =
            selected.map(|(name, value)| text(name, value.as_ref().map_or(0, HeaderValue::len))).sum();
        fields + selected + OVERHEAD
    }

    fn field(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// The answer with this body, as it is at `now` (RFC 9111 section 5.1).
    pub(super) fn response(&self, status: StatusCode, body: Body, now: Instant) -> Response<Body> {
        let mut response = Response::new(body);
        (*response.status_mut(), *response.version_mut()) = (status, self.version);
        let mut fields = HeaderMap::with_capacity(self.fields.len() + 8);
        for (name, value) in &self.fields {
            if status != StatusCode::NOT_MODIFIED || NOT_MODIFIED.contains(name) {
                fields.append(name.clone(), value.clone());
            }
        }
        let age = self.lifetime.age + now.saturating_duration_since(self.received);
        fields.insert(header::AGE, HeaderValue::from(age.as_secs()));
        *response.headers_mut() = fields;
        response
    }
}

impl CachedResponse {
    /// Response to this request: the whole answer, a part, or 304.
    pub fn answer(&self, asked: &request::Parts, now: Instant) -> Response<Body> {
        let (head, length) = (&*self.head, self.body.len());
        let fields = &asked.headers;
        let is_conditional = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE];
        let wanted = if is_conditional.iter().any(|name| fields.contains_key(name)) {
            let validators =
                Validators { etag: head.field(&header::ETAG), modified: head.field(&header::LAST_MODIFIED) };
            part(&asked.method, fields, &validators, length)
        } else {
            ResponsePart::Whole
        };
        let (status, body) = match wanted {
            ResponsePart::Whole => (StatusCode::OK, self.body.clone()),
            ResponsePart::NotModified => (StatusCode::NOT_MODIFIED, Bytes::new()),
            ResponsePart::Range(from, to) => (StatusCode::PARTIAL_CONTENT, self.body.slice(from..to)),
            ResponsePart::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new()),
        };
        let size = body.len();
        let body = if asked.method == http::Method::HEAD { Body::Empty } else { body.into() };
        let mut response = head.response(status, body, now);
        let fields = response.headers_mut();
        let range = match wanted {
            ResponsePart::Range(from, to) => Some(format!("bytes {from}-{}/{length}", to.saturating_sub(1))),
            ResponsePart::Unsatisfiable => {
                fields.remove(header::CONTENT_TYPE);
                Some(format!("bytes */{length}"))
            }
            ResponsePart::Whole | ResponsePart::NotModified => None,
        };
        if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
            fields.insert(header::CONTENT_RANGE, range);
        }
        if status != StatusCode::NOT_MODIFIED {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
        }
        response
    }

    /// Attaches a permit of the client to a long body: a slow reader holds the body even after the cache has dropped it.
    /// `None`: the client holds too much. `budget` is called only for a long body.
    pub fn with_permit(self, budget: impl FnOnce() -> MemoryBudget) -> Option<Self> {
        if self.body.len() <= UNCOUNTED {
            return Some(self);
        }
        let permit = budget().take(self.body.len())?;
        Some(Self { body: permit.keep(self.body), ..self })
    }

    pub(super) fn weight(&self) -> usize {
        self.head.weight() + self.body.len()
    }
}

/// The lines of a field as one value.
fn joined(fields: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = fields.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_none() {
        return Some(first.clone());
    }
    let lines: Vec<&[u8]> = fields.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&lines.join(&b", "[..])).ok()
}

/// The fields, their values one behind the other in memory of their own: a hit clones each of them, and touches one count for
/// all. `Age` and `Content-Length` are written anew each time.
fn own_fields(fields: &HeaderMap) -> Box<[(HeaderName, HeaderValue)]> {
    let is_kept = |name: &HeaderName| *name != header::AGE && *name != header::CONTENT_LENGTH;
    let kept = || fields.iter().filter(|(name, _)| is_kept(name));
    let text: Vec<&[u8]> = kept().map(|(_, value)| value.as_bytes()).collect();
    let (text, mut at) = (Bytes::from(text.concat()), 0);
    let own = kept().map(|(name, value)| {
        let from = at;
        at += value.len();
        let own = HeaderValue::from_maybe_shared(text.slice(from..at));
        (name.clone(), own.unwrap_or_else(|_| value.clone()))
    });
    own.collect()
}

/// Copies a value into memory of its own: a field read from an upstream is a slice of a 64 KiB buffer, which it would keep
/// alive.
fn own(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    /// An answer of so many bytes.
    fn response(length: usize) -> CachedResponse {
        let lifetime = CacheLifetime {
            age: Duration::ZERO,
            fresh: Duration::from_secs(1),
            stale: Duration::ZERO,
            is_public: true,
        };
        let head = CachedHead {
            fields: Box::default(),
            version: Version::HTTP_11,
            selected_by: Box::default(),
            identifier: 0,
            lifetime,
            received: Instant::now(),
        };
        CachedResponse { head: Arc::new(head), body: vec![7; length].into() }
    }

    #[test]
    fn a_short_body_goes_out_as_it_is_and_a_long_one_within_the_clients_memory() {
        let short = response(UNCOUNTED);
        let kept = short.body.as_ptr();
        let short = short.with_permit(|| unreachable!("no memory is asked for")).expect("no bound");
        assert_eq!(short.body.as_ptr(), kept, "nothing is copied");
        let budget = MemoryBudget::new(UNCOUNTED + 1, Gauge::default());
        let long = response(UNCOUNTED + 1);
        let held = long.clone().with_permit(|| budget.clone()).expect("there is room");
        assert_eq!((held.body.as_ptr(), budget.taken()), (long.body.as_ptr(), UNCOUNTED + 1));
        assert!(long.clone().with_permit(|| budget.clone()).is_none());
        drop(held);
        assert_eq!(budget.taken(), 0);
    }
}
