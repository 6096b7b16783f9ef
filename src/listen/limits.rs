//! Permits that limit the number of open connections.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// Connection permits of one kind of listener.
#[derive(Debug)]
pub(super) struct ConnectionPermits(Arc<PermitState>);

#[derive(Debug)]
struct PermitState {
    count: Mutex<ConnectionCounts>,
    /// Wakes a waiter when a permit may be free.
    freed: Notify,
}

#[derive(Debug)]
struct ConnectionCounts {
    all: usize,
    /// Permits that are taken; more than `all` for a while after the limit was lowered.
    taken: usize,
}

/// A permit for one connection. Free again when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit(Arc<PermitState>);

impl ConnectionPermits {
    pub(super) fn new(all: usize) -> Self {
        let count = Mutex::new(ConnectionCounts { all, taken: 0 });
        Self(Arc::new(PermitState { count, freed: Notify::new() }))
    }

    /// Waits for a permit.
    pub(super) async fn acquire(&self) -> ConnectionPermit {
        loop {
            let freed = self.0.freed.notified();
            if let Some(permit) = self.try_take() {
                // More permits may be free than waiters were woken: wake the next.
                self.0.tells();
                return permit;
            }
            freed.await;
        }
    }

    /// Takes a permit, if one is free.
    pub(super) fn try_take(&self) -> Option<ConnectionPermit> {
        let mut count = self.0.count();
        if count.taken >= count.all {
            return None;
        }
        count.taken += 1;
        Some(ConnectionPermit(Arc::clone(&self.0)))
    }

    /// Number of connections that must end before a permit is free.
    pub(super) fn missing(&self) -> usize {
        let count = self.0.count();
        (count.taken + 1).saturating_sub(count.all)
    }

    /// Replaces the limit; permits that are taken stay valid.
    pub(super) fn resize(&self, all: usize) {
        self.0.count().all = all;
        self.0.freed.notify_one();
    }
}

impl PermitState {
    fn count(&self) -> MutexGuard<'_, ConnectionCounts> {
        self.count.lock()
    }

    /// Wakes a waiter, if a permit is free.
    fn tells(&self) {
        let is_free = {
            let count = self.count();
            count.taken < count.all
        };
        if is_free {
            self.freed.notify_one();
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.count().taken -= 1;
        self.0.tells();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_become_more_and_fewer() {
        let permits = ConnectionPermits::new(1);
        let first = permits.acquire().await;
        assert!(permits.try_take().is_none() && permits.missing() == 1);
        permits.resize(3);
        let (second, third) = (permits.acquire().await, permits.acquire().await);
        permits.resize(1);
        assert_eq!(permits.missing(), 3);
        drop((first, second));
        assert!(permits.try_take().is_none() && permits.missing() == 1);
        drop(third);
        assert_eq!(permits.missing(), 0);
        drop(permits.acquire().await);
    }

    #[tokio::test]
    async fn all_who_wait_get_the_places_that_come() {
        let permits = Arc::new(ConnectionPermits::new(0));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let permits = Arc::clone(&permits);
                tokio::spawn(async move { permits.acquire().await })
            })
            .collect();
        tokio::task::yield_now().await;
        permits.resize(3);
        let mut held = Vec::new();
        for one in waiting {
            held.push(one.await.expect("it ends"));
        }
        assert!(permits.try_take().is_none());
    }
}
