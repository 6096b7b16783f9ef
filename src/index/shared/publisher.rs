//! `index.store = "redis"`: the index of the fleet is an edition in Redis, and the SQLite file a copy of it.
//!
//! The editor is the one node that reads the sources and publishes editions. The other nodes read these editions, and from the
//! stream what was learned since. A node that is alone for a while reads the sources itself, as without a cluster.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use crate::cluster::{Cluster, Edition};
use crate::config::Settings;
use crate::index::shared::snapshot::IndexEdition;
use crate::index::sources::scheduler::SourceScheduler;
use crate::index::store::recover::PART;
use crate::index::{Index, IndexError};
use crate::observe::{EventKind, Metrics};

/// Poll interval. Pub/sub messages can be lost, and the editor must renew its lease.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Time alone after which a node that was joined reads the sources itself. Sooner, one slow command of Redis would send
/// every node to all sources at once.
const ALONE: Duration = Duration::from_secs(30);

/// Keeps the copy of one node, and publishes where it is the editor.
#[derive(Debug)]
pub struct IndexReplicator {
    pub(crate) index: Arc<Index>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Reasons why an index could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Redis is away.
    #[error("Redis is away: the index was not published to the other nodes; see [cluster] url")]
    Alone,
    /// The edition is longer than `cluster.edition_max`.
    #[error("the index is longer than [cluster] edition_max: it was not published to the other nodes")]
    TooLong,
    /// Error of the index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Last edition that the editor published.
#[derive(Default)]
struct LastPublished {
    edition: Option<Edition>,
    fingerprint: Option<(i64, i64, i64)>,
    at: Option<Instant>,
}

/// Runs the source scheduler until it is dropped.
struct SchedulerGuard(AbortHandle);

impl Drop for SchedulerGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl IndexReplicator {
    /// Replicates until the future is dropped.
    pub async fn run(self) {
        let (mut editions, mut link) = (self.cluster.editions(), self.cluster.changes());
        let mut begun = self.index.begun_anew();
        // A node with an empty disk must not read all sources because Redis is a moment late.
        let patience = self.settings.cluster.connect_timeout * 2;
        let was_joined = timeout(patience, link.wait_for(|joined| *joined)).await.is_ok();
        let mut last_joined = was_joined.then(Instant::now);
        let (mut published, mut keeping) = (LastPublished::default(), None);
        loop {
            editions.mark_unchanged();
            link.mark_unchanged();
            begun.mark_unchanged();
            self.catch_up().await;
            let is_editor = self.is_editor().await;
            let is_joined = self.cluster.is_joined();
            if is_joined {
                last_joined = Some(Instant::now());
            }
            let is_left = !is_joined && last_joined.is_none_or(|last| last.elapsed() >= ALONE);
            if is_editor || is_left {
                keeping.get_or_insert_with(|| self.spawn_scheduler());
            } else if is_joined {
                keeping = None;
            }
            if is_editor {
                self.publish_changes(&mut published).await;
            }
            let pause = POLL_INTERVAL.min(self.settings.cluster.edition_every);
            tokio::select! {
                _ = editions.changed() => {}
                _ = link.changed() => {}
                _ = begun.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// True if this node is the editor; a node without sources never is.
    async fn is_editor(&self) -> bool {
        !self.settings.index.sources.is_empty() && self.cluster.is_editor().await
    }

    fn spawn_scheduler(&self) -> SchedulerGuard {
        let (index, settings) = (Arc::clone(&self.index), Arc::clone(&self.settings));
        let scheduler = SourceScheduler::new(index, settings, Arc::clone(&self.metrics));
        SchedulerGuard(tokio::spawn(scheduler.run()).abort_handle())
    }

    /// Reads the edition that is there, if it is another than ours.
    async fn catch_up(&self) {
        let Some(Some(name)) = self.cluster.edition_name().await else { return };
        let index = Arc::clone(&self.index);
        if matches!(spawn_blocking(move || IndexEdition { index: &index }.name()).await, Ok(Ok(Some(own))) if own == name)
        {
            return;
        }
        let Some(Some(edition)) = self.cluster.edition().await else { return };
        let (index, cluster, handle) =
            (Arc::clone(&self.index), Arc::clone(&self.cluster), Handle::current());
        let chunks = edition.chunks.len();
        let read = spawn_blocking(move || {
            IndexEdition { index: &index }.read(&edition, &mut |name| handle.block_on(cluster.chunk(name)))
        });
        match read.await {
            Ok(Ok(true)) => {
                self.metrics.event(EventKind::EditionRead);
                self.metrics.edge.degraded.ends(PART);
                tracing::info!(edition = name, chunks, "the index of the other nodes was read from Redis");
            }
            Ok(Ok(false)) => {
                self.metrics.event(EventKind::EditionBroken);
                tracing::warn!(edition = name, "a part of the index in Redis is not to be had; ours goes on");
            }
            Ok(Err(error)) => tracing::warn!(%error, "the index in Redis cannot be kept here; ours goes on"),
            Err(_) => {}
        }
    }

    /// Publishes changes, every `cluster.edition_every` at most; and renews the present edition.
    async fn publish_changes(&self, published: &mut LastPublished) {
        let is_whole = match &published.edition {
            Some(edition) => self.cluster.keep_edition(edition).await == Some(true),
            None => false,
        };
        let index = Arc::clone(&self.index);
        let Ok(Ok(fingerprint)) = spawn_blocking(move || IndexEdition { index: &index }.fingerprint()).await
        else {
            return;
        };
        let is_due = published.at.is_none_or(|at| at.elapsed() >= self.settings.cluster.edition_every);
        // An empty index is not published: the sources are still being read.
        if is_whole && published.fingerprint == Some(fingerprint) || !is_due || fingerprint.0 == 0 {
            return;
        }
        published.at = Some(Instant::now());
        match publish(&self.index, &self.cluster, self.settings.cluster.edition_max).await {
            Ok(edition) => {
                self.metrics.event(EventKind::EditionPublished);
                tracing::info!(
                    edition = edition.name,
                    chunks = edition.chunks.len(),
                    "the index was published"
                );
                (published.edition, published.fingerprint) = (Some(edition), Some(fingerprint));
            }
            Err(PublishError::Alone) => {}
            Err(error) => {
                self.metrics.event(EventKind::EditionFailed);
                tracing::warn!(%error, "the index was not published");
            }
        }
    }
}

/// Publishes the index as it is now, `most` bytes at most.
pub async fn publish(index: &Arc<Index>, cluster: &Arc<Cluster>, most: u64) -> Result<Edition, PublishError> {
    let position = cluster.learned_up_to().await.ok_or(PublishError::Alone)?;
    let (own, to, handle) = (Arc::clone(index), Arc::clone(cluster), Handle::current());
    let written = spawn_blocking(move || {
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        let is_all = IndexEdition { index: &own }.write(&mut |packed| {
            bytes += u64::try_from(packed.len()).unwrap_or(u64::MAX);
            let name = if bytes > most { None } else { handle.block_on(to.put_chunk(&packed)) };
            chunks.extend(name.clone());
            name.is_some()
        })?;
        Ok::<_, PublishError>(match is_all {
            true => chunks,
            false if bytes > most => return Err(PublishError::TooLong),
            false => return Err(PublishError::Alone),
        })
    });
    let chunks = written.await.map_err(|_| PublishError::Alone)??;
    let edition = Edition::of(chunks, position);
    // Recorded before the announcement: the publisher need not read its own edition.
    let (own, name) = (Arc::clone(index), edition.name.clone());
    spawn_blocking(move || IndexEdition { index: &own }.record_name(Some(&name)))
        .await
        .map_err(|_| PublishError::Alone)??;
    if cluster.publish(&edition).await { Ok(edition) } else { Err(PublishError::Alone) }
}
