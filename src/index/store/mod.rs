//! An open generation of the index file: a few readers, a connection that detects changes, and at most one writer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::Notify;

use crate::index::store::error::IndexError;
use crate::index::store::filter::KeyFilter;
use crate::index::store::generation::{FileIdentity, IndexPath};
use crate::index::store::mapped::MappedFile;
use crate::index::store::readers::Readers;

pub(crate) mod error;
pub(crate) mod external_sort;
pub(crate) mod filling;
pub(crate) mod filter;
pub(crate) mod generation;
pub(crate) mod keys;
pub(crate) mod mapped;
pub(crate) mod next_generation;
pub(crate) mod queries;
pub(crate) mod readers;
pub mod recover;
pub(crate) mod rows;
pub(crate) mod schema;
pub(crate) mod writer;

/// Readers at least and at most; a lookup takes some microseconds, so even many workers seldom meet.
const READERS: (usize, usize) = (4, 8);

/// Size of the log from which on it is emptied after a commit, in bytes.
const LONG_LOG: u64 = 4 << 20;

/// Size from which on a writer waits until the log can be emptied.
const LONGEST_LOG: u64 = 12 << 20;

/// Size from which on no write begins before the log is emptied: one transaction more must not make it longer than 16 MiB.
const FULL_LOG: u64 = 14 << 20;

/// Time for which a writer that waited in vain, as beside a suspended process, does not wait again.
const AFTER_WAITING: Duration = Duration::from_mins(1);

/// An open generation of the index file.
#[derive(Debug)]
pub(crate) struct Store {
    /// Declared before the connections: dropped first.
    shared: MappedFile,
    /// The file behind the index's path when it was opened.
    file: PathBuf,
    identity: FileIdentity,
    readers: Readers,
    watch: Mutex<Connection>,
    seen: AtomicI64,
    /// Counts changes seen by [`Store::changed`].
    noticed: AtomicU64,
    /// Filter of the file's keys, see [`Store::may_have`].
    pub(in crate::index) filter: ArcSwapOption<KeyFilter>,
    writer: Mutex<Option<Connection>>,
    /// Time at which a writer last waited for the log in vain.
    waited: Mutex<Option<Instant>>,
    /// State of the log when a reader was opened that reads the file without its log: see [`Store::is_outdated`].
    frozen: Option<WalStat>,
    health: StoreHealth,
}

/// Health of the file since it was opened.
#[derive(Debug, Default)]
struct StoreHealth {
    /// Reason why the file cannot be used any more.
    damage: OnceLock<String>,
    /// True for an empty index in memory, where no file can be used.
    is_absent: bool,
    /// Rung when damage is found.
    wakeup: Arc<Notify>,
}

/// Size and time of a log; `None`: there is none.
type WalStat = Option<(u64, Option<SystemTime>)>;

fn log_looks(file: &Path) -> WalStat {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).ok().map(|found| (found.len(), found.modified().ok()))
}

/// Result of a write; the file may have been replaced in between.
pub(crate) enum WriteResult<T> {
    /// The change was committed.
    Done(T),
    /// Not written: the file was replaced.
    Replaced,
}

impl Store {
    /// Opens the file behind the path, creating an empty index where there is none. `wakeup` is notified when the file turns
    /// out to be damaged.
    pub(crate) fn open(path: &IndexPath, wakeup: &Arc<Notify>) -> Result<Self, IndexError> {
        loop {
            if path.identity()?.is_none() {
                schema::create(path.path())?;
            }
            let before = path.identity()?;
            let store = path.target().and_then(|file| Self::open_file(file, before, wakeup));
            // The file may have been replaced and removed between the check and the opening: check again.
            if path.identity()? == before {
                return store;
            }
        }
    }

