//! `[server]`: the listener that viewers reach.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use super::tls::TlsFiles;
use crate::config::addresses::{HostName, Listen, local};
use crate::config::value::{As, OneOrMany};
use crate::config::values::{Size, Token, WholeNumber, secs};

/// The least `max_head_bytes`: hyper panics below this.
pub const LEAST_HEAD: usize = 8 * 1024;

/// `[server]`
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct ServerSettings {
    /// Addresses to listen on: one or a list, each optionally followed by `plain` (no TLS although there is a certificate)
    /// or `proxy_protocol` (each connection begins with a PROXY header).
    #[default(vec![local(8080).into()])]
    #[serde(with = "As::<OneOrMany<Listen>>")]
    pub listen: Vec<Listen>,
    /// Host names that mean "us" when they stand in a manifest.
    #[serde(with = "As::<Vec<HostName>>")]
    pub public_hosts: Vec<String>,
    /// Proxies before us, as addresses or networks, whose X-Forwarded-* headers are believed.
    #[serde(with = "As::<Vec<IpNet>>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Name of the proxy in Via, Proxy-Status and the like.
    #[default("iiif-mender".to_owned())]
    #[serde(with = "As::<Token>")]
    pub name: String,
    /// Threads that serve viewers; zero: one for each core.
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-reload" = "restart"))]
    pub workers: usize,
    /// How long in-flight requests may take to end after SIGTERM.
    // Longer than `heal.wait`, so that a viewer who waits at SIGTERM still gets the picture.
    #[default(secs(30))]
    #[serde(with = "As::<Duration>")]
    pub drain: Duration,
    /// How long a client may take to send a whole request head.
    #[default(secs(10))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub head_timeout: Duration,
    /// How long a kept-alive connection may stay without a request.
    #[default(secs(75))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub idle_timeout: Duration,
    /// How long a client that half-closed the connection after a whole request still gets its answer. A client that is gone
    /// looks alike. 0: treated as gone.
    #[default(secs(5))]
    #[serde(with = "As::<Duration>")]
    pub half_closed_timeout: Duration,
    /// How long a TLS handshake may take.
    #[default(secs(10))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub tls_timeout: Duration,
    /// How long one request may take, from its head to the last byte of its answer.
    // Longer than any heal, and than a whole book as PDF through a slow line.
    #[default(secs(60 * 60))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub request_timeout: Duration,
    /// Open connections at most; each further one closes one that rests or is stuck.
    #[default(4096)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_connections: usize,
    /// Open connections of one address at most (an IPv6 network of 64 bits counts as one); more are closed at once.
    /// Trusted proxies are exempt. 0: no bound.
    // Enough for a reading room behind one address, and too few for one client to take every place.
    #[default(1024)]
    #[serde(with = "As::<WholeNumber>")]
    pub max_connections_per_address: usize,
    /// Connections that may speak another protocol at once (WebSocket, on plain routes); more get 503. 0: none may.
    // Far below the open files of a process; a reading room behind one address has a few.
    #[default(256)]
    #[serde(with = "As::<WholeNumber>")]
    pub max_upgrades: usize,
    /// Upgraded connections of one client (an address, or an IPv6 network of 64 bits). Trusted proxies are exempt.
    #[default(32)]
    #[serde(with = "As::<WholeNumber>")]
    pub max_upgrades_per_client: usize,
    /// Requests of one client in a second, on average; more get 429. Trusted proxies and heal.origins are exempt.
    /// 0: no bound.
    #[serde(with = "As::<WholeNumber>")]
    pub rate: u32,
    /// Burst: requests that may come at once before `rate` counts.
    #[default(200)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub rate_burst: u32,
    /// Bounds of HTTP/2 connections.
    pub http2: Http2Bounds,
    /// The longest request head (request line and headers).
    #[default(64 * 1024)]
    #[serde(with = "As::<Size>")]
    #[schemars(extend("x-min" = format!("{}KiB", LEAST_HEAD / 1024)))]
    pub max_head_bytes: usize,
    /// The longest request target; longer ones get 414.
    #[default(8 * 1024)]
    #[serde(with = "As::<Size>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_uri_bytes: usize,
    /// The longest request body; longer ones get 413. Image routes take none.
    #[default(64 * 1024 * 1024)]
    #[serde(with = "As::<Size>")]
    pub max_body_bytes: usize,
    /// Bytes in a second that a client must send of a request's body, or take of an answer, while it is its turn; checked
    /// every 16 KiB. Slower ones are cut. 0: no bound.
    // A sixth of what the slowest mobile networks still give; Apache demands as much of uploads.
    #[default(512)]
    #[serde(with = "As::<Size>")]
    pub min_rate: usize,
    /// Memory for all bodies that are held at once: answers and uploads that wait for their client, first answers while
    /// healing, and shared documents.
    #[default(256 << 20)]
    #[serde(with = "As::<Size>")]
    pub max_held_total: usize,
    /// Certificate and key, to speak TLS ourselves.
    #[schemars(with = "TlsFiles")]
    pub tls: Option<TlsFiles>,
}

impl ServerSettings {
    /// Keeps the old values of keys that hold only after a restart.
    pub(in crate::config) fn keep_until_restart(&mut self, old: &Self) {
        self.workers = old.workers;
    }
}

/// True if this address belongs to one of the networks. An IPv4 address may be written as IPv6 (RFC 4291 section 2.5.5.2),
/// as a dual-stack socket reports it.
pub fn is_among(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// `server.http2`
#[derive(Debug, Clone, Copy, PartialEq, Eq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Http2Bounds {
    /// Requests at once on one connection.
    // Viewers ask for dozens of tiles at once, and take many of them back when the reader zooms on.
    #[default(100)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_streams: u32,
    /// Requests that the viewer took back and that are not cleared away yet; beyond that the connection is closed.
    #[default(256)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub max_resets: usize,
    /// How often a silent connection gets a ping.
    #[default(secs(10))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub ping: Duration,
    /// How long the answer to a ping may take.
    #[default(secs(20))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub ping_timeout: Duration,
}
