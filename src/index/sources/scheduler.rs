//! Scheduler of sources while `serve` runs: each source at its interval, directories as soon as they change.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use crate::config::Settings;
use crate::config::settings::{SourceKind, SourceSettings};
use crate::index::sources::build::Build;
use crate::index::sources::problem::SourceProblem;
use crate::index::sources::refresh::Refresh;
use crate::index::sources::watcher::DirectoryWatcher;
use crate::index::sources::{RefreshOptions, RefreshReport, stored};
use crate::index::store::recover::PART;
use crate::index::{Index, IndexError};
use crate::observe::Metrics;

/// Interval of the look for new sources: others may be added while we serve.
const SOURCES_EVERY: Duration = Duration::from_secs(30);

/// Pause between a learned document and the count of all that were learned meanwhile.
const COUNT_DELAY: Duration = Duration::from_secs(2);

/// Keeps one index up to date. Traffic never waits for it.
#[derive(Debug)]
pub struct SourceScheduler {
    index: Arc<Index>,
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
}

/// Time of the next read of each source, by its location; `None`: never again.
type RefreshSchedule = HashMap<String, Option<Instant>>;

impl SourceScheduler {
    /// Creates a scheduler; [`SourceScheduler::run`] does the work.
    pub fn new(index: Arc<Index>, settings: Arc<Settings>, metrics: Arc<Metrics>) -> Self {
        Self { index, settings, metrics }
    }

    /// Refreshes all sources once, then each at its interval, until the future is dropped.
    pub async fn run(self) {
        let mut begun = self.index.begun_anew();
        let mut watch = DirectoryWatcher::start();
        watch.follow(&self.sources(), true);
        loop {
            begun.mark_unchanged();
            if !self.index.is_absent() {
                tokio::select! {
                    () = self.keep(&mut watch) => {}
                    _ = begun.changed() => continue,
                }
            }
            let _ = begun.changed().await;
        }
    }

    /// Keeps the index up to date, until another one is begun.
    async fn keep(&self, watch: &mut DirectoryWatcher) {
        let mut plan = RefreshSchedule::new();
        if matches!(self.index.is_empty(), Ok(true)) {
            self.build(&mut plan).await;
        }
        let mut looks = JoinSet::new();
        let mut busy = HashSet::new();
        let mut is_news = true;
        let (mut learned, mut recount) = (self.index.learned.subscribe(), None);
        loop {
            let sources = self.sources();
            watch.follow(&sources, false);
            let next = self.start_due(&sources, &mut plan, &mut busy, &mut looks);
            if busy.is_empty() && self.metrics.edge.degraded.is(PART) && self.is_filled(&sources) {
                self.metrics.edge.degraded.ends(PART);
            }
            if busy.is_empty() && std::mem::take(&mut is_news) {
                self.index.all_read.send_replace(());
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                Some(Ok(location)) = looks.join_next(), if !looks.is_empty() => {
                    let interval = sources.iter().find(|source| stored(source).1 == location);
                    plan.insert(location.clone(), interval.and_then(|source| self.next_look(source)));
                    busy.remove(&location);
                    self.count().await;
                    is_news = true;
                }
                paths = watch.changed() => {
                    self.reread(&sources, paths).await;
                    self.count().await;
                    is_news = true;
                }
                Ok(()) = learned.changed(), if recount.is_none() => recount = Some(Instant::now() + COUNT_DELAY),
                () = tokio::time::sleep_until(recount.unwrap_or(next)), if recount.is_some() => {
                    (recount, is_news) = (None, self.metrics.index_images.get() == 0);
                    learned.mark_unchanged();
                    self.count().await;
                }
            }
        }
    }

    /// Starts the refreshes that are due; returns when to call again.
    fn start_due(
        &self,
        sources: &[SourceSettings],
        plan: &mut RefreshSchedule,
        busy: &mut HashSet<String>,
        looks: &mut JoinSet<String>,
    ) -> Instant {
        let now = Instant::now();
        let mut next = now + SOURCES_EVERY;
        let locations: HashSet<String> = sources.iter().map(|source| stored(source).1).collect();
        plan.retain(|location, _| locations.contains(location));
        for source in sources {
            let location = stored(source).1;
            let Some(due) = *plan.entry(location.clone()).or_insert(Some(now)) else { continue };
            if busy.contains(&location) {
                continue;
            }
            if due > now {
                next = next.min(due);
                continue;
            }
            busy.insert(location.clone());
            let (index, source, options) = (Arc::clone(&self.index), source.clone(), self.options());
            let log = self.log();
            looks.spawn(async move {
                let looked =
                    spawn_blocking(move || Refresh::new(&index, &options).run(&[source], &mut |_, _| {}))
                        .await;
                if let Ok(looked) = looked {
                    log.report(&location, looked);
                }
                location
            });
        }
        next
    }

