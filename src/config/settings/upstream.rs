//! `[upstream]` and `[[routes]]`: which servers are called, and how.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::time::Duration;

use http::uri::{Authority, Scheme};

use super::{Settings, Tls};

/// `[upstream]`: timeouts and bounds that hold for every upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// PEM file with certificate authorities to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// What we show to an upstream that asks who we are.
    pub client_certificate: Option<Tls>,
    /// Time for TCP and TLS together, with one server.
    pub connect_timeout: Duration,
    /// From the end of our request to the head of the answer.
    pub first_byte_timeout: Duration,
    /// The longest silence within a body.
    pub body_timeout: Duration,
    /// How long an unused connection is kept; must be below the upstream's own keep-alive.
    pub pool_idle: Duration,
    /// How long a connection is used at all, so that a change in DNS takes hold.
    pub pool_max_age: Duration,
    /// Requests of viewers in flight to one upstream at most.
    pub max_requests: usize,
    /// How long a request may queue for one of those places before it is refused with 503.
    pub queue_wait: Duration,
    /// The longest answer or upload that is read into memory at once, in bytes; zero: none.
    pub buffer: usize,
    /// Whether HTTP/2 is spoken.
    pub http2: Http2,
    /// Requests at once on one HTTP/2 connection at most; fewer where the server says so.
    pub http2_streams: usize,
    /// How often a quiet HTTP/2 connection is asked whether it is alive; zero: never.
    pub http2_ping: Duration,
    /// Which servers are passed over.
    pub health: Health,
}

/// Whether HTTP/2 is spoken to upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http2 {
    /// HTTP/1.1 only.
    Off,
    /// Over TLS where the server offers it (RFC 9113 section 3.2); HTTP/1.1 otherwise.
    Auto,
    /// Always, without TLS as well (prior knowledge, RFC 9113 section 3.3).
    Always,
}

/// `[upstream.health]`: when a server is passed over, and when it is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Failures in a row after which a server is passed over.
    pub failures: u32,
    /// How long it is passed over at first.
    pub out: Duration,
    /// The longest time to which that grows when its trials fail.
    pub out_max: Duration,
    /// Time between two checks of a route's `health` path.
    pub interval: Duration,
    /// How long one check may take, from dialling to the end of its answer's head.
    pub timeout: Duration,
    /// Good checks in a row after which a server is in again.
    pub healthy_after: u32,
    /// Bad checks in a row after which it is passed over.
    pub unhealthy_after: u32,
    /// The status of a good check.
    pub status: u16,
}

/// What a route carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// IIIF Image API: 404s are healed.
    Image,
    /// IIIF Presentation API: canvases and manifests; heals are requested here.
    Presentation,
    /// Anything else: passed through.
    Plain,
}

/// `[[routes]]`: requests whose path starts with `prefix` go to `upstream`, the prefix replaced by its path.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Path prefix, starting with `/`.
    pub prefix: String,
    /// Where it goes.
    pub upstream: UpstreamUrl,
    /// What it carries.
    pub kind: RouteKind,
    /// Where to connect instead of the upstream's own host and port (`host:port`), each a server of its own; Host and
    /// TLS name stay the URL's. Empty: to the URL's.
    pub connect: Vec<Authority>,
    /// Path and query by which each of its servers is checked; `None`: they are judged by real requests alone.
    pub health: Option<String>,
    /// In place of [`Upstream::connect_timeout`].
    pub connect_timeout: Option<Duration>,
    /// In place of [`Upstream::first_byte_timeout`], or of `heal.timeout` on a presentation route.
    pub first_byte_timeout: Option<Duration>,
    /// In place of [`Upstream::body_timeout`].
    pub body_timeout: Option<Duration>,
    /// Send the viewer's Host on instead of the upstream's.
    pub preserve_host: bool,
    /// Only for requests to these hosts (lower case); empty: all.
    pub hosts: Vec<String>,
}

impl Route {
    /// Tells the servers and the path behind this route, wherever it stands in the list: what is remembered of
    /// images and canvases is kept under it, and so outlives a reload of the configuration.
    pub fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let UpstreamUrl { scheme, authority, path } = &self.upstream;
        (scheme.as_str(), authority.as_str(), path).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether both lead to the same servers.
    pub fn shares_servers(&self, other: &Self) -> bool {
        self.upstream.scheme == other.upstream.scheme
            && self.upstream.authority == other.upstream.authority
            && self.connect == other.connect
    }
}

/// How long a request waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS together, with one server.
    pub connect: Duration,
    /// From the end of the request to the head of its answer.
    pub first_byte: Duration,
    /// The longest silence within a body, ours or theirs.
    pub body: Duration,
}

impl Timeouts {
    /// The same with another time to the head of the answer.
    #[must_use]
    pub fn first_byte(self, first_byte: Duration) -> Self {
        Self { first_byte, ..self }
    }
}

impl Upstream {
    /// What holds where no route says otherwise.
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect: self.connect_timeout,
            first_byte: self.first_byte_timeout,
            body: self.body_timeout,
        }
    }
}

impl Settings {
    /// How long a viewer's request on `routes[route]` waits for what.
    pub fn timeouts(&self, route: usize) -> Timeouts {
        let (all, own) = (self.upstream.timeouts(), &self.routes[route]);
        let first_byte = match own.kind {
            // UPSTREAM: a canvas or a presentation that is built anew takes seconds, a long one minutes.
            RouteKind::Presentation => self.heal.timeout,
            RouteKind::Image | RouteKind::Plain => all.first_byte,
        };
        Timeouts {
            connect: own.connect_timeout.unwrap_or(all.connect),
            first_byte: own.first_byte_timeout.unwrap_or(first_byte),
            body: own.body_timeout.unwrap_or(all.body),
        }
    }
}

/// The URL of an upstream, taken apart. Kept as text, never normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and optional port as configured.
    pub authority: Authority,
    /// Path that replaces the route's prefix, starting with `/`.
    pub path: String,
}
