//! Lanes: the order in which canvas requests get the few permits.
//!
//! UPSTREAM: the canvas service holds two outbound connections per host, so two requests at once are polite and a third one
//! only stands in its queue (upstream.md "Load"). Viewers go first, then the pages ahead of a reader, then sweeps; every
//! fourth permit goes to the longest waiter of a lower lane, so that no lane starves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// `Priority` is the lane of a heal; lower is sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// A viewer waits.
    Viewer,
    /// A reader will turn to this page soon.
    Prefetch,
    /// Lane of work that no viewer waits for.
    Background,
}

impl Priority {
    /// Every lane, soonest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Prefetch, Self::Background];

    /// Name in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Prefetch => "ahead",
            Self::Background => "sweep",
        }
    }
}

/// Number of viewers in a row after which one permit goes to a lower lane, if a request waits there.
const FAIRNESS: u32 = 3;

/// Interval at which a waiter checks whether all permits have been held for long.
const EXTRA_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// `PrioritySemaphore` holds the permits of one canvas service.
#[derive(Debug)]
pub(in crate::heal) struct PrioritySemaphore {
    state: Mutex<SemaphoreState>,
}

#[derive(Debug)]
struct SemaphoreState {
    permits: usize,
    free: usize,
    /// Permits to be removed as soon as they are released: the number was lowered.
    owed: usize,
    next_ticket: u64,
    /// Permits given in a row to a lane while a lower lane waited.
    in_a_row: u32,
    waiting: [VecDeque<QueuedWaiter>; 3],
    /// Holders of permits, by number, and since when.
    held: Vec<(u64, Instant)>,
    /// An extra request runs beside the holders of permits.
    has_extra: bool,
}

#[derive(Debug)]
struct QueuedWaiter {
    ticket: u64,
    call: oneshot::Sender<PriorityPermit>,
}

/// `PriorityPermit` is the right to run one canvas request. Released when dropped.
#[derive(Debug)]
pub(in crate::heal) struct PriorityPermit {
    /// `None` once the permit was passed on.
    lanes: Option<Arc<PrioritySemaphore>>,
    /// `None`: an extra permit, beside the others.
    number: Option<u64>,
}

/// `WaiterId` is a waiter's number, by which it can be moved to a sooner lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) struct WaiterId(u64);

