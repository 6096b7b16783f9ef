//! Who goes when there is no place for another connection, where somebody has to: at the listener for operators.
//!
//! SECURITY: connections that say nothing cost nothing to open, and a health check must never stand behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use tokio::task::AbortHandle;

/// The connections of one socket, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Guests(Vec<(Arc<Asking>, AbortHandle)>);

/// What one connection has asked.
#[derive(Debug, Default)]
pub(super) struct Asking {
    has_asked: AtomicBool,
    waits: AtomicU32,
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Asked(Arc<Asking>);

impl Asking {
    /// A request came.
    pub(super) fn begins(self: &Arc<Self>) -> Asked {
        self.has_asked.store(true, Relaxed);
        self.waits.fetch_add(1, Relaxed);
        Asked(Arc::clone(self))
    }

    /// Less is cut first: silence, then who has its answers, then who waits for one.
    fn worth(&self) -> u8 {
        u8::from(self.has_asked.load(Relaxed)) + u8::from(self.waits.load(Relaxed) > 0)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.waits.fetch_sub(1, Relaxed);
    }
}

impl Guests {
    pub(super) fn add(&mut self, asking: Arc<Asking>, connection: AbortHandle) {
        self.0.retain(|(_, connection)| !connection.is_finished());
        self.0.push((asking, connection));
    }

    /// Cuts one: of those that are worth least the oldest.
    pub(super) fn cut_one(&mut self) {
        self.0.retain(|(_, connection)| !connection.is_finished());
        let least = self.0.iter().enumerate().min_by_key(|(at, (asking, _))| (asking.worth(), *at));
        if let Some(at) = least.map(|(at, _)| at) {
            self.0.remove(at).1.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_silent_go_first_and_of_those_the_oldest() {
        let mut guests = Guests::default();
        let mut all = Vec::new();
        for _ in 0..4 {
            let asking = Arc::new(Asking::default());
            let task = tokio::spawn(std::future::pending::<()>());
            guests.add(Arc::clone(&asking), task.abort_handle());
            all.push((asking, task));
        }
        let waits = all[0].0.begins();
        drop(all[1].0.begins());
        for (gone, left) in [(2, 3), (3, 2), (1, 1), (0, 0)] {
            guests.cut_one();
            assert!((&mut all[gone].1).await.is_err_and(|error| error.is_cancelled()), "{gone}");
            assert_eq!(guests.0.len(), left);
        }
        drop(waits);
        guests.cut_one();
    }
}
