//! What the file may say. Its checked counterpart is [`settings`](super::settings).
//!
//! Every field is optional, because a missing key is either a default or a contradiction, and both are the
//! business of `convert`. The doc comments are what operators read: they become the descriptions in
//! `config schema` and the help under a mistake.

mod admin;
mod server;
mod telemetry;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::leaf::{OneOrMany, Text};
use super::settings::{AccessLog, Http2, LogClient, LogFormat, Pattern, RouteKind, Rung, Store, UpstreamUrl};
use super::values::{Count, Filter, GoodStatus, HostName, HttpUrl, Prefix, Size, Slashed, Status};

mod cluster;

pub use admin::Admin;
pub use cluster::Cluster;
pub use server::{Http2Bounds, Server, Tls};
pub use telemetry::Telemetry;

/// Configuration of iiif-mender. Relative paths are relative to the folder of this file.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
#[schemars(title = "iiif-mender")]
pub struct File {
    /// The listener that viewers reach.
    pub server: Server,
    /// The listener for the people who run it: /livez, /readyz, /metrics.
    pub admin: Admin,
    /// Timeouts and bounds that hold for every upstream.
    pub upstream: Upstream,
    /// Where requests go. The longest matching prefix wins; it is replaced by the path of `upstream`.
    pub routes: Vec<Route>,
    /// Which canvas owns which image.
    pub index: Index,
    /// How images are brought back.
    pub heal: Heal,
    /// What is done for manifests and canvases on their way.
    pub presentation: Presentation,
    /// Another host name than the one written in the manifests.
    pub rewrite: Rewrite,
    /// Several iiif-menders that share their work by way of Redis.
    pub cluster: Cluster,
    /// How log lines look.
    pub log: Log,
    /// Where the spans of requests go.
    pub telemetry: Telemetry,
}

/// `[upstream]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Upstream {
    /// PEM file with certificate authorities to trust besides the system's.
    pub ca: Option<Text<PathBuf>>,
    /// Certificate and key that we show to an upstream which asks who we are.
    pub client_certificate: Option<Tls>,
    /// Time for TCP and TLS together.
    pub connect_timeout: Option<Text<Duration>>,
    /// From the end of our request to the head of the answer.
    pub first_byte_timeout: Option<Text<Duration>>,
    /// The longest silence within a body.
    pub body_timeout: Option<Text<Duration>>,
    /// How long an unused connection is kept; must be below the upstream's own keep-alive.
    pub pool_idle: Option<Text<Duration>>,
    /// How long a connection is used at all, so that a change in DNS takes hold.
    pub pool_max_age: Option<Text<Duration>>,
    /// Requests of viewers in flight to one upstream at most: of one client a quarter, for one kind of route three quarters
    /// (of one client's own, all but a sixteenth). Our own requests (heals, probes) have a quarter as many on top.
    pub max_requests: Option<Text<Count>>,
    /// How long a request may queue for one of those places before it is refused with 503.
    pub queue_wait: Option<Text<Duration>>,
    /// The longest answer or upload that is read into memory at once, whether its client takes or sends it as fast or not.
    /// 0: none.
    pub buffer: Option<Text<Size>>,
    /// Speak HTTP/2: "off"; "auto": over TLS where the server offers it; "always": without TLS as well.
    pub http2: Option<Text<Http2>>,
    /// Requests at once on one HTTP/2 connection at most; fewer where the server says so.
    pub http2_streams: Option<Text<Count>>,
    /// How often a quiet HTTP/2 connection is asked whether it is alive; "0s": never.
    pub http2_ping: Option<Text<Duration>>,
    /// Which servers are passed over.
    pub health: Health,
}

/// `[upstream.health]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Health {
    /// Failures in a row (no connection, no answer in time) after which a server is passed over.
    pub failures: Option<Text<Count>>,
    /// How long it is passed over at first; then it is dialled, and one request may try it.
    pub out: Option<Text<Duration>>,
    /// The longest time to which that grows when such trials fail.
    pub out_max: Option<Text<Duration>>,
    /// Time between two checks of a route's `health` path.
    pub interval: Option<Text<Duration>>,
    /// How long one check may take.
    pub timeout: Option<Text<Duration>>,
    /// Good checks in a row after which a server is in again.
    pub healthy_after: Option<Text<Count>>,
    /// Bad checks in a row after which it is passed over.
    pub unhealthy_after: Option<Text<Count>>,
    /// The status of a good check.
    pub status: Option<Text<GoodStatus>>,
}

