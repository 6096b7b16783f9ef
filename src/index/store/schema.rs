//! Schema of the SQLite file, its migrations, and the opening of connections.
//!
//! A lookup key is stored once, in its canvas's row; `images` and `canvas_urls` hold only 64-bit hashes of it. So ten
//! million images take a tree of 200 MB that is quick to sort, to load and to search; a hash that two keys share does no
//! harm, because the row found is compared with the whole key. The view `owners` is for people with the `sqlite3` shell.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::index::store::error::IndexError;

/// `IIMd` in the file's header, which identifies files of this program.
pub(crate) const APPLICATION_ID: i64 = 0x4949_4d64;

/// Migration scripts, one a version: the first makes version 1. Never change a released script; add another.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE sources (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,               -- path, url, traffic
  location TEXT NOT NULL UNIQUE,
  added INTEGER NOT NULL,           -- 1: by `index add`; 0: configured, or traffic
  seen INTEGER                      -- last complete look, unix seconds
);
CREATE TABLE manifests (            -- one row a document; collections have no canvases
  id INTEGER PRIMARY KEY,
  source INTEGER NOT NULL REFERENCES sources (id),
  origin TEXT NOT NULL,             -- file path or URL it was read from
  kind TEXT NOT NULL,               -- manifest, sequence, canvas, annotations, collection, other
  uri TEXT NOT NULL,                -- its own id, or the origin
  label TEXT,
  first INTEGER NOT NULL,           -- its canvases are the ids from here on, in order
  canvases INTEGER NOT NULL,
  images INTEGER NOT NULL,
  files INTEGER NOT NULL,           -- file URLs that its identifiers carry
  size INTEGER,                     -- of the file, bytes
  modified INTEGER,                 -- of the file, unix nanoseconds
  etag TEXT,                        -- of the URL
  last_modified TEXT,               -- of the URL
  hash BLOB,                        -- BLAKE3 of the content
  seen INTEGER NOT NULL,            -- unix seconds
  vanished INTEGER,                 -- gone from its source since, unix seconds
  UNIQUE (source, origin)
);
CREATE INDEX manifests_uri ON manifests (uri);
CREATE TABLE canvases (
  id INTEGER PRIMARY KEY,
  manifest INTEGER NOT NULL,        -- no REFERENCES: canvases are written before their manifest
  url TEXT NOT NULL,
  label TEXT,
  keys TEXT NOT NULL                -- JSON array of lookup keys
);
CREATE TABLE images (
  hash INTEGER NOT NULL,
  canvas INTEGER NOT NULL,
  PRIMARY KEY (hash, canvas)
) WITHOUT ROWID;
CREATE TABLE canvas_urls (
  hash INTEGER NOT NULL,
  canvas INTEGER NOT NULL,
  PRIMARY KEY (hash, canvas)
) WITHOUT ROWID;
CREATE TABLE files (                -- file URLs that were learned, not those an identifier carries
  uuid BLOB PRIMARY KEY,
  url TEXT NOT NULL
) WITHOUT ROWID;
CREATE VIEW owners AS
  SELECT k.value AS image, c.url AS canvas, m.uri AS manifest, c.label AS label
  FROM manifests m JOIN canvases c ON c.manifest = m.id, json_each(c.keys) k;
",
    "
CREATE TABLE heals (                -- the history: one row a heal, later ones have larger ids
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,              -- its end, unix milliseconds
  identifier TEXT NOT NULL,         -- lookup key
  canvas TEXT,
  manifest TEXT,
  rung TEXT,                        -- the one that helped
  verdict TEXT NOT NULL,            -- healed, missing, failed
  lane TEXT NOT NULL,               -- viewer, ahead, sweep
  duration_ms INTEGER NOT NULL,
  waiting INTEGER NOT NULL,         -- viewers who waited for it
  request TEXT                      -- id of the request that began it
);
CREATE INDEX heals_at ON heals (at);
",
    "
CREATE INDEX heals_manifest ON heals (manifest, identifier);
CREATE INDEX heals_identifier ON heals (identifier);
CREATE INDEX heals_request ON heals (request);
",
    "
