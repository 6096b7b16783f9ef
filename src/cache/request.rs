//! Cache key of a request, and what its directives allow.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use http::header::{self, HeaderName};
use http::{HeaderMap, Method};

use super::cache_control::RequestDirectives;
use crate::upstream::PARTIAL;

/// A request as the cache sees it.
#[derive(Debug, Clone)]
pub struct CacheRequest {
    /// Key: all parts of the request that go upstream and may decide the answer, except the fields that `Vary` names.
    pub(super) key: Box<[u8]>,
    /// Hash of the image's identifier.
    pub(super) identifier: u64,
    pub(super) has_cookie: bool,
    /// True if no stored answer may go out: the request is from us or from a proxy of ours, and wants a new answer.
    pub(super) refreshes: bool,
    /// True if the answer is whole and may be kept, as far as the request goes: others may share it.
    pub(super) is_shareable: bool,
}

/// Destination of a request and the name it came by: shared by all requests of one key.
#[derive(Debug, Clone, Copy)]
pub struct CacheTarget<'a> {
    /// Hash of all settings of the route that decide the upstream request.
    pub route: u64,
    /// The viewer's connection is encrypted.
    pub tls: bool,
    /// Host of the viewer's request.
    pub host: &'a str,
    /// Path and query as they came. Behind the route's prefix they go upstream as they are.
    pub path_and_query: &'a str,
    /// Lookup key of the image.
    pub identifier: &'a str,
}

impl CacheRequest {
    /// Builds the key; `None`: the request bypasses the cache. `named`: the fields by which a trusted proxy says how the
    /// request came; the image server writes them into its answers. `is_ours`: the client may have answers made anew.
    ///
    /// SECURITY: a request with `Authorization` gets no stored answer, and its answer is not stored. `no-cache` of other
    /// clients is ignored, as nginx and Varnish do: it would let any client load the image server.
    pub fn of<'a>(
        method: &Method,
        fields: &HeaderMap,
        target: &CacheTarget<'_>,
        named: impl Iterator<Item = (&'a HeaderName, Cow<'a, [u8]>)>,
        is_ours: bool,
    ) -> Option<Self> {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let is_excluded = [header::AUTHORIZATION, header::IF_MATCH, header::IF_UNMODIFIED_SINCE];
        if !is_read || is_excluded.iter().any(|name| fields.contains_key(name)) {
            return None;
        }
        let says = RequestDirectives::of(fields);
        let is_plain = *method == Method::GET && !PARTIAL.iter().any(|name| fields.contains_key(name));
        Some(Self {
            key: target.key(fields, named),
            identifier: identifier_hash(target.identifier),
            has_cookie: fields.contains_key(header::COOKIE),
            refreshes: says.no_cache && is_ours,
            is_shareable: is_plain && !says.no_store,
        })
    }

    /// True if the answer may go to all readers, as far as the request goes.
    pub fn is_for_all(&self) -> bool {
        self.is_shareable && !self.has_cookie && !self.refreshes
    }

    /// Hash of the image's identifier.
    pub fn identifier(&self) -> u64 {
        self.identifier
    }
}

impl CacheTarget<'_> {
    /// The key: parts that end with a line feed, which none of them can hold.
    fn key<'a>(
        &self,
        fields: &HeaderMap,
        named: impl Iterator<Item = (&'a HeaderName, Cow<'a, [u8]>)>,
    ) -> Box<[u8]> {
        let mut key = Vec::with_capacity(16 + self.host.len() + self.path_and_query.len());
        key.extend_from_slice(&self.route.to_ne_bytes());
        // Image servers choose the type of an info.json by this word, and not all of them say so in `Vary`.
        let linked = fields
            .get(header::ACCEPT)
            .is_some_and(|accept| memchr::memmem::find(accept.as_bytes(), b"application/ld+json").is_some());
        key.push(u8::from(self.tls) | u8::from(linked) << 1);
        key.extend_from_slice(self.host.as_bytes());
        key.push(b'\n');
        key.extend_from_slice(self.path_and_query.as_bytes());
        for (name, value) in named {
            for part in [&b"\n"[..], name.as_str().as_bytes(), b":", &value] {
                key.extend_from_slice(part);
            }
        }
        key.into()
    }
}

/// Hash of an identifier (its lookup key), with a key secret to this process: clients cannot construct collisions. Pages of one
/// file (`id;2`) have the hash of the file: who must not see one page must not see the others.
pub(super) fn identifier_hash(key: &str) -> u64 {
    static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    SECRET.hash_one(key.split_once(';').map_or(key, |(file, _)| file))
}