/// `[[routes]]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Route {
    /// Requests whose path starts with this belong here.
    pub prefix: Option<Text<Prefix>>,
    /// Where they go: the prefix is replaced by the path of this URL.
    pub upstream: Option<Text<UpstreamUrl>>,
    /// What it carries: images are healed, presentations are what heals are requested from, plain is passed through.
    pub kind: Option<Text<RouteKind>>,
    /// Where to connect (host:port) once the upstream's name points at us, or a list of servers; Host and TLS name stay those of the URL.
    pub connect: Option<OneOrMany<Text<Authority>>>,
    /// Path by which each of its servers is checked, as set in [upstream.health]; not given: they are judged by real requests alone.
    pub health: Option<Text<Prefix>>,
    /// Time for TCP and TLS together, in place of `upstream.connect_timeout`.
    pub connect_timeout: Option<Text<Duration>>,
    /// From the end of a request to the head of its answer, in place of `upstream.first_byte_timeout` (`heal.timeout` on presentation routes).
    pub first_byte_timeout: Option<Text<Duration>>,
    /// The longest silence within a body, in place of `upstream.body_timeout`.
    pub body_timeout: Option<Text<Duration>>,
    /// Send the viewer's Host on instead of the upstream's; X-Forwarded-Host, -Port and -Proto are sent in any case.
    pub preserve_host: Option<bool>,
    /// Only for requests to these hosts; empty: all.
    pub hosts: Option<Vec<Text<HostName>>>,
}

/// `[index]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Index {
    /// The SQLite file; it is made when it is missing.
    pub path: Option<Text<PathBuf>>,
    /// sqlite, or redis: the file is a copy of the index of all nodes of `[cluster]`.
    pub store: Option<Text<Store>>,
    /// Learn from manifests and canvases that pass through.
    pub learn: Option<bool>,
    /// How many identifiers (known and unknown) are remembered in memory.
    pub cache: Option<Text<Count>>,
    /// How often the sources are looked at again while serving; "0s": only at the start.
    pub refresh: Option<Text<Duration>>,
    /// For how long in all a URL source may make one document wait by Retry-After; "0s": it is asked the next time.
    pub max_pause: Option<Text<Duration>>,
    /// How long the history of heals is kept.
    pub history_age: Option<Text<Duration>>,
    /// How many heals the history holds at most; 0: none is kept.
    pub history_rows: Option<Text<Count>>,
    /// Bases under which a file URL is tried when an identifier is checked against it; empty: the URL as it stands.
    pub file_url_bases: Option<Vec<Text<HttpUrl>>>,
    /// How long a document that vanished from its source is kept.
    pub grace: Option<Text<Duration>>,
    /// How the canvas of a file is derived: `https://host{rest}{path}{files}{name}` → `https://host{canvas}{path}`.
    pub canvas_rule: Option<CanvasRule>,
    /// What to index.
    pub sources: Vec<Source>,
}

/// `index.canvas_rule`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct CanvasRule {
    /// What stands before the path of the canvas in the URL of a file.
    pub rest: Option<Text<Slashed>>,
    /// What stands between that path and the name of the file.
    pub files: Option<Text<Slashed>>,
    /// What stands before the path in the URL of the canvas.
    pub canvas: Option<Text<Slashed>>,
}

/// `[[index.sources]]`: either a path or a URL.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Source {
    /// A directory (walked for *.json, *.jsonld, both packed by gzip or not, and files named manifest or collection) or a
    /// file.
    pub path: Option<Text<PathBuf>>,
    /// A manifest, a collection or a stream of changes (IIIF Change Discovery) to fetch.
    pub url: Option<Text<HttpUrl>>,
    /// Look at it; false leaves what the index knows from it as it is.
    pub enabled: Option<bool>,
    /// How often it is looked at again while serving, in place of index.refresh; "0s": only at the start.
    pub interval: Option<Text<Duration>>,
    /// How often all its images are looked at while serving, and healed where they are gone; never, when it is not given.
    pub warm: Option<Text<Duration>>,
    /// Header fields for requests to the URL's own host, such as a key; never sent to any other host.
    pub headers: Option<BTreeMap<String, Text<HeaderValue>>>,
    /// Requests at once at most.
    pub concurrency: Option<Text<Count>>,
    /// Requests in a second at most; 0: as many as come.
    pub rate: Option<Text<Count>>,
    /// Hosts that its links may lead to, besides its own, the public hosts and those of the routes.
    pub hosts: Option<Vec<Text<HostName>>>,
}

