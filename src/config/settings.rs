//! What the program may believe: checked, complete, with every default filled in.
//!
//! Nothing here is parsed by serde: [`file`](super::file) says what may be written, and `convert` and `check`
//! turn that into these types and report every mistake at once. Durations and sizes are already numbers,
//! paths are already joined to the configuration file's folder, and every host name is lower case.
//!
//! Each section has a `Default`; `defaults` is the only place where a default stands.

mod admin;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use regex::Regex;

use crate::iiif::image_url::ImageBases;

mod cluster;
mod upstream;

pub use admin::Admin;
pub use cluster::{Cluster, ClusterKind};
pub use server::{Http2Bounds, Listen, Server, Tls, is_among};
pub use upstream::{Health, Http2, Route, RouteKind, Timeouts, Upstream, UpstreamUrl};

/// The whole checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[server]`
    pub server: Server,
    /// `[admin]`
    pub admin: Admin,
    /// `[upstream]`: what holds for every upstream.
    pub upstream: Upstream,
    /// `[[routes]]`, longest prefix first; among equal prefixes those with `hosts` first.
    pub routes: Vec<Route>,
    /// `[index]`
    pub index: Index,
    /// `[heal]`
    pub heal: Heal,
    /// `[presentation]`
    pub presentation: Presentation,
    /// `[rewrite]`
    pub rewrite: Rewrite,
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[log]`
    pub log: Log,
    /// `[telemetry]`
    pub telemetry: Telemetry,
}

impl Settings {
    /// Where images stand: under the image routes of each host that means us, under their upstreams by whatever name,
    /// and under the same paths of hosts that nobody named.
    pub fn image_bases(&self) -> ImageBases {
        let mut bases = ImageBases::default();
        let own = self.rewrite.public_url.as_ref().map(|own| own.authority.as_str());
        let hosts = self.server.public_hosts.iter().map(String::as_str).chain(own);
        let routes = || self.routes.iter().filter(|route| route.kind == RouteKind::Image);
        for host in hosts {
            let is_for = |route: &&Route| route.hosts.is_empty() || route.hosts.iter().any(|own| own == host);
            for route in routes().filter(is_for) {
                bases.push(Some(host), &route.prefix);
            }
        }
        for route in routes() {
            bases.push(Some(route.upstream.authority.as_str()), &route.upstream.path);
        }
        let paths = routes().flat_map(|route| [route.prefix.as_str(), route.upstream.path.as_str()]);
        let mut anywhere: Vec<&str> = paths.filter(|path| *path != "/").collect();
        anywhere.sort_by_key(|path| std::cmp::Reverse(path.len()));
        anywhere.dedup();
        for path in anywhere {
            bases.push(None, path);
        }
        bases
    }

    /// The route of a request: the longest prefix of `path` among the routes that are for `host`, which is a host
    /// name in any case, with or without a port. A route's own host without a port stands for every port.
    pub fn route_of(&self, host: &str, path: &str) -> Option<usize> {
        // Most routes are for every host.
        let bare = || host.rsplit_once(':').map_or(host, |(name, _)| name);
        let is_for = |own: &String| own.eq_ignore_ascii_case(host) || own.eq_ignore_ascii_case(bare());
        self.routes.iter().position(|route| {
            path.starts_with(&route.prefix) && (route.hosts.is_empty() || route.hosts.iter().any(is_for))
        })
    }
}

/// `[index]`
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// The SQLite file.
    pub path: PathBuf,
    /// Whether the file is the index, or a copy of it.
    pub store: Store,
    /// Learn from manifests and canvases that pass through.
    pub learn: bool,
    /// `[[index.sources]]`
    pub sources: Vec<Source>,
    /// How many identifiers (known and unknown) are remembered in memory.
    pub cache: u64,
    /// How often configured sources are looked at again while serving; zero: only at the start.
    pub refresh: Duration,
    /// For how long in all a URL source may make one document wait by `Retry-After`; zero: it is asked the next time.
    pub max_pause: Duration,
    /// How long the history of heals is kept.
    pub history_age: Duration,
    /// How many heals the history holds at most; 0: none is kept.
    pub history_rows: u32,
    /// Bases under which a file URL is tried when the identifier made from it is checked, each ending in `/`;
    /// empty: only the URL as it stands. (The canvas service may know Fedora by an internal name.)
    pub file_url_bases: Vec<String>,
    /// How long a document that vanished from its source is kept.
    pub grace: Duration,
    /// How the canvas of a file is derived from the file's URL.
    pub canvas_rule: CanvasRule,
}

/// `index.store`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The SQLite file is the index of this node.
    Sqlite,
    /// It is a copy of the one that all nodes share in Redis.
    Redis,
}

/// `index.canvas_rule`: `https://host{rest}{path}{files}{name}` → `https://host{canvas}{path}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanvasRule {
    /// Stands before the path of the canvas in the URL of a file, with both slashes.
    pub rest: String,
    /// Stands after it, with both slashes.
    pub files: String,
    /// Stands before it in the canvas URL, with both slashes.
    pub canvas: String,
}

