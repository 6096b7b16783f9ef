//! One generation of the index file, open: a few readers, a watch, and at most one writer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::SystemTime;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::Notify;

use super::error::IndexError;
use super::generation::{Identity, Place};
use super::mapped::Shared;
use super::schema;

/// Readers at least and at most; a lookup takes some microseconds, so even many workers seldom meet.
const READERS: (usize, usize) = (4, 8);

/// One generation, open.
#[derive(Debug)]
pub(super) struct Store {
    /// Before the connections: it is dropped first.
    shared: Shared,
    /// The file behind the index's path when it was opened.
    file: PathBuf,
    identity: Identity,
    readers: Box<[Mutex<Reader>]>,
    turn: AtomicUsize,
    /// Counts the commits that were noticed: snapshots of earlier ones are let go.
    commits: AtomicU64,
    watch: Mutex<Connection>,
    seen: AtomicI64,
    writer: Mutex<Option<Connection>>,
    /// Some reader sees only the file, not its log, which looked like this: see [`Store::is_outdated`].
    frozen: Option<LogLooks>,
    health: Health,
}

/// What was found out about the file since it was opened.
#[derive(Debug, Default)]
struct Health {
    /// Why it is of no use any more.
    damage: OnceLock<String>,
    /// There is no file that could be used: this is an empty index in memory.
    is_absent: bool,
    /// Rung when damage is found.
    bell: Arc<Notify>,
}

/// Size and time of a log; `None`: there is none.
type LogLooks = Option<(u64, Option<SystemTime>)>;

fn log_looks(file: &Path) -> LogLooks {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).ok().map(|found| (found.len(), found.modified().ok()))
}

/// A connection that keeps its snapshot from one lookup to the next. To take one costs six system calls, three
/// times as much as the lookup itself; it is let go as soon as a commit is noticed, so it neither tells old
/// things nor keeps the log from being emptied.
#[derive(Debug)]
struct Reader {
    conn: Connection,
    /// The commits that had been noticed before the snapshot was taken; `None`: there is none.
    snapshot: Option<u64>,
}

impl Reader {
    fn query<T>(
        &mut self,
        commits: &AtomicU64,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let noticed = commits.load(Ordering::Acquire);
        if self.snapshot != Some(noticed) {
            self.let_go();
            self.conn.execute_batch("BEGIN")?;
            self.snapshot = Some(noticed);
        }
        let answer = query(&self.conn);
        if answer.is_err() {
            self.let_go();
        }
        answer
    }

    fn let_go(&mut self) {
        if self.snapshot.take().is_some() {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }
}

/// What a write was told about the file it writes to.
pub(super) enum Written<T> {
    /// It is done.
    Done(T),
    /// The file was replaced meanwhile; nothing was written.
    Replaced,
}

impl Store {
    /// Opens what the path leads to now, making an empty index where there is nothing. `bell` is rung when its file
    /// turns out to be damaged.
    pub(super) fn open(place: &Place, bell: &Arc<Notify>) -> Result<Self, IndexError> {
        loop {
            if place.identity()?.is_none() {
                schema::create(place.path())?;
            }
            let before = place.identity()?;
            let store = place.target().and_then(|file| Self::open_file(file, before, bell));
            // The file may have been replaced and removed between looking and opening: look again.
            if place.identity()? == before {
                return store;
            }
        }
    }

    /// An index of nothing, in place of one that cannot be opened.
    pub(super) fn absent(place: &Place, bell: &Arc<Notify>) -> Result<Self, IndexError> {
        let reader =
            || Ok::<_, IndexError>(Mutex::new(Reader { conn: schema::open_memory()?, snapshot: None }));
        Ok(Self {
            file: place.path().to_path_buf(),
            identity: Identity::NONE,
            readers: (0..READERS.0).map(|_| reader()).collect::<Result<_, _>>()?,
            turn: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            watch: Mutex::new(schema::open_memory()?),
            seen: AtomicI64::new(0),
            writer: Mutex::new(None),
            frozen: None,
            shared: Shared::default(),
            health: Health { is_absent: true, bell: Arc::clone(bell), ..Health::default() },
        })
    }

