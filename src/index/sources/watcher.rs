//! Watches the directories of the sources, so that a changed file is read again at once and not an hour later.
//!
//! The kernel reports paths only, and may lose some; network file systems report nothing. So a reported path only starts
//! a read of that path, and the refresh at each interval stays.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify_debouncer_full::notify::{EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::settings::{SourceKind, SourceSettings};
use crate::index::sources::stored;

/// Changes closer together than this are one.
const DEBOUNCE: Duration = Duration::from_millis(250);

/// Changed paths beyond which the whole source is refreshed.
const PATHS: usize = 20_000;

/// Paths changed on disk since the last call.
#[derive(Debug, Default)]
struct ChangedPaths {
    paths: Mutex<BTreeSet<PathBuf>>,
    any: Notify,
}

/// The directories that are watched.
pub(crate) struct DirectoryWatcher {
    debouncer: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
    heard: Arc<ChangedPaths>,
    /// Roots with their identity at the start of the watch: a directory that was made anew must be watched anew.
    roots: BTreeMap<PathBuf, (u64, u64)>,
    /// Roots that were reported as not watchable.
    told: BTreeSet<PathBuf>,
}

impl DirectoryWatcher {
    /// Watches nothing yet.
    pub(crate) fn start() -> Self {
        let heard = Arc::new(ChangedPaths::default());
        let listener = Arc::clone(&heard);
        let debouncer = new_debouncer(DEBOUNCE, None, move |result| listener.receive(result));
        let debouncer = debouncer.inspect_err(|error| {
            tracing::warn!(%error, "directories cannot be watched: their changes are seen at the next look ([index] refresh)");
        });
        Self { debouncer: debouncer.ok(), heard, roots: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Watches the directories of these sources, and no others. New ones count as changed, unless `is_first`.
    pub(crate) fn follow(&mut self, sources: &[SourceSettings], is_first: bool) {
        let Some(debouncer) = self.debouncer.as_mut() else { return };
        let wanted: BTreeMap<PathBuf, RecursiveMode> = sources.iter().filter_map(root).collect();
        self.roots.retain(|root, was| {
            let keep = wanted.contains_key(root) && identity(root) == Some(*was);
            if !keep {
                let _ = debouncer.unwatch(root);
            }
            keep
        });
        for (root, mode) in wanted {
            let Some(identity) = identity(&root).filter(|_| !self.roots.contains_key(&root)) else {
                continue;
            };
            match debouncer.watch(&root, mode) {
                Ok(()) => {
                    self.told.remove(&root);
                    if !is_first {
                        self.heard.add([root.clone()]);
                    }
                    self.roots.insert(root, identity);
                }
                Err(error) => {
                    if self.told.insert(root.clone()) {
                        tracing::warn!(path = %root.display(), %error,
                            "a directory cannot be watched: its changes are seen at the next look ([index] refresh)");
                    }
                }
            }
        }
    }

    /// Waits for changes, and returns the changed paths.
    pub(crate) async fn changed(&self) -> BTreeSet<PathBuf> {
        loop {
            let paths = std::mem::take(&mut *self.heard.paths.lock());
            if !paths.is_empty() {
                return paths;
            }
            self.heard.any.notified().await;
        }
    }
}

impl ChangedPaths {
    fn receive(&self, result: DebounceEventResult) {
        match result {
            Ok(events) => {
                let relevant = events.into_iter().filter(|event| !matches!(event.kind, EventKind::Access(_)));
                // An event without a path means that events were lost.
                self.add(relevant.flat_map(|event| {
                    let lost = event.need_rescan().then(|| PathBuf::from("/"));
                    event.event.paths.into_iter().chain(lost)
                }));
            }
            Err(errors) => {
                for error in &errors {
                    tracing::debug!(%error, "watching");
                }
                self.add([PathBuf::from("/")]);
            }
        }
    }

    fn add(&self, more: impl IntoIterator<Item = PathBuf>) {
        let mut paths = self.paths.lock();
        paths.extend(more);
        if paths.len() > PATHS {
            *paths = BTreeSet::from([PathBuf::from("/")]);
        }
        let is_any = !paths.is_empty();
        drop(paths);
        if is_any {
            self.any.notify_one();
        }
    }
}

/// Path to watch for a source: a directory with all below it, or the directory of a file.
fn root(source: &SourceSettings) -> Option<(PathBuf, RecursiveMode)> {
    let SourceKind::Path(_) = source.kind() else { return None };
    let path = PathBuf::from(stored(source).1);
    if path.is_file() {
        return Some((path.parent()?.to_path_buf(), RecursiveMode::NonRecursive));
    }
    Some((path, RecursiveMode::Recursive))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