/// `[[index.sources]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub kind: SourceKind,
    /// Look at it at all.
    pub enabled: bool,
    /// How often it is looked at again while serving; `None`: every [`Index::refresh`].
    pub interval: Option<Duration>,
    /// How often its images are looked at and kept warm while serving; `None`: never.
    pub warm: Option<Duration>,
    /// Fields sent with every request to the URL's own host, and to no other. Their values are marked sensitive.
    pub headers: HeaderMap,
    /// Requests at once at most.
    pub concurrency: usize,
    /// Requests in a second at most; zero: as many as come.
    pub rate: u32,
    /// Hosts (lower case) that its links may lead to, besides its own, ours and those of the routes.
    pub hosts: Vec<String>,
}

/// Where a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory (walked for what is named as documents are) or a file.
    Path(PathBuf),
    /// A manifest, a collection or a stream of changes to fetch.
    Url(String),
}

impl Source {
    /// A directory or a file, with defaults.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self::of(SourceKind::Path(path.into()))
    }

    /// A URL, with defaults.
    pub fn url(url: impl Into<String>) -> Self {
        Self::of(SourceKind::Url(url.into()))
    }
}

/// One way to make an image resolvable again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// Ask the image server for the file itself (base64 identifier) on the viewer's behalf.
    Direct,
    /// Register the image alone: `GET {presentation}/{repository}/image/{path}?update=true`.
    Register,
    /// `GET canvas?disallow=…`: the canvas built beside the stored one.
    Variant,
    /// `GET canvas`.
    Visit,
    /// `GET canvas?update=true`.
    Rebuild,
}

/// `[heal]`
#[derive(Debug, Clone, PartialEq)]
pub struct Heal {
    /// Heal at all; `false` makes a plain reverse proxy.
    pub enabled: bool,
    /// The rungs in the order in which they are tried.
    pub ladder: Vec<Rung>,
    /// Image statuses that mean "expired".
    pub statuses: Vec<u16>,
    /// How long a viewer's tile is kept waiting (OpenSeadragon gives up at 30 s).
    pub wait: Duration,
    /// How long a viewer's info.json is kept waiting (viewers wait for it without limit).
    pub wait_info: Duration,
    /// Canvas requests at once per canvas service (it holds two connections per host itself).
    pub concurrency: usize,
    /// Manifests and other long documents that viewers have built at once per canvas service.
    pub document_concurrency: usize,
    /// Whatever a canvas service answers sooner was stored, and is no build.
    pub build_after: Duration,
    /// A request to a canvas service that takes longer gives its place to whoever waits.
    pub hang_after: Duration,
    /// How long one canvas request may take; it goes on without its viewers until then.
    pub timeout: Duration,
    /// Time between two requests of one canvas on one rung.
    pub cooldown: Duration,
    /// How long a file that is truly missing is remembered as missing.
    pub missing: Duration,
    /// Viewers waiting at once at most, for heals, and for their turn at each canvas service.
    pub max_waiting: usize,
    /// Images healed at once at most, also where no viewer waits any more; of others viewers get 503 and Retry-After.
    pub max_flights: usize,
    /// Requests for one image that are sent on before any is answered; zero: all are.
    pub first_asks: usize,
    /// How long more of them wait for what these find.
    pub first_asks_wait: Duration,
    /// How much of the first error's body is held in memory while healing, in bytes.
    pub max_held: usize,
    /// Addresses of the canvas service: requests from there are echoes and never wait.
    pub origins: Vec<IpNet>,
    /// Pages after the one being read that are healed ahead of the reader; zero: none.
    pub ahead: usize,
    /// Image statuses at which `direct` is tried although they do not mean "expired" (service or Redis down).
    pub direct_statuses: Vec<u16>,
    /// Only identifiers that match are healed; `None`: all.
    pub identifiers: Option<Pattern>,
    /// A request that carries this header is not healed; believed from `server.trusted_proxies` only.
    pub skip_header: Option<HeaderName>,
    /// Heals that one client address may start in a minute.
    pub per_client: u32,
    /// Failures in a row after which a canvas service is left alone.
    pub breaker_failures: u32,
    /// How long it is left alone at first.
    pub breaker_open: Duration,
    /// The longest pause to which repeated failures grow.
    pub backoff_max: Duration,
    /// How often a closed `/resources/{uuid}` is tried again.
    pub resources_recheck: Duration,
    /// How long "this image is alive" is believed.
    pub alive_for: Duration,
    /// When many images expire at once.
    pub mass_expiry: MassExpiry,
    /// After a mass expiry, heal everything indexed in the background.
    pub sweep: bool,
    /// Images that a sweep looks at in a second.
    pub sweep_rate: u32,
}

