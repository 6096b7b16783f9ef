//! Journal of a run, so that `--resume` goes on without asking anything twice.
//!
//! Each canvas has a line when it is done, and one before it is asked for. A line that matters is written before the next
//! step, so that kill -9 loses nothing that was finished; a sync each second keeps the loss of a power cut to a second of
//! probes. A line that was torn is cut off.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::summary::Summary;
use super::{CanvasResult, CanvasTask, ImageResult, ManifestRef};

/// Lines of healthy canvases are gathered up to this before they are written.
const MAX_GATHERED: usize = 32 * 1024;

/// The file goes to the disk at least this often while something is written.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum JournalLine {
    /// The first one.
    Begin { version: u32, command: String, sources: Vec<String>, started: u64 },
    /// A manifest gets a number.
    Manifest(usize, String, Option<String>),
    /// Canvas that is requested next.
    Asking(u64),
    /// A canvas that is done.
    Done(JournalDone),
    /// Requests to canvas services for canvases that are not done.
    Sent(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct JournalDone {
    #[serde(rename = "u")]
    unit: u64,
    #[serde(rename = "m")]
    manifest: usize,
    #[serde(flatten)]
    record: JournalRecord,
}

/// Result of one canvas, for a later run and for the other processes of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournalRecord {
    #[serde(rename = "n")]
    pub(super) images: u64,
    #[serde(rename = "r", skip_serializing_if = "is_zero", default)]
    pub(super) asked: u64,
    #[serde(rename = "e", skip_serializing_if = "Vec::is_empty", default)]
    pub(super) entries: Vec<ImageResult>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<&CanvasResult> for JournalRecord {
    fn from(result: &CanvasResult) -> Self {
        Self { images: result.images, asked: result.asked, entries: result.entries.clone() }
    }
}

/// The journal of this run.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// Journal file; `None`: the job in Redis keeps the results.
    file: Option<File>,
    gathered: Vec<u8>,
    synced: Instant,
    manifests: HashMap<Arc<str>, usize>,
    done: HashSet<u64>,
    /// Canvases that an earlier run requested before it was killed.
    in_flight: HashSet<u64>,
}

/// Errors of the journal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("the journal {0} cannot be used: {1}")]
    Io(PathBuf, #[source] io::Error),
    #[error("another run uses the journal {0}; wait for it, or name another with --journal")]
    Busy(PathBuf),
    #[error(
        "the journal {0} is of another run ({1}): name the same command and sources, or leave --resume out"
    )]
    Other(PathBuf, String),
}

/// Path of a command's journal: beside the index.
pub(super) fn path(index: &Path, command: &str) -> PathBuf {
    let mut name = index.to_path_buf().into_os_string();
    name.push(format!(".{command}-journal"));
    name.into()
}

