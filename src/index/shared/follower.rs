//! Follower of other nodes: reads the cluster's stream of learned entries, from the stored position on, and writes them to
//! this index.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::OptionalExtension as _;
use tokio::task::spawn_blocking;

use crate::cluster::{Cluster, LearnedBatch, LearnedEntry};
use crate::config::Settings;
use crate::config::settings::IndexStore;
use crate::index::learn::DocumentLearner;
use crate::index::shared::snapshot::IndexEdition;
use crate::index::sources::refresh::Refresh;
use crate::index::sources::{RefreshOptions, RefreshReport};
use crate::index::{Index, IndexError};
use crate::observe::{EventKind, Metrics};
use crate::upstream::coding::ContentCoding;

/// Poll interval, because pub/sub messages can be lost.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Delay before reading, so that messages that come one after the other are read together.
const READ_DELAY: Duration = Duration::from_millis(100);

/// Follows the learned entries of other nodes.
#[derive(Debug)]
pub struct LearnedFollower {
    pub(crate) index: Arc<Index>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) metrics: Arc<Metrics>,
}

impl LearnedFollower {
    /// Follows until the future is dropped.
    pub async fn run(self) {
        let (mut learnings, mut link) = (self.cluster.subscribe_learned(), self.cluster.changes());
        loop {
            learnings.mark_unchanged();
            link.mark_unchanged();
            self.catch_up().await;
            tokio::select! {
                _ = learnings.changed() => {}
                // Joined again: messages were missed.
                _ = link.changed() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            tokio::time::sleep(READ_DELAY).await;
        }
    }

    /// Reads to the end of the stream, or until we are alone.
    async fn catch_up(&self) {
        let index = Arc::clone(&self.index);
        let mut position = spawn_blocking(move || position(&index)).await.ok().and_then(Result::ok).flatten();
        while let Some(news) = self.cluster.learned(position.as_deref()).await {
            if news.is_behind {
                self.start_over().await;
            }
            let Some(next) = news.position.clone() else { return };
            let (index, metrics) = (Arc::clone(&self.index), Arc::clone(&self.metrics));
            let most = self.settings.presentation.max_body;
            let taken = spawn_blocking(move || take_in(&index, news, most, &metrics)).await;
            if let Ok(Err(error)) = taken {
                tracing::warn!(%error, "what other nodes learned cannot be remembered; tried again later");
                return;
            }
            position = Some(next);
        }
    }

    /// Starts over when too far behind: the sources (or the edition) are read again, and then the rest of the stream.
    async fn start_over(&self) {
        self.metrics.event(EventKind::ClusterBehind);
        tracing::warn!(
            "too far behind the other nodes: what they learned meanwhile is gone, reading all again"
        );
        let (index, settings) = (Arc::clone(&self.index), Arc::clone(&self.settings));
        let read = spawn_blocking(move || {
            if settings.index.store == IndexStore::Redis {
                return IndexEdition { index: &index }.record_name(None).map(|()| RefreshReport::default());
            }
            let sources = index.sources(&settings.index.sources)?;
            Refresh::new(&index, &RefreshOptions { grace: settings.index.grace })
                .run(&sources, &mut |_, _| {})
        });
        if let Ok(Err(error)) = read.await {
            tracing::warn!(%error, "the sources cannot be read again");
        }
        // An emptied stream has no entries, and so gives no new position; with the old position this node would be behind
        // again at the next poll, and at each one after it.
        let index = Arc::clone(&self.index);
        if let Ok(Err(error)) = spawn_blocking(move || loses_place(&index)).await {
            tracing::warn!(%error, "the place among what was learned cannot be forgotten");
        }
    }
}

/// Position in the stream of the other nodes.
fn position(index: &Index) -> Result<Option<String>, IndexError> {
    index.read(|conn| {
        conn.query_row("SELECT value FROM marks WHERE name = 'fleet'", [], |row| row.get(0)).optional()
    })
}

/// Resets the position to the beginning of the stream.
fn loses_place(index: &Index) -> Result<(), IndexError> {
    index.write(|conn| {
        conn.execute("DELETE FROM marks WHERE name = 'fleet'", [])?;
        Ok(())
    })
}

/// Learns another node's entry, as if the document had passed through this node, and stores the position.
fn take_in(index: &Index, news: LearnedBatch, most: usize, metrics: &Metrics) -> Result<(), IndexError> {
    for learned in news.entries {
        match learned {
            LearnedEntry::Document { url, packed } => {
                let unpacked = ContentCoding::Gzip.unpack(&packed.into(), most);
                let read = unpacked.ok().and_then(|plain| index.read_document(&plain).ok());
                let Some(read) = read else { continue };
                DocumentLearner::new(index).document(&read.document, &read.canvases, &url)?;
            }
            LearnedEntry::File { uuid, url } => {
                let Ok(uuid) = uuid.parse() else { continue };
                match index.learn_file_url(uuid, &url) {
                    // SECURITY: not the file of that UUID, whichever node claims it.
                    Err(IndexError::WrongFile { .. }) => continue,
                    learned => learned?,
                }
            }
        }
        metrics.event(EventKind::ClusterLearned);
    }
    index.write(|conn| {
        let mut keep =
            conn.prepare_cached("INSERT OR REPLACE INTO marks (name, value) VALUES ('fleet', ?1)")?;
        keep.execute([&news.position])?;
        Ok(())
    })
}
