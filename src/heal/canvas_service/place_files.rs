//! Places that processes on one machine share: `heal` beside a running `serve` must not double what the canvas service is
//! asked for at once. Each place is a file beside the index that one process at a time has locked; a process that is
//! killed gives its locks back.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a place is looked for while other processes have all of them.
const LOOK: Duration = Duration::from_millis(10);

/// `PlaceFiles` are the places at one canvas service.
#[derive(Debug)]
pub(in crate::heal) struct PlaceFiles {
    base: PathBuf,
}

/// A place, as long as it is not dropped.
#[derive(Debug, Default)]
pub(in crate::heal) struct PlaceFile {
    _file: Option<File>,
    /// Another process had all places when it was wanted.
    pub(in crate::heal) was_contended: bool,
}

impl PlaceFiles {
    /// Beside this index; `server` is asked.
    pub(in crate::heal) fn new(index: &Path, server: &str) -> Self {
        let mut base = index.to_owned().into_os_string();
        base.push(format!(".place-{}", &blake3::hash(server.as_bytes()).to_hex()[..8]));
        Self { base: base.into() }
    }

    /// Waits for one of so many places. Where no file can be locked there is nothing to wait for.
    pub(in crate::heal) async fn place(&self, places: usize) -> PlaceFile {
        let mut was_contended = false;
        loop {
            match self.try_place(places) {
                Ok(file) => return PlaceFile { _file: Some(file), was_contended },
                Err(TryLockError::WouldBlock) => was_contended = true,
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(%error, base = %self.base.display(), "places are not shared with other processes");
                    return PlaceFile::default();
                }
            }
            tokio::time::sleep(LOOK.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    fn try_place(&self, places: usize) -> Result<File, TryLockError> {
        let mut last = TryLockError::WouldBlock;
        for number in 0..places {
            let mut name = self.base.clone().into_os_string();
            name.push(format!("-{number}"));
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name);
            let file = file.map_err(TryLockError::Error)?;
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_as_there_are_places_and_the_next_one_when_one_is_given_back() {
        let folder = tempfile::tempdir().expect("a directory");
        let index = folder.path().join("index.db");
        let (one, other) = (PlaceFiles::new(&index, "a"), PlaceFiles::new(&index, "a"));
        let (first, second) = (one.place(2).await, other.place(2).await);
        assert!(matches!(one.try_place(2), Err(TryLockError::WouldBlock)));
        assert!(PlaceFiles::new(&index, "b").try_place(2).is_ok(), "another server has places of its own");
        drop(first);
        assert!(!one.place(2).await.was_contended);
        drop(second);
    }
}
