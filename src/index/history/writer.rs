//! Writes results of heals to the index in the background: bounded queues, one thread, small batches.
//!
//! A heal never waits for the disk. Records that do not fit into a queue are dropped and counted (`history_dropped`,
//! `learn_dropped`), as are those that cannot be written (`history_failed`, `learn_failed`): the history is for reports, a
//! file URL is learned another time, and an image that is back is worth more than a row about it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use uuid::Uuid;

use crate::index::Index;
use crate::index::history::{HealRecord, Retention, prune_history, record};
use crate::observe::{EventKind, Metrics, now_ms};

/// Maximum of heals, and of file URLs, that wait to be written.
const QUEUE: usize = 4096;

/// Rows of a full batch, which is written without waiting for more. The rows of a sweep lie at random places of the table's
/// indexes, so that each commit writes most of their pages again: 512 rows a commit were 3.4 pages a heal.
const BATCH: usize = 2048;

/// Time that the first record of a batch waits for others. Each commit makes look-ups take a new snapshot, so many small
/// ones would cost more than the rows are worth; a killed process loses no more than this.
const COMMIT_DELAY: Duration = Duration::from_millis(500);

/// Interval at which old rows are removed while there are no heals.
const PRUNE_INTERVAL: Duration = Duration::from_hours(1);

/// Takes notes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HistoryWriter {
    queue: Arc<CloseOnDrop>,
    keeps_history: bool,
    metrics: Arc<Metrics>,
    #[cfg(test)]
    is_idle: bool,
}

/// Queue of records to write. The writer is woken for the first record of a batch and for the last one, and not for each
/// between: on the core of the heals that would cost as much as a request.
#[derive(Debug, Default)]
struct WriteQueue {
    notes: Mutex<QueuedRecords>,
    wakeup: Condvar,
}

#[derive(Debug, Default)]
struct QueuedRecords {
    heals: Vec<HealRecord>,
    files: Vec<(Uuid, String)>,
    /// True if all recorders are gone.
    closed: bool,
}

impl QueuedRecords {
    fn len(&self) -> usize {
        self.heals.len() + self.files.len()
    }

    fn are_due(&self) -> bool {
        self.closed || self.len() >= BATCH
    }
}

impl WriteQueue {
    /// Adds a record to its queue; false: the queue is full.
    fn takes<T>(&self, note: T, pile: fn(&mut QueuedRecords) -> &mut Vec<T>) -> bool {
        let mut notes = self.notes.lock();
        let has_room = pile(&mut notes).len() < QUEUE;
        if has_room {
            pile(&mut notes).push(note);
            if matches!(notes.len(), 1 | BATCH) {
                self.wakeup.notify_one();
            }
        }
        has_room
    }

    /// Waits for a batch; empty after a long time without records.
    fn batch(&self) -> QueuedRecords {
        let is_waiting = |notes: &mut QueuedRecords| notes.len() == 0 && !notes.closed;
        let mut notes = self.notes.lock();
        if self.wakeup.wait_while_for(&mut notes, is_waiting, PRUNE_INTERVAL).timed_out() {
            return QueuedRecords::default();
        }
        self.wakeup.wait_while_for(&mut notes, |notes| !notes.are_due(), COMMIT_DELAY);
        let closed = notes.closed;
        QueuedRecords { closed, ..std::mem::take(&mut *notes) }
    }
}

/// Closes the queue when the last recorder is dropped.
#[derive(Debug)]
struct CloseOnDrop(Arc<WriteQueue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.notes.lock().closed = true;
        self.0.wakeup.notify_one();
    }
}

impl HistoryWriter {
    /// Starts a thread that writes to `index` until the last clone is gone and everything is written. The thread is one of
    /// tokio's blocking threads, because the runtime waits for those at its end.
    pub fn start(index: Arc<Index>, bounds: Retention, metrics: Arc<Metrics>) -> Self {
        let queue = Arc::new(WriteQueue::default());
        let (reading, counting) = (Arc::clone(&queue), Arc::clone(&metrics));
        tokio::task::spawn_blocking(move || run(&index, &reading, bounds, &counting));
        Self {
            queue: Arc::new(CloseOnDrop(queue)),
            keeps_history: bounds.rows > 0,
            metrics,
            #[cfg(test)]
            is_idle: false,
        }
    }

    /// Creates a recorder without a thread, for tests in virtual time: records wait for [`Self::write_now`].
    #[cfg(test)]
    #[allow(dead_code, reason = "a simulation begins here")]
    pub(crate) fn idle(metrics: Arc<Metrics>) -> Self {
        Self { queue: Arc::new(CloseOnDrop(Arc::default())), keeps_history: true, metrics, is_idle: true }
    }

    /// True if no record is written: in a simulation many worlds share an index, and none of them may change it.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// URL of the file of `uuid`, as this recorder would have written it.
    #[cfg(test)]
    pub(crate) fn noted_file_url(&self, uuid: Uuid) -> Option<String> {
        let notes = self.queue.0.notes.lock();
        let file = notes.files.iter().filter(|_| self.is_idle).find(|(of, _)| *of == uuid);
        file.map(|(_, url)| url.clone())
    }

    /// Writes the waiting records.
    #[cfg(test)]
    #[allow(dead_code, reason = "a simulation begins here")]
    pub(crate) fn write_now(&self, index: &Index, bounds: Retention) {
        let batch = std::mem::take(&mut *self.queue.0.notes.lock());
        write(index, &batch, bounds, &self.metrics);
    }

    /// Notes a heal that ended now. Never waits.
    pub fn note(&self, heal: HealRecord) {
        if self.keeps_history
            && !self.queue.0.takes(HealRecord { at: now_ms(), ..heal }, |notes| &mut notes.heals)
        {
            self.metrics.event(EventKind::HistoryDropped);
        }
    }

    /// Notes where the file of `uuid` is. Never waits.
    pub fn learn_file_url(&self, uuid: Uuid, url: &str) {
        if !self.queue.0.takes((uuid, url.to_owned()), |notes| &mut notes.files) {
            self.metrics.event(EventKind::LearnDropped);
        }
    }
}

fn run(index: &Index, queue: &WriteQueue, bounds: Retention, metrics: &Metrics) {
    let mut batch = QueuedRecords::default();
    while !batch.closed {
        if batch.len() == 0 && bounds.rows > 0 {
            prune(index, bounds);
        }
        batch = queue.batch();
        write(index, &batch, bounds, metrics);
    }
}

fn write(index: &Index, batch: &QueuedRecords, bounds: Retention, metrics: &Metrics) {
    if !batch.files.is_empty()
        && let Err(error) = index.learn_file_urls(&batch.files)
    {
        tracing::warn!(%error, files = batch.files.len(), "file URLs could not be remembered");
        batch.files.iter().for_each(|_| metrics.learned("learn_failed"));
    }
    if !batch.heals.is_empty()
        && let Err(error) = record(index, &batch.heals, bounds)
    {
        tracing::warn!(%error, heals = batch.heals.len(), "heals could not be written to the history");
        batch.heals.iter().for_each(|_| metrics.event(EventKind::HistoryFailed));
    }
}

fn prune(index: &Index, bounds: Retention) {
    if let Err(error) = prune_history(index, bounds) {
        tracing::debug!(%error, "the history of heals could not be shortened");
    }
}