impl PrioritySemaphore {
    pub(in crate::heal) fn new(permits: usize) -> Arc<Self> {
        let permits = permits.max(1);
        let waiting = Default::default();
        let (held, has_extra) = (Vec::new(), false);
        let state = SemaphoreState {
            permits,
            free: permits,
            owed: 0,
            next_ticket: 0,
            in_a_row: 0,
            waiting,
            held,
            has_extra,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Sets the number of permits. Holders keep theirs to the end.
    pub(in crate::heal) fn resize(self: &Arc<Self>, permits: usize) {
        let permits = permits.max(1);
        let more = {
            let mut state = self.state.lock();
            let fewer = state.permits.saturating_sub(permits);
            let more = permits.saturating_sub(state.permits);
            let idle = fewer.min(state.free);
            state.permits = permits;
            state.free -= idle;
            state.owed += fewer - idle;
            more
        };
        (0..more).for_each(|_| self.release(None));
    }

    /// Waits for a permit. If none is free, `stand` gets the ticket and returns the lane to wait in. `stand` is called with
    /// the queue locked, so that no [`PrioritySemaphore::promote`] can fall between its answer and the queue.
    pub(in crate::heal) async fn acquire(
        self: &Arc<Self>,
        stand: impl FnOnce(WaiterId) -> Priority,
    ) -> PriorityPermit {
        let called = {
            let mut state = self.state.lock();
            if state.free > 0 && state.waiting.iter().all(VecDeque::is_empty) {
                state.free -= 1;
                let number = state.hold();
                return PriorityPermit { lanes: Some(Arc::clone(self)), number: Some(number) };
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            let (call, called) = oneshot::channel();
            let lane = stand(WaiterId(ticket));
            state.waiting[lane as usize].push_back(QueuedWaiter { ticket, call });
            called
        };
        match called.await {
            Ok(permit) => permit,
            // Not reached: the lanes never drop a waiter's sender. A permit without a count is better than a panic.
            Err(_) => PriorityPermit { lanes: None, number: None },
        }
    }

    /// Moves a waiter to a sooner lane: a viewer requested a page that was to be healed ahead.
    pub(in crate::heal) fn promote(&self, ticket: WaiterId, to: Priority) {
        let mut state = self.state.lock();
        for lane in (to as usize + 1)..state.waiting.len() {
            if let Some(at) = state.waiting[lane].iter().position(|waiter| waiter.ticket == ticket.0) {
                if let Some(waiter) = state.waiting[lane].remove(at) {
                    state.waiting[to as usize].push_back(waiter);
                }
                return;
            }
        }
    }

    /// Number of waiters in each lane, viewer first.
    pub(in crate::heal) fn waiting(&self) -> [usize; 3] {
        let state = self.state.lock();
        std::array::from_fn(|lane| state.waiting[lane].len())
    }

    /// Number of free permits.
    #[cfg(test)]
    pub(in crate::heal) fn free(&self) -> usize {
        self.state.lock().free
    }

    /// Waits for a permit as [`PrioritySemaphore::acquire`] does, or until every permit has been held for `aged`: then one
    /// extra request may run, if it is probably answered at once, so that a stored document does not wait behind builds.
    pub(in crate::heal) async fn acquire_or_extra(
        self: &Arc<Self>,
        priority: Priority,
        aged: Duration,
    ) -> PriorityPermit {
        let mut permit = std::pin::pin!(self.acquire(|_| priority));
        loop {
            if let Ok(permit) = tokio::time::timeout(EXTRA_CHECK_INTERVAL, &mut permit).await {
                return permit;
            }
            let mut state = self.state.lock();
            let now = Instant::now();
            let all_aged = state.free == 0
                && state.held.iter().all(|(_, since)| now.saturating_duration_since(*since) >= aged);
            if all_aged && !state.has_extra {
                state.has_extra = true;
                return PriorityPermit { lanes: Some(Arc::clone(self)), number: None };
            }
        }
    }

    fn release(self: &Arc<Self>, number: Option<u64>) {
        let mut state = self.state.lock();
        state.held.retain(|(own, _)| Some(*own) != number);
        if state.owed > 0 {
            state.owed -= 1;
            return;
        }
        while let Some(waiter) = state.next() {
            let number = state.hold();
            match waiter.call.send(PriorityPermit { lanes: Some(Arc::clone(self)), number: Some(number) }) {
                Ok(()) => return,
                // The waiter left. The permit is taken back here, not in its `Drop`: that would lock twice.
                Err(mut permit) => {
                    permit.lanes = None;
                    state.held.retain(|(own, _)| *own != number);
                }
            }
        }
        state.free += 1;
    }
}

impl SemaphoreState {
    /// Registers one more holder; returns its number.
    fn hold(&mut self) -> u64 {
        self.next_ticket += 1;
        self.held.push((self.next_ticket, Instant::now()));
        self.next_ticket
    }

    fn next(&mut self) -> Option<QueuedWaiter> {
        let first = self.waiting.iter().position(|lane| !lane.is_empty())?;
        let lower = (first + 1..self.waiting.len()).find(|&lane| !self.waiting[lane].is_empty());
        match lower {
            Some(_) if self.in_a_row < FAIRNESS => {
                self.in_a_row += 1;
                self.waiting[first].pop_front()
            }
            Some(_) => {
                self.in_a_row = 0;
                // The longest waiter of all lower lanes.
                let oldest = (first + 1..self.waiting.len())
                    .filter(|&lane| !self.waiting[lane].is_empty())
                    .min_by_key(|&lane| self.waiting[lane].front().map(|waiter| waiter.ticket))?;
                self.waiting[oldest].pop_front()
            }
            None => {
                self.in_a_row = 0;
                self.waiting[first].pop_front()
            }
        }
    }
}

impl PriorityPermit {
    /// True for an extra permit, beside those that are counted.
    pub(in crate::heal) fn is_extra(&self) -> bool {
        self.number.is_none()
    }
}

impl Drop for PriorityPermit {
    fn drop(&mut self) {
        if let Some(lanes) = self.lanes.take() {
            match self.number {
                Some(number) => lanes.release(Some(number)),
                None => lanes.state.lock().has_extra = false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn queue(
        lanes: &Arc<PrioritySemaphore>,
        lane: Priority,
        name: u32,
        order: &Arc<Mutex<Vec<u32>>>,
    ) -> WaiterId {
        let (sender, receiver) = oneshot::channel();
        let (own, order) = (Arc::clone(lanes), Arc::clone(order));
        tokio::spawn(async move {
            let stand = move |ticket| {
                let _ = sender.send(ticket);
                lane
            };
            let permit = own.acquire(stand).await;
            order.lock().push(name);
            drop(permit);
        });
        receiver.await.expect("it waits")
    }

    async fn drained(lanes: &Arc<PrioritySemaphore>) {
        while lanes.waiting().iter().sum::<usize>() > 0 || lanes.state.lock().free == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn viewers_go_before_pages_ahead_and_nobody_starves() {
        let lanes = PrioritySemaphore::new(1);
        let held = lanes.acquire(|_| Priority::Viewer).await;
        let order = Arc::default();
        queue(&lanes, Priority::Background, 300, &order).await;
        queue(&lanes, Priority::Prefetch, 200, &order).await;
        for viewer in 0..8 {
            queue(&lanes, Priority::Viewer, viewer, &order).await;
        }
        drop(held);
        drained(&lanes).await;
        assert_eq!(*order.lock(), [0, 1, 2, 300, 3, 4, 5, 200, 6, 7]);
    }

    #[tokio::test]
    async fn a_promoted_waiter_goes_with_the_viewers() {
        let lanes = PrioritySemaphore::new(1);
        let held = lanes.acquire(|_| Priority::Viewer).await;
        let order = Arc::default();
        queue(&lanes, Priority::Prefetch, 1, &order).await;
        let ticket = queue(&lanes, Priority::Prefetch, 2, &order).await;
        lanes.promote(ticket, Priority::Viewer);
        drop(held);
        drained(&lanes).await;
        assert_eq!(*order.lock(), [2, 1]);
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_takes_no_place_with_it() {
        let lanes = PrioritySemaphore::new(1);
        let held = lanes.acquire(|_| Priority::Viewer).await;
        let leaving = tokio::spawn({
            let lanes = Arc::clone(&lanes);
            async move { lanes.acquire(|_| Priority::Viewer).await }
        });
        while lanes.waiting()[0] == 0 {
            tokio::task::yield_now().await;
        }
        leaving.abort();
        assert!(leaving.await.expect_err("it was aborted").is_cancelled());
        drop(held);
        assert_eq!(lanes.state.lock().free, 1);
    }

    #[tokio::test]
    async fn another_number_of_permits_counts_at_once_and_holders_keep_theirs() {
        let lanes = PrioritySemaphore::new(3);
        let held = [lanes.acquire(|_| Priority::Viewer).await, lanes.acquire(|_| Priority::Viewer).await];
        lanes.resize(1);
        assert_eq!(lanes.free(), 0);
        let [first, second] = held;
        drop(first);
        assert_eq!(lanes.free(), 0, "two were held, and one is left");
        drop(second);
        assert_eq!(lanes.free(), 1);
        lanes.resize(4);
        assert_eq!(lanes.free(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn one_extra_runs_beside_permits_that_were_all_held_for_long() {
        let (lanes, aged) = (PrioritySemaphore::new(2), Duration::from_secs(1));
        let began = Instant::now();
        let _first = lanes.acquire(|_| Priority::Viewer).await;
        tokio::time::advance(Duration::from_millis(500)).await;
        let second = lanes.acquire(|_| Priority::Viewer).await;
        let extra = lanes.acquire_or_extra(Priority::Viewer, aged).await;
        assert!(
            extra.is_extra() && began.elapsed() >= Duration::from_millis(1_500),
            "both are held for long"
        );
        let frees = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(second);
        };
        let (other, ()) = tokio::join!(lanes.acquire_or_extra(Priority::Viewer, aged), frees);
        assert!(!other.is_extra(), "one extra at a time");
        assert_eq!(lanes.waiting(), [0, 0, 0]);
        drop(extra);
        // The permit that was given back a moment ago is held by another, and not for long.
        let began = Instant::now();
        let extra = lanes.acquire_or_extra(Priority::Viewer, aged).await;
        assert!(extra.is_extra() && began.elapsed() >= Duration::from_millis(900));
        assert_eq!(lanes.state.lock().held.len(), 2);
    }
}
