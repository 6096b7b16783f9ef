//! Limit on requests in flight, shared fairly among kinds of routes and among clients.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::transfer::{self, ClientLoad, Release, Transfer};
use crate::config::settings::RouteKind;

/// Interval at which transfers are sought that may be ended in favour of requests that wait.
const RECHECK: Duration = Duration::from_millis(RECHECK_MS);
const RECHECK_MS: u64 = 25;

/// Longest recheck interval, for requests that have waited for long.
const LAST_RECHECK: Duration = Duration::from_millis(200);

/// A transfer that has waited for its client for less time than this is left alone: a round trip on a slow line.
const STALLED: Duration = Duration::from_millis(100);

/// Requests that wait, for each permit that there is.
const WAITERS_PER_PERMIT: usize = 100;

/// Bits of [`Permits::taken`] for one kind of route.
const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;

/// Permits for requests of viewers: a limit on requests at once, of which no kind of route may take all.
///
/// A quarter is kept free for the two kinds that hold less. A request without a permit waits; the next free permit goes to
/// the waiter whose client holds the fewest. While requests wait, transfers that wait for their own client are ended.
#[derive(Debug)]
pub(super) struct Permits {
    most: u64,
    most_of_a_kind: u64,
    /// Permits taken, [`BITS`] for each kind.
    taken: AtomicU64,
    /// Length of the queue, readable without the lock.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    /// Time of the last search for such transfers, in milliseconds of [`transfer::now`].
    looked: AtomicU64,
    ended: Counter,
}

#[derive(Debug, Default)]
struct Queue {
    next_id: u64,
    waiters: VecDeque<PermitWaiter>,
    /// Transfers that hold a permit and may be ended.
    transfers: Vec<Weak<Transfer<dyn Release>>>,
}

#[derive(Debug)]
struct PermitWaiter {
    id: u64,
    kind: RouteKind,
    client: Option<Arc<dyn ClientLoad>>,
    sender: oneshot::Sender<ClientPermit>,
}

impl PermitWaiter {
    fn load(&self) -> usize {
        self.client.as_ref().map_or(0, |client| client.requests())
    }
}

/// A permit of one request. Free again when dropped.
#[derive(Debug)]
pub(super) struct ClientPermit {
    permits: Arc<Permits>,
    kind: RouteKind,
    /// True once it was given back.
    is_returned: bool,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        if self.is_returned {
            return;
        }
        self.permits.taken.fetch_sub(one_permit(self.kind), SeqCst);
        if self.permits.waiting.load(SeqCst) > 0 {
            self.permits.serve(&mut self.permits.queue.lock());
        }
    }
}

/// Takes a waiter off the queue when its request is given up.
struct QueuedRequest<'a> {
    permits: &'a Permits,
    id: u64,
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        let mut queue = self.permits.queue.lock();
        if let Some(at) = queue.waiters.iter().position(|waiter| waiter.id == self.id) {
            queue.waiters.remove(at);
            self.permits.waiting.fetch_sub(1, SeqCst);
        }
    }
}

fn shift(kind: RouteKind) -> u32 {
    match kind {
        RouteKind::Image => 0,
        RouteKind::Presentation => BITS,
        RouteKind::Plain => 2 * BITS,
    }
}

fn one_permit(kind: RouteKind) -> u64 {
    1 << shift(kind)
}

impl Permits {
    /// Creates `most` permits, at least one. `ended` counts transfers that were ended in favour of others.
    pub(super) fn new(most: usize, ended: Counter) -> Arc<Self> {
        Self::keeping(|most| most / 4, most, ended)
    }

    /// Creates the permits of one client, which are not shared: few are kept free for requests of other kinds, so that many
    /// readers behind one address need not queue for a document one after another.
    pub(super) fn of_client(most: usize, ended: Counter) -> Arc<Self> {
        Self::keeping(|most| (most / 16).max(most.min(4) / 4), most, ended)
    }

    fn keeping(free: fn(u64) -> u64, most: usize, ended: Counter) -> Arc<Self> {
        let most = u64::try_from(most).unwrap_or(MASK).clamp(1, MASK);
        Arc::new(Self {
            most,
            most_of_a_kind: most - free(most),
            taken: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            looked: AtomicU64::new(0),
            ended,
        })
    }

    /// Number of permits taken.
    pub(super) fn taken(&self) -> usize {
        let taken = self.taken.load(SeqCst);
        let sum = (taken & MASK) + (taken >> BITS & MASK) + (taken >> (2 * BITS) & MASK);
        usize::try_from(sum).unwrap_or(usize::MAX)
    }

    /// True if a request on a route of this kind would have a permit at once.
    pub(super) fn has_room(&self, kind: RouteKind) -> bool {
        let of_kind = self.taken.load(SeqCst) >> shift(kind) & MASK;
        let is_taken = u64::try_from(self.taken()).map_or(true, |taken| taken >= self.most);
        self.waiting.load(SeqCst) == 0 && of_kind < self.most_of_a_kind && !is_taken
    }

