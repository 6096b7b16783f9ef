//! Detects that the content of the configuration or of a certificate has changed.
//!
//! The files are checked once a second, by their names: that costs nearly nothing, and finds changes that watching a
//! directory misses, as on network file systems and behind the chains of links by which Kubernetes renews its volumes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Settings;

const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Watched files.
#[derive(Debug)]
pub(super) struct FileWatcher {
    config: PathBuf,
    all: Vec<PathBuf>,
    seen: Vec<FileState>,
}

/// Identity of a file's content; `None`: there is no such file.
type FileState = Option<(u64, u64, i64, i64, u32)>;

impl FileWatcher {
    /// Watches the configuration and the files that it names.
    pub(super) fn of(config: &Path, settings: &Settings) -> Self {
        let mut files = Self { config: config.to_owned(), all: Vec::new(), seen: Vec::new() };
        files.follow(settings);
        files
    }

    /// Follows the files that these settings name.
    pub(super) fn follow(&mut self, settings: &Settings) {
        let pairs = settings.server.tls.iter().chain(&settings.admin.tls);
        let pairs = pairs.chain(&settings.upstream.client_certificate);
        let named = pairs.flat_map(|files| files.cert.iter().chain(&files.key)).cloned();
        let alone = [&settings.admin.token_file, &settings.admin.client_ca, &settings.upstream.ca];
        let alone = alone.into_iter().flatten().cloned();
        self.all = std::iter::once(self.config.clone()).chain(named).chain(alone).collect();
        self.seen = self.states();
    }

    /// Waits until a file changes, and then until no file changes for an interval: editors write in pieces, and of a pair
    /// the certificate comes before the key.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let mut states = self.states();
            if states == self.seen {
                continue;
            }
            loop {
                tokio::time::sleep(CHECK_INTERVAL).await;
                let later = self.states();
                if later == states {
                    break;
                }
                states = later;
            }
            self.seen = states;
            return;
        }
    }

    fn states(&self) -> Vec<FileState> {
        let state = |path: &PathBuf| {
            let file = fs::metadata(path).ok()?;
            let owner = file.mode() ^ file.uid().rotate_left(16);
            Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec(), owner))
        };
        self.all.iter().map(state).collect()
    }
}
