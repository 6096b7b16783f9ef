//! `[[routes]]`: where requests go.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use crate::config::addresses::{HostName, Prefix, UpstreamUrl};
use crate::config::value::{As, OneOrMany, WordList};

/// `[[routes]]`
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct RouteSettings {
    /// Start of the paths of this route's requests.
    #[default("/".to_owned())]
    #[serde(with = "As::<Prefix>")]
    pub prefix: String,
    /// Destination: the prefix is replaced by the path of this URL.
    #[default(missing())]
    #[serde(with = "As::<UpstreamUrl>")]
    pub upstream: UpstreamUrl,
    /// Kind: images are healed, presentations are what heals are requested from, plain is passed through.
    #[serde(with = "As::<RouteKind>")]
    pub kind: RouteKind,
    /// Servers to connect to (host:port) once the upstream's name points at us, or a list of servers; Host and TLS name
    /// stay those of the URL.
    #[serde(with = "As::<OneOrMany<Authority>>", skip_serializing_if = "Vec::is_empty")]
    pub connect: Vec<Authority>,
    /// Path by which each of its servers is checked, as set in [upstream.health]; not given: only real requests count.
    #[serde(with = "As::<Option<Prefix>>")]
    pub health: Option<String>,
    /// Time for TCP and TLS together, in place of `upstream.connect_timeout`.
    #[serde(with = "As::<Option<Duration>>")]
    #[schemars(extend("x-min" = ">0"))]
    pub connect_timeout: Option<Duration>,
    /// Time from the end of a request to the head of its answer, in place of `upstream.first_byte_timeout` (`heal.timeout`
    /// on presentation routes).
    #[serde(with = "As::<Option<Duration>>")]
    #[schemars(extend("x-min" = ">0"))]
    pub first_byte_timeout: Option<Duration>,
    /// The longest silence within a body, in place of `upstream.body_timeout`.
    #[serde(with = "As::<Option<Duration>>")]
    #[schemars(extend("x-min" = ">0"))]
    pub body_timeout: Option<Duration>,
    /// Send the viewer's Host on instead of the upstream's; X-Forwarded-Host, -Port and -Proto are sent in any case.
    pub preserve_host: bool,
    /// Hosts whose requests this route serves; empty: all.
    #[serde(with = "As::<Vec<HostName>>")]
    pub hosts: Vec<String>,
}

/// Substitute for a missing upstream, which is a mistake: no caller ever sees it.
fn missing() -> UpstreamUrl {
    UpstreamUrl {
        scheme: Scheme::HTTP,
        authority: Authority::from_static("missing.invalid"),
        path: "/".to_owned(),
    }
}

impl RouteSettings {
    /// Identity of the servers and the path behind this route, whatever its position in the list: memory of images and
    /// canvases is kept under the mark, and so outlives a reload of the configuration.
    pub fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let UpstreamUrl { scheme, authority, path } = &self.upstream;
        (scheme.as_str(), authority.as_str(), path).hash(&mut hasher);
        hasher.finish()
    }

    /// True if both lead to the same servers.
    pub fn shares_servers(&self, other: &Self) -> bool {
        self.upstream.scheme == other.upstream.scheme
            && self.upstream.authority == other.upstream.authority
            && self.connect == other.connect
    }
}

/// Kind of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RouteKind {
    /// IIIF Image API: 404s are healed.
    Image,
    /// IIIF Presentation API: canvases and manifests; heals are requested here.
    Presentation,
    /// Passed through.
    #[default]
    Plain,
}

impl RouteKind {
    /// Name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Presentation => "presentation",
            Self::Plain => "plain",
        }
    }
}

impl WordList for RouteKind {
    const WHAT: &'static str = "a kind of route";
    const EXPECTED: &'static str = "a kind of route such as \"image\"";
    const WORDS: &'static [(&'static str, Self)] =
        &[("image", Self::Image), ("presentation", Self::Presentation), ("plain", Self::Plain)];
}
