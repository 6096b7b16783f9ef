//! Stream of documents and file URLs that nodes learned, for the indexes of all: bounded. Each node keeps its position in
//! its own index.

use std::sync::Arc;

use redis::streams::StreamRangeReply;

use super::Cluster;
use super::link::millis;
use super::scripts::LEARN;
use crate::observe::EventKind;

/// The longest document that is passed on, packed. Longer ones every node learns for itself.
const LONGEST: usize = 256 << 10;

/// Entries read at once: few, so that they come within `command_timeout`.
const PAGE: usize = 8;

/// Channel that announces new entries of the stream to every node.
pub(super) const LEARNED: &str = "learned";

/// Entry of the stream: a fact that a node learned.
#[derive(Debug)]
pub enum LearnedEntry {
    /// A manifest or canvas that passed through there.
    Document {
        /// Public URL of the document.
        url: String,
        /// JSON of the document, gzip.
        packed: Vec<u8>,
    },
    /// The file behind a UUID. SECURITY: a claim, to be verified like any other.
    File {
        /// The UUID, as text.
        uuid: String,
        /// The file URL.
        url: String,
    },
}

/// Batch of entries of the stream.
#[derive(Debug, Default)]
pub struct LearnedBatch {
    /// Entries in order.
    pub entries: Vec<LearnedEntry>,
    /// Position to go on from.
    pub position: Option<String>,
    /// True if entries in between are gone: there were too many, or Redis was flushed.
    pub is_behind: bool,
}

impl Cluster {
    /// Publishes to the other nodes in the background; while Redis is unreachable the entry is dropped.
    pub fn publish_learned(&self, learned: &LearnedEntry) {
        let (kind, name, body) = match learned {
            LearnedEntry::Document { url, packed } => ("document", url, packed.as_slice()),
            LearnedEntry::File { uuid, url } => ("file", uuid, url.as_bytes()),
        };
        if body.len() > LONGEST {
            self.link.metrics.event(EventKind::ClusterTooLong);
            return;
        }
        if !self.link.is_joined() {
            return;
        }
        let settings = &self.link.settings;
        let mut add = LEARN.key(self.stream());
        add.arg(settings.learned).arg(settings.learned_max).arg(millis(settings.edition_lasts));
        add.arg(&self.link.node).arg(kind).arg(name).arg(body);
        let channel = format!("{}:all", self.link.settings.prefix);
        let publish = redis::cmd("PUBLISH").arg(channel).arg(format!("{LEARNED} {}", self.link.node)).take();
        let link = Arc::clone(&self.link);
        tokio::spawn(async move {
            if link.run::<redis::Value>(&add).await.is_some() {
                let _told: Option<redis::Value> = link.send(&publish).await;
            }
        });
    }

    /// Returns the entries after `position`; `None`: Redis is unreachable.
    pub async fn learned(&self, position: Option<&str>) -> Option<LearnedBatch> {
        let range = |from: &str, to: &str, count: usize| {
            redis::cmd("XRANGE").arg(self.stream()).arg(from).arg(to).arg("COUNT").arg(count).take()
        };
        let mut from = "-".to_owned();
        let mut is_behind = false;
        if let Some(position) = position {
            let first: StreamRangeReply = self.link.send(&range("-", "+", 1)).await?;
            let first = first.ids.first().map(|id| number(&id.id));
            let last = self.learned_up_to().await?.map(|last| number(&last));
            is_behind = first > Some(number(position)) || last < Some(number(position));
            if !is_behind {
                from = format!("({position}");
            }
        }
        let page: StreamRangeReply = self.link.send(&range(&from, "+", PAGE)).await?;
        let position = page.ids.last().map(|id| id.id.clone());
        let entries = page.ids.iter().filter(|id| id.get::<String>("node").as_ref() != Some(&self.link.node));
        let entries = entries.filter_map(|id| {
            let name = id.get("name")?;
            match id.get::<String>("kind")?.as_str() {
                "document" => Some(LearnedEntry::Document { url: name, packed: id.get("body")? }),
                "file" => Some(LearnedEntry::File { uuid: name, url: id.get("body")? }),
                _ => None,
            }
        });
        Some(LearnedBatch { entries: entries.collect(), position, is_behind })
    }

    /// Last position of the stream; `Some(None)`: the stream is empty, `None`: Redis is unreachable.
    pub async fn learned_up_to(&self) -> Option<Option<String>> {
        let mut last = redis::cmd("XREVRANGE");
        last.arg(self.stream()).arg("+").arg("-").arg("COUNT").arg(1);
        let last: StreamRangeReply = self.link.send(&last).await?;
        Some(last.ids.into_iter().next().map(|id| id.id))
    }

    /// Changes whenever another node has learned something.
    pub fn subscribe_learned(&self) -> tokio::sync::watch::Receiver<u64> {
        self.learnings.clone()
    }

    fn stream(&self) -> String {
        self.link.key(LEARNED, "stream")
    }
}

/// An id of the stream, `milliseconds-number`, as it is ordered.
fn number(id: &str) -> (u64, u64) {
    let (time, number) = id.split_once('-').unwrap_or((id, "0"));
    (time.parse().unwrap_or(0), number.parse().unwrap_or(0))
}
