//! `[server]`, as the file may say it.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::leaf::{OneOrMany, Text};
use crate::config::settings::Listen;
use crate::config::values::{Count, HostName, Size, Token};

/// `[server]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Server {
    /// Where to listen: one address or a list of them, each with `plain` (no TLS although there is a certificate) or
    /// `proxy_protocol` (each connection begins with a PROXY header) behind it where that is so.
    pub listen: Option<OneOrMany<Text<Listen>>>,
    /// Host names that mean "us" when they stand in a manifest.
    pub public_hosts: Option<Vec<Text<HostName>>>,
    /// Proxies before us, as addresses or networks, whose X-Forwarded-* headers are believed.
    pub trusted_proxies: Option<Vec<Text<IpNet>>>,
    /// Our name in Via, Proxy-Status and the like.
    pub name: Option<Text<Token>>,
    /// Threads that serve viewers; zero: one for each core.
    pub workers: Option<Text<Count>>,
    /// How long in-flight requests may take to end after SIGTERM.
    pub drain: Option<Text<Duration>>,
    /// How long a client may take to send a whole request head.
    pub head_timeout: Option<Text<Duration>>,
    /// How long a kept-alive connection may stay without a request.
    pub idle_timeout: Option<Text<Duration>>,
    /// How long a client that ended its side of the connection behind a whole request still gets its answer. One that is
    /// gone looks the same. 0: it is taken for gone.
    pub half_closed_timeout: Option<Text<Duration>>,
    /// How long a TLS handshake may take.
    pub tls_timeout: Option<Text<Duration>>,
    /// How long one request may take, from its head to the last byte of its answer.
    pub request_timeout: Option<Text<Duration>>,
    /// Open connections at most; for each that comes then, one that rests or is stuck is closed.
    pub max_connections: Option<Text<Count>>,
    /// Open connections of one address at most (an IPv6 network of 64 bits counts as one); more are closed at once.
    /// Trusted proxies are exempt. 0: no bound.
    pub max_connections_per_address: Option<Text<Count>>,
    /// Connections that may speak another protocol at once (WebSocket, on plain routes); more get 503. 0: nobody is let
    /// switch.
    pub max_upgrades: Option<Text<Count>>,
    /// The same of one client (an address, or an IPv6 network of 64 bits). Trusted proxies are exempt.
    pub max_upgrades_per_client: Option<Text<Count>>,
    /// Requests of one client in a second, on average; more get 429. Trusted proxies and heal.origins are exempt.
    /// 0: no bound.
    pub rate: Option<Text<Count>>,
    /// So many requests may come at once before `rate` counts.
    pub rate_burst: Option<Text<Count>>,
    /// Bounds of HTTP/2 connections.
    pub http2: Option<Http2Bounds>,
    /// The longest request head (request line and headers).
    pub max_head_bytes: Option<Text<Size>>,
    /// The longest request target; longer ones get 414.
    pub max_uri_bytes: Option<Text<Size>>,
    /// The longest request body; longer ones get 413. Image routes take none.
    pub max_body_bytes: Option<Text<Size>>,
    /// Bytes in a second that a client must send of a request's body, or take of an answer, while it is its turn; looked at
    /// every 16 KiB. Slower ones are cut. 0: no bound.
    pub min_rate: Option<Text<Size>>,
    /// Memory for all bodies that are held at once: answers and uploads that wait for their client, first answers while
    /// healing, and shared documents.
    pub max_held_total: Option<Text<Size>>,
    /// Certificate and key, to speak TLS ourselves.
    pub tls: Option<Tls>,
}

/// `server.http2`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Http2Bounds {
    /// Requests at once on one connection.
    pub max_streams: Option<Text<Count>>,
    /// Requests that the viewer took back and that are not cleared away yet; beyond that the connection is closed.
    pub max_resets: Option<Text<Count>>,
    /// How often a silent connection is asked whether it is still there.
    pub ping: Option<Text<Duration>>,
    /// How long it may take to answer that.
    pub ping_timeout: Option<Text<Duration>>,
}

/// `server.tls`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Tls {
    /// PEM file with the certificate chain, leaf first; or a list of them, chosen by the name that is asked for.
    pub cert: Option<OneOrMany<Text<PathBuf>>>,
    /// PEM file with the private key; or a list of them, in the order of the certificates.
    pub key: Option<OneOrMany<Text<PathBuf>>>,
}
