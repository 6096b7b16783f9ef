//! Single flight: work that many wait for and no waiter owns.
//!
//! A flight is a task of its own. Viewers come and go; hyper drops a request's future soon after its client
//! leaves, so a flight inside one of them would die with the first impatient reader (measured: with a
//! memoising cache as the flight, 20 leaving clients caused 15 upstream runs instead of 1).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::completion::{Completion, completion};
use crate::heal::flight_priority::FlightPriority;

/// `SingleFlight` holds the flights under way, by their keys.
#[derive(Debug)]
pub(crate) struct SingleFlight<K, V> {
    flying: FlightTable<K, V>,
    /// Runtime that flights are spawned on. Not the first waiter's worker thread: that one may be busy or end.
    home: Handle,
}

type FlightTable<K, V> = Arc<Mutex<HashMap<K, FlightHandle<V>>>>;

/// A clone shares the flights.
impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        Self { flying: Arc::clone(&self.flying), home: self.home.clone() }
    }
}

/// `FlightHandle` is one waiter's handle of a flight.
#[derive(Debug, Clone)]
pub(crate) struct FlightHandle<V> {
    pending: Completion<V>,
    /// Priority of the flight; a waiter can raise it.
    pub(crate) urgency: Arc<FlightPriority>,
}

impl<K, V> SingleFlight<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// An empty set. Flights run on the caller's runtime.
    pub(crate) fn here() -> Self {
        Self { flying: Arc::default(), home: Handle::current() }
    }

    /// Joins the flight with `key`; where there is none, `fly` starts it as a task of its own. The priority of a flight
    /// that exists already is raised to `lane`.
    pub(crate) fn join_or_start<F>(
        &self,
        key: &K,
        lane: Priority,
        fly: impl FnOnce(Arc<FlightPriority>) -> F,
    ) -> FlightHandle<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut flying = self.flying.lock();
        let slot = match flying.entry(key.clone()) {
            Entry::Occupied(flight) => {
                let handle = flight.get().clone();
                drop(flying);
                handle.urgency.raise(lane);
                return handle;
            }
            Entry::Vacant(slot) => slot,
        };
        let (done, pending) = completion();
        let urgency = FlightPriority::new(lane);
        slot.insert(FlightHandle { pending: pending.clone(), urgency: Arc::clone(&urgency) });
        drop(flying);
        let landing = RemoveOnDrop { flying: Arc::clone(&self.flying), key: key.clone() };
        // Boxed, because the future is large, and tokio moves it three times on spawn.
        let flight = Box::pin(fly(Arc::clone(&urgency)));
        self.home.spawn(async move {
            let result = flight.await;
            // Removed before the result is published: a caller that comes now finds the new state, not the old flight.
            drop(landing);
            done.complete(result);
        });
        FlightHandle { pending, urgency }
    }

    /// Joins the flight with `key`, if there is one.
    pub(crate) fn find<Q>(&self, key: &Q) -> Option<FlightHandle<V>>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.flying.lock().get(key).cloned()
    }

    /// Number of flights under way.
    pub(crate) fn len(&self) -> usize {
        self.flying.lock().len()
    }
}

impl<V: Clone> FlightHandle<V> {
    /// Waits for the result of the flight; `None` if its task panicked (a bug).
    pub(crate) async fn wait(&mut self) -> Option<V> {
        self.pending.wait().await
    }
}

/// `RemoveOnDrop` removes the flight, however it ends.
struct RemoveOnDrop<K: Eq + Hash, V> {
    flying: FlightTable<K, V>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for RemoveOnDrop<K, V> {
    fn drop(&mut self) {
        self.flying.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn many_share_one_flight_and_leaving_changes_nothing() {
        let flights = SingleFlight::<&str, u32>::here();
        let runs = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Notify::new());
        let seats: Vec<_> = (0..20)
            .map(|_| {
                let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
                flights.join_or_start(&"canvas", Priority::Viewer, |_| async move {
                    runs.fetch_add(1, Ordering::Relaxed);
                    gate.notified().await;
                    7
                })
            })
            .collect();
        assert_eq!(flights.len(), 1);
        let mut last = seats.into_iter().next_back().expect("twenty seats");
        gate.notify_one();
        assert_eq!(last.wait().await, Some(7));
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn a_flight_whose_task_panics_tells_its_waiters_and_leaves_the_list() {
        let flights = SingleFlight::<&str, u32>::here();
        let mut handle =
            flights.join_or_start(&"canvas", Priority::Viewer, |_| async { panic!("a bug in the flight") });
        assert_eq!(handle.wait().await, None);
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn who_comes_after_the_landing_starts_anew() {
        let flights = SingleFlight::<&str, u32>::here();
        let mut first = flights.join_or_start(&"canvas", Priority::Viewer, |_| async { 1 });
        assert_eq!(first.wait().await, Some(1));
        let mut second = flights.join_or_start(&"canvas", Priority::Viewer, |_| async { 2 });
        assert_eq!(second.wait().await, Some(2));
    }
}
