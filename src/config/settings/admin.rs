//! `[admin]`, checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Tls;

/// `[admin]`: the dashboard, the API, `/livez`, `/readyz`, `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Where to listen; `None` switches it off.
    pub listen: Option<SocketAddr>,
    /// File with the token that operators show.
    pub token_file: Option<PathBuf>,
    /// Certificate and key, when TLS is spoken.
    pub tls: Option<Tls>,
    /// PEM file with certificate authorities whose clients are operators; only where there is `tls`.
    pub client_ca: Option<PathBuf>,
    /// Open connections at most.
    pub max_connections: usize,
    /// Live pages at once at most.
    pub max_live: usize,
    /// Acts in a second, of all operators together; three times as many at once.
    pub acts: u32,
    /// The longest body of an act, in bytes.
    pub max_body: usize,
    /// Entries of one answer at most.
    pub max_entries: u32,
}

impl Admin {
    /// Must operators show who they are? Otherwise whoever reaches the listener is one.
    pub fn asks_who(&self) -> bool {
        self.token_file.is_some() || self.client_ca.is_some()
    }
}
