//! Editions of the index for all nodes: an edition is a list of chunks, each named by the hash of its content. So an
//! unchanged chunk is not sent again, and a damaged one is detected.

use std::time::Duration;

use tokio::sync::watch;

use super::Cluster;
use super::link::millis;
use super::scripts::RENEW;

/// Channel that announces a new edition to every node.
pub(super) const EDITION: &str = "edition";

/// Time that chunks of an earlier edition stay, for nodes that are reading it.
const OLD_CHUNKS_KEPT_FOR: Duration = Duration::from_mins(10);

/// Lease of the editor.
const EDITOR_LEASE: Duration = Duration::from_secs(90);

/// An index as one node published it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition {
    /// Made from the names of its chunks.
    pub name: String,
    /// Names of the chunks, in order: BLAKE3 of their content, hexadecimal.
    pub chunks: Vec<String>,
    /// Position in the stream of learned entries, up to which the edition contains them.
    pub position: Option<String>,
}

impl Edition {
    /// The edition of these chunks.
    pub fn of(chunks: Vec<String>, position: Option<String>) -> Self {
        Self { name: blake3::hash(chunks.concat().as_bytes()).to_hex().to_string(), chunks, position }
    }
}

impl Cluster {
    /// True if this node is the editor, which reads the sources for all. Takes or renews the lease, so the editor must call
    /// this function at least once a minute.
    pub async fn is_editor(&self) -> bool {
        let mut renew = RENEW.key(self.link.key("index", "editor"));
        renew.arg(&self.link.node).arg(millis(EDITOR_LEASE)).arg("");
        self.link.run::<i64>(&renew).await == Some(1)
    }

    /// The edition in Redis. `None`: we are alone; `Some(None)`: there is none.
    pub async fn edition(&self) -> Option<Option<Edition>> {
        let mut get = redis::cmd("HMGET");
        get.arg(self.link.key("index", EDITION)).arg("chunks").arg("position");
        let (chunks, position): (Option<String>, Option<String>) = self.link.send(&get).await?;
        let Some(chunks) = chunks else { return Some(None) };
        let chunks = chunks.split_whitespace().map(str::to_owned).collect();
        Some(Some(Edition::of(chunks, position.filter(|position| !position.is_empty()))))
    }

    /// The name of the edition in Redis; see [`Cluster::edition`].
    pub async fn edition_name(&self) -> Option<Option<String>> {
        self.link.send(redis::cmd("HGET").arg(self.link.key("index", EDITION)).arg("name")).await
    }

    /// Content of a chunk. `None`: it is not there, its hash is not its name, or Redis is unreachable.
    pub async fn chunk(&self, name: &str) -> Option<Vec<u8>> {
        let packed: Option<Vec<u8>> = self.link.send(redis::cmd("GET").arg(self.chunk_key(name))).await?;
        packed.filter(|packed| blake3::hash(packed).to_hex().as_str() == name)
    }

    /// Stores a chunk, if Redis does not have it; returns its name. `None`: Redis is unreachable.
    pub async fn put_chunk(&self, packed: &[u8]) -> Option<String> {
        let name = blake3::hash(packed).to_hex().to_string();
        if !self.keep_chunk(&name, self.link.settings.edition_lasts).await? {
            let mut set = redis::cmd("SET");
            set.arg(self.chunk_key(&name))
                .arg(packed)
                .arg("PX")
                .arg(millis(self.link.settings.edition_lasts));
            let () = self.link.send(&set).await?;
        }
        Some(name)
    }

    /// Publishes this edition to all nodes. False: Redis is unreachable.
    pub async fn publish(&self, edition: &Edition) -> bool {
        let Some(before) = self.edition().await else { return false };
        let key = self.link.key("index", EDITION);
        let mut set = redis::cmd("HSET");
        set.arg(&key).arg("name").arg(&edition.name).arg("chunks").arg(edition.chunks.join(" "));
        set.arg("position").arg(edition.position.as_deref().unwrap_or_default());
        if self.link.send::<redis::Value>(&set).await.is_none() {
            return false;
        }
        self.keep_edition(edition).await;
        let old = before.map(|before| before.chunks).unwrap_or_default();
        for name in old.iter().filter(|name| !edition.chunks.contains(name)) {
            self.keep_chunk(name, OLD_CHUNKS_KEPT_FOR).await;
        }
        let channel = format!("{}:all", self.link.settings.prefix);
        self.send_in_background(
            redis::cmd("PUBLISH").arg(channel).arg(format!("{EDITION} {}", self.link.node)).take(),
        );
        true
    }

    /// Keeps the edition for as long again. `Some(false)`: a part of it is gone.
    pub async fn keep_edition(&self, edition: &Edition) -> Option<bool> {
        let lasts = self.link.settings.edition_lasts;
        let mut keep = redis::cmd("PEXPIRE");
        keep.arg(self.link.key("index", EDITION)).arg(millis(lasts));
        let mut is_whole = self.link.send::<i64>(&keep).await? == 1;
        for name in &edition.chunks {
            is_whole &= self.keep_chunk(name, lasts).await?;
        }
        Some(is_whole)
    }

    async fn keep_chunk(&self, name: &str, lasts: Duration) -> Option<bool> {
        let mut keep = redis::cmd("PEXPIRE");
        keep.arg(self.chunk_key(name)).arg(millis(lasts));
        Some(self.link.send::<i64>(&keep).await? == 1)
    }

    /// Changes whenever another node has published an edition.
    pub fn editions(&self) -> watch::Receiver<u64> {
        self.editions.clone()
    }

    /// Key of a chunk; each chunk has a hash slot of its own in a Redis Cluster.
    fn chunk_key(&self, name: &str) -> String {
        self.link.key(name, "chunk")
    }
}
