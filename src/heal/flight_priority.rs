//! How urgent a flight is. A viewer who comes for a page that only waited to be healed ahead makes it urgent.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::heal::canvas_service::priority_semaphore::{
    Priority, PriorityPermit, PrioritySemaphore, WaiterId,
};
use crate::observe::RequestTrace;

/// The urgency of one flight, shared by all who wait for it.
#[derive(Debug)]
pub(crate) struct FlightPriority {
    state: Mutex<PriorityState>,
    viewers: AtomicU32,
    departed: OnceLock<Instant>,
    departs: Notify,
    /// The canvas service asked for the image of the canvas that it builds.
    has_echo: AtomicBool,
    /// When the last viewer came.
    last_viewer: Mutex<Option<Instant>>,
    leader: OnceLock<RequestTrace>,
    /// When the last request that it waited for was answered.
    answered: Mutex<Option<Instant>>,
    /// When it last learned something that speaks against its image.
    seen: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct PriorityState {
    lane: Priority,
    /// Where it stands in a queue, while it does.
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

    /// The request that started it. Said once, by whoever starts it.
    pub(in crate::heal) fn set_leader(&self, trace: &RequestTrace) {
        let _ = self.leader.set(trace.clone());
    }

    /// The request that started it.
    pub(in crate::heal) fn leader(&self) -> Option<&RequestTrace> {
        self.leader.get()
    }

    /// A request that it waited for was answered now.
    pub(in crate::heal) fn is_answered(&self) {
        *self.answered.lock() = Some(Instant::now());
    }

    /// When the last one was. What was asked about the image since may have taken long, and does not make it newer.
    pub(in crate::heal) fn answered_at(&self) -> Instant {
        self.answered.lock().unwrap_or_else(Instant::now)
    }

    /// The last answer speaks against its image.
    pub(in crate::heal) fn sees(&self) {
        *self.seen.lock() = Some(self.answered_at());
    }

    /// Is all that speaks against its image older than this?
    pub(in crate::heal) fn saw_nothing_since(&self, since: Instant) -> bool {
        let seen = *self.seen.lock();
        seen.is_some_and(|seen| seen < since)
    }

    /// The service asks for its image: it has found the file, and written the key.
    pub(in crate::heal) fn hears_echo(&self) {
        self.has_echo.store(true, Ordering::Relaxed);
    }

    pub(in crate::heal) fn has_echo(&self) -> bool {
        self.has_echo.load(Ordering::Relaxed)
    }

    /// One viewer more waits for this flight.
    pub(in crate::heal) fn add_waiter(&self) {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        *self.last_viewer.lock() = Some(Instant::now());
    }

    /// Did a viewer come later than this?
    pub(in crate::heal) fn viewer_came_after(&self, then: Instant) -> bool {
        self.last_viewer.lock().is_some_and(|came| came > then)
    }

    /// Does nobody wait for it? (A thumbnail is wanted less soon than a page, but somebody waits for it.)
    pub(in crate::heal) fn is_for_nobody(&self) -> bool {
        self.lane() != Priority::Viewer && self.viewers() == 0
    }

    /// Viewers who waited so far, those among them who left.
    pub(in crate::heal) fn viewers(&self) -> u32 {
        self.viewers.load(Ordering::Relaxed)
    }

    /// At least as urgent as `lane` from now on, and all that it waits for too.
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

    /// This flight waits for that one now.
    pub(in crate::heal) fn depend_on(&self, other: &Arc<Self>) {
        let lane = {
            let mut state = self.state.lock();
            state.waits_on = Some(Arc::clone(other));
            state.lane
        };
        other.raise(lane);
    }

    /// Waits for a place in the lane that is right by then.
    pub(in crate::heal) async fn acquire(&self, lanes: &Arc<PrioritySemaphore>) -> PriorityPermit {
        // Ticket and lane change hands in one step: whoever hastens us comes before it and is read here, or after
        // it and finds the ticket.
        let stand = |ticket| {
            let mut state = self.state.lock();
            state.queued = Some((Arc::clone(lanes), ticket));
            state.lane
        };
        let place = lanes.acquire(stand).await;
        self.state.lock().queued = None;
        place
    }

    /// Its request is on the way now, from here or from another node.
    pub(in crate::heal) fn mark_sent(&self) {
        let _ = self.departed.set(Instant::now());
        self.departs.notify_waiters();
    }

    /// Waits until its request is on the way: before that there is nothing to look for.
    pub(in crate::heal) async fn sent(&self) {
        let mut departs = std::pin::pin!(self.departs.notified());
        departs.as_mut().enable();
        if self.departed.get().is_none() {
            departs.await;
        }
    }

    /// When its request went on its way, if it did.
    pub(in crate::heal) fn departed_at(&self) -> Option<Instant> {
        self.departed.get().copied()
    }
}
