//! Queue of viewers' requests to one canvas service.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

use crate::config::settings::HealSettings;
use crate::heal::canvas_service::priority_semaphore::PrioritySemaphore;
use crate::heal::completion::{Completer, Completion, completion};
use crate::heal::timed_cache::TimedCache;

/// Documents remembered as answered, at most.
const ANSWERED: u64 = 10_000;

/// `ViewerRequests` is the queue of viewers' requests to one canvas service.
#[derive(Debug)]
pub(in crate::heal) struct ViewerRequests {
    pub(in crate::heal) first: FirstRequests,
    /// Documents that were answered a moment ago. True: the answer was the document, which is stored by now.
    pub(in crate::heal) answered: TimedCache<Arc<str>, bool>,
    /// Permits for manifests.
    pub(in crate::heal) documents: Arc<PrioritySemaphore>,
    waiting: Mutex<usize>,
}

/// `ViewerBounds` are the limits of viewers' requests to one canvas service, as configured.
#[derive(Debug, Clone, Copy)]
pub(in crate::heal) struct ViewerBounds {
    /// `heal.build_after`.
    pub(in crate::heal) build_after: Duration,
    /// `heal.hang_after`.
    pub(in crate::heal) hang_after: Duration,
    /// `heal.max_waiting`.
    pub(in crate::heal) max_waiting: usize,
}

impl ViewerBounds {
    pub(in crate::heal) fn of(heal: &HealSettings) -> Self {
        let (build_after, hang_after) = (heal.build_after, heal.hang_after);
        Self { build_after, hang_after, max_waiting: heal.max_waiting }
    }
}

/// `FirstRequests` are documents whose first request is on its way: the others wait for its answer, and then all go at
/// once.
#[derive(Debug, Default)]
pub(in crate::heal) struct FirstRequests(Mutex<FirstOutcome>);

/// Completion that the others wait for, and whether the first request was sent.
type FirstOutcome = HashMap<Arc<str>, (Completion<()>, Arc<AtomicBool>)>;

/// `FirstRequest` is the first request of a document. The others go when it is dropped.
#[derive(Debug)]
pub(in crate::heal) struct FirstRequest {
    was_sent: Arc<AtomicBool>,
    _ends: Completer<()>,
}

impl FirstRequest {
    pub(in crate::heal) fn mark_sent(&self) {
        self.was_sent.store(true, Ordering::Release);
    }
}

/// `FirstState` is the state of the first request of a document.
#[derive(Debug)]
pub(in crate::heal) enum FirstState {
    /// Ended.
    Over,
    /// Late: the request takes too long. True if it was sent.
    Late(bool),
}

impl FirstRequests {
    /// Waits for the end of the first request of this document, at most until `until`. `None`: there is no first request.
    pub(in crate::heal) async fn wait(&self, name: &str, until: Instant) -> Option<FirstState> {
        let (ends, was_sent) = self.0.lock().get(name)?.clone();
        Some(match timeout_at(until, ends.wait()).await {
            Ok(_) => FirstState::Over,
            Err(_) => FirstState::Late(was_sent.load(Ordering::Acquire)),
        })
    }

    /// Begins the first request of a document. `FirstRequest` records when the request is sent, and ends when dropped.
    /// `None`: there is one already.
    pub(in crate::heal) fn begin(&self, name: &Arc<str>) -> Option<FirstRequest> {
        match self.0.lock().entry(Arc::clone(name)) {
            Entry::Occupied(_) => None,
            Entry::Vacant(none) => {
                let (ends, ended) = completion();
                let was_sent = Arc::new(AtomicBool::new(false));
                none.insert((ended, Arc::clone(&was_sent)));
                Some(FirstRequest { was_sent, _ends: ends })
            }
        }
    }

    pub(in crate::heal) fn ends(&self, name: &Arc<str>) {
        self.0.lock().remove(name);
    }
}

/// `QueuedViewer` counts one viewer who waits.
pub(in crate::heal) struct QueuedViewer<'a>(&'a ViewerRequests);

impl Drop for QueuedViewer<'_> {
    fn drop(&mut self) {
        *self.0.waiting() -= 1;
    }
}

impl ViewerRequests {
    /// A queue with this many permits for manifests.
    pub(in crate::heal) fn new(documents: usize) -> Self {
        Self {
            first: FirstRequests::default(),
            answered: TimedCache::new(ANSWERED),
            documents: PrioritySemaphore::new(documents),
            waiting: Mutex::new(0),
        }
    }

    /// The queue with this many permits for manifests; the state is shared.
    pub(in crate::heal) fn under(self: &Arc<Self>, documents: usize) -> Arc<Self> {
        self.documents.resize(documents);
        Arc::clone(self)
    }

    /// Number of viewers who wait for their turn.
    pub(in crate::heal) fn waiting_viewers(&self) -> usize {
        *self.waiting()
    }

    pub(in crate::heal) fn wait(&self, most: usize) -> Option<QueuedViewer<'_>> {
        let mut waiting = self.waiting();
        if *waiting >= most {
            return None;
        }
        *waiting += 1;
        Some(QueuedViewer(self))
    }

    fn waiting(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock()
    }
}

/// True for a canvas, or something that costs as much; anything else is a manifest.
pub(in crate::heal) fn is_canvas(target: &str) -> bool {
    target.contains("/canvas/") || target.contains("/image/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_not_the_first_waits_for_the_first_only_and_not_for_ever() {
        let requests = FirstRequests::default();
        let (name, begun): (Arc<str>, _) = ("/canvas/a".into(), Instant::now());
        let until = begun + Duration::from_secs(30);
        assert!(requests.wait(&name, until).await.is_none());
        let first = requests.begin(&name).expect("nobody is before it");
        assert!(requests.begin(&name).is_none());
        let rest = async {
            let all = (0..60).map(|_| requests.wait(&name, until));
            let all = futures_util::future::join_all(all).await;
            assert!(all.iter().all(|one| matches!(one, Some(FirstState::Over))), "{all:?}");
        };
        let ends = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            requests.ends(&name);
            drop(first);
        };
        tokio::join!(rest, ends);
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        let first = requests.begin(&name).expect("it has ended");
        assert!(matches!(requests.wait(&name, until).await, Some(FirstState::Late(false))));
        first.mark_sent();
        assert!(matches!(requests.wait(&name, until).await, Some(FirstState::Late(true))));
        assert_eq!(begun.elapsed(), Duration::from_secs(30));
    }

    #[test]
    fn so_many_viewers_wait_and_who_leaves_makes_room() {
        let queue = ViewerRequests::new(1);
        let viewers: Vec<_> = (0..2).map(|_| queue.wait(2).expect("there is room")).collect();
        assert!(queue.wait(2).is_none() && queue.waiting_viewers() == 2);
        drop(viewers);
        assert!(queue.wait(1).is_some() && queue.waiting_viewers() == 0);
    }
}
