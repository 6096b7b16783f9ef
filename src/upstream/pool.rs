//! Pool of kept-alive HTTP/1.1 connections to one server, the warmest first; and requests that wait for one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::carrier::ActiveConnection;
use super::error::UpstreamError;
use super::http1::Http1Connection;

/// Idle connections, last in first out: the warm ones stay warm, the others age and are closed.
///
/// Each thread has a shard of its own. A connection works on any thread, but it is driven by the one that opened it:
/// used elsewhere, every request and every piece of an answer would wake a thread on another core.
#[derive(Debug)]
pub(super) struct Pool {
    shards: Box<[Shard]>,
    keep: Duration,
    max_age: Duration,
    /// Idle connections of one shard at most. (There are never more than requests at once.)
    most: usize,
}

/// Shard of the pool on its own cache line, so that its lock causes no false sharing.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<ShardState>);

#[derive(Debug, Default)]
struct ShardState {
    // Boxed: a connection is moved several times for each request.
    #[expect(clippy::vec_box, reason = "moved as a pointer")]
    idle: Vec<Box<Http1Connection>>,
    /// Requests that wait for a connection.
    waiters: VecDeque<oneshot::Sender<DialResult>>,
    /// Connections that are being opened: never fewer than requests that wait, never more than the most that ever waited at
    /// once.
    dialling: usize,
}

/// Result of opening a connection.
pub(super) type DialResult = Result<ActiveConnection, UpstreamError>;

/// A connection that is to be opened, for the shard with this number.
#[derive(Debug)]
pub(super) struct Dial(usize);

/// Threads get shards as they come; beyond these they share.
const SHARDS: usize = 64;

thread_local! {
    static OWN: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Relaxed) % SHARDS
    };
}

impl Pool {
    pub(super) fn new(keep: Duration, max_age: Duration, most: usize) -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), keep, max_age, most }
    }

    /// The warmest connection of this thread that is still open and not too old.
    pub(super) fn checkout(&self) -> Option<Box<Http1Connection>> {
        let now = Instant::now();
        let mut own = self.local_shard();
        while let Some(mut connection) = own.idle.pop() {
            if self.is_good(&mut connection, now) {
                return Some(connection);
            }
        }
        None
    }

    /// Closes connections that are closed already or too old.
    pub(super) fn prune(&self, now: Instant) {
        for shard in &self.shards {
            shard.0.lock().idle.retain_mut(|connection| self.is_good(connection, now));
        }
    }

    /// Takes back a connection whose last answer was read to its end.
    pub(super) fn checkin(&self, mut connection: Box<Http1Connection>) {
        if connection.mark_idle(Instant::now()) {
            self.keep(connection);
        }
    }

    /// Keeps a connection for the next request: that of a waiter, if there is one.
    pub(super) fn keep(&self, connection: Box<Http1Connection>) {
        self.offer(&mut self.local_shard(), ActiveConnection::Own(connection));
    }

    /// Queues a waiter for the next connection. `Some`: the caller has to dial one. No dial is needed while enough are
    /// under way, including dials for requests that were given up.
    pub(super) fn wait(&self) -> (oneshot::Receiver<DialResult>, Option<Dial>) {
        let (sender, dialled) = oneshot::channel();
        let shard = OWN.with(|own| *own);
        let mut state = self.shards[shard].0.lock();
        state.waiters.retain(|waiter| !waiter.is_closed());
        state.waiters.push_back(sender);
        let dials = state.dialling < state.waiters.len();
        state.dialling += usize::from(dials);
        (dialled, dials.then_some(Dial(shard)))
    }

    /// Takes the result of a dial whose waiter is gone: the connection is kept.
    pub(super) fn dialled(&self, Dial(shard): Dial, mut dialled: DialResult) {
        let mut state = self.shards[shard].0.lock();
        state.dialling -= 1;
        match dialled {
            Ok(carrier) => self.offer(&mut state, carrier),
            Err(_) => {
                while let Some(waiter) = state.waiters.pop_front() {
                    match waiter.send(dialled) {
                        Ok(()) => return,
                        Err(back) => dialled = back,
                    }
                }
            }
        }
    }

    fn offer(&self, state: &mut ShardState, carrier: ActiveConnection) {
        let mut dialled = Ok(carrier);
        while let Some(waiter) = state.waiters.pop_front() {
            match waiter.send(dialled) {
                Ok(()) => return,
                Err(back) => dialled = back,
            }
        }
        // A shared connection is kept already.
        if let Ok(ActiveConnection::Own(connection)) = dialled
            && state.idle.len() < self.most
        {
            state.idle.push(connection);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().idle.len()).sum()
    }

    fn is_good(&self, connection: &mut Http1Connection, now: Instant) -> bool {
        now.duration_since(connection.idle_since) < self.keep
            && now.duration_since(connection.born) < self.max_age
            && !connection.is_closed()
    }

    fn local_shard(&self) -> MutexGuard<'_, ShardState> {
        self.shards[OWN.with(|own| *own)].0.lock()
    }
}
