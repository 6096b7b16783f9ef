//! Clients, and what each of them holds of the capacity that all share.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use dashmap::DashMap;

use super::held::{Budget, Share};
use super::permits::Permits;
use crate::config::settings::RouteKind;

/// One client may hold a quarter of the permits of an upstream, and a quarter of the memory for bodies.
const QUARTER: usize = 4;

/// So many requests at once are allowed to a client however few permits there are.
const LEAST: usize = 4;

/// All clients that have a connection or a request at this moment. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    registry: Arc<Registry>,
}

#[derive(Debug)]
struct Registry {
    by_address: DashMap<IpAddr, Weak<Client>>,
    budget: Budget,
    /// Permits of a client. Changes hold for clients that come after.
    permits: AtomicUsize,
}

/// One address, or one IPv6 network of 64 bits: its connections, its requests and its memory.
#[derive(Debug)]
pub struct Client {
    address: IpAddr,
    registry: Arc<Registry>,
    permits: Arc<Permits>,
    connections: AtomicUsize,
    /// Bytes of answers and uploads that it did not take or send to their end.
    bytes: AtomicUsize,
}

/// One connection of a client: counts until it is dropped.
#[derive(Debug)]
pub struct ClientConnection(Arc<Client>);

/// On whose behalf a request goes to an upstream.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// `None`: a request of our own, which has permits that no viewer can take.
    viewer: Option<(Arc<Client>, RouteKind)>,
    /// A trusted proxy that does not say for whom it asks, and may ask for many.
    is_unbounded: bool,
}

impl Caller {
    /// A request of a client on a route of this kind.
    pub fn viewer(client: Arc<Client>, kind: RouteKind) -> Self {
        Self { viewer: Some((client, kind)), is_unbounded: false }
    }

    /// The same without a share of its own in permits.
    #[must_use]
    pub fn unbounded(self) -> Self {
        Self { is_unbounded: true, ..self }
    }

    pub(super) fn client(&self) -> Option<&Arc<Client>> {
        self.viewer.as_ref().map(|(client, _)| client)
    }

    pub(super) fn kind(&self) -> Option<RouteKind> {
        self.viewer.as_ref().map(|(_, kind)| *kind)
    }

    /// The client, if it has permits of its own.
    pub(super) fn bounded(&self) -> Option<&Arc<Client>> {
        self.client().filter(|_| !self.is_unbounded)
    }
}

impl Clients {
    /// Clients that share this memory and the permits of upstreams which have `max_requests` each.
    pub fn new(budget: Budget, max_requests: usize) -> Self {
        let permits = AtomicUsize::new(share_of(max_requests));
        Self { registry: Arc::new(Registry { by_address: DashMap::new(), budget, permits }) }
    }

    /// From now on `max_requests` is the number of permits of each upstream.
    pub fn resize(&self, max_requests: usize) {
        self.registry.permits.store(share_of(max_requests), Relaxed);
    }

    /// The client at this address.
    pub fn get(&self, address: IpAddr) -> Arc<Client> {
        self.registry.get(address)
    }

    /// How many clients are known.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.registry.by_address.len()
    }
}

fn share_of(max_requests: usize) -> usize {
    (max_requests / QUARTER).max(LEAST).min(max_requests)
}

impl Registry {
    fn get(self: &Arc<Self>, address: IpAddr) -> Arc<Client> {
        let address = one_client(address);
        if let Some(client) = self.by_address.get(&address).and_then(|client| client.upgrade()) {
            return client;
        }
        let mut entry = self.by_address.entry(address).or_default();
        if let Some(client) = entry.upgrade() {
            return client;
        }
        let client = Arc::new(Client {
            address,
            registry: Arc::clone(self),
            permits: Permits::new(self.permits.load(Relaxed)),
            connections: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        });
        *entry = Arc::downgrade(&client);
        client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.registry.by_address.remove_if(&self.address, |_, client| client.strong_count() == 0);
    }
}

impl Client {
    /// Another client of the same registry: the one for whom a trusted proxy asks.
    pub fn at(&self, address: IpAddr) -> Arc<Self> {
        self.registry.get(address)
    }

    /// One more connection, if the client has fewer than `most`.
    pub fn connect(self: &Arc<Self>, most: usize) -> Option<ClientConnection> {
        let fits = |count: usize| (count < most).then_some(count + 1);
        self.connections.fetch_update(Relaxed, Relaxed, fits).ok()?;
        Some(ClientConnection(Arc::clone(self)))
    }

    pub(super) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    /// Requests with upstreams, or waiting for one.
    pub(super) fn requests(&self) -> usize {
        self.permits.taken()
    }

    /// Memory for bytes of an answer or upload of this client; `None`: its share, or that of all clients, is used up.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let most = self.registry.budget.most() / QUARTER;
        let fits = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= most);
        self.bytes.fetch_update(Relaxed, Relaxed, fits).ok()?;
        match self.registry.budget.take_for(bytes, Arc::clone(self)) {
            Ok(share) => Some(share),
            Err(()) => {
                self.give_back(bytes);
                None
            }
        }
    }

    /// The same bytes, counted for this client until nobody has any of them; as they are where there is no memory for
    /// them.
    pub fn keep(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        match self.take(bytes.len()) {
            Some(share) => share.keep(bytes),
            None => bytes,
        }
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}

impl ClientConnection {
    /// Whose connection it is.
    pub fn client(&self) -> &Arc<Client> {
        &self.0
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// What counts as one client.
///
/// SECURITY: whoever has one IPv6 address has the 2^64 of its network, too.
pub fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}
