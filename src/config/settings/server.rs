//! `[server]`, checked and complete.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// `[server]`: the listener that viewers reach.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Where to listen; one or several addresses.
    pub listen: Vec<Listen>,
    /// Certificates and keys, when we speak TLS ourselves; never empty.
    pub tls: Option<Vec<Tls>>,
    /// Host names (lower case, with a port only where it is not the scheme's own) that mean "us" in a manifest.
    pub public_hosts: Vec<String>,
    /// Whose `X-Forwarded-*` we believe.
    pub trusted_proxies: Vec<IpNet>,
    /// Our name in `Via`, `Proxy-Status` and the like (an RFC 9110 token).
    pub name: String,
    /// Threads that serve viewers; zero: one for each core. One: they are served where heals and chores run, on a
    /// single thread.
    pub workers: usize,
    /// How long in-flight requests may take to end after SIGTERM.
    pub drain: Duration,
    /// From accepting a connection (or from the end of the last request's head) to a whole request head.
    pub head_timeout: Duration,
    /// How long a kept-alive connection may stay without a request.
    pub idle_timeout: Duration,
    /// How long a viewer who ended his side of the connection still gets his answer; zero: he is gone.
    pub half_closed_timeout: Duration,
    /// How long a TLS handshake may take.
    pub tls_timeout: Duration,
    /// From a request's head to the last byte of its answer.
    pub request_timeout: Duration,
    /// Open connections at most; more wait in the kernel's backlog.
    pub max_connections: usize,
    /// Open connections of one address (of IPv6: one /64) at most; zero: no bound.
    pub max_connections_per_address: usize,
    /// Connections that may speak another protocol at once, on plain routes; zero: none.
    pub max_upgrades: usize,
    /// The same of one client (address, or /64).
    pub max_upgrades_per_client: usize,
    /// Requests of one client in a second, on average; zero: no bound.
    pub rate: u32,
    /// So many requests of one client may come at once.
    pub rate_burst: u32,
    /// Bounds of HTTP/2 connections.
    pub http2: Http2Bounds,
    /// The longest request head (request line and headers), in bytes; never below hyper's own least, 8 KiB.
    pub max_head_bytes: usize,
    /// The longest request target, in bytes; never above `max_head_bytes`.
    pub max_uri_bytes: usize,
    /// The longest request body, in bytes. Image routes take none at all.
    pub max_body_bytes: usize,
    /// Bytes in a second that a client must send or take while it is its turn; zero: no bound.
    pub min_rate: usize,
    /// Memory for all bodies that are held at once, in bytes; never below `heal.max_held` and `presentation.max_body`.
    pub max_held_total: usize,
}

/// Does this address belong to one of the networks? An IPv4 address may be written as IPv6 (RFC 4291 section 2.5.5.2),
/// as a socket that takes both gives it.
pub fn is_among(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// `server.http2`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Bounds {
    /// Requests at once on one connection.
    pub max_streams: u32,
    /// Streams that the viewer reset and that are not cleared away yet.
    pub max_resets: usize,
    /// How often a silent connection is asked whether it is still there.
    pub ping: Duration,
    /// How long it may take to answer that.
    pub ping_timeout: Duration,
}

/// One address of `server.listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// No TLS here, although there is a certificate.
    pub plain: bool,
    /// Each connection begins with a PROXY header, version 1 or 2.
    pub proxy_protocol: bool,
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self { address, plain: false, proxy_protocol: false }
    }
}

/// PEM files of a server certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}
