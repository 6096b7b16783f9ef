//! Timed cache: a bounded map whose entries expire by tokio's clock, so that they also expire in a test with virtual time.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

/// `TimedCache` is a bounded map; each entry has an expiry of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::heal) struct TimedCache<K, V = ()>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    entries: Cache<K, (Instant, V)>,
}

impl<K, V> TimedCache<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// A cache of this many entries at most; beyond that the least used are forgotten.
    pub(in crate::heal) fn new(most: u64) -> Self {
        Self { entries: Cache::builder().max_capacity(most).build() }
    }

    /// Remembers `value` for `time`.
    pub(in crate::heal) fn insert(&self, key: K, value: V, time: Duration) {
        self.entries.insert(key, (Instant::now() + time, value));
    }

    /// The value of `key`, until it expires.
    pub(in crate::heal) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, value)| value)
    }

    /// True if there is a value of `key`.
    pub(in crate::heal) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key).is_some()
    }

    /// Removes `key`.
    pub(in crate::heal) fn remove<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.invalidate(key);
    }

    /// The keys that are remembered now.
    pub(in crate::heal) fn keys(&self) -> Vec<K>
    where
        K: Clone,
    {
        let now = Instant::now();
        let lasting = self.entries.iter().filter(|(_, (until, _))| now < *until);
        lasting.map(|(key, _)| (*key).clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_entry_ends_at_its_time_and_not_before() {
        let cache = TimedCache::<&str, u8>::new(10);
        cache.insert("a", 1, Duration::from_mins(1));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!((cache.get("a"), cache.keys()), (Some(1), vec!["a"]));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((cache.get("a"), cache.keys()), (None, vec![]));
    }
}
