//! One generation of the index file, open: a few readers, a watch, and at most one writer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, Row, TransactionBehavior, params};
use uuid::Uuid;

use super::error::IndexError;
use super::generation::{Identity, Place};
use super::keys::Names;
use super::readers::Readers;
use super::{Neighbour, Owner, keys, schema, write};

/// Owners of one image that are told at most; a placeholder picture can stand on a million canvases.
pub(super) const MAX_OWNERS: usize = 8;

/// Rows looked at to find them: the same canvas may stand in several manifests.
pub(super) const MAX_ROWS: i64 = 64;

/// Readers at least and at most; a lookup takes some microseconds, so even many workers seldom meet.
const READERS: (usize, usize) = (4, 8);

/// From this size on the log is emptied after a commit, in bytes.
const LONG_LOG: u64 = 4 << 20;

/// From this size on a writer waits until it can be emptied.
const LONGEST_LOG: u64 = 12 << 20;

/// A writer that waited in vain, as beside a long export, does not wait again for so long.
const AFTER_WAITING: Duration = Duration::from_mins(1);

/// One generation, open.
#[derive(Debug)]
pub(super) struct Store {
    /// The file behind the index's path when it was opened.
    file: PathBuf,
    identity: Identity,
    readers: Readers,
    watch: Mutex<Connection>,
    seen: AtomicI64,
    writer: Mutex<Option<Connection>>,
    /// When a writer last waited for the log in vain.
    waited: Mutex<Option<Instant>>,
    /// Some reader sees only the file, not its log, which looked like this: see [`Store::is_outdated`].
    frozen: Option<LogLooks>,
}

/// Size and time of a log; `None`: there is none.
type LogLooks = Option<(u64, Option<SystemTime>)>;

fn log_looks(file: &Path) -> LogLooks {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).ok().map(|found| (found.len(), found.modified().ok()))
}

/// What a write was told about the file it writes to.
pub(super) enum Written<T> {
    /// It is done.
    Done(T),
    /// The file was replaced meanwhile; nothing was written.
    Replaced,
}

impl Store {
    /// Opens what the path leads to now, making an empty index where there is nothing.
    pub(super) fn open(place: &Place) -> Result<Self, IndexError> {
        loop {
            if place.identity()?.is_none() {
                schema::create(place.path())?;
            }
            let before = place.identity()?;
            let store = place.target().and_then(|file| Self::open_file(file, before));
            // The file may have been replaced and removed between looking and opening: look again.
            if place.identity()? == before {
                return store;
            }
        }
    }

