//! Bodies that hold a permit while they go by, and how they are ended when others wait.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::Admission;
use super::body::BodyError;
use super::client::Client;
use super::lease::Lease;

/// An answer that streams: what is to be given back when it is over.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) incoming: Incoming,
    pub(super) lease: Lease,
    #[expect(dead_code, reason = "free when dropped")]
    pub(super) admission: Option<Admission>,
}

impl HttpBody for Exchange {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_ready() {
            self.lease.is_heard();
            return polled.map_err(BodyError::Upstream);
        }
        ready!(self.lease.poll_silence(cx));
        Poll::Ready(Some(Err(BodyError::Stalled)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// One body on its way, either up or down.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    client: Option<Arc<Client>>,
    /// Since when the client is the one to move, in milliseconds of [`now`]; zero: it is not.
    waits_since: AtomicU64,
    ended: AtomicBool,
    /// Who sends the body up.
    sender: AtomicWaker,
    /// What an answer holds. hyper does not ask for a body that its client does not take, so it is taken away here.
    exchange: Mutex<Option<Exchange>>,
}

impl Transfer {
    pub(super) fn new(client: Option<Arc<Client>>, exchange: Option<Exchange>) -> Arc<Self> {
        Arc::new(Self { client, exchange: Mutex::new(exchange), ..Self::default() })
    }

    /// The client is the next to move, or it is not.
    pub(super) fn waits_for_client(&self, waits: bool) {
        self.waits_since.store(if waits { now() } else { 0 }, Relaxed);
    }

    /// For how long the client has been the one to move.
    pub(super) fn waits(&self) -> Duration {
        match self.waits_since.load(Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now().saturating_sub(since)),
        }
    }

    /// How many requests its client has with upstreams.
    pub(super) fn client_load(&self) -> usize {
        self.client.as_ref().map_or(0, |client| client.requests())
    }

    /// Ends it: what it holds is given back at once.
    pub(super) fn end(&self) {
        self.ended.store(true, Relaxed);
        self.waits_for_client(false);
        let exchange = self.lock().take();
        drop(exchange);
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

    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Exchange>> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds of this process, never zero.
pub(super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}
