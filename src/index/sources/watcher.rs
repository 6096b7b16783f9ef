//! Watches the directories of the sources, so that a changed file is read again at once and not an hour later.
//!
//! The kernel tells paths only, and may lose some; network file systems tell nothing. So a path is only a reason
//! to look there, and the look that comes from time to time stays.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notify_debouncer_full::notify::{EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::Notify;

use crate::config::settings::{Source, SourceKind};
use crate::index::Index;
use crate::index::sources::directory::Found;
use crate::index::sources::{Options, Progress, Report, directory, stored};
use crate::index::store::error::IndexError;
use crate::index::store::readers::lock;
use crate::index::store::{rows, writer};

/// Changes closer together than this are one.
const CALM: Duration = Duration::from_millis(250);

/// More changed paths than this are a reason to look at everything.
const PATHS: usize = 20_000;

/// What changed on disk since it was last asked.
#[derive(Debug, Default)]
struct Heard {
    paths: Mutex<BTreeSet<PathBuf>>,
    any: Notify,
}

/// The directories that are watched.
pub(in crate::index) struct Watch {
    debouncer: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
    heard: Arc<Heard>,
    /// Roots with what they were when the watch began: one that was made anew must be watched anew.
    roots: BTreeMap<PathBuf, (u64, u64)>,
    /// Roots of which was said that they cannot be watched.
    told: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches nothing yet.
    pub(in crate::index) fn start() -> Self {
        let heard = Arc::new(Heard::default());
        let listener = Arc::clone(&heard);
        let debouncer = new_debouncer(CALM, None, move |result| listener.hear(result));
        let debouncer = debouncer.inspect_err(|error| {
            tracing::warn!(%error, "directories cannot be watched: their changes are seen at the next look ([index] refresh)");
        });
        Self { debouncer: debouncer.ok(), heard, roots: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Watches the directories of these sources, and no others. Those that are new here count as changed, unless
    /// this is the first time.
    pub(in crate::index) fn follow(&mut self, sources: &[Source], is_first: bool) {
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

    /// Waits until something changed, and tells what.
    pub(in crate::index) async fn changed(&self) -> BTreeSet<PathBuf> {
        loop {
            let paths = std::mem::take(&mut *lock(&self.heard.paths));
            if !paths.is_empty() {
                return paths;
            }
            self.heard.any.notified().await;
        }
    }
}

impl Heard {
    fn hear(&self, result: DebounceEventResult) {
        match result {
            Ok(events) => {
                let relevant = events.into_iter().filter(|event| !matches!(event.kind, EventKind::Access(_)));
                // An event without a path says that some were lost.
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
        let mut paths = lock(&self.paths);
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

/// What must be watched to see a source change: a directory with all below it, or the directory of a file.
fn root(source: &Source) -> Option<(PathBuf, RecursiveMode)> {
    let SourceKind::Path(_) = &source.kind else { return None };
    let path = PathBuf::from(stored(source).1);
    if path.is_file() {
        return Some((path.parent()?.to_path_buf(), RecursiveMode::NonRecursive));
    }
    Some((path, RecursiveMode::Recursive))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Index {
    /// Looks at these paths again, as far as they belong to one of the sources: each changed file is one
    /// transaction. What is no longer there has vanished, and is kept for the grace.
    pub fn reread(
        &self,
        sources: &[Source],
        paths: &BTreeSet<PathBuf>,
        options: &Options,
        progress: Progress<'_>,
    ) -> Result<Report, IndexError> {
        let mut report = Report::default();
        for source in sources {
            let SourceKind::Path(path) = &source.kind else { continue };
            let root = PathBuf::from(stored(source).1);
            if paths.iter().any(|path| root.starts_with(path)) {
                // The whole of it, or what it stands in; a root that is away proves nothing.
                if root.exists() {
                    self.refresh_path(source, path, options, &mut report, progress)?;
                }
                continue;
            }
            let mine: Vec<&PathBuf> = paths.iter().filter(|path| path.starts_with(&root)).collect();
            if mine.is_empty() || !root.exists() {
                continue;
            }
            let (kind, location) = stored(source);
            let row = self.write(|conn| Ok(writer::source_row(conn, kind, &location, false)?))?;
            for path in mine {
                self.reread_one(row, path, options, &mut report, progress)?;
            }
        }
        Ok(report)
    }

    fn reread_one(
        &self,
        row: i64,
        path: &Path,
        options: &Options,
        report: &mut Report,
        progress: Progress<'_>,
    ) -> Result<(), IndexError> {
        if !path.exists() {
            let name = path.to_string_lossy();
            let gone = self.read(|conn| rows::ids_below(conn, row, &name))?;
            return if gone.is_empty() { Ok(()) } else { self.drop_vanished(row, &gone, options, report) };
        }
        if path.is_file() && !directory::is_document(path) {
            return Ok(());
        }
        let mut unseen = BTreeSet::new();
        // What went away again is told of by the next event.
        for found in directory::find(path) {
            let Found::Document(file) = found else { continue };
            self.refresh_file(row, &file, &mut unseen, report)?;
            progress(report, &file.to_string_lossy());
        }
        Ok(())
    }
}