    fn open_file(file: PathBuf, identity: Option<Identity>) -> Result<Self, IndexError> {
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
        let readers = (0..(2 * cores).clamp(READERS.0, READERS.1))
            .map(|_| open())
            .collect::<Result<Vec<_>, _>>()
            .map(Readers::new)?;
        let seen = schema::number(&watch, "PRAGMA data_version").map_err(|e| IndexError::of(&file, e))?;
        Ok(Self {
            file,
            identity,
            readers,
            watch: Mutex::new(watch),
            seen: AtomicI64::new(seen),
            writer: Mutex::new(writer),
            waited: Mutex::new(None),
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
        let watch = lock(&self.watch);
        let version = schema::number(&watch, "PRAGMA data_version").map_err(|e| self.wrap(e))?;
        drop(watch);
        let changed = self.seen.swap(version, Ordering::AcqRel) != version;
        if changed {
            self.readers.let_go();
        }
        Ok(changed)
    }

    /// Reads with one of the connections.
    pub(super) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        self.readers.read(query).map_err(|e| self.wrap(e))
    }

    /// Writes in one transaction, unless the file was replaced.
    pub(super) fn write<T>(
        &self,
        place: &Place,
        change: &mut dyn FnMut(&Connection) -> Result<T, IndexError>,
    ) -> Result<Written<T>, IndexError> {
        let mut writer = lock(&self.writer);
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
        tx.commit().map_err(|e| self.wrap(e))?;
        self.readers.let_go();
        self.shorten_log(conn);
        Ok(Written::Done(done))
    }

    /// Copies the log into the file and empties it where it grew long.
    ///
    /// SQLite does that by itself at each commit, but never beyond what the oldest snapshot sees, and ours are of the
    /// commit before: under look-ups the log would never be emptied and grow without bound.
    fn shorten_log(&self, conn: &Connection) {
        let Some((size, _)) = log_looks(&self.file).filter(|(size, _)| *size >= LONG_LOG) else { return };
        // What others read is copied the next time, unless the log grows faster than they let go of it.
        let last = lock(&self.waited);
        let waits = size >= LONGEST_LOG && last.is_none_or(|last| last.elapsed() > AFTER_WAITING);
        drop(last);
        let patience = if waits { schema::BUSY } else { Duration::ZERO };
        let busy = self.checkpoint(conn, patience);
        let _ = conn.busy_timeout(schema::BUSY);
        match busy {
            Ok(busy) if busy && waits => *lock(&self.waited) = Some(Instant::now()),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the log of the index cannot be shortened now"),
        }
    }

    /// Whether somebody still needs the log.
    fn checkpoint(&self, conn: &Connection, patience: Duration) -> rusqlite::Result<bool> {
        // Snapshots of this commit see all of the log and do not hinder its being copied; those that are taken after
        // that do not need it.
        conn.busy_timeout(Duration::ZERO)?;
        self.readers.let_all_go();
        conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        self.readers.let_all_go();
        conn.busy_timeout(patience)?;
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
    }

    /// The canvases that own a key, those of manifests before later ones. `name` is its [`keys::digest`].
    pub(super) fn owners(&self, key: &str, name: u128, names: &Names) -> Result<Vec<Owned>, IndexError> {
        self.read(|conn| {
            let mut found: Vec<Owned> = Vec::new();
            let mut select = conn.prepare_cached(
                "SELECT c.url, m.uri, c.label, c.keys FROM images i
                 JOIN canvases c ON c.id = i.canvas JOIN manifests m ON m.id = c.manifest
                 WHERE i.hash = ?1 ORDER BY i.canvas LIMIT ?2",
            )?;
            let mut rows = select.query(params![keys::hash_of(name), MAX_ROWS])?;
            while let Some(row) = rows.next()? {
                // Two keys may share a hash; the row tells.
                let Some(carried) = matches(key, row.get_ref(3)?.as_str()?, names) else { continue };
                let owner = owner(row)?;
                if found.len() < MAX_OWNERS && !found.iter().any(|other| other.owner.canvas == owner.canvas) {
                    found.push(Owned { owner, carried });
                }
            }
            Ok(found)
        })
    }

    /// The canvas with this [name](keys::canvas_name), as each manifest that has it tells it.
    pub(super) fn canvas(&self, url: &str) -> Result<Vec<Owner>, IndexError> {
        self.read(|conn| {
            let mut found = Vec::new();
            let mut select = conn.prepare_cached(
                "SELECT c.url, m.uri, c.label FROM canvas_urls u
                 JOIN canvases c ON c.id = u.canvas JOIN manifests m ON m.id = c.manifest
                 WHERE u.hash = ?1 ORDER BY u.canvas LIMIT ?2",
            )?;
            let mut rows = select.query(params![keys::hash(url), MAX_ROWS])?;
            while let Some(row) = rows.next()? {
                if found.len() < MAX_OWNERS && keys::canvas_name(row.get_ref(0)?.as_str()?) == url {
                    found.push(owner(row)?);
                }
            }
            Ok(found)
        })
    }

    /// The canvases that follow this one in the first manifest that has it.
    pub(super) fn neighbours(&self, url: &str, n: usize) -> Result<Vec<Neighbour>, IndexError> {
        self.read(|conn| {
            let mut select = conn.prepare_cached(
                "SELECT c.url, c.id, c.manifest FROM canvas_urls u JOIN canvases c ON c.id = u.canvas
                 WHERE u.hash = ?1 ORDER BY u.canvas LIMIT ?2",
            )?;
            let mut rows = select.query(params![keys::hash(url), MAX_ROWS])?;
            while let Some(row) = rows.next()? {
                if keys::canvas_name(row.get_ref(0)?.as_str()?) == url {
                    let (id, manifest): (i64, i64) = (row.get(1)?, row.get(2)?);
                    let limit = i64::try_from(n).unwrap_or(i64::MAX);
                    return canvases(conn, id.saturating_add(1), manifest, limit);
                }
            }
            Ok(Vec::new())
        })
    }

    /// All canvases of a manifest, in order. Of several with the same id the last one read counts.
    pub(super) fn manifest_canvases(&self, uri: &str) -> Result<Vec<Neighbour>, IndexError> {
        self.read(|conn| {
            let mut select = conn
                .prepare_cached("SELECT id, first FROM manifests WHERE uri = ?1 ORDER BY id DESC LIMIT 1")?;
            let mut rows = select.query([uri])?;
            match rows.next()? {
                Some(row) => canvases(conn, row.get(1)?, row.get(0)?, i64::MAX),
                None => Ok(Vec::new()),
            }
        })
    }

    /// A file URL that was learned.
    pub(super) fn learned_file(&self, uuid: Uuid) -> Result<Option<String>, IndexError> {
        self.read(|conn| {
            let mut select = conn.prepare_cached("SELECT url FROM files WHERE uuid = ?1")?;
            let mut rows = select.query([uuid.as_bytes()])?;
            rows.next()?.map(|row| row.get(0)).transpose()
        })
    }

    fn wrap(&self, error: rusqlite::Error) -> IndexError {
        IndexError::of(&self.file, error)
    }
}

/// An owner, and the file that the canvas's own identifier carries.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) owner: Owner,
    pub(super) carried: Option<keys::Carried>,
}

