//! How many connections there are.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of one kind of listener.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// How many there are.
    all: Mutex<usize>,
}

/// One place. Free again when dropped.
pub(super) type Place = OwnedSemaphorePermit;

impl Places {
    pub(super) fn new(all: usize) -> Self {
        let all = all.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(all)), all: Mutex::new(all) }
    }

    /// Waits for a place.
    pub(super) async fn take(&self) -> Option<Place> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// A place, if one is free.
    pub(super) fn try_take(&self) -> Option<Place> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// From now on so many. Who has one keeps it.
    pub(super) fn resize(&self, all: usize) {
        let all = all.min(Semaphore::MAX_PERMITS);
        let before = std::mem::replace(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner), all);
        self.free.add_permits(all.saturating_sub(before));
        let fewer = u32::try_from(before.saturating_sub(all)).unwrap_or(u32::MAX);
        if fewer > 0 {
            let free = Arc::clone(&self.free);
            // They are taken away as they become free.
            tokio::spawn(async move {
                if let Ok(places) = free.acquire_many_owned(fewer).await {
                    places.forget();
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_become_more_and_fewer() {
        let places = Places::new(1);
        let first = places.take().await.expect("a place");
        places.resize(3);
        let (second, third) = (places.take().await, places.take().await);
        assert!(second.is_some() && third.is_some());
        places.resize(1);
        drop((first, second));
        while places.free.available_permits() != 0 {
            tokio::task::yield_now().await;
        }
        drop(third);
        assert!(places.take().await.is_some());
    }
}
