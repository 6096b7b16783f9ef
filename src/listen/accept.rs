//! The accept loop of one socket.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::ClientSocket;
use super::eviction::{OpenConnection, OpenConnections};
use super::limits::ConnectionPermit;
use super::{Listener, ListenerGroup, Shutdown, SocketProtocol};
use crate::config::settings::is_among;
use crate::proxy::ClientInfo;
use crate::upstream::{Body, ClientConnection};

/// Time that a connection which the kernel has accepted may wait for a permit during a shutdown.
const LAST_PERMIT: Duration = Duration::from_secs(1);

/// Interval between checks whether a connection can be closed for another.
const CLOSE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Runs the accept loop. Connections are tasks of their loop, spawned where they are accepted, so that none is lost
/// between two owners when the socket closes. Returns how many had to be cut.
pub(super) async fn accept_all<S, F>(listener: Listener, service: S, mut stop: Shutdown) -> usize
where
    S: Fn(ClientInfo, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let group = Arc::clone(&listener.group);
    let Ok(socket) = TcpListener::from_std(listener.socket) else { return 0 };
    let mut connections = JoinSet::new();
    let mut open = OpenConnections::default();
    let begin = |newcomer: AcceptedConnection, permit, stop: &Shutdown, connections: &mut JoinSet<()>| {
        let AcceptedConnection { stream, peer, protocol, client, is_trusted } = newcomer;
        let connection = ClientSocket::new(&group, protocol, stop.clone(), client, is_trusted);
        let activity = connection.activity();
        let service = service.clone();
        let (worker, post) = group.workers.assign();
        let task = connections.spawn_on(
            async move {
                // Register the socket with the worker's reactor.
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                connection.run(stream, peer, service).await;
                drop((permit, post));
            },
            &worker,
        );
        OpenConnection { activity, task }
    };
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => break,
            Some(ended) = connections.join_next_with_id(), if !connections.is_empty() => {
                open.remove(ended.map_or_else(|failed| failed.id(), |(id, ())| id));
            }
            (stream, peer) = accept(&socket) => {
                // Take the socket out of this runtime's reactor.
                let Ok(stream) = stream.into_std() else { continue };
                let Some(newcomer) = AcceptedConnection::of(&listener.protocol, &group, stream, peer) else { continue };
                let Some(permit) = permit_for(&newcomer, &group, &mut open, &mut stop).await else { continue };
                open.add(begin(newcomer, permit, &stop, &mut connections));
            }
        }
    }
    // Connections that the kernel has accepted already are served: closing the socket would reset them.
    if let Ok(socket) = socket.into_std() {
        while let Ok((stream, peer)) = socket.accept() {
            let Some(newcomer) = AcceptedConnection::of(&listener.protocol, &group, stream, peer) else {
                continue;
            };
            let Ok(permit) = timeout(LAST_PERMIT, group.permits.acquire()).await else { break };
            if newcomer.stream.set_nonblocking(true).is_ok() {
                begin(newcomer, permit, &stop, &mut connections);
            }
        }
    }
    // The socket is closed by now: new connections are refused, and a successor may bind.
    let drained = async { while connections.join_next().await.is_some() {} };
    let drain = group.bounds.load().drain;
    if timeout(drain, drained).await.is_ok() {
        return 0;
    }
    let cut = connections.len();
    for _ in 0..cut {
        group.metrics.edge.connection_cut("drain");
    }
    connections.shutdown().await;
    cut
}

/// A connection that was accepted.
struct AcceptedConnection {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    protocol: Arc<SocketProtocol>,
    /// Client of the connection; `None`: its PROXY header will name the client.
    client: Option<ClientConnection>,
    /// True for a trusted proxy, which has many viewers behind it.
    is_trusted: bool,
}

impl AcceptedConnection {
    /// `None`: its client has too many connections.
    fn of(
        protocol: &ArcSwap<SocketProtocol>,
        group: &Arc<ListenerGroup>,
        stream: std::net::TcpStream,
        peer: SocketAddr,
    ) -> Option<Self> {
        let protocol = protocol.load_full();
        // SECURITY: one address must not take every permit. The client of a PROXY header is counted later.
        let client = if protocol.proxy_protocol { None } else { Some(group.client(peer)?) };
        let is_trusted = is_among(peer.ip(), &group.bounds.load().trusted);
        Some(Self { stream, peer, protocol, client, is_trusted })
    }
}

/// Permit for a new connection: a free one, or that of another connection, which is evicted. If no connection ranks below
/// the first connection of a client, the newcomer waits, and later ones wait in the kernel's backlog. `None`: the
/// newcomer is closed, because other clients could evict, but its own client has as many connections as they.
async fn permit_for(
    newcomer: &AcceptedConnection,
    group: &ListenerGroup,
    open: &mut OpenConnections,
    stop: &mut Shutdown,
) -> Option<ConnectionPermit> {
    let client = newcomer.client.as_ref().map(ClientConnection::client).filter(|_| !newcomer.is_trusted);
    loop {
        if let Some(permit) = group.permits.try_take() {
            return Some(permit);
        }
        let mut look = CLOSE_CHECK_INTERVAL;
        // More than one if the limit was lowered.
        let evicted = open.evict_up_to(group.permits.missing(), client);
        (0..evicted).for_each(|_| group.metrics.edge.connection_cut("evicted"));
        if evicted > 0 {
            look = LAST_PERMIT;
        } else if open.can_evict() {
            group.metrics.edge.connection_cut("max_connections");
            return None;
        }
        // Other connections may end, rest, or become stuck in the meantime.
        tokio::select! {
            permit = group.permits.acquire() => return Some(permit),
            () = tokio::time::sleep(look) => {}
            () = stop.requested() => return timeout(LAST_PERMIT, group.permits.acquire()).await.ok(),
        }
    }
}

/// The next connection.
async fn accept(socket: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match socket.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // The usual cause is too many open files. After a pause some may be closed; a retry at once would spin.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