fn owner(row: &Row<'_>) -> rusqlite::Result<Owner> {
    Ok(Owner { canvas: row.get(0)?, manifest: row.get(1)?, label: row.get(2)? })
}

/// Whether one of a canvas's keys is the one asked for, by either of its names; and the file it carries.
#[expect(clippy::option_option, reason = "found or not, and with a file or without")]
fn matches(key: &str, listed: &str, names: &Names) -> Option<Option<keys::Carried>> {
    let listed = write::read_keys(listed);
    if listed.iter().any(|listed| listed == key) {
        return Some(names.carried(key).into_iter().next());
    }
    let mut carried = listed.iter().flat_map(|listed| names.carried(listed));
    carried.find(|carried| carried.key == key).map(Some)
}

pub(super) fn canvases(
    conn: &Connection,
    from: i64,
    manifest: i64,
    limit: i64,
) -> rusqlite::Result<Vec<Neighbour>> {
    let mut select = conn.prepare_cached(
        "SELECT c.url, c.keys FROM manifests m
         JOIN canvases c ON c.id BETWEEN max(m.first, ?1) AND m.first + m.canvases - 1
         WHERE m.id = ?2 ORDER BY c.id LIMIT ?3",
    )?;
    let mut rows = select.query(params![from, manifest, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Neighbour { canvas: row.get(0)?, keys: write::read_keys(row.get_ref(1)?.as_str()?) });
    }
    Ok(found)
}

/// Document ids that stand at one source, for telling what vanished.
pub(super) fn ids_of_source(conn: &Connection, source: i64) -> rusqlite::Result<BTreeSet<i64>> {
    let mut select = conn.prepare_cached("SELECT id FROM manifests WHERE source = ?1")?;
    select.query_map([source], |row| row.get(0))?.collect()
}

/// Whether an image is known from a source.
pub(super) fn has_images(conn: &Connection, source: i64) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM manifests WHERE source = ?1 AND images > 0)")?
        .query_row([source], |row| row.get(0))
}

/// The row of the source at this location.
pub(super) fn source_at(conn: &Connection, location: &str) -> rusqlite::Result<Option<i64>> {
    let mut select = conn.prepare_cached("SELECT id FROM sources WHERE location = ?1")?;
    let mut rows = select.query([location])?;
    rows.next()?.map(|row| row.get(0)).transpose()
}

/// Whether a document is there and stands at this source.
pub(super) fn is_document_of(conn: &Connection, id: i64, source: i64) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM manifests WHERE id = ?1 AND source = ?2)")?
        .query_row([id, source], |row| row.get(0))
}

/// Documents of one source that were read from this path, or below it.
pub(super) fn ids_below(conn: &Connection, source: i64, path: &str) -> rusqlite::Result<BTreeSet<i64>> {
    // `0` is the character behind `/`.
    let mut select = conn.prepare_cached(
        "SELECT id FROM manifests WHERE source = ?1 AND (origin = ?2 OR (origin > ?2 || '/' AND origin < ?2 || '0'))",
    )?;
    select.query_map(params![source, path], |row| row.get(0))?.collect()
}

/// Documents of one source that vanished and are kept for the grace.
pub(super) fn vanished_of_source(conn: &Connection, source: i64) -> rusqlite::Result<BTreeSet<i64>> {
    let mut select =
        conn.prepare_cached("SELECT id FROM manifests WHERE source = ?1 AND vanished IS NOT NULL")?;
    select.query_map([source], |row| row.get(0))?.collect()
}

/// Documents in the index, counted up to a limit.
pub(super) fn number_of_documents(conn: &Connection, limit: u32) -> rusqlite::Result<u32> {
    conn.query_row("SELECT count(*) FROM (SELECT 1 FROM manifests LIMIT ?1)", [limit], |row| row.get(0))
}

/// A panic while a lock was held leaves at worst a connection whose transaction rolls back.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