/// `[heal]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Heal {
    /// Heal at all; false makes a plain reverse proxy.
    pub enabled: Option<bool>,
    /// The ways to heal, in the order in which they are tried.
    pub ladder: Option<Vec<Text<Rung>>>,
    /// Image statuses that mean "expired".
    pub statuses: Option<Vec<Text<Status>>>,
    /// Image statuses at which `direct` is tried (the canvas service or its Redis may be down).
    pub direct_statuses: Option<Vec<Text<Status>>>,
    /// How long a viewer's tile is kept waiting (OpenSeadragon gives up at 30 s).
    pub wait: Option<Text<Duration>>,
    /// How long a viewer's info.json is kept waiting (viewers wait for it without limit).
    pub wait_info: Option<Text<Duration>>,
    /// How long one canvas request may take; it goes on without its viewers until then.
    pub timeout: Option<Text<Duration>>,
    /// Canvas requests at once per canvas service (it holds two connections per host itself).
    pub concurrency: Option<Text<Count>>,
    /// Manifests and other long documents that viewers have built at once per canvas service.
    pub document_concurrency: Option<Text<Count>>,
    /// Whatever a canvas service answers sooner was stored: a viewer's request waits no longer behind others that take longer.
    pub build_after: Option<Text<Duration>>,
    /// A request to a canvas service that takes longer gives its place to whoever waits; four for each place at most do.
    pub hang_after: Option<Text<Duration>>,
    /// Viewers waiting at once at most, for heals, and for their turn at each canvas service; more get 503 and Retry-After.
    pub max_waiting: Option<Text<Count>>,
    /// Images healed at once at most, also where no viewer waits any more; of others viewers get 503 and Retry-After.
    pub max_flights: Option<Text<Count>>,
    /// Requests for one image that are sent on before any is answered; more wait for what these find; 0: all are sent on.
    pub first_asks: Option<Text<Count>>,
    /// How long they wait for that at most.
    pub first_asks_wait: Option<Text<Duration>>,
    /// How much of the first error's body is held in memory while healing.
    pub max_held: Option<Text<Size>>,
    /// Heals that one client address may start in a minute.
    pub per_client: Option<Text<Count>>,
    /// Time between two requests of one canvas on one rung.
    pub cooldown: Option<Text<Duration>>,
    /// How long a file that is truly missing is remembered as missing.
    pub missing: Option<Text<Duration>>,
    /// How long "this image is alive" is believed.
    pub alive_for: Option<Text<Duration>>,
    /// How often a closed /resources/{uuid} is tried again.
    pub resources_recheck: Option<Text<Duration>>,
    /// Failures in a row after which a canvas service is left alone.
    pub breaker_failures: Option<Text<Count>>,
    /// How long it is left alone at first.
    pub breaker_open: Option<Text<Duration>>,
    /// The longest pause to which repeated failures grow.
    pub backoff_max: Option<Text<Duration>>,
    /// Addresses of the canvas service, as addresses or networks: requests from there are echoes and never wait.
    pub origins: Option<Vec<Text<IpNet>>>,
    /// Only identifiers that match this regular expression are healed (all, when it is not given).
    pub identifiers: Option<Text<Pattern>>,
    /// A request with this header is not healed; believed from `server.trusted_proxies` only.
    pub skip_header: Option<Text<HeaderName>>,
    /// Pages after the one being read that are healed ahead of the reader; 0: none.
    pub ahead: Option<Text<Count>>,
    /// After a mass expiry, heal everything indexed in the background.
    pub sweep: Option<bool>,
    /// Images that a sweep looks at in a second.
    pub sweep_rate: Option<Text<Count>>,
    /// So many identifiers within so short a time mean that Redis was emptied.
    pub mass_expiry: Option<MassExpiry>,
}

/// `heal.mass_expiry`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct MassExpiry {
    /// Different expired identifiers.
    pub ids: Option<Text<Count>>,
    /// The time in which they must be seen.
    pub within: Option<Text<Duration>>,
}

/// `[presentation]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Presentation {
    /// Requests for the same document at the same time share one upstream request.
    pub collapse: Option<bool>,
    /// Documents that are shared at once at most whose request goes on when its viewers leave; of more the viewers carry it
    /// themselves. Each holds at most `max_body` of memory.
    pub max_flights: Option<Text<Count>>,
    /// The longest document that is shared, repaired, learned and looked at for missing pages; longer ones only stream by,
    /// and are counted.
    pub max_body: Option<Text<Size>>,
    /// Mend JSON that is broken by a raw backslash, newline or tab in a label.
    pub repair: Option<bool>,
    /// Rebuild canvases and manifests that lack pages which the index knows.
    pub watch: Option<bool>,
    /// Serve the manifests of `index.sources` that are files under /manifests/, listed as a IIIF collection.
    pub manifests: Option<bool>,
}

/// `[rewrite]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Rewrite {
    /// URLs of `server.public_hosts` in JSON, Location and Link become URLs of this host; not given: nothing is touched.
    pub public_url: Option<Text<HttpUrl>>,
}

/// `[log]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Log {
    /// What is logged: a level, or a level per target such as `info,iiif_mender=debug`.
    pub filter: Option<Text<Filter>>,
    /// How lines look; "auto" is text on a terminal and JSON otherwise.
    pub format: Option<Text<LogFormat>>,
    /// Which requests have a line: "off", "errors" (healed, or not well), "sampled" (those, and one in `sample` of the
    /// rest) or "all".
    pub access: Option<Text<AccessLog>>,
    /// One of so many requests that went well has a line, where `access` is "sampled".
    pub sample: Option<Text<Count>>,
    /// The client's address in the line of its request: "none", "masked" (24 bits of IPv4, 48 of IPv6) or "full".
    pub client: Option<Text<LogClient>>,
    /// Lines that may wait to be written; beyond that they are dropped and counted.
    pub queue: Option<Text<Count>>,
}
