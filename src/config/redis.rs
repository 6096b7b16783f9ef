//! Values of `[cluster]`: where Redis is, and what may not be shown; and what contradicts itself there.

use std::fmt;

use super::check::Report;
use super::leaf::{Leaf, Mistake, Written};
use super::least::LEAST_TIMES;
use super::settings::{ClusterKind, Settings, Store};

/// Where Redis, a Sentinel or a node of a Redis Cluster is: `redis://host:port/database`, `rediss://` for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl(pub String);

impl Leaf for RedisUrl {
    const EXPECTED: &'static str = "a URL such as \"redis://127.0.0.1:6379\"";
    const EXAMPLES: &'static [&'static str] = &["redis://127.0.0.1:6379", "rediss://redis.internal:6380/1"];

    fn read(text: &str) -> Result<Self, Mistake> {
        let help = "write redis://host:port, or rediss://host:port for TLS";
        let rest = text.strip_prefix("redis://").or_else(|| text.strip_prefix("rediss://"));
        let Some(rest) = rest else {
            // SECURITY: the text itself stays out of the message, because a password may stand in it.
            return Err(Mistake::new("this is no URL of Redis", help));
        };
        if rest.contains('@') {
            return Err(Mistake::new(
                "this URL carries a user name or password",
                "write them as [cluster] username and password, or IIIF_MENDER__CLUSTER__PASSWORD",
            ));
        }
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        let is_address = host.parse::<http::uri::Authority>().is_ok();
        if !is_address || !database.is_empty() && database.parse::<u32>().is_err() {
            return Err(Mistake::new("this is no URL of Redis", help));
        }
        Ok(Self(text.to_owned()))
    }

    fn write(&self) -> Written {
        Written::Text(self.0.clone())
    }
}

/// Something that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Leaf for Secret {
    const EXPECTED: &'static str = "a text";

    fn read(text: &str) -> Result<Self, Mistake> {
        Ok(Self(text.to_owned()))
    }

    fn write(&self) -> Written {
        Written::Text(self.0.clone())
    }
}

impl Leaf for ClusterKind {
    const EXPECTED: &'static str = "server, sentinel or cluster";
    const WORDS: &'static [&'static str] = &["server", "sentinel", "cluster"];

    fn read(text: &str) -> Result<Self, Mistake> {
        match text {
            "server" => Ok(Self::Server),
            "sentinel" => Ok(Self::Sentinel),
            "cluster" => Ok(Self::Cluster),
            _ => Err(Mistake::new(
                format!("`{text}` is no kind of Redis"),
                "write server, sentinel or cluster",
            )),
        }
    }

    fn write(&self) -> Written {
        Written::Text(
            match self {
                Self::Server => "server",
                Self::Sentinel => "sentinel",
                Self::Cluster => "cluster",
            }
            .to_owned(),
        )
    }
}

impl Leaf for Store {
    const EXPECTED: &'static str = "sqlite or redis";
    const WORDS: &'static [&'static str] = &["sqlite", "redis"];

    fn read(text: &str) -> Result<Self, Mistake> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            "redis" => Ok(Self::Redis),
            _ => Err(Mistake::new(format!("an index is not kept in `{text}`"), "write sqlite or redis")),
        }
    }

    fn write(&self) -> Written {
        Written::Text(if *self == Self::Sqlite { "sqlite" } else { "redis" }.to_owned())
    }
}

/// What is said about other nodes.
pub(super) fn nodes(settings: &Settings, report: &mut Report<'_>) {
    let cluster = &settings.cluster;
    if cluster.urls.len() > 1 && cluster.kind == ClusterKind::Server {
        report.at(
            &["cluster.url", "cluster.kind"],
            "several URLs, and `kind` says that they lead to one server",
            "write kind = \"sentinel\" or kind = \"cluster\", or one URL only",
        );
    }
    if settings.index.store == Store::Redis && cluster.urls.is_empty() {
        report.at(
            &["index.store"],
            "the index is to be in Redis, and none is named",
            "write [cluster] url, or store = \"sqlite\"",
        );
    }
    if cluster.ca.is_some() && !cluster.urls.iter().any(|url| url.starts_with("rediss:")) {
        report.at(
            &["cluster.ca"],
            "an authority is named, and no URL speaks TLS",
            "write rediss:// in place of redis://, or leave `ca` out",
        );
    }
    let times = [
        cluster.connect_timeout,
        cluster.command_timeout,
        cluster.lease,
        cluster.jobs,
        cluster.edition_lasts,
        cluster.edition_every,
    ];
    for ((path, least), _) in LEAST_TIMES.iter().zip(times).filter(|((_, least), time)| time < least) {
        let message = format!("`{path}` is too short");
        report.at(&[path], &message, &format!("write at least \"{}\"", humantime::format_duration(*least)));
    }
}
