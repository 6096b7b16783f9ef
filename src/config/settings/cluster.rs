//! `[cluster]`: several iiif-menders that share their work by way of Redis.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use crate::config::addresses::RedisUrl;
use crate::config::value::{As, OneOrMany, ValueError, WordList};
use crate::config::values::{Secret, Size, Token, WholeNumber, secs};

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct ClusterSettings {
    /// Redis (or Valkey): one URL, or a list of Sentinels or of nodes of a Redis Cluster. Without it there is no cluster.
    #[serde(rename = "url", with = "As::<OneOrMany<RedisUrl>>", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Kind of Redis that the URLs lead to: server, sentinel or cluster.
    #[serde(with = "As::<ClusterKind>")]
    pub kind: ClusterKind,
    /// The name by which the Sentinels know the master.
    #[default("mymaster".to_owned())]
    #[serde(with = "As::<Token>")]
    pub master: String,
    /// User name for the login (Redis 6 and later); without it only the password is sent.
    #[serde(with = "As::<Option<Secret>>")]
    pub username: Option<Secret>,
    /// Better written as `IIIF_MENDER__CLUSTER__PASSWORD` than here.
    #[serde(with = "As::<Option<Secret>>")]
    pub password: Option<Secret>,
    /// For `rediss://`: certificates (PEM) of the authorities that are believed, in place of the system's.
    #[serde(with = "As::<Option<PathBuf>>")]
    pub ca: Option<PathBuf>,
    /// Prefix of all our keys; nodes with the same prefix are one cluster.
    #[default("iiif-mender".to_owned())]
    #[serde(with = "As::<Token>")]
    pub prefix: String,
    /// Time to connect, log in and subscribe.
    #[default(secs(1))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = "1ms"))]
    pub connect_timeout: Duration,
    /// How long one command may take before this node goes on alone.
    // With the heartbeat's pause of half of it: less than 100 ms until a node knows that it is alone.
    #[default(Duration::from_millis(50))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = "1ms"))]
    pub command_timeout: Duration,
    /// How long a flight or permit is kept for a node that gives no sign of life.
    #[default(secs(3))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = "100ms"))]
    pub lease: Duration,
    /// Learned documents that are kept for nodes that were away.
    #[default(100_000)]
    #[serde(with = "As::<WholeNumber>")]
    pub learned: u64,
    /// Maximum memory in Redis for what nodes learned.
    #[default(64 << 20)]
    #[serde(with = "As::<Size>")]
    pub learned_max: u64,
    /// How long the results of a job (`heal --job`) are remembered.
    #[default(secs(24 * 3600))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = "1m"))]
    pub jobs: Duration,
    /// With `index.store = "redis"`: how often the index is published at most.
    #[default(secs(60))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = "100ms"))]
    pub edition_every: Duration,
    /// The longest index that is published, packed.
    #[default(1 << 30)]
    #[serde(with = "As::<Size>")]
    pub edition_max: u64,
    /// How long a published index stays in Redis when no node renews it, and the stream of what was learned when nothing is
    /// added.
    #[default(secs(7 * 24 * 3600))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = "1m"))]
    pub edition_lasts: Duration,
}

impl ClusterSettings {
    pub(in crate::config) fn resolve(&mut self, folder: &Path) {
        self.ca = self.ca.take().map(|path| folder.join(path));
    }
}

/// Kind of Redis that the URLs of `[cluster]` lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClusterKind {
    /// Single Redis server.
    #[default]
    Server,
    /// Sentinels, which know the master.
    Sentinel,
    /// Nodes of a Redis Cluster, which know the others.
    Cluster,
}

impl WordList for ClusterKind {
    const WHAT: &'static str = "";
    const EXPECTED: &'static str = "server, sentinel or cluster";
    const WORDS: &'static [(&'static str, Self)] =
        &[("server", Self::Server), ("sentinel", Self::Sentinel), ("cluster", Self::Cluster)];

    fn mistake(text: &str) -> ValueError {
        ValueError::new(format!("`{text}` is no kind of Redis"), "write server, sentinel or cluster")
    }
}
