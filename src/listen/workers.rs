//! Threads that serve viewers.
//!
//! Each worker is a thread with a runtime of its own. A connection is given to the worker that has the fewest, and
//! stays there: its requests, its timers and the connections that carry them upstream never change the thread, so that
//! nothing is locked or woken across cores. The sockets are accepted from in one place, which works alike for those
//! that we opened and those that we were given, and shares connections out evenly where the kernel's `SO_REUSEPORT`
//! would leave it to a hash.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Threads that serve connections; they end when the pool is dropped.
#[derive(Debug)]
pub struct WorkerPool {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    /// Dropped: the thread ends, with its remaining connections.
    _ends: Option<oneshot::Sender<()>>,
}

/// Assignment of a connection to a worker: counts until it is dropped.
#[derive(Debug)]
pub(super) struct WorkerSlot(Arc<AtomicUsize>);

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl WorkerPool {
    /// Starts as many workers, or one for each core if `workers` is zero; a single one is the caller's own runtime, and no
    /// thread is started.
    pub fn start(workers: usize) -> io::Result<Arc<Self>> {
        let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let workers = if workers == 0 { cores() } else { workers };
        if workers == 1 {
            return Ok(Self::on_current_runtime());
        }
        let workers = (0..workers).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Arc::new(Self { workers }))
    }

    /// Pool that runs everything on the caller's own runtime.
    pub fn on_current_runtime() -> Arc<Self> {
        let here = Worker { runtime: Handle::current(), connections: Arc::default(), _ends: None };
        Arc::new(Self { workers: vec![here] })
    }

    /// Worker for the next connection: the one with the fewest.
    pub(super) fn assign(&self) -> (Handle, WorkerSlot) {
        let least = self.workers.iter().min_by_key(|worker| worker.connections.load(Relaxed));
        match least {
            Some(worker) => {
                worker.connections.fetch_add(1, Relaxed);
                (worker.runtime.clone(), WorkerSlot(Arc::clone(&worker.connections)))
            }
            // Not reached: a pool has at least one worker.
            None => (Handle::current(), WorkerSlot(Arc::new(AtomicUsize::new(1)))),
        }
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let _ = runtime.block_on(ended);
            // A file system that hangs must not keep the process from ending.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, connections: Arc::default(), _ends: Some(end) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_shared_out_evenly() {
        let pool = WorkerPool::start(3).expect("three threads");
        let mut slots: Vec<(Handle, WorkerSlot)> = (0..9).map(|_| pool.assign()).collect();
        let on = |slots: &[(Handle, WorkerSlot)], worker: &Worker| {
            slots.iter().filter(|(runtime, _)| runtime.id() == worker.runtime.id()).count()
        };
        assert!(pool.workers.iter().all(|worker| on(&slots, worker) == 3));
        slots.retain(|(runtime, _)| runtime.id() != pool.workers[1].runtime.id());
        assert_eq!(pool.assign().0.id(), pool.workers[1].runtime.id(), "who has the fewest gets the next");
    }

    #[tokio::test]
    async fn a_single_worker_is_the_callers_own_runtime() {
        let workers = WorkerPool::start(1).expect("no thread");
        assert_eq!(workers.assign().0.id(), Handle::current().id());
    }
}
