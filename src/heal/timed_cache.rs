//! A bounded map whose entries end by tokio's clock, so that they also end in a test with virtual time.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

/// `TimedCache` remembers something for a while: bounded in number, each entry with an end of its own. Cheap to clone.
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
    /// At most so many entries; beyond that the least used are forgotten.
    pub(in crate::heal) fn new(most: u64) -> Self {
        Self { entries: Cache::builder().max_capacity(most).build() }
    }

    /// Remembers `value` for `time`.
    pub(in crate::heal) fn insert(&self, key: K, value: V, time: Duration) {
        self.entries.insert(key, (Instant::now() + time, value));
    }

    /// What is remembered, until its end.
    pub(in crate::heal) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, value)| value)
    }

    /// Is anything remembered?
    pub(in crate::heal) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key).is_some()
    }

    /// Forgets it.
    pub(in crate::heal) fn remove<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.invalidate(key);
    }

    /// What is remembered now.
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
