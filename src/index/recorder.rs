//! Writes the history of heals behind the heals: a bounded queue, one thread, small batches.
//!
//! A heal never waits for the disk. What the queue does not hold is dropped and counted
//! (`events{kind="history_dropped"}`), and so is what cannot be written (`history_failed`): the history is for
//! reports, and an image that is back is worth more than a row about it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::Index;
use super::history::{Bounds, Heal, now_ms};
use crate::observe::Metrics;

/// Heals that wait to be written, at most.
const QUEUE: usize = 1024;

/// Heals written in one transaction, at most.
const BATCH: usize = 128;

/// How long the first heal of a batch waits for others. Each commit makes lookups take a new snapshot, so many
/// small ones would cost more than the rows are worth; a killed process loses no more than this.
const LINGER: Duration = Duration::from_millis(500);

/// How often rows that grew too old are forgotten while nothing is healed.
const PRUNE: Duration = Duration::from_hours(1);

/// Takes notes of heals. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: Option<SyncSender<Heal>>,
    metrics: Arc<Metrics>,
}

impl Recorder {
    /// Starts a thread that writes to `index` until the last clone is gone and everything is written. It is one
    /// of tokio's blocking threads, because the runtime waits for those at its end.
    pub fn start(index: Arc<Index>, bounds: Bounds, metrics: Arc<Metrics>) -> Self {
        if bounds.rows == 0 {
            return Self { queue: None, metrics };
        }
        let (queue, waiting) = sync_channel(QUEUE);
        let counting = Arc::clone(&metrics);
        tokio::task::spawn_blocking(move || run(&index, &waiting, bounds, &counting));
        Self { queue: Some(queue), metrics }
    }

    /// Notes a heal that ended now. Never waits.
    pub fn note(&self, heal: Heal) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Heal { at: now_ms(), ..heal }).is_err() {
            self.metrics.event("history_dropped");
        }
    }
}

fn run(index: &Index, waiting: &Receiver<Heal>, bounds: Bounds, metrics: &Metrics) {
    prune(index, bounds);
    loop {
        match waiting.recv_timeout(PRUNE) {
            Ok(first) => {
                let batch = gather(first, waiting);
                if let Err(error) = index.record(&batch, bounds) {
                    tracing::warn!(%error, heals = batch.len(), "heals could not be written to the history");
                    for _ in batch {
                        metrics.event("history_failed");
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => prune(index, bounds),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn gather(first: Heal, waiting: &Receiver<Heal>) -> Vec<Heal> {
    let until = Instant::now() + LINGER;
    let mut batch = vec![first];
    while batch.len() < BATCH {
        let Ok(next) = waiting.recv_timeout(until.saturating_duration_since(Instant::now())) else { break };
        batch.push(next);
    }
    batch
}

fn prune(index: &Index, bounds: Bounds) {
    if let Err(error) = index.prune_history(bounds) {
        tracing::debug!(%error, "the history of heals could not be shortened");
    }
}
