//! `[cluster]`, as the file may say it.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::leaf::{OneOrMany, Text};
use crate::config::settings::ClusterKind;
use crate::config::values::{Count, RedisUrl, Secret, Size, Token};

/// `[cluster]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Cluster {
    /// Redis (or Valkey): one URL, or a list of Sentinels or of nodes of a Redis Cluster. Without it there is no cluster.
    pub url: Option<OneOrMany<Text<RedisUrl>>>,
    /// What the URL leads to: server, sentinel or cluster.
    pub kind: Option<Text<ClusterKind>>,
    /// The name by which the Sentinels know the master.
    pub master: Option<Text<Token>>,
    /// Whom to log in as (Redis 6 and later); without it only the password is sent.
    pub username: Option<Text<Secret>>,
    /// Better written as `IIIF_MENDER__CLUSTER__PASSWORD` than here.
    pub password: Option<Text<Secret>>,
    /// For `rediss://`: certificates (PEM) of the authorities that are believed, in place of the system's.
    pub ca: Option<Text<PathBuf>>,
    /// What all our keys begin with; nodes with the same prefix are one cluster.
    pub prefix: Option<Text<Token>>,
    /// Time to connect, log in and subscribe.
    pub connect_timeout: Option<Text<Duration>>,
    /// How long one command may take before this node goes on alone.
    pub command_timeout: Option<Text<Duration>>,
    /// How long a flight or place is kept for a node that is not heard of any more.
    pub lease: Option<Text<Duration>>,
    /// Learned documents that are kept for nodes that were away.
    pub learned: Option<Text<Count>>,
    /// How much memory they take in Redis at most.
    pub learned_max: Option<Text<Size>>,
    /// How long it is remembered what came of a job (`heal --job`).
    pub jobs: Option<Text<Duration>>,
    /// With `index.store = "redis"`: how often the index is published at most.
    pub edition_every: Option<Text<Duration>>,
    /// The longest index that is published, packed.
    pub edition_max: Option<Text<Size>>,
    /// How long a published index stays in Redis when no node renews it, and what was learned when nothing more is.
    pub edition_lasts: Option<Text<Duration>>,
}
