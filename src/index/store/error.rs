//! Errors of the index, each with advice.

use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};
use uuid::Uuid;

/// Reason why the index could not answer. Every message names the file and the cure.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Foreign: the file belongs to another program, and is never written to.
    #[error(
        "{path}: {what}, not an index of iiif-mender; nothing was touched. Let `[index] path` name another file"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Kind of file found instead.
        what: &'static str,
    },
    /// The file is an index, but its content is not readable any more.
    #[error(
        "{path}: the index is damaged ({source}). `iiif-mender index build` makes a new one from the sources (the damaged file is kept beside it); or put a backup in its place"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Error of SQLite.
        source: rusqlite::Error,
    },
    /// The file was truncated by another process while it was in use.
    #[error("{path}: the index was cut short while it was in use")]
    Cut {
        /// The file.
        path: PathBuf,
    },
    /// Absent: no file can be used; look-ups find nothing, and nothing is learned.
    #[error("{path}: the index cannot be opened; it is tried again from time to time")]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// Written by a later version of this program.
    #[error(
        "{path}: the index was made by a newer iiif-mender (schema {found}, this one knows up to {known}). Run the newer version, or let `[index] path` name another file and run `iiif-mender index build`"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Schema version of the file.
        found: i64,
        /// The latest schema that we know.
        known: i64,
    },
    /// The file or its directory cannot be written; lookups go on.
    #[error(
        "{path}: the index cannot be written. Give this user write access to the file and its directory; lookups go on meanwhile"
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// No space is left; lookups go on.
    #[error(
        "{path}: no space left to write the index; nothing was changed and lookups go on. Free some space and try again"
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The disk refused, but not because it is full.
    #[error(
        "{path}: the index could not be read or written ({source}); what was in it is kept. Is the disk failing, out of reach, or this user's quota or file size limit used up? See the system's log, and try again"
    )]
    Failing {
        /// The file.
        path: PathBuf,
        /// Error of SQLite.
        source: rusqlite::Error,
    },
    /// Busy: another process held the write lock for too long.
    #[error("{path}: another process is writing to the index; try again when it is done")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Full log: another process has read for so long that the log cannot be emptied, and it must not grow any more.
    #[error(
        "{path}: another process has been reading the index for so long that its log is full; nothing is written until that one ends (`fuser {path}` names it), lookups go on"
    )]
    LogFull {
        /// The file.
        path: PathBuf,
    },
    /// Build lock: another process is building the index.
    #[error(
        "{path}: another `index build` (or a starting `serve`) is at work on this index; wait for it to end"
    )]
    Building {
        /// The file.
        path: PathBuf,
    },
    /// Error of the operating system.
    #[error("{path}: {source}. Check that the directory exists and that this user may write to it")]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A claimed file URL does not give the UUID, so it is not believed.
    #[error("{url} is not the file of {uuid}: its own UUID is {actual}")]
    WrongFile {
        /// UUID that the file URL was claimed for.
        uuid: Uuid,
        /// The claimed URL.
        url: String,
        /// UUID that is made of the URL.
        actual: Uuid,
    },
    /// Earlier error, once more.
    #[error("{0}")]
    Refused(String),
    /// Other error of SQLite.
    #[error("index: {0}")]
    Store(#[from] rusqlite::Error),
}

impl IndexError {
    /// Gives SQLite's error the name of the file and, where there is one, the cure.
    pub(crate) fn of(path: &Path, error: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, source: error }
            }
            // The file, or its log, is shorter than it should be.
            Some(ErrorCode::SystemIoFailure) if extended(&error) == Some(ffi::SQLITE_IOERR_SHORT_READ) => {
                Self::Damaged { path, source: error }
            }
            _ if is_of_another_shape(&error) => Self::Damaged { path, source: error },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::ReadOnly { path }
            }
            Some(ErrorCode::DiskFull) => Self::Full { path },
            // There was no space for the 32 KiB that processes share beside the log.
            Some(ErrorCode::SystemIoFailure) if extended(&error) == Some(ffi::SQLITE_IOERR_SHMSIZE) => {
                Self::Full { path }
            }
            Some(ErrorCode::SystemIoFailure) => Self::Failing { path, source: error },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            _ => Self::Store(error),
        }
    }

    /// True if the content of the file is of no use, as opposed to a file that cannot be reached.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Cut { .. })
    }

    /// Gives the operating system's error the name of the file.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full { path },
            std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            _ => Self::Io { path, source },
        }
    }
}

/// True if the tables are not those of our schema: a table or column is missing, or a value has the wrong type.
fn is_of_another_shape(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, InvalidColumnType, Utf8Error};
    let is_garbage = matches!(error, FromSqlConversionFailure(..) | InvalidColumnType(..) | Utf8Error(..));
    let text = error.to_string();
    is_garbage || text.contains("no such table") || text.contains("no such column")
}

fn extended(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}
