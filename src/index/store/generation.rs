//! Generations: a bulk load makes a new file beside the index and swaps it in while others read.
//!
//! A new SQLite file must never be renamed over one that is in use: the old file's `-wal` belongs to the
//! path, and SQLite would replay it into the new file. So each generation has a name of its own,
//! `{index}.g{number}`, and `{index}` becomes a symbolic link to it, which *is* replaced by a rename. SQLite
//! follows the link before it names the log, so two generations never share one.
//!
//! Writers check, inside their write transaction, that the link still leads to their file; the builder swaps only while it
//! holds the old file's write lock. So nothing is written into a file that was replaced.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::index::store::error::IndexError;
use crate::index::store::schema;

/// Suffixes of the files that SQLite keeps beside its own.
const LOGS: [&str; 2] = ["-wal", "-shm"];

/// Files that were put aside, kept at most: each may be as long as an index.
const KEPT: usize = 3;

/// Identity of the file behind a path; unlike the path it tells two generations apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Identity of no file.
    pub(crate) const NONE: Self = Self { device: 0, inode: 0 };

    /// Identity of this file.
    pub(crate) fn of(found: &fs::Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

/// Path of the index.
#[derive(Debug, Clone)]
pub(crate) struct IndexPath {
    path: PathBuf,
}

/// Lock held while a generation is built; the kernel releases it when the process dies.
#[derive(Debug)]
pub(crate) struct BuildLock {
    _file: File,
}

impl IndexPath {
    /// The index at this path. A link that is not ours (an operator's, to another disk) is followed first,
    /// so that generations are made where the operator wants the data.
    pub(crate) fn new(path: &Path) -> Self {
        let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        for _ in 0..8 {
            let Ok(target) = fs::read_link(&path) else { break };
            if number_of(&path, target.as_os_str()).is_some() {
                break;
            }
            path = path.parent().unwrap_or(Path::new("/")).join(target);
        }
        Self { path }
    }

    /// The path that stays the same over all generations.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file behind the path now.
    pub(crate) fn target(&self) -> Result<PathBuf, IndexError> {
        fs::canonicalize(&self.path).map_err(|error| IndexError::io(&self.path, error))
    }

    /// Identity of the file behind the path now; `None`: no file. One system call.
    pub(crate) fn identity(&self) -> Result<Option<FileIdentity>, IndexError> {
        match fs::metadata(&self.path) {
            Ok(found) => Ok(Some(FileIdentity::of(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(IndexError::io(&self.path, error)),
        }
    }

    /// Lets one process build at a time.
    pub(crate) fn lock(&self) -> Result<BuildLock, IndexError> {
        let path = self.beside("lock");
        let file = File::create(&path).map_err(|error| IndexError::io(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(BuildLock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(IndexError::Building { path: self.path.clone() }),
            Err(fs::TryLockError::Error(error)) => Err(IndexError::io(&path, error)),
        }
    }

    /// Makes the empty file of the next generation, and clears away what killed builds left behind.
    pub(crate) fn next(&self, lock: &BuildLock) -> Result<PathBuf, IndexError> {
        self.sweep(lock)?;
        let last = self.siblings()?.into_iter().map(|(number, _)| number).max().unwrap_or(0);
        let path = self.beside(&format!("g{}", last.saturating_add(1)));
        schema::create(&path)?;
        Ok(path)
    }

    /// Makes a complete, closed generation the index, in one step and for good.
    pub(crate) fn publish(&self, generation: &Path) -> Result<(), IndexError> {
        let wrap = |error| IndexError::io(&self.path, error);
        File::open(generation).and_then(|file| file.sync_all()).map_err(wrap)?;
        let link = self.beside("link");
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrap(error)),
            _ => {}
        }
        let name = generation.file_name().unwrap_or(generation.as_os_str());
        std::os::unix::fs::symlink(name, &link).map_err(wrap)?;
        self.sync_directory()?;
        fs::rename(&link, &self.path).map_err(wrap)?;
        self.sync_directory()
    }

    /// Puts a file that is of no use out of the way, under a name with the time; answers where it is now. Of those that
    /// were put aside before the oldest go.
    pub(crate) fn put_aside(&self, _lock: &BuildLock) -> Result<PathBuf, IndexError> {
        let useless = self.target().unwrap_or_else(|_| self.path.clone());
        let aside = self.aside();
        fs::rename(&useless, &aside).map_err(|error| IndexError::io(&useless, error))?;
        for log in LOGS {
            let _ = fs::rename(with_suffix(&useless, log), with_suffix(&aside, log));
        }
        // A link whose file was moved leads nowhere, so the next opening starts with an empty index.
        if fs::symlink_metadata(&self.path).is_ok_and(|left| left.is_symlink()) {
            let _ = fs::remove_file(&self.path);
        }
        self.sync_directory()?;
        self.forget_old();
        Ok(aside)
    }

    /// True if a build of ours made the file behind the path: then it was an index, whatever it holds.
    pub(crate) fn is_ours(&self) -> bool {
        fs::read_link(&self.path).is_ok_and(|link| number_of(&self.path, link.as_os_str()).is_some())
    }

    /// True if the name is one of a database.
    ///
    /// SECURITY: a path that is a mistake may name any file, and to put that aside would break the program that needs it.
    pub(crate) fn is_for_databases(&self) -> bool {
        let named = self.path.extension().and_then(OsStr::to_str);
        named.is_some_and(|named| matches!(named, "sqlite3" | "sqlite" | "db"))
    }

    /// A file name that is not in use.
    fn aside(&self) -> PathBuf {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(['-', ':'], "");
        let name = self.beside(&format!("damaged-{now}"));
        let others = (2..).map(|number| self.beside(&format!("damaged-{now}-{number}")));
        let mut free = std::iter::once(name.clone()).chain(others);
        free.find(|name| fs::symlink_metadata(name).is_err()).unwrap_or(name)
    }

    fn forget_old(&self) {
        let (directory, own) = (self.directory(), self.beside("damaged-"));
        let Some(own) = own.file_name().map(|own| own.to_string_lossy().into_owned()) else { return };
        let names = fs::read_dir(directory).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let is_log = |name: &String| LOGS.iter().any(|log| name.ends_with(log));
        let mut aside: Vec<String> = names.filter(|name| name.starts_with(&own) && !is_log(name)).collect();
        aside.sort();
        for name in aside.iter().rev().skip(KEPT) {
            let path = directory.join(name);
            for log in LOGS {
                let _ = fs::remove_file(with_suffix(&path, log));
            }
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
    }

    /// Removes every generation that the path does not lead to. A reader that still has one open keeps it until it closes.
    pub(crate) fn sweep(&self, _lock: &BuildLock) -> Result<(), IndexError> {
        let current = fs::read_link(&self.path).ok().and_then(|link| number_of(&self.path, link.as_os_str()));
        for (number, path) in self.siblings()? {
            if Some(number) != current {
                let _ = fs::remove_file(path);
            }
        }
        if current.is_some() {
            // Logs of the plain file that the first generation replaced: never to be replayed into another.
            for log in LOGS {
                let _ = fs::remove_file(with_suffix(&self.path, log));
            }
        }
        Ok(())
    }

    /// All files of all generations, logs and sort runs among them.
    fn siblings(&self) -> Result<Vec<(u64, PathBuf)>, IndexError> {
        let directory = self.directory();
        let wrap = |error| IndexError::io(directory, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).map_err(wrap)? {
            let name = entry.map_err(wrap)?.file_name();
            if let Some(number) = number_of(&self.path, &name) {
                found.push((number, directory.join(name)));
            }
        }
        Ok(found)
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn sync_directory(&self) -> Result<(), IndexError> {
        let directory = self.directory();
        File::open(directory)
            .and_then(|open| open.sync_all())
            .map_err(|error| IndexError::io(directory, error))
    }

    fn beside(&self, what: &str) -> PathBuf {
        with_suffix(&self.path, &format!(".{what}"))
    }
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The number in `{index}.g12`, `{index}.g12-wal` or `{index}.g12.run3`.
fn number_of(index: &Path, name: &OsStr) -> Option<u64> {
    let (index, name) = (index.file_name()?.to_str()?, name.to_str()?);
    let rest = name.strip_prefix(index)?.strip_prefix(".g")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, tail) = rest.split_at(digits);
    if !(tail.is_empty() || tail.starts_with('-') || tail.starts_with(".run")) {
        return None;
    }
    number.parse().ok()
}