impl Journal {
    /// Opens the journal. With `resume`, its entries go into `summary`; without, the journal starts anew.
    pub(crate) fn open(path: &Path, resume: bool, summary: &mut Summary) -> Result<Self, JournalError> {
        let refuse = |error| JournalError::Io(path.to_path_buf(), error);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(refuse)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Busy(path.to_path_buf())),
            Err(TryLockError::Error(error)) => return Err(refuse(error)),
        }
        let mut journal = Self { path: path.to_path_buf(), ..Self::unwritten() };
        let whole = if resume { journal.replay(&file, summary)? } else { 0 };
        file.set_len(whole).map_err(refuse)?;
        file.seek(SeekFrom::End(0)).map_err(refuse)?;
        journal.file = Some(file);
        if whole == 0 {
            let (command, sources) = (summary.command.clone(), summary.sources.clone());
            journal.write(&JournalLine::Begin { version: 1, command, sources, started: summary.started });
            journal.flush().map_err(refuse)?;
        }
        Ok(journal)
    }

    /// A journal in memory only.
    pub(crate) fn unwritten() -> Self {
        Self {
            path: PathBuf::new(),
            file: None,
            gathered: Vec::new(),
            synced: Instant::now(),
            manifests: HashMap::new(),
            done: HashSet::new(),
            in_flight: HashSet::new(),
        }
    }

    /// Replays the entries of an earlier run; returns how many bytes of the file are whole lines.
    fn replay(&mut self, file: &File, summary: &mut Summary) -> Result<u64, JournalError> {
        let refuse = |error| JournalError::Io(self.path.clone(), error);
        let mut lines = BufReader::new(file);
        let (mut whole, mut text) = (0, Vec::new());
        let mut names: HashMap<usize, ManifestRef> = HashMap::new();
        loop {
            text.clear();
            let read = lines.read_until(b'\n', &mut text).map_err(refuse)?;
            if read == 0 || !text.ends_with(b"\n") {
                return Ok(whole);
            }
            let Ok(line) = serde_json::from_slice::<JournalLine>(&text) else { return Ok(whole) };
            match line {
                JournalLine::Begin { command, sources, started, .. } => {
                    if command != summary.command || sources != summary.sources {
                        let what = format!("{command} {}", sources.join(" "));
                        return Err(JournalError::Other(self.path.clone(), what.trim().to_owned()));
                    }
                    summary.started = started;
                }
                JournalLine::Manifest(number, uri, label) => {
                    self.manifests.insert(uri.as_str().into(), number);
                    names.insert(number, ManifestRef { uri, label });
                }
                JournalLine::Asking(unit) => {
                    self.in_flight.insert(unit);
                }
                JournalLine::Sent(requests) => summary.count_requests(requests),
                JournalLine::Done(done) => {
                    self.in_flight.remove(&done.unit);
                    if let Some(manifest) = names.get(&done.manifest)
                        && self.done.insert(done.unit)
                    {
                        summary.take(manifest, done.record.images, done.record.entries, done.record.asked);
                    }
                }
            }
            whole += u64::try_from(read).unwrap_or(0);
        }
    }

    /// Takes this unit up. False: done already, in this run or an earlier one.
    pub(crate) fn take_up(&mut self, unit: u64) -> bool {
        self.done.insert(unit)
    }

    /// True if an earlier run requested this canvas and was killed before the result.
    pub(crate) fn was_in_flight(&self, unit: u64) -> bool {
        self.in_flight.contains(&unit)
    }

    /// Writes that the canvas is going to be requested.
    pub(crate) fn asking(&mut self, unit: u64) -> Result<(), JournalError> {
        self.write(&JournalLine::Asking(unit));
        self.flush().map_err(|error| JournalError::Io(self.path.clone(), error))
    }

    /// Records requests that were sent besides those of canvases that are done.
    pub(crate) fn sent(&mut self, requests: u64) {
        self.write(&JournalLine::Sent(requests));
    }

    /// Records a canvas that is done.
    pub(crate) fn done(&mut self, unit: &CanvasTask, result: &CanvasResult) -> Result<(), JournalError> {
        let known = self.manifests.get(unit.manifest.uri.as_str()).copied();
        let manifest = if let Some(number) = known {
            number
        } else {
            let number = self.manifests.len();
            self.manifests.insert(unit.manifest.uri.as_str().into(), number);
            self.write(&JournalLine::Manifest(
                number,
                unit.manifest.uri.clone(),
                unit.manifest.label.clone(),
            ));
            number
        };
        self.write(&JournalLine::Done(JournalDone { unit: unit.id(), manifest, record: result.into() }));
        // A healthy canvas costs a probe, which may be repeated; anything else is written at once.
        if result.is_begun || self.gathered.len() >= MAX_GATHERED || self.synced.elapsed() >= SYNC_INTERVAL {
            self.flush().map_err(|error| JournalError::Io(self.path.clone(), error))?;
        }
        Ok(())
    }

    /// Writes everything down, to the disk.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        let written = self.flush().and_then(|()| self.file.as_ref().map_or(Ok(()), File::sync_data));
        written.map_err(|error| JournalError::Io(self.path.clone(), error))
    }

    /// Deletes the journal of a run that came to its end.
    pub(crate) fn finish(self) {
        if self.file.is_none() {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the journal cannot be deleted");
        }
    }

    /// Path of the journal; `None`: no journal is kept.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|_| self.path.as_path())
    }

    fn write(&mut self, line: &JournalLine) {
        if self.file.is_none() {
            return;
        }
        // Text and numbers can always be written as JSON.
        if serde_json::to_writer(&mut self.gathered, line).is_ok() {
            self.gathered.push(b'\n');
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(&self.gathered)?;
        self.gathered.clear();
        if self.synced.elapsed() >= SYNC_INTERVAL {
            file.sync_data()?;
            self.synced = Instant::now();
        }
        Ok(())
    }
}
