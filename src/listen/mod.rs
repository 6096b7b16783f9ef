//! Accepting connections: for viewers and for the admin pages alike.
//!
//! One accept loop a socket, one task a connection, which lives with one worker of the [`Crew`]. A connection gets a place before it is accepted, so that more
//! of them wait in the kernel's backlog instead of in our memory. Shutting down closes the sockets first, then
//! lets every request in flight end, up to a deadline.

mod crew;
mod pulse;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use crew::Crew;
use pulse::{Answering, Pulse, Silence, Watched};

use crate::observe::Gauged;
use crate::proxy::Viewer;
use crate::upstream::Body;

/// How connections of one listener are kept.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// From accepting a connection to its first request, and for each request head.
    pub head_timeout: Duration,
    /// How long a connection is kept without a request.
    pub idle_timeout: Duration,
    /// Request heads beyond this are refused with 431.
    pub max_head_bytes: usize,
    /// Open connections at most.
    pub max_connections: usize,
    /// How long requests in flight may take to end.
    pub drain: Duration,
}

/// A bound socket, and how its connections are kept.
pub struct Listener {
    sockets: Vec<TcpListener>,
    tls: Option<TlsAcceptor>,
    bounds: Bounds,
    open: Gauge,
    crew: Arc<Crew>,
}

/// Waiting for "stop". Cheap to clone; every room that runs has one.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The button and what it stops.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (press, pressed) = watch::channel(false);
        (press, Self(pressed))
    }

    /// Waits until it is pressed (or its owner is gone).
    pub async fn pressed(&mut self) {
        let _ = self.0.wait_for(|pressed| *pressed).await;
    }
}

impl Listener {
    /// Binds all addresses, or none.
    pub async fn bind(
        addresses: &[SocketAddr],
        tls: Option<Arc<rustls::ServerConfig>>,
        bounds: Bounds,
        open: Gauge,
        crew: Arc<Crew>,
    ) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for address in addresses {
            let socket = TcpListener::bind(address).await;
            sockets.push(socket.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?);
        }
        Ok(Self { sockets, tls: tls.map(TlsAcceptor::from), bounds, open, crew })
    }

    /// The addresses that it really listens on (a port 0 has become a real one).
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Serves until `stop`, then drains. Returns how many connections had to be cut at the deadline.
    pub async fn serve<S, F>(self, service: S, stop: Stop) -> usize
    where
        S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.bounds.max_connections));
        let Self { sockets, tls, bounds, open, crew } = self;
        let kept = Arc::new(Kept { bounds, tls, open, crew, stop });
        let mut loops = JoinSet::new();
        for socket in sockets {
            loops.spawn(Arc::clone(&kept).accept_all(socket, Arc::clone(&places), service.clone()));
        }
        let mut cut = 0;
        while let Some(ended) = loops.join_next().await {
            cut += ended.unwrap_or(0);
        }
        cut
    }
}

/// One connection, with its place. A place comes first, so that who is too many waits in the kernel's backlog.
async fn accept(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => return Some((stream, peer, place)),
            Err(error) => {
                // Mostly "too many open files": pausing beats a busy loop, and the next accept may work.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// What all connections of a listener share.
struct Kept {
    bounds: Bounds,
    tls: Option<TlsAcceptor>,
    open: Gauge,
    crew: Arc<Crew>,
    stop: Stop,
}

impl Kept {
    /// The accept loop of one socket. Its connections are its own tasks: they are spawned where they are accepted,
    /// so that none is lost between two rooms when the sockets close.
    async fn accept_all<S, F>(
        self: Arc<Self>,
        socket: TcpListener,
        places: Arc<Semaphore>,
        service: S,
    ) -> usize
    where
        S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let mut stop = self.stop.clone();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.pressed() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = accept(&socket, &places) => {
                    let Some((stream, peer, place)) = accepted else { break };
                    // Out of this runtime's reactor, into the worker's.
                    let Ok(stream) = stream.into_std() else { continue };
                    let (kept, service) = (Arc::clone(&self), service.clone());
                    let (worker, post) = self.crew.post();
                    let connection = async move {
                        if let Ok(stream) = TcpStream::from_std(stream) {
                            kept.connection(stream, peer, service).await;
                        }
                        drop((place, post));
                    };
                    connections.spawn_on(connection, &worker);
                }
            }
        }
        // Who connects from now on is refused, and a successor may bind.
        drop(socket);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.bounds.drain, drained).await.is_ok() {
            return 0;
        }
        let cut = connections.len();
        connections.shutdown().await;
        cut
    }

    async fn connection<S, F>(&self, stream: TcpStream, peer: SocketAddr, service: S)
    where
        S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let _counted = Gauged::one(&self.open);
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.http(stream, Viewer { peer, tls: false }, service).await,
            Some(tls) => {
                let shaken = tokio::time::timeout(self.bounds.head_timeout, tls.accept(stream)).await;
                match shaken {
                    Ok(Ok(stream)) => {
                        self.http(stream, Viewer { peer, tls: true }, service).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                }
            }
        }
    }

    async fn http<I, S, F>(&self, io: I, viewer: Viewer, service: S)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let pulse = Pulse::new(self.bounds.head_timeout, self.bounds.idle_timeout);
        let watching = Arc::clone(&pulse);
        let service = service_fn(move |request: Request<Incoming>| {
            let in_flight = watching.asks(request.version());
            let answer = service(viewer, request);
            async move {
                let answer = answer.await;
                Ok::<_, Infallible>(answer.map(|body| Answering { body, _in_flight: in_flight }))
            }
        });
        let builder = self.builder();
        let io = TokioIo::new(Watched { io, pulse: Arc::clone(&pulse) });
        let connection = builder.serve_connection(io, service);
        tokio::pin!(connection);
        let mut stop = self.stop.clone();
        let mut ending = false;
        let ended = loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => break ended,
                // What is in flight is finished, nothing new is read.
                () = stop.pressed(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                // The same; but who does not end soon has nothing in flight and is cut.
                silence = pulse.ceases() => match silence {
                    Silence::Idle if !ending => {
                        ending = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Silence::Idle | Silence::Stuck => return,
                },
            }
            if ending && pulse.rests() {
                let goodbye = tokio::time::timeout(GOODBYE, connection.as_mut()).await;
                match goodbye {
                    Ok(ended) => break ended,
                    Err(_) if pulse.rests() => return,
                    Err(_) => {}
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %viewer.peer, %error, "a viewer's connection ended badly");
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // No timer for heads: see `pulse`. No `pipeline_flush`: with it, hyper throws an answer away when the
        // connection ends with bytes unread, as after a request whose body nobody wanted.
        builder.http1().max_buf_size(self.bounds.max_head_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.bounds.head_timeout)
            .max_header_list_size(u32::try_from(self.bounds.max_head_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(256);
        builder
    }
}

/// How long the other side has for its part of a polite end.
const GOODBYE: Duration = Duration::from_secs(1);
