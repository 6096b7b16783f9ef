//! `Cache-Status`: the cache's handling of a request.

use http::header::HeaderValue;

/// The values of `Cache-Status` (RFC 9211), made once.
#[derive(Debug)]
pub(super) struct CacheStatusValues {
    pub(super) hit: HeaderValue,
    pub(super) stale: HeaderValue,
    pub(super) collapsed: HeaderValue,
    pub(super) stored: HeaderValue,
    pub(super) miss: HeaderValue,
    pub(super) renewed: HeaderValue,
    pub(super) refreshed: HeaderValue,
    pub(super) bypass: HeaderValue,
}

impl CacheStatusValues {
    /// `name` is our name in the field.
    pub(super) fn new(name: &str) -> Self {
        let value = |told: &str| {
            HeaderValue::try_from(format!("{name}; {told}")).unwrap_or(HeaderValue::from_static("-"))
        };
        Self {
            hit: value("hit"),
            stale: value("fwd=stale; detail=stale-if-error"),
            collapsed: value("fwd=uri-miss; collapsed"),
            stored: value("fwd=uri-miss; stored"),
            miss: value("fwd=uri-miss"),
            renewed: value("fwd=stale; stored"),
            refreshed: value("fwd=stale"),
            bypass: value("fwd=bypass"),
        }
    }
}