    /// An empty index is built in bulk from local files; URL sources follow one by one.
    async fn build(&self, plan: &mut RefreshSchedule) {
        let all = self.settings.index.sources.iter();
        let paths: Vec<SourceSettings> =
            all.filter(|source| matches!(source.kind(), SourceKind::Path(_))).cloned().collect();
        let (index, configured, options) = (Arc::clone(&self.index), paths.clone(), self.options());
        let built =
            spawn_blocking(move || Build::new(&index, &options).run(&configured, &mut |_, _| {})).await;
        if let Ok(Ok(report)) = built {
            self.log().report("all directories", Ok(report));
            for source in paths {
                plan.insert(stored(&source).1, self.next_look(&source));
            }
        } else if let Ok(Err(error)) = built {
            // Another process may be building it: then its sources are read one by one.
            tracing::warn!(%error, "the index is not built in one go");
        }
        self.count().await;
    }

    async fn reread(&self, sources: &[SourceSettings], paths: BTreeSet<PathBuf>) {
        let (index, sources, options) = (Arc::clone(&self.index), sources.to_vec(), self.options());
        let read =
            spawn_blocking(move || Refresh::new(&index, &options).paths(&sources, &paths, &mut |_, _| {}))
                .await;
        match read {
            // A change that does not concern us.
            Ok(Ok(report)) if report == RefreshReport::default() => {}
            Ok(read) => self.log().report("watched directories", read),
            Err(_) => {}
        }
    }

    /// True if the index knows a document, or there are no sources.
    fn is_filled(&self, sources: &[SourceSettings]) -> bool {
        sources.is_empty() || matches!(self.index.is_empty(), Ok(false))
    }

    async fn count(&self) {
        let index = Arc::clone(&self.index);
        match spawn_blocking(move || index.stats()).await {
            Ok(Ok(stats)) => {
                let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
                self.metrics.index_manifests.set(gauge(stats.manifests));
                self.metrics.index_canvases.set(gauge(stats.canvases));
                self.metrics.index_images.set(gauge(stats.images));
                let size = tokio::fs::metadata(&stats.file).await.map_or(0, |file| file.len());
                self.metrics.index_bytes.set(gauge(size));
                let (manifests, canvases, images) = (stats.manifests, stats.canvases, stats.images);
                tracing::info!(manifests, canvases, images, "index");
            }
            Ok(Err(error)) => tracing::error!(%error, "the index cannot be counted"),
            Err(_) => {}
        }
    }

    /// Sources to refresh; if the index cannot be read, the configured ones only.
    fn sources(&self) -> Vec<SourceSettings> {
        let configured = &self.settings.index.sources;
        self.index.sources(configured).unwrap_or_else(|error| {
            tracing::warn!(%error, "the added sources cannot be read from the index");
            configured.iter().filter(|source| source.enabled).cloned().collect()
        })
    }

    fn next_look(&self, source: &SourceSettings) -> Option<Instant> {
        let interval = source.interval.unwrap_or(self.settings.index.refresh);
        (!interval.is_zero()).then(|| Instant::now() + interval)
    }

    fn log(&self) -> RefreshLog {
        RefreshLog {
            metrics: Arc::clone(&self.metrics),
            has_setup: !self.settings.admin.setup_check.is_zero(),
        }
    }

    fn options(&self) -> RefreshOptions {
        RefreshOptions { grace: self.settings.index.grace }
    }
}

/// Writes to the log and to the metrics what was read.
struct RefreshLog {
    metrics: Arc<Metrics>,
    /// True where the check of the setup tells what is wrong with a source as a whole: once is enough.
    has_setup: bool,
}

impl RefreshLog {
    fn report(&self, what: &str, looked: Result<RefreshReport, IndexError>) {
        let report = match looked {
            Ok(report) => report,
            Err(error) => {
                tracing::error!(%error, source = without_query(what), "a source cannot be looked at; the index stays as it is");
                return;
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.metrics.index_refreshed.set(i64::try_from(now).unwrap_or(i64::MAX));
        let is_told_here = |problem: &&SourceProblem| !(self.has_setup && problem.is_in_setup);
        for problem in report.problems.iter().filter(is_told_here) {
            tracing::warn!(path = %problem.path, line = problem.line, column = problem.column,
                hint = problem.hint, "a source has a problem: {}", problem.message);
        }
        for warning in report.warnings.iter().filter(is_told_here) {
            tracing::warn!(path = %warning.path, hint = warning.hint, "{}", warning.message);
        }
        tracing::info!(
            source = without_query(what),
            documents = report.files,
            manifests = report.manifests,
            unchanged = report.unchanged,
            vanished = report.vanished,
            passed_over = report.passed_over,
            problems = report.problems.len(),
            "sources looked at"
        );
    }
}

/// SECURITY: a source's URL may carry a key in its query.
fn without_query(location: &str) -> &str {
    if location.contains("://") { location.split('?').next().unwrap_or(location) } else { location }
}
