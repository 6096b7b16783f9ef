//! Clients, and what each of them holds of the capacity that all share.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use http::Version;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::memory_budget::{BudgetPermit, Holder, MemoryBudget, add};
use super::permits::{ClientPermit, Permits};
use super::transfer::ClientLoad;
use crate::config::settings::RouteKind;

/// A client may hold at most 1/4 of the permits of an upstream. (And 1/4 of the memory: see [`MemoryBudget`].)
const QUARTER: usize = 4;

/// Requests at once that a client may have, however few permits there are.
const LEAST: usize = 4;

/// All clients that have a connection or a request at this moment. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    registry: Arc<Registry>,
}

#[derive(Debug)]
struct Registry {
    by_address: DashMap<IpAddr, Weak<Client>>,
    budget: MemoryBudget,
    /// Permits of a client. Changes hold for clients that come after.
    permits: AtomicUsize,
    /// Transfers of a client that ended because it waited for a permit itself.
    ended: Counter,
}

/// A client: an IPv4 address or an IPv6 network of 64 bits, with its connections, requests and memory.
#[derive(Debug)]
pub struct Client {
    address: IpAddr,
    registry: Arc<Registry>,
    permits: Arc<Permits>,
    connections: AtomicUsize,
    /// Connections that speak another protocol than HTTP.
    upgrades: AtomicUsize,
    /// Bytes of answers and uploads that it did not take or send to their end.
    bytes: AtomicUsize,
}

/// A connection of a client: counts until it is dropped.
#[derive(Debug)]
pub struct ClientConnection(Arc<Client>);

/// A connection of a client that speaks another protocol than HTTP: counts until it is dropped.
#[derive(Debug)]
pub struct ClientUpgrade(Arc<Client>);

impl Drop for ClientUpgrade {
    fn drop(&mut self) {
        self.0.upgrades.fetch_sub(1, Relaxed);
    }
}

/// On whose behalf a request goes to an upstream.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// `None`: a request of our own, which has permits that no viewer can take.
    viewer: Option<(Arc<Client>, RouteKind)>,
    /// A trusted proxy that does not name its client, and may ask for many.
    is_unbounded: bool,
    /// The connection carries other answers at the same time (HTTP/2).
    shares_connection: bool,
    /// The caller takes in the whole answer, and counts it.
    collects: bool,
    /// A permit of its client, if it waited for one already.
    permit: Option<Arc<Mutex<Option<ClientPermit>>>>,
}

impl Caller {
    /// A request of a client on a route of this kind, made in this version.
    pub fn viewer(client: Arc<Client>, kind: RouteKind, version: Version) -> Self {
        let shares_connection = version >= Version::HTTP_2;
        Self { viewer: Some((client, kind)), shares_connection, ..Self::default() }
    }

    /// Makes a caller without a permit limit of its own.
    #[must_use]
    pub fn unbounded(self) -> Self {
        Self { is_unbounded: true, ..self }
    }

    /// Makes a caller that collects the whole answer: `receive` need not buffer it before.
    #[must_use]
    pub fn collecting(self) -> Self {
        Self { collects: true, ..self }
    }

    /// Makes a caller that holds a permit of its client for the next request.
    pub(super) fn with_permit(&self, permit: ClientPermit) -> Self {
        Self { permit: Some(Arc::new(Mutex::new(Some(permit)))), ..self.clone() }
    }

    pub(super) fn take_permit(&self) -> Option<ClientPermit> {
        self.permit.as_ref()?.lock().take()
    }

    /// True if the client's next request would not wait for the client's own requests. A request that waits must not hold
    /// what others wait for.
    pub fn has_room(&self) -> bool {
        let (Some(client), Some(kind)) = (self.bounded(), self.kind()) else { return true };
        client.permits().has_room(kind)
    }

    pub(super) fn collects(&self) -> bool {
        self.collects
    }

    /// Client that sent the request; `None`: a request of our own.
    pub fn client(&self) -> Option<&Arc<Client>> {
        self.viewer.as_ref().map(|(client, _)| client)
    }

    /// Holder of the memory that bodies of this caller take, for [`MemoryBudget::of`]; `None`: the proxy itself.
    pub fn holder(&self) -> Option<Arc<dyn Holder>> {
        self.client().map(|client| Arc::clone(client) as _)
    }

    pub(super) fn kind(&self) -> Option<RouteKind> {
        self.viewer.as_ref().map(|(_, kind)| *kind)
    }

    /// True on a connection that carries several answers at once: its client may have more answers waiting than
    /// connections.
    pub(super) fn shares_connection(&self) -> bool {
        self.shares_connection
    }

    /// The client, if it has permits of its own.
    pub(super) fn bounded(&self) -> Option<&Arc<Client>> {
        self.client().filter(|_| !self.is_unbounded)
    }
}