/// `heal.mass_expiry`: so many identifiers within so short a time mean that Redis was emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MassExpiry {
    /// Different expired identifiers.
    pub ids: usize,
    /// The time in which they must be seen.
    pub within: Duration,
}

/// `[presentation]`
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four things that are each on or off")]
pub struct Presentation {
    /// Requests for the same document at the same time share one upstream request.
    pub collapse: bool,
    /// Documents that are shared at once at most whose request goes on when its viewers leave.
    pub max_flights: usize,
    /// The longest document that is held in memory to be shared, repaired, learned or looked at, in bytes.
    pub max_body: usize,
    /// Mend JSON that is broken by a raw backslash, newline or tab in a label.
    pub repair: bool,
    /// Rebuild canvases and manifests that lack images which the index knows.
    pub watch: bool,
    /// Serve indexed manifest files under `/manifests/`.
    pub manifests: bool,
}

/// `[rewrite]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// What URLs of `server.public_hosts` become: an origin, its path `/`. `None`: nothing is touched.
    pub public_url: Option<UpstreamUrl>,
}

/// A regular expression that can be compared; matches anywhere unless anchored, as grep does.
#[derive(Debug, Clone)]
pub struct Pattern(pub Regex);

impl Pattern {
    /// Whether the pattern occurs in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A `tracing` filter, e.g. `info` or `iiif_mender=debug`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
    /// Which requests have a line.
    pub access: AccessLog,
    /// With [`AccessLog::Sampled`]: one of so many requests that went well has a line.
    pub sample: u32,
    /// How much of a client's address stands in the line of its request.
    pub client: LogClient,
    /// Lines that may wait to be written; beyond that they are dropped and counted.
    pub queue: usize,
}

/// Which requests have a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that were healed, or did not go well.
    Errors,
    /// Those, and some of the rest.
    Sampled,
    /// Every one.
    All,
}

/// How much of a client's address is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogClient {
    /// Nothing.
    None,
    /// Its network: 24 bits of an IPv4 address, 48 of an IPv6 address.
    Masked,
    /// All of it.
    Full,
}

/// `[telemetry]`: where the spans of requests go.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// A collector that takes OTLP over HTTP. `None`: there are no spans.
    pub otlp: Option<UpstreamUrl>,
    /// Fields of requests to it. Likely to be secrets.
    pub headers: HeaderMap,
    /// One of so many requests has spans, where no trusted proxy decided that.
    pub sample: u32,
    /// How long the collector may take for one batch.
    pub timeout: Duration,
    /// Spans that may wait to be sent.
    pub queue: usize,
}
