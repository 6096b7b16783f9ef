//! `[upstream]`: how servers are called, whatever route leads to them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use super::tls::TlsFiles;
use crate::config::value::{As, WordList};
use crate::config::values::{Size, SuccessStatus, WholeNumber, secs};

/// `[upstream]`
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct UpstreamSettings {
    /// PEM file with certificate authorities to trust besides the system's.
    #[serde(with = "As::<Option<PathBuf>>")]
    pub ca: Option<PathBuf>,
    /// Certificate and key for an upstream that wants a client certificate.
    #[schemars(with = "TlsFiles")]
    pub client_certificate: Option<TlsFiles>,
    /// Time for TCP and TLS together.
    #[default(secs(5))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub connect_timeout: Duration,
    /// Time from the end of our request to the head of the answer.
    // UPSTREAM: a presentation of many pages is built page by page and takes minutes.
    #[default(secs(120))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub first_byte_timeout: Duration,
    /// The longest silence within a body.
    #[default(secs(60))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub body_timeout: Duration,
    /// How long an unused connection is kept; must be below the upstream's own keep-alive.
    // Below Apache's keep-alive of 5 s, the shortest that is common.
    #[default(secs(4))]
    #[serde(with = "As::<Duration>")]
    pub pool_idle: Duration,
    /// How long a connection is used at all, so that a change in DNS takes hold.
    #[default(secs(5 * 60))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub pool_max_age: Duration,
    /// Requests of viewers in flight to one upstream at most: of one client a quarter, for one kind of route three quarters
    /// (of one client's own, all but a sixteenth). Our own requests (heals, probes) have a quarter as many on top.
    #[default(256)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_requests: usize,
    /// How long a request may queue for a permit of `max_requests` before it is refused with 503.
    #[default(secs(10))]
    #[serde(with = "As::<Duration>")]
    pub queue_wait: Duration,
    /// The longest answer or upload that is read into memory at once, whether its client takes or sends it as fast or not.
    /// 0: none.
    // Nearly every tile, and the info.json of all.
    #[default(256 << 10)]
    #[serde(with = "As::<Size>")]
    pub buffer: usize,
    /// Speak HTTP/2: "off"; "auto": over TLS where the server offers it; "always": without TLS as well.
    #[serde(with = "As::<Http2>")]
    pub http2: Http2,
    /// Requests at once on one HTTP/2 connection at most; fewer where the server says so.
    #[default(100)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub http2_streams: usize,
    /// How often a quiet HTTP/2 connection gets a ping; "0s": never.
    #[default(secs(20))]
    #[serde(with = "As::<Duration>")]
    pub http2_ping: Duration,
    /// Passive health: servers that are passed over.
    pub health: HealthSettings,
}

impl UpstreamSettings {
    /// True if TLS to upstreams needs files that are configured.
    pub(crate) fn has_tls_files(&self) -> bool {
        self.ca.is_some() || self.client_certificate.is_some()
    }

    /// Timeouts where no route says otherwise.
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect: self.connect_timeout,
            first_byte: self.first_byte_timeout,
            body: self.body_timeout,
        }
    }

    pub(in crate::config) fn resolve(&mut self, folder: &Path) {
        self.ca = self.ca.take().map(|path| folder.join(path));
        self.client_certificate.iter_mut().for_each(|files| files.resolve(folder));
    }
}

/// Use of HTTP/2 to upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Http2 {
    /// HTTP/1.1 only.
    #[default]
    Off,
    /// Over TLS where the server offers it (RFC 9113 section 3.2); HTTP/1.1 otherwise.
    Auto,
    /// Always, without TLS as well (prior knowledge, RFC 9113 section 3.3).
    Always,
}

impl WordList for Http2 {
    const WHAT: &'static str = "a way to speak HTTP/2";
    const EXPECTED: &'static str = "\"off\", \"auto\" or \"always\"";
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("auto", Self::Auto), ("always", Self::Always)];
}

/// `[upstream.health]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct HealthSettings {
    /// Failures in a row (no connection, no answer in time) after which a server is passed over.
    #[default(3)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub failures: u32,
    /// How long a server is passed over at first; then it is dialled, and one request may try it.
    // A server that is back is used again within a second.
    #[default(Duration::from_millis(500))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub out: Duration,
    /// The longest time to which `out` grows when such trials fail.
    #[default(secs(30))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub out_max: Duration,
    /// Time between two checks of a route's `health` path.
    #[default(secs(5))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub interval: Duration,
    /// How long one check may take.
    #[default(secs(2))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub timeout: Duration,
    /// Good checks in a row after which a server is in again.
    #[default(2)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub healthy_after: u32,
    /// Bad checks in a row after which a server is passed over.
    #[default(3)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub unhealthy_after: u32,
    /// The status of a good check.
    #[default(200)]
    #[serde(with = "As::<SuccessStatus>")]
    pub status: u16,
}

/// Timeouts of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS together, with one server.
    pub connect: Duration,
    /// Time from the end of the request to the head of its answer.
    pub first_byte: Duration,
    /// The longest silence within a body, ours or theirs.
    pub body: Duration,
}

impl Timeouts {
    /// Replaces the timeout for the head of the answer.
    #[must_use]
    pub fn first_byte(self, first_byte: Duration) -> Self {
        Self { first_byte, ..self }
    }
}
