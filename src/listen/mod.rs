//! Listeners and connections, for viewers and for the admin pages alike.
//!
//! Each socket has an accept loop (`accept`), each connection a task (`connection`), which stays with one worker of the
//! [`WorkerPool`]. A connection gets a permit (`limits`) before it is accepted, so that excess connections wait in the kernel's
//! backlog and not in our memory; [`Clients`] limits connections per client. `proxy_protocol` and [`tls`] come before HTTP
//! (`http`); `activity` enforces deadlines and minimum rates. Limits are read for each new connection, so that settings change
//! without a socket being closed.

mod accept;
mod activity;
mod connection;
mod eviction;
mod http;
mod in_flight;
pub mod inherited;
mod limits;
mod malformed;
mod proxy_protocol;
mod stream_activity;
pub mod tls;
mod tracked_body;
mod tracked_io;
mod tunnel;
mod workers;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::{Request, Response};
use ipnet::IpNet;
use prometheus_client::metrics::gauge::Gauge;
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::settings::{Http2Bounds, ServerSettings, is_among};
use crate::observe::Metrics;
use crate::proxy::ClientInfo;
use crate::upstream::{Body, ClientConnection, Clients, pace};
use limits::ConnectionPermits;
#[doc(hidden)]
pub use proxy_protocol::behind;
pub use workers::WorkerPool;

/// Cause of an end by error.
type EndCause = Box<dyn std::error::Error + Send + Sync>;

/// Limits and timeouts of connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Timeout of the first request, of each request head and of a PROXY header.
    pub head_timeout: Duration,
    /// Timeout of a connection without a request, or whose viewer takes nothing.
    pub idle_timeout: Duration,
    /// Time for which a viewer that half-closed the connection still gets its answer; zero: treated as gone.
    pub half_closed_timeout: Duration,
    /// Timeout of a TLS handshake.
    pub tls_timeout: Duration,
    /// Timeout from a request's head to the last byte of its answer.
    pub request_timeout: Duration,
    /// Request heads beyond this are refused with 431.
    pub max_head_bytes: usize,
    /// Open connections at most.
    pub max_connections: usize,
    /// Open connections of one address at most; zero: no bound.
    pub max_per_address: usize,
    /// Time in which a client must take [`PIECE`](crate::upstream::PIECE) bytes of an answer.
    pub pace: Duration,
    /// Peers that are exempt from the bound for one address, and may send PROXY headers.
    pub trusted: Vec<IpNet>,
    /// HTTP/2.
    pub http2: Http2Bounds,
    /// Time that requests in flight have to end at a stop.
    pub drain: Duration,
    /// True if the service itself answers a head that cannot be parsed, which it finds as [`MalformedHead`].
    ///
    /// [`MalformedHead`]: crate::proxy::MalformedHead
    pub explains: bool,
}

impl From<&ServerSettings> for ConnectionLimits {
    fn from(server: &ServerSettings) -> Self {
        Self {
            head_timeout: server.head_timeout,
            idle_timeout: server.idle_timeout,
            half_closed_timeout: server.half_closed_timeout,
            tls_timeout: server.tls_timeout,
            request_timeout: server.request_timeout,
            max_head_bytes: server.max_head_bytes,
            max_connections: server.max_connections,
            max_per_address: server.max_connections_per_address,
            pace: pace(server.min_rate),
            trusted: server.trusted_proxies.clone(),
            http2: server.http2,
            drain: server.drain,
            explains: true,
        }
    }
}

/// State that all listeners of one kind share: limits, permits, counts.
#[derive(Debug)]
pub struct ListenerGroup {
    bounds: ArcSwap<ConnectionLimits>,
    permits: ConnectionPermits,
    clients: Clients,
    workers: Arc<WorkerPool>,
    open: Gauge,
    metrics: Arc<Metrics>,
}

impl ListenerGroup {
    /// Creates a group: the workers of `workers` serve its connections, `clients` limits each client, `open` counts connections.
    pub fn new(
        bounds: ConnectionLimits,
        clients: Clients,
        workers: Arc<WorkerPool>,
        open: Gauge,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let permits = ConnectionPermits::new(bounds.max_connections);
        Arc::new(Self { bounds: ArcSwap::from_pointee(bounds), permits, clients, workers, open, metrics })
    }

    /// Replaces the limits for new connections; open connections keep theirs.
    pub fn set_limits(&self, bounds: ConnectionLimits) {
        self.permits.resize(bounds.max_connections);
        self.bounds.store(Arc::new(bounds));
    }

    /// Counts one more connection of this client. `None`: the client has too many, which is counted.
    fn client(&self, peer: SocketAddr) -> Option<ClientConnection> {
        let bounds = self.bounds.load();
        let unbounded = bounds.max_per_address == 0 || is_among(peer.ip(), &bounds.trusted);
        let most = if unbounded { usize::MAX } else { bounds.max_per_address };
        let connection = self.clients.get(peer.ip()).connect(most);
        if connection.is_none() {
            self.metrics.edge.connection_cut("per_address");
            tracing::debug!(%peer, "too many connections of one address ([server] max_connections_per_address)");
        }
        connection
    }
}

/// Protocol of a socket before HTTP.
#[derive(Clone, Default)]
pub struct SocketProtocol {
    /// TLS acceptor, if the listener uses TLS.
    pub tls: Option<TlsAcceptor>,
    /// True if each connection begins with a PROXY header.
    pub proxy_protocol: bool,
}

impl fmt::Debug for SocketProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tls: {}, proxy_protocol: {}", self.tls.is_some(), self.proxy_protocol)
    }
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    protocol: Arc<ArcSwap<SocketProtocol>>,
    group: Arc<ListenerGroup>,
}

/// Connections that wait in the kernel to be accepted; as many as it allows (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

impl Listener {
    /// Binds an address. `[::]` takes IPv4 as well, unless `v6_only`.
    pub fn bind(address: SocketAddr, v6_only: bool, group: &Arc<ListenerGroup>) -> io::Result<Self> {
        let bound = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            if address.is_ipv6() {
                socket.set_only_v6(v6_only)?;
            }
            // SO_REUSEADDR: connections in TIME_WAIT do not block the port.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Self::on(socket.into(), group)
        };
        bound().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })
    }

    /// Makes a listener on a socket that is bound already.
    pub fn on(socket: TcpListener, group: &Arc<ListenerGroup>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, protocol: Arc::default(), group: Arc::clone(group) })
    }

    /// The address that it really listens on (a port 0 has become a real one).
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// A duplicate of the socket, to be handed to the successor process.
    pub fn socket(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }

    /// Protocol of the socket; may be changed at any time, for later connections.
    pub fn protocol(&self) -> Arc<ArcSwap<SocketProtocol>> {
        Arc::clone(&self.protocol)
    }

    /// Serves until `stop`, then drains. Returns how many connections had to be cut at the deadline.
    pub async fn serve<S, F>(self, service: S, stop: Shutdown) -> usize
    where
        S: Fn(ClientInfo, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        accept::accept_all(self, service, stop).await
    }
}

/// Receiver of the shutdown signal. Cheap to clone; every running task has one.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Creates the sender of the signal and its receiver.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, shutdown) = watch::channel(false);
        (sender, Self(shutdown))
    }

    /// Cheap check before polling [`Shutdown::requested`]: false means that it is still pending.
    fn may_be_requested(&self) -> bool {
        self.0.has_changed().unwrap_or(true)
    }

    /// Waits until shutdown is requested, or the sender is dropped.
    pub async fn requested(&mut self) {
        let _ = self.0.wait_for(|shutdown| *shutdown).await;
    }
}