    fn open_file(file: PathBuf, identity: Option<Identity>, bell: &Arc<Notify>) -> Result<Self, IndexError> {
        let Some(identity) = identity else {
            return Err(IndexError::io(&file, std::io::ErrorKind::NotFound.into()));
        };
        let writer = match schema::open_writer(&file) {
            Ok(writer) => Some(writer),
            // Somebody else writes, or nobody may: reading needs neither.
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
            .map(|_| open().map(|conn| Mutex::new(Reader { conn, snapshot: None })))
            .collect::<Result<Vec<_>, _>>()?
            .into_boxed_slice();
        let seen = schema::number(&watch, "PRAGMA data_version").map_err(|e| IndexError::of(&file, e))?;
        Ok(Self {
            shared: Shared::of(&file),
            health: Health { bell: Arc::clone(bell), ..Health::default() },
            file,
            identity,
            readers,
            turn: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            watch: Mutex::new(watch),
            seen: AtomicI64::new(seen),
            writer: Mutex::new(writer),
            frozen: is_frozen.then_some(log),
        })
    }

    /// Whether the file must be opened anew to be seen as it is now: it could not be read with its log (a full
    /// disk, a directory that we may not write to), and somebody wrote since.
    pub(super) fn is_outdated(&self) -> bool {
        self.frozen.is_some_and(|then| log_looks(&self.file) != then)
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Whether anything was committed to the file since the last call, by whomever.
    pub(super) fn changed(&self) -> Result<bool, IndexError> {
        self.check()?;
        let watch = lock(&self.watch);
        let version = schema::number(&watch, "PRAGMA data_version").map_err(|e| self.wrap(e))?;
        drop(watch);
        let changed = self.seen.swap(version, Ordering::AcqRel) != version;
        if changed {
            self.let_go();
        }
        Ok(changed)
    }

    /// Lets all snapshots go: those of busy readers as soon as they are asked again.
    fn let_go(&self) {
        self.commits.fetch_add(1, Ordering::AcqRel);
        for reader in &self.readers {
            if let Ok(mut idle) = reader.try_lock() {
                idle.let_go();
            }
        }
    }

    /// Reads with the first free connection: its pages are warm, and those of the others take no memory.
    pub(super) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        self.check()?;
        let free = self.readers.iter().find_map(|reader| match reader.try_lock() {
            Ok(free) => Some(free),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed) % self.readers.len();
        let mut reader = free.unwrap_or_else(|| lock(&self.readers[turn()]));
        reader.query(&self.commits, query).map_err(|e| self.wrap(e))
    }

    /// Writes in one transaction, unless the file was replaced.
    pub(super) fn write<T>(
        &self,
        place: &Place,
        change: &mut dyn FnMut(&Connection) -> Result<T, IndexError>,
    ) -> Result<Written<T>, IndexError> {
        if self.health.is_absent {
            return Err(IndexError::Absent { path: self.file.clone() });
        }
        let mut writer = lock(&self.writer);
        // Behind the lock: who waited for it has waited long.
        self.check()?;
        if writer.is_none() {
            *writer = Some(schema::open_writer(&self.file)?);
        }
        let Some(conn) = writer.as_mut() else { return Ok(Written::Replaced) };
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| self.wrap(e))?;
        if place.identity()? != Some(self.identity) {
            return Ok(Written::Replaced);
        }
        let done = change(&tx).map_err(|error| match error {
            IndexError::Store(error) => self.wrap(error),
            other => other,
        })?;
        self.check()?;
        tx.commit().map_err(|e| self.wrap(e))?;
        self.let_go();
        Ok(Written::Done(done))
    }

    /// Whether this is no file at all, see [`Store::absent`].
    pub(super) fn is_absent(&self) -> bool {
        self.health.is_absent
    }

    /// Why the file is of no use any more, once that was found out.
    pub(super) fn damage(&self) -> Option<&str> {
        self.health.damage.get().map(String::as_str)
    }

    /// SQLite's error with the name of the file; damage is told to who mends it.
    pub(super) fn wrap(&self, error: rusqlite::Error) -> IndexError {
        self.noted(IndexError::of(&self.file, error))
    }

    fn noted(&self, error: IndexError) -> IndexError {
        if error.is_damage() && !self.health.is_absent {
            self.health.damage.get_or_init(|| error.to_string());
            self.health.bell.notify_one();
        }
        error
    }

    /// SQLite may be asked only while what it has mapped is there.
    pub(super) fn check(&self) -> Result<(), IndexError> {
        if self.shared.is_cut() {
            Err(self.noted(IndexError::Cut { path: self.file.clone() }))
        } else {
            Ok(())
        }
    }
}

/// A panic while a lock was held leaves at worst a connection whose transaction rolls back.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
