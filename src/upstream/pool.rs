//! Kept-alive HTTP/1.1 connections to one server, the warmest first.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;

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

/// On a cache line of its own, so that a lock which nobody else takes is not felt elsewhere either.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<Vec<Connection>>);

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
    pub(super) fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.own();
        while let Some(connection) = idle.pop() {
            if self.is_good(&connection, now) {
                return Some(connection);
            }
        }
        None
    }

    /// Closes what is closed already or too old.
    pub(super) fn prune(&self, now: Instant) {
        for shard in &self.shards {
            shard.lock().retain(|connection| self.is_good(connection, now));
        }
    }

    /// The last answer was read to its end.
    pub(super) fn give_back(&self, mut connection: Connection) {
        if connection.rest(Instant::now()) {
            self.keep(connection);
        }
    }

    /// A connection that may carry the next request.
    pub(super) fn keep(&self, connection: Connection) {
        let mut idle = self.own();
        if idle.len() < self.most {
            idle.push(connection);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn is_good(&self, connection: &Connection, now: Instant) -> bool {
        !connection.is_closed()
            && now.duration_since(connection.idle_since) < self.keep
            && now.duration_since(connection.born) < self.max_age
    }

    fn own(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.shards[OWN.with(|own| *own)].lock()
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