    /// Empty index in memory, used while the file cannot be opened.
    pub(crate) fn absent(path: &IndexPath, wakeup: &Arc<Notify>) -> Result<Self, IndexError> {
        Ok(Self {
            file: path.path().to_path_buf(),
            identity: FileIdentity::NONE,
            readers: (0..READERS.0)
                .map(|_| schema::open_memory())
                .collect::<Result<_, _>>()
                .map(Readers::new)?,
            watch: Mutex::new(schema::open_memory()?),
            seen: AtomicI64::new(0),
            noticed: AtomicU64::new(0),
            filter: ArcSwapOption::empty(),
            writer: Mutex::new(None),
            waited: Mutex::new(None),
            frozen: None,
            shared: MappedFile::default(),
            health: StoreHealth { is_absent: true, wakeup: Arc::clone(wakeup), ..StoreHealth::default() },
        })
    }

    fn open_file(
        file: PathBuf,
        identity: Option<FileIdentity>,
        wakeup: &Arc<Notify>,
    ) -> Result<Self, IndexError> {
        let Some(identity) = identity else {
            return Err(IndexError::io(&file, std::io::ErrorKind::NotFound.into()));
        };
        let writer = match schema::open_writer(&file) {
            Ok(writer) => Some(writer),
            // Another process writes, or the file is read-only: reading needs neither.
            Err(
                IndexError::ReadOnly { .. }
                | IndexError::Busy { .. }
                | IndexError::Full { .. }
                | IndexError::Failing { .. },
            ) => None,
            Err(other) => return Err(other),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let log = log_looks(&file);
        let mut is_frozen = false;
        let mut open = || -> Result<Connection, IndexError> {
            let opened = schema::open_reader_or_frozen(&file)?;
            is_frozen |= opened.is_frozen;
            Ok(opened.conn)
        };
        let watch = open()?;
        schema::check_shape(&watch, &file)?;
        let readers = (0..(2 * cores).clamp(READERS.0, READERS.1))
            .map(|_| open())
            .collect::<Result<Vec<_>, _>>()
            .map(Readers::new)?;
        let seen = schema::number(&watch, "PRAGMA data_version").map_err(|e| IndexError::of(&file, e))?;
        Ok(Self {
            shared: MappedFile::of(&file),
            health: StoreHealth { wakeup: Arc::clone(wakeup), ..StoreHealth::default() },
            file,
            identity,
            readers,
            watch: Mutex::new(watch),
            seen: AtomicI64::new(seen),
            noticed: AtomicU64::new(0),
            filter: ArcSwapOption::empty(),
            writer: Mutex::new(writer),
            waited: Mutex::new(None),
            frozen: is_frozen.then_some(log),
        })
    }

    /// True if the file must be opened anew to be seen as it is now: it could not be read with its log (a full disk, a
    /// directory that we may not write to), and another process wrote since.
    pub(crate) fn is_outdated(&self) -> bool {
        self.frozen.is_some_and(|then| log_looks(&self.file) != then)
    }

    pub(crate) fn identity(&self) -> FileIdentity {
        self.identity
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// True if any process committed to the file since the last call.
    pub(crate) fn changed(&self) -> Result<bool, IndexError> {
        self.check()?;
        let watch = self.watch.lock();
        let version = schema::number(&watch, "PRAGMA data_version").map_err(|e| self.wrap(e))?;
        drop(watch);
        let changed = self.seen.swap(version, Ordering::AcqRel) != version;
        if changed {
            self.noticed.fetch_add(1, Ordering::AcqRel);
            self.readers.let_go();
        }
        self.settle_filter();
        Ok(changed)
    }

    /// Reads with one of the connections.
    pub(crate) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        self.check()?;
        self.readers.read(query).map_err(|e| self.wrap(e))
    }

    /// Writes in one transaction, unless the file was replaced.
    pub(crate) fn write<T>(
        &self,
        path: &IndexPath,
        change: &mut dyn FnMut(&Connection) -> Result<T, IndexError>,
    ) -> Result<WriteResult<T>, IndexError> {
        if self.health.is_absent {
            return Err(IndexError::Absent { path: self.file.clone() });
        }
        let mut writer = self.writer.lock();
        // After the lock: the wait for it may have been long.
        self.check()?;
        if writer.is_none() {
            *writer = Some(schema::open_writer(&self.file)?);
        }
        let Some(conn) = writer.as_mut() else { return Ok(WriteResult::Replaced) };
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| self.wrap(e))?;
        if path.identity()? != Some(self.identity) {
            return Ok(WriteResult::Replaced);
        }
        let done = change(&tx).map_err(|error| match error {
            IndexError::Store(error) => self.wrap(error),
            other => other,
        })?;
        self.check()?;
        tx.commit().map_err(|e| self.wrap(e))?;
        self.readers.let_go();
        self.shorten_log(conn);
        Ok(WriteResult::Done(done))
    }

