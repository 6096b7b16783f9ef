//! Memory of the cache: bounded in bytes, with the most requested answers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::HeaderMap;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::cached_response::CachedResponse;
use super::request::CacheRequest;
use crate::observe::CacheMetrics;

/// Maximum of identifiers that answered 401 or 403; of more, the least recently requested are forgotten.
const PROTECTED: u64 = 100_000;

/// The share of the memory that new answers may take before those that must go for them are gone.
const SLACK: usize = 32;

/// Answers, by their keys.
pub(super) struct CacheStore {
    answers: Cache<Box<[u8]>, CachedResponse>,
    memory: usize,
    /// Bytes that came since answers last had to go.
    unsettled: AtomicUsize,
}

impl std::fmt::Debug for CacheStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheStore").field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// Expiry of an answer: when it is of no use any more.
struct UntilUseless;

impl moka::Expiry<Box<[u8]>, CachedResponse> for UntilUseless {
    fn expire_after_create(&self, _: &Box<[u8]>, response: &CachedResponse, _: Instant) -> Option<Duration> {
        Some(response.head.kept_for())
    }

    fn expire_after_update(
        &self,
        _: &Box<[u8]>,
        response: &CachedResponse,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(response.head.kept_for())
    }
}

impl CacheStore {
    /// A store of so many bytes, which is empty.
    pub(super) fn new(memory: usize, metrics: &CacheMetrics) -> Self {
        let metrics = metrics.clone();
        let answers = Cache::<Box<[u8]>, CachedResponse>::builder()
            .max_capacity(u64::try_from(memory).unwrap_or(u64::MAX))
            .weigher(|key, response| u32::try_from(key.len() + response.weight()).unwrap_or(u32::MAX))
            .expire_after(UntilUseless)
            .eviction_listener(move |_, _, cause| match cause {
                RemovalCause::Size => metrics.removed("size"),
                RemovalCause::Expired => metrics.removed("expired"),
                RemovalCause::Explicit => metrics.removed("purged"),
                RemovalCause::Replaced => metrics.removed("replaced"),
            })
            .build();
        Self { answers, memory, unsettled: AtomicUsize::new(0) }
    }

    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// The answer to a request like this one, fresh or not.
    pub(super) fn find(&self, wanted: &CacheRequest, asked: &HeaderMap) -> Option<CachedResponse> {
        let first = self.answers.get(&wanted.key)?;
        if first.head.is_for(wanted, asked) {
            return Some(first);
        }
        let other = self.answers.get(&first.head.variant_key(wanted, asked))?;
        other.head.is_for(wanted, asked).then_some(other)
    }

    /// Stores an answer to this request. The first answer stands under the key of the request; one that another `Accept` or
    /// the like selects stands beside it. Returns the key of the entry.
    pub(super) fn keep(
        &self,
        wanted: &CacheRequest,
        asked: &HeaderMap,
        response: CachedResponse,
        now: Instant,
    ) -> Box<[u8]> {
        let weight = response.weight() + wanted.key.len();
        let first = self.answers.get(&wanted.key);
        let key = match first {
            Some(first)
                if first.head.is_usable(now)
                    && !first.head.is_for(wanted, asked)
                    && first.head.varies_as(&response.head) =>
            {
                first.head.variant_key(wanted, asked)
            }
            _ => wanted.key.clone(),
        };
        self.answers.insert(key.clone(), response);
        if self.unsettled.fetch_add(weight, Relaxed) + weight > self.memory / SLACK {
            self.unsettled.store(0, Relaxed);
            self.answers.run_pending_tasks();
        }
        key
    }

    /// Removes the answer under this key.
    pub(super) fn discard(&self, key: &[u8]) {
        self.answers.invalidate(key);
    }

    /// Removes the answer to requests like this one. If that is the first one, the variants beside it cannot be reached any
    /// more: they stay until they expire.
    pub(super) fn remove(&self, wanted: &CacheRequest, asked: &HeaderMap) {
        if let Some(first) = self.answers.get(&wanted.key) {
            self.answers.invalidate(&first.head.variant_key(wanted, asked));
            if first.head.is_for(wanted, asked) {
                self.answers.invalidate(&wanted.key);
            }
        }
    }

    /// Removes all answers whose identifier has one of these hashes; returns how many.
    pub(super) fn purge(&self, is_meant: impl Fn(u64) -> bool) -> usize {
        let meant = self.answers.iter().filter(|(_, response)| is_meant(response.head.identifier));
        let keys: HashSet<_> = meant.map(|(key, _)| key).collect();
        for key in &keys {
            self.answers.invalidate(&***key);
        }
        self.answers.run_pending_tasks();
        keys.len()
    }

    /// True if the store is empty, as far as it has counted: answers stored a moment ago may be missing in that.
    pub(super) fn is_empty(&self) -> bool {
        self.answers.entry_count() == 0
    }

    /// Evicts surplus entries. Returns the number of answers, and their bytes.
    pub(super) fn settle(&self) -> (u64, u64) {
        self.answers.run_pending_tasks();
        (self.answers.entry_count(), self.answers.weighted_size())
    }
}

/// Identifiers that ever answered 401 or 403: their answers depend on the client, whatever the answers declare.
#[derive(Debug)]
pub(super) struct ProtectedIdentifiers {
    hashes: Cache<u64, ()>,
    /// True if an identifier was ever added. Nearly everywhere none was, and then no look-up is needed.
    any: AtomicBool,
    /// True if an identifier was added since answers were last removed.
    news: AtomicBool,
}

impl Default for ProtectedIdentifiers {
    fn default() -> Self {
        // SECURITY: the default policy takes in nothing new once it is full of names that were asked for as often.
        let hashes = Cache::builder().max_capacity(PROTECTED).eviction_policy(EvictionPolicy::lru()).build();
        Self { hashes, any: AtomicBool::new(false), news: AtomicBool::new(false) }
    }
}

impl ProtectedIdentifiers {
    /// Adds an identifier; its stored answers go out no more.
    pub(super) fn add(&self, identifier: u64) {
        if !self.contains(identifier) {
            self.hashes.insert(identifier, ());
            self.any.store(true, Relaxed);
            self.news.store(true, Relaxed);
        }
    }

    pub(super) fn contains(&self, identifier: u64) -> bool {
        self.any.load(Relaxed) && self.hashes.get(&identifier).is_some()
    }

    /// True if identifiers were added since the last call.
    pub(super) fn take_news(&self) -> bool {
        self.news.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_protected_identifiers_the_new_ones_and_those_that_are_asked_for_are_remembered() {
        let protected = ProtectedIdentifiers::default();
        let asked_for = PROTECTED + 1_000_000;
        protected.add(asked_for);
        for identifier in 0..2 * PROTECTED {
            protected.add(identifier);
            if identifier % 1_000 == 0 {
                assert!(protected.contains(asked_for), "after {identifier} others");
            }
        }
        protected.hashes.run_pending_tasks();
        assert!(protected.hashes.entry_count() <= PROTECTED);
        assert!((2 * PROTECTED - 1_000..2 * PROTECTED).all(|identifier| protected.contains(identifier)));
    }
}
