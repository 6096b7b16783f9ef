//! Sender of a request, and its rights by the configuration.

use std::net::IpAddr;
use std::sync::Arc;

use http::Version;
use http::request::Parts;

use super::forwarding::{self, ClientInfo};
use crate::config::Settings;
use crate::config::settings::{RouteKind, is_among};
use crate::upstream::{Caller, Client};

/// The sender of a request. Lists of networks are looked through once for each request.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) viewer: ClientInfo,
    /// Address of the client: of the peer, or one that a trusted proxy names.
    pub(super) client: IpAddr,
    /// The peer is one of `server.trusted_proxies`.
    pub(super) peer_is_trusted: bool,
    /// True if the client is one of the trusted proxies.
    pub(super) is_trusted: bool,
    /// The client is the canvas service (`heal.origins`).
    pub(super) is_canvas_service: bool,
}

impl Sender {
    pub(super) fn new(viewer: ClientInfo, head: &Parts, settings: &Settings) -> Self {
        let trusted = &settings.server.trusted_proxies;
        let client = forwarding::client(&head.headers, &viewer, trusted);
        let peer = viewer.peer.ip();
        let peer_is_trusted = is_among(peer, trusted);
        let is_trusted =
            if client == peer.to_canonical() { peer_is_trusted } else { is_among(client, trusted) };
        let is_canvas_service = is_among(client, &settings.heal.origins);
        Self { viewer, client, peer_is_trusted, is_trusted, is_canvas_service }
    }

    /// The client, which is mostly that of the connection.
    pub(super) fn client(&self) -> Arc<Client> {
        let is_peer = self.client == self.viewer.peer.ip().to_canonical();
        if is_peer { Arc::clone(&self.viewer.client) } else { self.viewer.client.at(self.client) }
    }

    /// Caller for the upstream. The canvas service's requests count as our own heals'.
    pub(super) fn caller(&self, kind: RouteKind, version: Version) -> Caller {
        if self.is_canvas_service {
            return Caller::default();
        }
        let caller = Caller::viewer(self.client(), kind, version);
        if self.is_trusted { caller.unbounded() } else { caller }
    }
}
