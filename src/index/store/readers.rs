//! Connections that read one generation, and the snapshots that they keep between look-ups.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;

/// Maximum age of a snapshot.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Connections for reading.
#[derive(Debug)]
pub(crate) struct Readers {
    shared: Arc<Connections>,
    turn: AtomicUsize,
    /// Lets snapshots go that are older than [`MAX_AGE`]; `None`: there was no thread to be had, and each read ends its own.
    releaser: Option<Thread>,
}

#[derive(Debug)]
struct Connections {
    all: Box<[Mutex<PooledReader>]>,
    /// Count of noticed commits: snapshots of earlier ones end.
    commits: AtomicU64,
    /// True if some reader has a snapshot.
    has_snapshots: AtomicBool,
}

/// Connection that keeps its snapshot from one look-up to the next. A new snapshot costs six system calls, three times as
/// much as the look-up itself. A snapshot ends as soon as a commit is noticed, and after a second in any case: until then
/// no process can empty the log behind it.
#[derive(Debug)]
struct PooledReader {
    conn: Connection,
    /// The commits that had been noticed before the snapshot was taken; `None`: there is none.
    snapshot: Option<u64>,
}

impl PooledReader {
    fn let_go(&mut self) {
        if self.snapshot.take().is_some() {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }
}

impl Connections {
    /// Ends snapshots. False: busy readers keep theirs until their next query.
    fn let_go(&self) -> bool {
        let mut all = true;
        for reader in &self.all {
            match reader.try_lock() {
                Some(mut idle) => idle.let_go(),
                None => all = false,
            }
        }
        all
    }
}

impl Readers {
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        let all =
            connections.into_iter().map(|conn| Mutex::new(PooledReader { conn, snapshot: None })).collect();
        let (commits, has_snapshots) = (AtomicU64::new(0), AtomicBool::new(false));
        let shared = Arc::new(Connections { all, commits, has_snapshots });
        let weak = Arc::downgrade(&shared);
        let thread = thread::Builder::new().name("snapshots".to_owned()).spawn(move || release(&weak));
        Self {
            shared,
            turn: AtomicUsize::new(0),
            releaser: thread.ok().map(|handle| handle.thread().clone()),
        }
    }

    /// Reads with the first free connection: its pages are warm, and those of the others take no memory.
    pub(crate) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let all = &self.shared.all;
        let free = all.iter().find_map(Mutex::try_lock);
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed) % all.len();
        let mut reader = free.unwrap_or_else(|| all[turn()].lock());
        let noticed = self.shared.commits.load(Ordering::Acquire);
        if reader.snapshot != Some(noticed) {
            reader.let_go();
            reader.conn.execute_batch("BEGIN")?;
            reader.snapshot = Some(noticed);
            if let Some(releaser) = &self.releaser
                && !self.shared.has_snapshots.swap(true, Ordering::AcqRel)
            {
                releaser.unpark();
            }
        }
        let answer = query(&reader.conn);
        if answer.is_err() || self.releaser.is_none() {
            reader.let_go();
        }
        answer
    }

    /// Ends all snapshots: those of busy readers with their next query.
    pub(crate) fn let_go(&self) {
        self.shared.commits.fetch_add(1, Ordering::AcqRel);
        self.shared.let_go();
    }

    /// Ends all snapshots, and waits for busy readers: a look-up takes some microseconds.
    pub(crate) fn let_all_go(&self) {
        self.shared.commits.fetch_add(1, Ordering::AcqRel);
        self.shared.all.iter().for_each(|reader| reader.lock().let_go());
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        if let Some(releaser) = &self.releaser {
            releaser.unpark();
        }
    }
}

/// Lets snapshots go a while after they were taken; sleeps while there are none, and ends with the readers.
fn release(readers: &Weak<Connections>) {
    while let Some(shared) = readers.upgrade() {
        let has_snapshots = shared.has_snapshots.load(Ordering::Acquire);
        drop(shared);
        if !has_snapshots {
            thread::park();
            continue;
        }
        thread::park_timeout(MAX_AGE);
        if let Some(shared) = readers.upgrade() {
            // The flag first: a reader that takes a snapshot in between sets it again.
            shared.has_snapshots.store(false, Ordering::Release);
            if !shared.let_go() {
                shared.has_snapshots.store(true, Ordering::Release);
            }
        }
    }
}
