//! The order in which viewers are let through to one canvas service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Turn;

use crate::heal::canvas_service::priority_semaphore::PrioritySemaphore;
use crate::heal::timed_cache::TimedCache;

/// Documents of which that is remembered, at most.
const OPEN: u64 = 10_000;

/// Manifests and other long documents that viewers have built at once.
const DOCUMENT_BUILDS: usize = 4;

/// Viewers that wait for their turn at one canvas service, at most.
const WAITING: usize = 1_000;

/// `ViewerRequests` is the order in which viewers are let through to one canvas service.
#[derive(Debug)]
pub(in crate::heal) struct ViewerRequests {
    /// One request at a time for a document that may have to be built.
    turns: Mutex<HashMap<Arc<str>, Arc<Turn<()>>>>,
    /// Documents that were answered a moment ago.
    pub(in crate::heal) open: TimedCache<Arc<str>>,
    /// Places for manifests.
    pub(in crate::heal) documents: Arc<PrioritySemaphore>,
    waiting: Mutex<usize>,
}

impl Default for ViewerRequests {
    fn default() -> Self {
        Self {
            turns: Mutex::default(),
            open: TimedCache::new(OPEN),
            documents: PrioritySemaphore::new(DOCUMENT_BUILDS),
            waiting: Mutex::new(0),
        }
    }
}

/// One who waits.
pub(in crate::heal) struct Waiting<'a>(&'a ViewerRequests);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.0.waiting() -= 1;
    }
}

impl ViewerRequests {
    pub(in crate::heal) fn wait(&self) -> Option<Waiting<'_>> {
        let mut waiting = self.waiting();
        if *waiting >= WAITING {
            return None;
        }
        *waiting += 1;
        Some(Waiting(self))
    }

    fn waiting(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::heal) fn turns(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Turn<()>>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