CREATE TABLE marks (                -- where something stood: 'fleet', how far the other nodes' stream was read
  name TEXT PRIMARY KEY,
  value TEXT
) WITHOUT ROWID;
",
    "
ALTER TABLE heals ADD COLUMN reason TEXT; -- why the image is not back
",
];

/// Time that a writer waits for another one.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the file for writing, making or migrating its tables; the file itself must exist. SQLite may never
/// create it: a generation that was replaced a moment ago would come back as an empty one.
pub(crate) fn open_writer(file: &Path) -> Result<Connection, IndexError> {
    let wrap = |error| refused(file, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(file, flags).map_err(wrap)?;
    steady(&conn).map_err(wrap)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(wrap)?;
    check_owner(&conn, file)?;
    conn.pragma_update(None, "journal_mode", "WAL").map_err(wrap)?;
    // NORMAL: a power cut may lose the last learned rows, which are learned again, but never damages the file.
    conn.pragma_update(None, "synchronous", "NORMAL").map_err(wrap)?;
    conn.pragma_update(None, "cache_size", -4096).map_err(wrap)?;
    conn.pragma_update(None, "journal_size_limit", 16 << 20).map_err(wrap)?;
    migrate(&mut conn, file)?;
    Ok(conn)
}

/// A connection for reading.
pub(crate) struct ReadConnection {
    pub(crate) conn: Connection,
    /// True if the connection reads the file without its log, and so will not see later writes.
    pub(crate) is_frozen: bool,
}

/// Opens the file for reading, whether or not it will see later writes.
pub(crate) fn open_reader(file: &Path) -> Result<Connection, IndexError> {
    open_reader_or_frozen(file).map(|opened| opened.conn)
}

/// Opens the file for reading. The cache is small and nothing is mapped, because mapped pages count as ours: the kernel
/// caches hot pages, and reading one costs about a microsecond.
pub(crate) fn open_reader_or_frozen(file: &Path) -> Result<ReadConnection, IndexError> {
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |name: &str, flags| {
        let conn = Connection::open_with_flags(name, flags)?;
        steady(&conn)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.pragma_update(None, "cache_size", -1024)?;
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(conn)
    };
    let name = file.to_string_lossy();
    let mut is_frozen = false;
    let conn = open(&name, read_only).or_else(|error| {
        // Neither WAL nor its shared memory can be created in a read-only directory, nor on a full disk. The content of the
        // file alone is better than none.
        let is_kept_out = matches!(
            code(&error),
            Some(
                ErrorCode::CannotOpen
                    | ErrorCode::ReadOnly
                    | ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
            )
        );
        if !is_kept_out {
            return Err(error);
        }
        is_frozen = true;
        let uri = format!("file:{}?immutable=1", uri_path(&name));
        open(&uri, read_only | OpenFlags::SQLITE_OPEN_URI)
    });
    let conn = conn.map_err(|error| refused(file, error))?;
    check_owner(&conn, file)?;
    Ok(ReadConnection { conn, is_frozen })
}

/// Opens a file that is damaged, to read what can be read: without its log, and without a lock.
pub(crate) fn open_as_it_lies(file: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{}?immutable=1", uri_path(&file.to_string_lossy())), flags)
}

/// Opens an empty file for a bulk load: no journal and no fsync, since no reader sees the file before it is complete and
/// synced as a whole.
pub(crate) fn open_bulk(file: &Path) -> Result<Connection, IndexError> {
    let wrap = |error| IndexError::of(file, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(file, flags).map_err(wrap)?;
    steady(&conn).map_err(wrap)?;
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(wrap)?;
    conn.pragma_update(None, "journal_mode", "OFF").map_err(wrap)?;
    conn.pragma_update(None, "synchronous", "OFF").map_err(wrap)?;
    conn.pragma_update(None, "cache_size", -16_384).map_err(wrap)?;
    migrate(&mut conn, file)?;
    Ok(conn)
}

/// Plans each statement once. Without this SQLite plans anew whenever other values are bound, in case another plan suits
/// them: that was half the time of a look-up.
fn steady(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    error.sqlite_error_code()
}

/// Escapes characters that would end the path in an SQLite URI.
fn uri_path(name: &str) -> String {
    name.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// Error for a file that SQLite could not open. Without SQLite's header the file belongs to another program; SQLite itself
/// calls it damaged.
///
/// The header is read only after SQLite failed: closing a file drops all locks that this process has on it, those of
/// SQLite's other connections among them.
fn refused(file: &Path, error: rusqlite::Error) -> IndexError {
    if code(&error) == Some(ErrorCode::NotADatabase) {
        let mut head = Vec::with_capacity(16);
        let read = File::open(file).and_then(|open| open.take(16).read_to_end(&mut head));
        if read.is_ok() && !head.starts_with(b"SQLite format 3\0") {
            return IndexError::Foreign { path: file.to_path_buf(), what: NOT_SQLITE };
        }
    }
    IndexError::of(file, error)
}

/// Description of a file that is no database at all.
pub(crate) const NOT_SQLITE: &str = "it is not an SQLite file";

/// Checks that the tables have the columns of our statements.
pub(crate) fn check_shape(conn: &Connection, file: &Path) -> Result<(), IndexError> {
    // A file that is read without write access was never migrated, and lacks some of them.
    let version = number(conn, "PRAGMA user_version").map_err(|error| IndexError::of(file, error))?;
    let asked = [
        "SELECT id, kind, location, added, seen FROM sources",
        "SELECT id, source, origin, kind, uri, label, first, canvases, images, hash, vanished FROM manifests",
        "SELECT id, manifest, url, label, keys FROM canvases",
        "SELECT hash, canvas FROM images",
        "SELECT hash, canvas FROM canvas_urls",
        "SELECT uuid, url FROM files",
    ];
    for sql in asked.into_iter().filter(|_| version > 0) {
        conn.prepare(sql).map_err(|error| IndexError::of(file, error))?;
    }
    Ok(())
}

/// An index of nothing, in memory.
pub(crate) fn open_memory() -> Result<Connection, IndexError> {
    let mut conn = Connection::open_in_memory()?;
    migrate(&mut conn, Path::new("memory"))?;
    Ok(conn)
}

/// Refuses files of other programs and of later versions.
fn check_owner(conn: &Connection, file: &Path) -> Result<(), IndexError> {
    let wrap = |error| refused(file, error);
    let id = number(conn, "PRAGMA application_id").map_err(wrap)?;
    let version = number(conn, "PRAGMA user_version").map_err(wrap)?;
    let tables = number(conn, "SELECT count(*) FROM sqlite_schema").map_err(wrap)?;
    let path = file.to_path_buf();
    if id != APPLICATION_ID && (id != 0 || version != 0 || tables != 0) {
        return Err(IndexError::Foreign { path, what: "it is another program's SQLite file" });
    }
    let known = known_version();
    if version > known {
        return Err(IndexError::Newer { path, found: version, known });
    }
    Ok(())
}

/// The latest schema that we know.
pub(crate) fn known_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

fn migrate(conn: &mut Connection, file: &Path) -> Result<(), IndexError> {
    let wrap = |error| IndexError::of(file, error);
    if number(conn, "PRAGMA user_version").map_err(wrap)? >= known_version() {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(wrap)?;
    // Read again inside the transaction: another process may have migrated the file.
    let version = number(&tx, "PRAGMA user_version").map_err(wrap)?;
    for script in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        tx.execute_batch(script).map_err(wrap)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(wrap)?;
    tx.pragma_update(None, "user_version", known_version().max(version)).map_err(wrap)?;
    tx.commit().map_err(wrap)
}

/// Single number that a statement returns.
pub(crate) fn number(conn: &Connection, sql: &str) -> rusqlite::Result<i64> {
    conn.query_row(sql, [], |row| row.get(0))
}

/// Makes an empty file where there is none; `false`: there was one.
pub(crate) fn create(file: &Path) -> Result<bool, IndexError> {
    match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(IndexError::io(file, error)),
    }
}
