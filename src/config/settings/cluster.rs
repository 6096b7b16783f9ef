//! `[cluster]`: several iiif-menders that share their work by way of Redis.

use std::path::PathBuf;
use std::time::Duration;

/// `[cluster]`
#[derive(Clone, PartialEq)]
pub struct Cluster {
    /// Redis, its Sentinels, or some nodes of a Redis Cluster; none: this node works by itself.
    pub urls: Vec<String>,
    /// What the URLs lead to.
    pub kind: ClusterKind,
    /// The name by which the Sentinels know the master.
    pub master: String,
    /// Whom to log in as.
    pub username: Option<String>,
    /// With what.
    pub password: Option<String>,
    /// The authorities that are believed in place of the system's.
    pub ca: Option<PathBuf>,
    /// What all our keys begin with.
    pub prefix: String,
    /// Time to connect, log in and subscribe.
    pub connect_timeout: Duration,
    /// How long one command may take before this node goes on alone.
    pub command_timeout: Duration,
    /// How long a flight or place is kept for a node that is not heard of any more.
    pub lease: Duration,
    /// Learned documents that are kept for nodes that were away.
    pub learned: u64,
    /// Their names and bodies at most, bytes.
    pub learned_max: u64,
    /// How long it is remembered what came of a job.
    pub jobs: Duration,
    /// How often the index is published at most.
    pub edition_every: Duration,
    /// The longest index that is published, packed, bytes.
    pub edition_max: u64,
    /// How long a published index stays when no node renews it, and what was learned when nothing more is.
    pub edition_lasts: Duration,
}

/// By hand: a password must not get into a log.
impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("urls", &self.urls.len())
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What the URLs of `[cluster]` lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterKind {
    /// One Redis server.
    Server,
    /// Sentinels, who know which server is the master.
    Sentinel,
    /// Some nodes of a Redis Cluster, who know the others.
    Cluster,
}