    /// Refuses a write when the log must not grow any more, because another process has been reading all the time: SQLite
    /// keeps the state at the start of that read.
    pub(crate) fn has_room(&self) -> Result<(), IndexError> {
        if log_looks(&self.file).is_none_or(|(size, _)| size < FULL_LOG) {
            return Ok(());
        }
        let writer = self.writer.lock();
        self.check()?;
        let Some(conn) = writer.as_ref() else { return Ok(()) };
        let busy = self.checkpoint(conn, Duration::ZERO).map_err(|e| self.wrap(e));
        let _ = conn.busy_timeout(schema::BUSY_TIMEOUT);
        if busy? { Err(IndexError::LogFull { path: self.file.clone() }) } else { Ok(()) }
    }

    /// Copies the log into the file and empties it where it grew long.
    ///
    /// SQLite does so at each commit, but never beyond the oldest snapshot, and ours are of the commit before: under
    /// look-ups the log would never be emptied and grow without bound.
    fn shorten_log(&self, conn: &Connection) {
        let Some((size, _)) = log_looks(&self.file).filter(|(size, _)| *size >= LONG_LOG) else { return };
        // Pages that others read are copied the next time, unless the log grows faster than their snapshots end.
        let last = self.waited.lock();
        let waits = size >= LONGEST_LOG && last.is_none_or(|last| last.elapsed() > AFTER_WAITING);
        drop(last);
        let patience = if waits { schema::BUSY_TIMEOUT } else { Duration::ZERO };
        let busy = self.check().and_then(|()| self.checkpoint(conn, patience).map_err(|e| self.wrap(e)));
        let _ = conn.busy_timeout(schema::BUSY_TIMEOUT);
        match busy {
            Ok(busy) if busy && waits => *self.waited.lock() = Some(Instant::now()),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the log of the index cannot be shortened now"),
        }
    }

    /// Copies the log into the file; returns whether a reader still needs the log.
    fn checkpoint(&self, conn: &Connection, patience: Duration) -> rusqlite::Result<bool> {
        // Snapshots of this commit see all of the log and do not hinder its being copied; later ones do not need it.
        conn.busy_timeout(Duration::ZERO)?;
        self.readers.let_all_go();
        conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        self.readers.let_all_go();
        conn.busy_timeout(patience)?;
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
    }

    /// True if this is no file at all, see [`Store::absent`].
    pub(crate) fn is_absent(&self) -> bool {
        self.health.is_absent
    }

    /// Reason why the file is of no use any more, once that was found out.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.health.damage.get().map(String::as_str)
    }

    /// Adds the file's name to an error of SQLite; damage is reported to the recovery task.
    pub(crate) fn wrap(&self, error: rusqlite::Error) -> IndexError {
        self.noted(IndexError::of(&self.file, error))
    }

    fn noted(&self, error: IndexError) -> IndexError {
        if error.is_damage() && !self.health.is_absent {
            self.health.damage.get_or_init(|| error.to_string());
            self.health.wakeup.notify_one();
        }
        error
    }

    /// Refuses to use SQLite after its mapped file was truncated.
    pub(crate) fn check(&self) -> Result<(), IndexError> {
        if self.shared.is_cut() {
            Err(self.noted(IndexError::Cut { path: self.file.clone() }))
        } else {
            Ok(())
        }
    }
}
