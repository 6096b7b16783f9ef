//! The accept loop of one socket.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::caps::{Place, Places};
use super::connection::Connection;
use super::evict::{Asking, Guests};
use super::{Hall, Listener, Stop};
use crate::config::settings::is_among;
use crate::proxy::Viewer;
use crate::upstream::{Body, ClientConnection};

/// How long a connection that the kernel has accepted may wait for a place when we stop.
const LAST_PLACE: Duration = Duration::from_secs(1);

/// Connections are the tasks of their loop: they are spawned where they are accepted, so that none is lost between
/// two rooms when the socket closes. Returns how many had to be cut.
#[expect(clippy::too_many_lines, reason = "one loop, and what it begins")]
pub(super) async fn accept_all<S, F>(listener: Listener, service: S, mut stop: Stop) -> usize
where
    S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let hall = Arc::clone(&listener.hall);
    let Ok(socket) = TcpListener::from_std(listener.socket) else { return 0 };
    let mut connections = JoinSet::new();
    let evicts = hall.bounds.load().evicts;
    let mut guests = Guests::default();
    let begin = |(stream, peer, place): Accepted, asking, stop: &Stop, connections: &mut JoinSet<()>| {
        // SECURITY: one address must not take every place. Who stands behind a PROXY header is counted later.
        let manner = listener.manner.load_full();
        let client = if manner.proxy_protocol { None } else { Some(client(&hall, peer)?) };
        let connection = Connection::new(&hall, manner, stop.clone(), client);
        let service = service.clone();
        let (worker, post) = hall.crew.post();
        Some(connections.spawn_on(
            async move {
                // Into the worker's reactor.
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                match asking {
                    Some(asking) => connection.run(stream, peer, marking(service, asking)).await,
                    None => connection.run(stream, peer, service).await,
                }
                drop((place, post));
            },
            &worker,
        ))
    };
    loop {
        tokio::select! {
            biased;
            () = stop.pressed() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = next(&socket), if evicts => {
                let Some(place) = place_for_another(&hall, &mut guests).await else { continue };
                let (stream, peer) = accepted;
                let Ok(stream) = stream.into_std() else { continue };
                let asking = Arc::new(Asking::default());
                let own = Some(Arc::clone(&asking));
                if let Some(connection) = begin((stream, peer, place), own, &stop, &mut connections) {
                    guests.add(asking, connection);
                }
            }
            accepted = accept(&socket, &hall.places), if !evicts => {
                let Some((stream, peer, place)) = accepted else { break };
                // Out of this runtime's reactor.
                let Ok(stream) = stream.into_std() else { continue };
                begin((stream, peer, place), None, &stop, &mut connections);
            }
        }
    }
    // What the kernel has accepted already is served: closing the socket would reset it.
    if let Ok(socket) = socket.into_std() {
        while let Ok((stream, peer)) = socket.accept() {
            let Ok(Some(place)) = timeout(LAST_PLACE, hall.places.take()).await else { break };
            if stream.set_nonblocking(true).is_ok() {
                begin((stream, peer, place), None, &stop, &mut connections);
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

/// The same service, which marks what its connection asks.
fn marking<S, F>(
    service: S,
    asking: Arc<Asking>,
) -> impl Fn(Viewer, Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Clone + Send + Sync
where
    S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    move |viewer, request| {
        let asked = asking.begins();
        let answer = service(viewer, request);
        Box::pin(async move {
            let answer = answer.await;
            drop(asked);
            answer
        })
    }
}

/// A place for a connection that is here already; somebody goes for it where none is free.
async fn place_for_another(hall: &Arc<Hall>, guests: &mut Guests) -> Option<Place> {
    if let Some(place) = hall.places.try_take() {
        return Some(place);
    }
    guests.cut_one();
    hall.metrics.edge.connection_cut("evicted");
    timeout(LAST_PLACE, hall.places.take()).await.ok().flatten()
}

/// One connection, with its place. A place comes first, so that who is too many waits in the kernel's backlog.
async fn accept(socket: &TcpListener, places: &Places) -> Option<(TcpStream, SocketAddr, Place)> {
    let place = places.take().await?;
    let (stream, peer) = next(socket).await;
    Some((stream, peer, place))
}

/// The next connection.
async fn next(socket: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match socket.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Mostly too many open files. Waiting a moment lets some be closed; spinning would not.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
