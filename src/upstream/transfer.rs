//! Bodies that hold a permit while they go by, and how they are ended when others wait.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

/// A client, as far as its requests are counted.
pub(super) trait ClientLoad: Debug + Send + Sync {
    /// Requests with upstreams, or waiting for one.
    fn requests(&self) -> usize;
}

/// Resources of a body, held while it streams.
pub(super) trait Release: Debug + Send + Sync {
    /// Gives all of it back at once.
    fn release(&self);
}

/// An upload holds nothing but the permits of its request, which are the request's own.
impl Release for () {
    fn release(&self) {}
}

/// A body on its way, either up or down.
#[derive(Debug)]
pub(super) struct Transfer<H: ?Sized> {
    client: Option<Arc<dyn ClientLoad>>,
    /// Time since which the client is the one to move, in milliseconds of [`now`]; zero: it is not.
    waits_since: AtomicU64,
    ended: AtomicBool,
    /// Task that sends the body up.
    sender: AtomicWaker,
    /// Resources of the transfer. They can be taken from outside, because hyper does not poll a body that its client does
    /// not take.
    pub(super) held: H,
}

impl<H> Transfer<H> {
    pub(super) fn new(client: Option<Arc<dyn ClientLoad>>, held: H) -> Arc<Self> {
        Arc::new(Self {
            client,
            waits_since: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            sender: AtomicWaker::new(),
            held,
        })
    }
}

impl<H: Release + ?Sized> Transfer<H> {
    /// Sets whether the client is the next to move.
    pub(super) fn waits_for_client(&self, waits: bool) {
        self.waits_since.store(if waits { now() } else { 0 }, Relaxed);
    }

    /// Time for which the transfer has waited for its client.
    pub(super) fn waits(&self) -> Duration {
        match self.waits_since.load(Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now().saturating_sub(since)),
        }
    }

    /// Requests of the client with upstreams.
    pub(super) fn client_load(&self) -> usize {
        self.client.as_ref().map_or(0, |client| client.requests())
    }

    /// Ends the transfer: its resources are given back at once.
    pub(super) fn end(&self) {
        self.ended.store(true, Relaxed);
        self.waits_for_client(false);
        self.held.release();
        self.sender.wake();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Ready once it was ended.
    pub(super) fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        self.sender.register(cx.waker());
        if self.is_ended() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Milliseconds of this process, never zero.
pub(super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}
