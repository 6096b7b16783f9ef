//! Kept-alive connections of one upstream, the warmest first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;

/// Idle connections, last in first out: the warm ones stay warm, the others age and are closed.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Vec<Connection>>,
    keep: Duration,
    most: usize,
}

impl Pool {
    pub(super) fn new(keep: Duration, most: usize) -> Self {
        Self { idle: Mutex::new(Vec::new()), keep, most }
    }

    /// The warmest connection that is still open and not too old.
    pub(super) fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() && now.duration_since(connection.idle_since) < self.keep {
                return Some(connection);
            }
        }
        None
    }

    /// Closes what is closed already or too old.
    pub(super) fn prune(&self, now: Instant) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| {
            !connection.is_closed() && now.duration_since(connection.idle_since) < self.keep
        });
    }

    /// Lends a connection to a body: it comes back when the body was read to its end.
    pub(super) fn lease(self: &Arc<Self>, connection: Connection) -> Lease {
        Lease { connection: Some(connection), pool: Arc::clone(self) }
    }

    fn give_back(&self, mut connection: Connection) {
        if !connection.rest(Instant::now()) {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most {
            idle.push(connection);
        }
    }
}

/// A connection that carries a body. Dropping it early closes the connection: what is left of the body can
/// not be told from the next answer.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

impl Lease {
    /// The body was read to its end: the connection may carry the next request.
    pub(super) fn end(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(connection);
        }
    }
}
