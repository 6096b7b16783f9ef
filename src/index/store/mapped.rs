//! Mapped file: the only one that SQLite maps into our memory is the index of its log (`-shm`), which all processes share.
//!
//! Nothing else is mapped (`mmap_size` is 0). Access to a mapped page beyond the end of the file ends a process with
//! SIGBUS, and a log that several processes read at once needs the mapping (docs/decisions/0003-sqlite-index.md). So the
//! length of the file is checked before each query: one system call, 0.5 µs. A truncated file is extended with zeros, which
//! SQLite takes for an index of the log that must be made anew, and no query uses it any more.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::index::store::generation::{FileIdentity, with_suffix};

/// The file as it was mapped.
#[derive(Debug, Default)]
pub(crate) struct MappedFile {
    path: PathBuf,
    /// `None`: nothing is mapped.
    identity: Option<FileIdentity>,
    length: AtomicU64,
    is_cut: AtomicBool,
}

impl MappedFile {
    /// Mapping of the open connections to `file`.
    pub(crate) fn of(file: &Path) -> Self {
        let path = with_suffix(file, "-shm");
        let found = fs::metadata(&path).ok();
        let length = AtomicU64::new(found.as_ref().map_or(0, fs::Metadata::len));
        Self { identity: found.as_ref().map(FileIdentity::of), path, length, is_cut: AtomicBool::new(false) }
    }

    /// True if another process has truncated the file; stays true.
    pub(crate) fn is_cut(&self) -> bool {
        if self.identity.is_none() || self.is_cut.load(Ordering::Acquire) {
            return self.is_cut.load(Ordering::Acquire);
        }
        let Ok(found) = fs::metadata(&self.path) else { return false };
        if self.identity != Some(FileIdentity::of(&found)) {
            // Another file has its name now; ours is as it was.
            return false;
        }
        let known = self.length.fetch_max(found.len(), Ordering::AcqRel);
        if found.len() >= known {
            return false;
        }
        self.is_cut.store(true, Ordering::Release);
        self.extend(known);
        true
    }

    /// Extends the file with zeros, for queries that are running and connections that are being closed.
    fn extend(&self, length: u64) {
        let extended = OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(length));
        if let Err(error) = extended {
            tracing::error!(path = %self.path.display(), %error, "what was cut cannot be made as long as it was");
        }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // Connections are closed after this, and the last one reads the file once more.
        let _ = self.is_cut();
    }
}
