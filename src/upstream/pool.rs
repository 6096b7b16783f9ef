//! Kept-alive HTTP/1.1 connections to one server, the warmest first.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;

/// Idle connections, last in first out: the warm ones stay warm, the others age and are closed.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Vec<Connection>>,
    keep: Duration,
    max_age: Duration,
    most: usize,
}

impl Pool {
    pub(super) fn new(keep: Duration, max_age: Duration, most: usize) -> Self {
        Self { idle: Mutex::new(Vec::new()), keep, max_age, most }
    }

    /// The warmest connection that is still open and not too old.
    pub(super) fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.lock();
        while let Some(connection) = idle.pop() {
            if self.is_good(&connection, now) {
                return Some(connection);
            }
        }
        None
    }

    /// Closes what is closed already or too old.
    pub(super) fn prune(&self, now: Instant) {
        self.lock().retain(|connection| self.is_good(connection, now));
    }

    /// The last answer was read to its end.
    pub(super) fn give_back(&self, mut connection: Connection) {
        if connection.rest(Instant::now()) {
            self.keep(connection);
        }
    }

    /// A connection that may carry the next request.
    pub(super) fn keep(&self, connection: Connection) {
        let mut idle = self.lock();
        if idle.len() < self.most {
            idle.push(connection);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn is_good(&self, connection: &Connection, now: Instant) -> bool {
        !connection.is_closed()
            && now.duration_since(connection.idle_since) < self.keep
            && now.duration_since(connection.born) < self.max_age
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
