//! Permits that processes on one machine share: `heal` beside a running `serve` must not double the requests at the canvas
//! service, nor repeat a request of the other process. Each permit is a file beside the index that one process at a time
//! has locked; one further file holds an entry of each process and of each permit. The kernel unlocks the files of a process that is killed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Poll interval for a permit while other processes have all of them.
const POLL: Duration = Duration::from_millis(10);

/// Time for which a request that another process ended may make our own needless.
const RECENT: Duration = Duration::from_secs(2);

/// Bytes of an entry. A process: its number, and when it last ended a request. A permit: the digest of its request.
const ENTRY: usize = 16;

/// Entries of processes, before those of permits.
const PROCESSES: usize = 64;

/// Permits that have an entry.
const PERMITS: usize = 256;

/// `PermitFiles` are the permits at one canvas service.
#[derive(Debug)]
pub(in crate::heal) struct PermitFiles(Arc<SharedLocks>);

#[derive(Debug)]
struct SharedLocks {
    base: PathBuf,
    /// Number of this process, among those that share the files.
    number: u64,
    files: Mutex<LockFiles>,
}

#[derive(Debug, Default)]
struct LockFiles {
    /// State of each permit, by its number.
    permits: Vec<PermitFileState>,
    /// File with the entries of processes and permits.
    entries: Option<Arc<File>>,
    /// Entry of this process.
    entry: Option<usize>,
    /// Entries of the other processes when they were found to hang.
    hung: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
enum PermitFileState {
    #[default]
    Unopened,
    Open(File),
    /// Locked by this process.
    Taken,
}

/// `PermitFile` is a permit, held until it is dropped.
#[derive(Debug, Default)]
pub(in crate::heal) struct PermitFile {
    #[cfg_attr(not(test), expect(dead_code, reason = "given back when it is dropped"))]
    held: Option<HeldLock>,
    /// True if another process had all permits when this one was wanted, or ended a request at the same time.
    pub(in crate::heal) was_contended: bool,
}

#[derive(Debug)]
struct HeldLock {
    shared: Arc<SharedLocks>,
    permit: usize,
    file: Option<File>,
}

type Digest = [u8; ENTRY];

const NOTHING: Digest = [0; ENTRY];

impl PermitFiles {
    /// Permits of the server `server`, in files beside this index.
    pub(in crate::heal) fn new(index: &Path, server: &str) -> Self {
        let mut base = index.to_owned().into_os_string();
        base.push(format!(".place-{}", &blake3::hash(server.as_bytes()).to_hex()[..8]));
        Self(Arc::new(SharedLocks { base: base.into(), number: fastrand::u64(1..), files: Mutex::default() }))
    }

