//! Priority of a flight. A viewer who requests a page that was to be healed ahead raises it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::heal::canvas_service::priority_semaphore::{
    Priority, PriorityPermit, PrioritySemaphore, WaiterId,
};
use crate::observe::RequestTrace;

/// `FlightPriority` is the priority of one flight, shared by all who wait for it.
#[derive(Debug)]
pub(crate) struct FlightPriority {
    state: Mutex<PriorityState>,
    viewers: AtomicU32,
    departed: OnceLock<Instant>,
    departs: Notify,
    /// True once the canvas service asked for the image of the canvas that it builds.
    has_echo: AtomicBool,
    /// Time at which the last viewer came.
    last_viewer: Mutex<Option<Instant>>,
    leader: OnceLock<RequestTrace>,
    /// Time at which the last request that the flight waited for was answered.
    answered: Mutex<Option<Instant>>,
    /// Time of the last evidence against the flight's image.
    seen: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct PriorityState {
    lane: Priority,
    /// Position in a queue, while the flight waits in one.
    queued: Option<(Arc<PrioritySemaphore>, WaiterId)>,
    /// The flight that this one waits for.
    waits_on: Option<Arc<FlightPriority>>,
}

impl FlightPriority {
    pub(in crate::heal) fn new(lane: Priority) -> Arc<Self> {
        let state = PriorityState { lane, queued: None, waits_on: None };
        Arc::new(Self {
            state: Mutex::new(state),
            viewers: AtomicU32::new(0),
            departed: OnceLock::new(),
            departs: Notify::new(),
            last_viewer: Mutex::default(),
            has_echo: AtomicBool::new(false),
            leader: OnceLock::new(),
            answered: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    pub(in crate::heal) fn lane(&self) -> Priority {
        self.state.lock().lane
    }

    /// Sets the request that started the flight. Called once, by that request.
    pub(in crate::heal) fn set_leader(&self, trace: &RequestTrace) {
        let _ = self.leader.set(trace.clone());
    }

    /// The request that started the flight.
    pub(in crate::heal) fn leader(&self) -> Option<&RequestTrace> {
        self.leader.get()
    }

    /// Notes that a request that the flight waited for was answered now.
    pub(in crate::heal) fn note_answer(&self) {
        *self.answered.lock() = Some(Instant::now());
    }

    /// Time at which the last request that the flight waited for was answered. Later checks of the image may have taken
    /// long, but make that answer no newer.
    pub(in crate::heal) fn answered_at(&self) -> Instant {
        self.answered.lock().unwrap_or_else(Instant::now)
    }

    /// Notes that the last answer speaks against the image.
    pub(in crate::heal) fn note_evidence(&self) {
        *self.seen.lock() = Some(self.answered_at());
    }

    /// True if all that speaks against the image is older than this.
    pub(in crate::heal) fn saw_nothing_since(&self, since: Instant) -> bool {
        let seen = *self.seen.lock();
        seen.is_none_or(|seen| seen < since)
    }

    /// Notes that the service requested the image: it has found the file, and written the key.
    pub(in crate::heal) fn note_echo(&self) {
        self.has_echo.store(true, Ordering::Relaxed);
    }

    pub(in crate::heal) fn has_echo(&self) -> bool {
        self.has_echo.load(Ordering::Relaxed)
    }

    /// Counts one more viewer who waits for this flight.
    pub(in crate::heal) fn add_waiter(&self) {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        *self.last_viewer.lock() = Some(Instant::now());
    }

    /// True if a viewer came later than this.
    pub(in crate::heal) fn viewer_came_after(&self, then: Instant) -> bool {
        self.last_viewer.lock().is_some_and(|came| came > then)
    }

    /// True if no viewer waits for the flight. (A thumbnail is less urgent than a page, but a viewer waits for it.)
    pub(in crate::heal) fn is_for_nobody(&self) -> bool {
        self.lane() != Priority::Viewer && self.viewers() == 0
    }

    /// Number of viewers who waited so far, including those who left.
    pub(in crate::heal) fn viewers(&self) -> u32 {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Raises the priority of the flight, and of all flights that it waits for, to `lane` at least.
    pub(in crate::heal) fn raise(&self, lane: Priority) {
        let (queued, waits_on) = {
            let mut state = self.state.lock();
            if lane >= state.lane {
                return;
            }
            state.lane = lane;
            (state.queued.clone(), state.waits_on.clone())
        };
        if let Some((lanes, ticket)) = queued {
            lanes.promote(ticket, lane);
        }
        if let Some(other) = waits_on {
            other.raise(lane);
        }
    }

    /// Notes that this flight waits for another one from now on.
    pub(in crate::heal) fn depend_on(&self, other: &Arc<Self>) {
        let lane = {
            let mut state = self.state.lock();
            state.waits_on = Some(Arc::clone(other));
            state.lane
        };
        other.raise(lane);
    }

    /// Waits for a permit, in the lane that is right by then.
    pub(in crate::heal) async fn acquire(&self, lanes: &Arc<PrioritySemaphore>) -> PriorityPermit {
        // Ticket and lane change under one lock: a raise comes before and is read here, or after and finds the ticket.
        let enqueue = |ticket| {
            let mut state = self.state.lock();
            state.queued = Some((Arc::clone(lanes), ticket));
            state.lane
        };
        let permit = lanes.acquire(enqueue).await;
        self.state.lock().queued = None;
        permit
    }

    /// Notes that the flight's request is on its way, from here or from another node.
    pub(in crate::heal) fn mark_sent(&self) {
        let _ = self.departed.set(Instant::now());
        self.departs.notify_waiters();
    }

    /// Waits until the flight's request is on its way: before that a probe is of no use.
    pub(in crate::heal) async fn sent(&self) {
        let mut departs = std::pin::pin!(self.departs.notified());
        departs.as_mut().enable();
        if self.departed.get().is_none() {
            departs.await;
        }
    }

    /// Time at which the flight's request was sent, if it was.
    pub(in crate::heal) fn departed_at(&self) -> Option<Instant> {
        self.departed.get().copied()
    }
}
