//! Accepting connections: for viewers and for the admin pages alike.
//!
//! One accept loop a socket, one task a connection. A connection gets a place before it is accepted, so that more
//! of them wait in the kernel's backlog instead of in our memory. Shutting down closes the sockets first, then
//! lets every request in flight end, up to a deadline.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

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
    ) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for address in addresses {
            let socket = TcpListener::bind(address).await;
            sockets.push(socket.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?);
        }
        Ok(Self { sockets, tls: tls.map(TlsAcceptor::from), bounds, open })
    }

    /// The addresses that it really listens on (a port 0 has become a real one).
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Serves until `stop`, then drains. Returns how many connections had to be cut at the deadline.
    pub async fn serve<S, F>(self, service: S, mut stop: Stop) -> usize
    where
        S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.bounds.max_connections));
        let kept = Arc::new(Kept { bounds: self.bounds, tls: self.tls, open: self.open, stop: stop.clone() });
        let mut connections = JoinSet::new();
        let mut loops = JoinSet::new();
        let (accepted, mut accepts) = tokio::sync::mpsc::channel(64);
        for socket in self.sockets {
            loops.spawn(accept(socket, Arc::clone(&places), accepted.clone()));
        }
        drop(accepted);
        loop {
            tokio::select! {
                biased;
                () = stop.pressed() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                Some((stream, peer, place)) = accepts.recv() => {
                    let (kept, service) = (Arc::clone(&kept), service.clone());
                    connections.spawn(async move {
                        kept.connection(stream, peer, service).await;
                        drop(place);
                    });
                }
            }
        }
        // The sockets close here: who connects from now on is refused, and a successor may bind.
        loops.shutdown().await;
        drop(accepts);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(kept.bounds.drain, drained).await.is_ok() {
            return 0;
        }
        let cut = connections.len();
        connections.shutdown().await;
        cut
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(socket: TcpListener, places: Arc<Semaphore>, accepted: tokio::sync::mpsc::Sender<Accepted>) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, peer)) => {
                if accepted.send((stream, peer, place)).await.is_err() {
                    return;
                }
            }
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
    stop: Stop,
}

impl Kept {
    async fn connection<S, F>(&self, stream: TcpStream, peer: SocketAddr, service: S)
    where
        S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let _counted = Gauged::one(&self.open);
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.http(TokioIo::new(stream), Viewer { peer, tls: false }, service).await,
            Some(tls) => {
                let shaken = tokio::time::timeout(self.bounds.head_timeout, tls.accept(stream)).await;
                match shaken {
                    Ok(Ok(stream)) => {
                        self.http(TokioIo::new(stream), Viewer { peer, tls: true }, service).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                }
            }
        }
    }

    async fn http<I, S, F>(&self, io: I, viewer: Viewer, service: S)
    where
        I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
        S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.bounds.head_timeout)
            .max_buf_size(self.bounds.max_head_bytes)
            .pipeline_flush(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.bounds.head_timeout)
            .max_concurrent_streams(256);
        let activity = Arc::new(Activity::new());
        let noting = Arc::clone(&activity);
        let service = service_fn(move |request| {
            noting.note();
            let answer = service(viewer, request);
            let noting = Arc::clone(&noting);
            async move {
                let answer = answer.await;
                noting.note();
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = builder.serve_connection(io, service);
        tokio::pin!(connection);
        let mut stop = self.stop.clone();
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            // Both end it gently: what is in flight is finished, nothing new is read.
            () = stop.pressed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = activity.ceases(self.bounds.head_timeout, self.bounds.idle_timeout) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %viewer.peer, %error, "a viewer's connection ended badly");
        }
    }
}

/// When a connection last did something. One timer a connection, re-armed only when it fires, because a timer
/// for each request costs more than the request's own bookkeeping.
struct Activity {
    opened: Instant,
    /// Milliseconds after `opened`; zero: nothing was ever asked.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { opened: Instant::now(), last: AtomicU64::new(0) }
    }

    fn note(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now.max(1), Ordering::Relaxed);
    }

    /// Waits until nothing was asked within `first`, or nothing since the last request for `idle`. (A long answer
    /// may count as silence: the connection is then closed after it, which is harmless.)
    async fn ceases(&self, first: Duration, idle: Duration) {
        loop {
            let last = self.last.load(Ordering::Relaxed);
            let end = if last == 0 { first } else { Duration::from_millis(last) + idle };
            let Some(left) = end.checked_sub(self.opened.elapsed()).filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::time::sleep(left).await;
        }
    }
}
