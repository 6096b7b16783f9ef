//! The accept loop of one socket.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::caps::{Place, Places};
use super::connection::Connection;
use super::{Hall, Listener, Stop};
use crate::config::settings::is_among;
use crate::proxy::Viewer;
use crate::upstream::{Body, ClientConnection};

/// How long a connection that the kernel has accepted may wait for a place when we stop.
const LAST_PLACE: Duration = Duration::from_secs(1);

/// Connections are the tasks of their loop: they are spawned where they are accepted, so that none is lost between
/// two rooms when the socket closes. Returns how many had to be cut.
pub(super) async fn accept_all<S, F>(listener: Listener, service: S, mut stop: Stop) -> usize
where
    S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let hall = Arc::clone(&listener.hall);
    let Ok(socket) = TcpListener::from_std(listener.socket) else { return 0 };
    let mut connections = JoinSet::new();
    let begin = |(stream, peer, place): Accepted, stop: &Stop, connections: &mut JoinSet<()>| {
        // SECURITY: one address must not take every place. Who stands behind a PROXY header is counted later.
        let manner = listener.manner.load_full();
        let client = if manner.proxy_protocol { None } else { Some(client(&hall, peer)?) };
        let connection = Connection::new(&hall, manner, stop.clone(), client);
        let service = service.clone();
        let (worker, post) = hall.crew.post();
        let runs = async move {
            // Into the worker's reactor.
            if let Ok(stream) = TcpStream::from_std(stream) {
                connection.run(stream, peer, service).await;
            }
            drop((place, post));
        };
        connections.spawn_on(runs, &worker);
        Some(())
    };
    loop {
        tokio::select! {
            biased;
            () = stop.pressed() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = accept(&socket, &hall.places) => {
                let Some((stream, peer, place)) = accepted else { break };
                // Out of this runtime's reactor.
                let Ok(stream) = stream.into_std() else { continue };
                begin((stream, peer, place), &stop, &mut connections);
            }
        }
    }
    // What the kernel has accepted already is served: closing the socket would reset it.
    if let Ok(socket) = socket.into_std() {
        while let Ok((stream, peer)) = socket.accept() {
            let Ok(Some(place)) = timeout(LAST_PLACE, hall.places.take()).await else { break };
            if stream.set_nonblocking(true).is_ok() {
                begin((stream, peer, place), &stop, &mut connections);
            }
        }
    }
    // Closed by now: who connects from here on is refused, and a successor may bind.
    let drained = async { while connections.join_next().await.is_some() {} };
    let drain = hall.bounds.load().drain;
    if timeout(drain, drained).await.is_ok() {
        return 0;
    }
    let cut = connections.len();
    for _ in 0..cut {
        hall.metrics.edge.connection_cut("drain");
    }
    connections.shutdown().await;
    cut
}

type Accepted = (std::net::TcpStream, SocketAddr, Place);

/// One more connection of this client. `None`: it has too many, which is counted.
pub(super) fn client(hall: &Arc<Hall>, peer: SocketAddr) -> Option<ClientConnection> {
    let bounds = hall.bounds.load();
    let unbounded = bounds.max_per_address == 0 || is_among(peer.ip(), &bounds.trusted);
    let most = if unbounded { usize::MAX } else { bounds.max_per_address };
    let connection = hall.clients.get(peer.ip()).connect(most);
    if connection.is_none() {
        hall.metrics.edge.connection_cut("per_address");
        tracing::debug!(%peer, "too many connections of one address ([server] max_connections_per_address)");
    }
    connection
}

/// One connection, with its place. A place comes first, so that who is too many waits in the kernel's backlog.
async fn accept(socket: &TcpListener, places: &Places) -> Option<(TcpStream, SocketAddr, Place)> {
    let place = places.take().await?;
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => return Some((stream, peer, place)),
            Err(error) => {
                // Mostly too many open files. Waiting a moment lets some be closed; spinning would not.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