    /// Waits for one of this many permits, for a request of this name that no other process has under way. Does not wait
    /// where no file can be locked, nor where the other processes end no request for `hang_after`: a process that is
    /// suspended keeps its locks.
    pub(in crate::heal) async fn acquire(
        &self,
        permits: usize,
        request: Option<&str>,
        hang_after: Duration,
    ) -> PermitFile {
        let mut was_contended = false;
        let (mut seen, mut since) = (None, Instant::now());
        loop {
            match self.try_acquire(permits, request) {
                Ok(Some((held, others))) => {
                    self.0.files().hung = None;
                    return PermitFile { held: Some(held), was_contended: was_contended || others };
                }
                Ok(None) => was_contended = true,
                Err(error) => {
                    let base = self.0.base.display();
                    tracing::debug!(%error, %base, "permits are not shared with other processes");
                    return PermitFile::default();
                }
            }
            let ends = self.0.ended_elsewhere().ok();
            let is_known = ends.is_some() && self.0.files().hung == ends;
            if ends != seen {
                (seen, since) = (ends, Instant::now());
            }
            if is_known || since.elapsed() >= hang_after {
                if !is_known {
                    tracing::warn!(base = %self.0.base.display(), "another process keeps all permits and ends nothing: it is not waited for");
                }
                self.0.files().hung = seen;
                return PermitFile { held: None, was_contended };
            }
            tokio::time::sleep(POLL.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Tries once. `None`: other processes have all permits, or have this very request under way. True: another process
    /// ended a request lately.
    fn try_acquire(&self, permits: usize, request: Option<&str>) -> io::Result<Option<(HeldLock, bool)>> {
        let Some(held) = self.0.lock_one(permits)? else { return Ok(None) };
        let digest = request.map_or(NOTHING, digest);
        // Written before the others are read: of two processes that want the same at once, at least one sees the other.
        self.0.write_permit_entry(held.permit, &digest)?;
        let mut entries = vec![0; (PROCESSES + PERMITS) * ENTRY];
        let length = self.0.entries_file()?.read_at(&mut entries, 0)?;
        entries.truncate(length);
        let (processes, permits) = entries.split_at(length.min(PROCESSES * ENTRY));
        if digest != NOTHING {
            for (permit, other) in permits.chunks_exact(ENTRY).enumerate() {
                if other == digest && permit != held.permit && self.0.is_taken_elsewhere(permit)? {
                    return Ok(None);
                }
            }
        }
        let others = processes.chunks_exact(ENTRY).any(|entry| self.0.is_lately_elsewhere(entry));
        Ok(Some((held, others)))
    }
}

impl SharedLocks {
    fn files(&self) -> MutexGuard<'_, LockFiles> {
        self.files.lock()
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let mut path = self.base.clone().into_os_string();
        path.push(name);
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
    }

    fn entries_file(&self) -> io::Result<Arc<File>> {
        let mut files = self.files();
        if let Some(file) = &files.entries {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(self.open("-uses")?);
        files.entries = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Locks the first free one of this many permits.
    fn lock_one(self: &Arc<Self>, permits: usize) -> io::Result<Option<HeldLock>> {
        for permit in 0..permits {
            if let Some(file) = self.try_lock(permit)? {
                return Ok(Some(HeldLock { shared: Arc::clone(self), permit, file: Some(file) }));
            }
        }
        Ok(None)
    }

    fn try_lock(&self, permit: usize) -> io::Result<Option<File>> {
        let mut files = self.files();
        if files.permits.len() <= permit {
            files.permits.resize_with(permit + 1, PermitFileState::default);
        }
        let file = match std::mem::replace(&mut files.permits[permit], PermitFileState::Taken) {
            PermitFileState::Taken => return Ok(None),
            // The file may have been deleted.
            PermitFileState::Open(file) if file.metadata().is_ok_and(|file| file.nlink() > 0) => Ok(file),
            PermitFileState::Open(_) | PermitFileState::Unopened => self.open(&format!("-{permit}")),
        };
        let state = match file {
            Ok(file) => match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => Ok(PermitFileState::Open(file)),
                Err(TryLockError::Error(error)) => Err(error),
            },
            Err(error) => Err(error),
        };
        let (state, error) = match state {
            Ok(state) => (state, None),
            Err(error) => (PermitFileState::Unopened, Some(error)),
        };
        files.permits[permit] = state;
        error.map_or(Ok(None), Err)
    }

    /// True if another process has this permit. The entry of a killed process stays, but its lock does not.
    fn is_taken_elsewhere(self: &Arc<Self>, permit: usize) -> io::Result<bool> {
        if matches!(self.files().permits.get(permit), Some(PermitFileState::Taken)) {
            return Ok(false);
        }
        let file = self.try_lock(permit)?;
        let is_taken = file.is_none();
        drop(file.map(|file| HeldLock { shared: Arc::clone(self), permit, file: Some(file) }));
        Ok(is_taken)
    }

    /// Entries of requests that the other processes ended last, with their times.
    fn ended_elsewhere(&self) -> io::Result<Vec<u8>> {
        let mut entries = vec![0; PROCESSES * ENTRY];
        let length = self.entries_file()?.read_at(&mut entries, 0)?;
        let others = entries[..length].chunks_exact(ENTRY);
        Ok(others
            .filter(|entry| entry[..ENTRY / 2] != self.number.to_be_bytes())
            .flatten()
            .copied()
            .collect())
    }

    fn is_lately_elsewhere(&self, entry: &[u8]) -> bool {
        let (number, ended) = entry.split_at(ENTRY / 2);
        let is_other = number != self.number.to_be_bytes() && number.iter().any(|byte| *byte > 0);
        let ended = u64::from_be_bytes(ended.try_into().unwrap_or_default());
        is_other && now().saturating_sub(ended) < RECENT.as_secs() * 1000
    }

    fn write_permit_entry(&self, permit: usize, digest: &Digest) -> io::Result<()> {
        if permit >= PERMITS {
            return Ok(());
        }
        self.write_entry(PROCESSES + permit, digest)
    }

    fn write_entry(&self, at: usize, entry: &Digest) -> io::Result<()> {
        let at = u64::try_from(at * ENTRY).unwrap_or(0);
        self.entries_file()?.write_all_at(entry, at)
    }

    /// Finds an entry that no other process has.
    fn own_entry(&self) -> io::Result<usize> {
        let known = self.files().entry;
        let mut entries = [0; PROCESSES * ENTRY];
        let length = self.entries_file()?.read_at(&mut entries, 0)?;
        let entries = &entries[..length];
        let is_ours = |at: usize| {
            let entry = entries.get(at * ENTRY..at * ENTRY + ENTRY / 2);
            entry.is_some_and(|entry| entry == self.number.to_be_bytes())
        };
        if let Some(at) = known.filter(|at| is_ours(*at)) {
            return Ok(at);
        }
        let is_used = |at: &usize| {
            entries.chunks_exact(ENTRY).nth(*at).is_some_and(|entry| self.is_lately_elsewhere(entry))
        };
        // A random free entry: another process may look for one at the same time.
        let first = fastrand::usize(..PROCESSES);
        let mut all = (0..PROCESSES).map(|at| (first + at) % PROCESSES);
        let at = all.find(|at| !is_used(at)).unwrap_or(first);
        self.files().entry = Some(at);
        Ok(at)
    }

    fn record_end(&self, permit: usize) -> io::Result<()> {
        let mut entry = NOTHING;
        let (number, ended) = entry.split_at_mut(ENTRY / 2);
        number.copy_from_slice(&self.number.to_be_bytes());
        ended.copy_from_slice(&now().to_be_bytes());
        self.write_entry(self.own_entry()?, &entry)?;
        self.write_permit_entry(permit, &NOTHING)
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        if let Err(error) = self.shared.record_end(self.permit) {
            tracing::debug!(%error, "the end of a request is not told to other processes");
        }
        let is_free = self.file.take().and_then(|file| file.unlock().is_ok().then_some(file));
        let state = is_free.map_or(PermitFileState::Unopened, PermitFileState::Open);
        if let Some(permit) = self.shared.files().permits.get_mut(self.permit) {
            *permit = state;
        }
    }
}

fn digest(request: &str) -> Digest {
    let mut digest = NOTHING;
    digest.copy_from_slice(&blake3::hash(request.as_bytes()).as_bytes()[..ENTRY]);
    digest
}

/// Milliseconds since the epoch: all processes share this clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    /// Permits as two processes see them.
    fn two() -> (tempfile::TempDir, PermitFiles, PermitFiles) {
        let folder = tempfile::tempdir().expect("a directory");
        let index = folder.path().join("index.db");
        let (one, other) = (PermitFiles::new(&index, "a"), PermitFiles::new(&index, "a"));
        (folder, one, other)
    }

    fn is_free(process: &PermitFiles, request: Option<&str>) -> bool {
        process.try_acquire(2, request).expect("files").is_some()
    }

    #[tokio::test]
    async fn as_many_as_there_are_permits_and_the_next_one_when_one_is_given_back() {
        let (folder, one, other) = two();
        let (first, second) = (one.acquire(2, None, LONG).await, other.acquire(2, None, LONG).await);
        assert!(!is_free(&one, None) && !is_free(&other, None));
        let elsewhere = PermitFiles::new(&folder.path().join("index.db"), "b");
        assert!(is_free(&elsewhere, None), "another server has permits of its own");
        drop(first);
        assert!(!one.acquire(2, None, LONG).await.was_contended, "nobody else ended anything");
        drop(second);
    }

    #[tokio::test]
    async fn what_another_process_is_at_or_did_lately_is_not_begun_as_if_nobody_had() {
        let (_folder, one, other) = two();
        let first = one.acquire(2, Some("canvas a"), LONG).await;
        assert!(!is_free(&other, Some("canvas a")), "it is under way");
        assert!(is_free(&other, Some("canvas b")));
        drop(first);
        assert!(other.acquire(2, Some("canvas a"), LONG).await.was_contended, "it may be done");
    }

    #[tokio::test]
    async fn what_a_killed_process_was_at_stops_nobody() {
        let (_folder, one, other) = two();
        let mut killed = one.acquire(2, Some("canvas a"), LONG).await;
        // A killed process: the kernel unlocks the file, and no entry is written.
        let file = killed.held.as_mut().and_then(|held| held.file.take()).expect("a file");
        drop(file);
        let _second = one.acquire(2, Some("canvas c"), LONG).await;
        assert!(is_free(&other, Some("canvas a")));
        std::mem::forget(killed);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_all_permits_and_ends_nothing_is_not_waited_for() {
        let (_folder, one, other) = two();
        let suspended = (one.acquire(2, None, LONG).await, one.acquire(2, None, LONG).await);
        let (begun, hang_after) = (Instant::now(), Duration::from_secs(10));
        let permit = other.acquire(2, None, hang_after).await;
        assert!(permit.held.is_none() && permit.was_contended && begun.elapsed() >= hang_after);
        let begun = Instant::now();
        drop(other.acquire(2, None, hang_after).await);
        assert!(begun.elapsed() < hang_after, "once for all");
        drop(suspended);
        assert!(other.acquire(2, None, hang_after).await.held.is_some(), "it goes on");
    }

    #[tokio::test]
    async fn files_that_were_deleted_do_not_part_two_processes() {
        let (folder, one, other) = two();
        drop((one.acquire(2, None, LONG).await, one.acquire(2, None, LONG).await));
        drop([one.acquire(2, None, LONG).await, one.acquire(2, None, LONG).await]);
        for at in 0..2 {
            let suffix = format!("-{at}");
            let files = std::fs::read_dir(folder.path()).expect("a directory").filter_map(Result::ok);
            for file in files.filter(|file| file.file_name().to_string_lossy().ends_with(&suffix)) {
                std::fs::remove_file(file.path()).expect("a file");
            }
        }
        let _held = [other.acquire(2, None, LONG).await, other.acquire(2, None, LONG).await];
        assert!(!is_free(&one, None));
    }
}