    /// A permit; waits for one as long as `patience`. `client` is called where the request has to wait. `None`: there was none in time, or too many wait already.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        kind: RouteKind,
        client: impl FnOnce() -> Option<Arc<dyn ClientLoad>>,
        patience: Duration,
    ) -> Option<ClientPermit> {
        if self.waiting.load(SeqCst) == 0 && self.try_take(kind) {
            return Some(ClientPermit { permits: Arc::clone(self), kind, is_returned: false });
        }
        // Boxed, because it is rare: otherwise every request's future would be as large.
        Box::pin(self.wait(kind, client(), Instant::now() + patience)).await
    }

    /// Registers `transfer`, which may be ended from now on when a request waits.
    pub(super) fn watch(&self, transfer: &Arc<Transfer<dyn Release>>) {
        let mut queue = self.queue.lock();
        if queue.transfers.len() == queue.transfers.capacity() {
            queue.transfers.retain(|transfer| transfer.strong_count() > 0);
        }
        queue.transfers.push(Arc::downgrade(transfer));
    }

    async fn wait(
        self: &Arc<Self>,
        kind: RouteKind,
        client: Option<Arc<dyn ClientLoad>>,
        deadline: Instant,
    ) -> Option<ClientPermit> {
        let (sender, mut granted) = oneshot::channel();
        let waiting = {
            let mut queue = self.queue.lock();
            let id = queue.next_id;
            queue.next_id += 1;
            queue.waiters.push_back(PermitWaiter { id, kind, client, sender });
            self.waiting.fetch_add(1, SeqCst);
            self.shorten(&mut queue);
            // A permit may have become free before the waiter was queued.
            self.serve(&mut queue);
            QueuedRequest { permits: self, id }
        };
        let mut pause = RECHECK;
        loop {
            match timeout_at((Instant::now() + pause).min(deadline), &mut granted).await {
                Ok(permit) => return permit.ok(),
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => self.end_stalled(),
            }
            pause = (2 * pause).min(LAST_RECHECK);
        }
        drop(waiting);
        // The permit may have come at the last moment.
        granted.try_recv().ok()
    }

    /// Ends transfers that wait for their clients, one for each request that waits: those of the clients that hold the most
    /// first, and none for a client that holds more itself.
    fn end_stalled(&self) {
        let now = transfer::now();
        let looked = self.looked.load(Relaxed);
        let is_due = now.saturating_sub(looked) >= RECHECK_MS;
        if !is_due || self.looked.compare_exchange(looked, now, Relaxed, Relaxed).is_err() {
            return;
        }
        let (mut waiters, transfers) = {
            let mut queue = self.queue.lock();
            queue.transfers.retain(|transfer| transfer.strong_count() > 0);
            let waiters: Vec<_> = queue.waiters.iter().map(PermitWaiter::load).collect();
            (waiters, queue.transfers.iter().filter_map(Weak::upgrade).collect::<Vec<_>>())
        };
        // Not under the lock: permits of a transfer come back to this queue.
        let stalled = transfers.iter().filter(|transfer| transfer.waits() >= STALLED);
        let mut stalled: Vec<_> =
            stalled.map(|transfer| (transfer.client_load(), transfer.waits(), transfer)).collect();
        stalled.sort_unstable_by_key(|(load, waits, _)| Reverse((*load, *waits)));
        waiters.sort_unstable();
        for (waiter, (load, _, transfer)) in waiters.into_iter().zip(stalled) {
            if load < waiter {
                break;
            }
            transfer.end();
            self.ended.inc();
        }
    }

    /// Refuses the waiter of the client with the most requests, where too many wait.
    fn shorten(&self, queue: &mut Queue) {
        let most = usize::try_from(self.most).unwrap_or(usize::MAX).saturating_mul(WAITERS_PER_PERMIT);
        if queue.waiters.len() <= most {
            return;
        }
        let greediest = (0..queue.waiters.len()).max_by_key(|at| queue.waiters[*at].load());
        if let Some(at) = greediest {
            queue.waiters.remove(at);
            self.waiting.fetch_sub(1, SeqCst);
        }
    }

    /// Gives free permits to waiters.
    fn serve(self: &Arc<Self>, queue: &mut Queue) {
        loop {
            let free = self.taken.load(SeqCst);
            let fits = |at: &usize| self.fits(free, queue.waiters[*at].kind);
            let next = (0..queue.waiters.len()).filter(fits).min_by_key(|at| queue.waiters[*at].load());
            let Some(at) = next else { return };
            if !self.try_take(queue.waiters[at].kind) {
                continue;
            }
            let Some(PermitWaiter { kind, sender, .. }) = queue.waiters.remove(at) else { return };
            self.waiting.fetch_sub(1, SeqCst);
            if let Err(mut permit) =
                sender.send(ClientPermit { permits: Arc::clone(self), kind, is_returned: false })
            {
                // Its `drop` would lock the queue once more.
                self.taken.fetch_sub(one_permit(kind), SeqCst);
                permit.is_returned = true;
            }
        }
    }

    fn try_take(&self, kind: RouteKind) -> bool {
        let taken = |taken: u64| self.fits(taken, kind).then(|| taken + one_permit(kind));
        self.taken.fetch_update(SeqCst, SeqCst, taken).is_ok()
    }

    fn fits(&self, taken: u64, kind: RouteKind) -> bool {
        let of = |kind| taken >> shift(kind) & MASK;
        let all = of(RouteKind::Image) + of(RouteKind::Presentation) + of(RouteKind::Plain);
        all < self.most && of(kind) < self.most_of_a_kind
    }
}