impl Clients {
    /// Clients that share this memory and the permits of upstreams which have `max_requests` each. `ended` counts transfers
    /// that were ended in favour of others.
    pub fn new(budget: MemoryBudget, max_requests: usize, ended: Counter) -> Self {
        let permits = AtomicUsize::new(share_of(max_requests));
        Self { registry: Arc::new(Registry { by_address: DashMap::new(), budget, permits, ended }) }
    }

    /// Sets the number of permits of each upstream to the clients' share of `max_requests`.
    pub fn resize(&self, max_requests: usize) {
        self.registry.permits.store(share_of(max_requests), Relaxed);
    }

    /// The client at this address.
    pub fn get(&self, address: IpAddr) -> Arc<Client> {
        self.registry.get(address)
    }

    /// Number of known clients.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.registry.by_address.len()
    }
}

impl Default for Clients {
    /// Clients of a listener from which nothing goes to an upstream.
    fn default() -> Self {
        Self::new(MemoryBudget::new(0, Gauge::default()), 0, Counter::default())
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
            permits: Permits::of_client(self.permits.load(Relaxed), self.ended.clone()),
            connections: AtomicUsize::new(0),
            upgrades: AtomicUsize::new(0),
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
    /// Client of the same registry at another address: the one for whom a trusted proxy asks.
    pub fn at(&self, address: IpAddr) -> Arc<Self> {
        self.registry.get(address)
    }

    /// Number of the client's connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Counts one more connection, if the client has fewer than `most`.
    pub fn connect(self: &Arc<Self>, most: usize) -> Option<ClientConnection> {
        add(&self.connections, 1, most)?;
        Some(ClientConnection(Arc::clone(self)))
    }

    /// Counts one more connection that speaks another protocol, if the client has fewer than `most`.
    pub fn upgrade(self: &Arc<Self>, most: usize) -> Option<ClientUpgrade> {
        add(&self.upgrades, 1, most)?;
        Some(ClientUpgrade(Arc::clone(self)))
    }

    pub(super) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    /// Memory for bytes of an answer or upload that wait for this client; `None`: its share, or that of all, is used up.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<BudgetPermit> {
        self.registry.budget.take_waiting(bytes, Arc::clone(self) as _)
    }
}

impl ClientLoad for Client {
    fn requests(&self) -> usize {
        self.permits.taken()
    }
}

impl Holder for Client {
    fn bytes(&self) -> &AtomicUsize {
        &self.bytes
    }
}

impl ClientConnection {
    /// Client of this connection.
    pub fn client(&self) -> &Arc<Client> {
        &self.0
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// Address that stands for the whole client.
///
/// SECURITY: a client with one IPv6 address has the 2^64 of its network, too.
pub fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn clients(memory: usize) -> Clients {
        Clients::new(MemoryBudget::new(memory, Gauge::default()), 256, Counter::default())
    }

    #[test]
    fn a_client_has_so_many_connections_and_a_network_of_64_bits_is_one_client() {
        let clients = clients(0);
        let first = clients.get(ip("192.0.2.1")).connect(2).expect("one");
        let _second = clients.get(ip("::ffff:192.0.2.1")).connect(2).expect("two");
        assert!(clients.get(ip("192.0.2.1")).connect(2).is_none());
        assert!(clients.get(ip("192.0.2.2")).connect(2).is_some());
        drop(first);
        assert!(clients.get(ip("192.0.2.1")).connect(2).is_some());
        let _six = clients.get(ip("2001:db8::1")).connect(1).expect("one");
        assert!(clients.get(ip("2001:db8::ffff:1")).connect(1).is_none());
        assert!(clients.get(ip("2001:db8:0:1::1")).connect(1).is_some());
    }

    #[test]
    fn nobody_is_known_who_has_nothing() {
        let clients = clients(100);
        let client = clients.get(ip("192.0.2.1"));
        let kept = client.take(5).map(|share| share.keep(bytes::Bytes::from_static(b"12345")));
        drop(client);
        assert_eq!(clients.len(), 1, "it has memory");
        drop(kept);
        assert_eq!(clients.len(), 0);
        drop(clients.get(ip("192.0.2.1")).connect(1));
        assert_eq!(clients.len(), 0);
    }

    #[test]
    fn a_client_has_a_quarter_of_the_memory_and_all_together_half() {
        let clients = clients(100);
        let take = |last: u8, bytes| clients.get(IpAddr::from([192, 0, 2, last])).take(bytes);
        let first = take(1, 25).expect("a quarter");
        assert!(take(1, 1).is_none());
        let _second = take(2, 25).expect("another quarter");
        assert!(take(3, 1).is_none(), "the rest is for documents and first answers");
        assert!(clients.registry.budget.take(50).is_some());
        drop(first);
        assert!(take(3, 25).is_some());
    }

    #[test]
    fn a_few_permits_are_not_shared_out() {
        assert_eq!([1, 2, 4, 8, 16, 256].map(share_of), [1, 2, 4, 4, 4, 64]);
    }
}
