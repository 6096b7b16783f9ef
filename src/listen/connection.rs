//! One connection: its PROXY header, its handshake, its requests, and its end.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::accept;
use super::caps::Seat;
use super::proxy_protocol::{self, Refused};
use super::pulse::{Answering, Pulse, Silence};
use super::watched::Watched;
use super::{Bounds, Hall, Manner, Stop};
use crate::config::settings::is_among;
use crate::observe::Gauged;
use crate::proxy::Viewer;
use crate::upstream::Body;

/// How long the other side has for its part of a polite end.
const GOODBYE: Duration = Duration::from_secs(1);

/// When we stop, a kept connection may ask once more within this time; its answer says that it is the last. Closing it
/// at once would break a request that is on its way.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// What one connection needs to know.
pub(super) struct Connection {
    hall: Arc<Hall>,
    bounds: Arc<Bounds>,
    manner: Arc<Manner>,
    stop: Stop,
    /// Its seat among those of its address; `None`: not yet known.
    seat: Option<Seat>,
}

impl Connection {
    pub(super) fn new(hall: &Arc<Hall>, manner: Arc<Manner>, stop: Stop, seat: Option<Seat>) -> Self {
        Self { hall: Arc::clone(hall), bounds: hall.bounds.load_full(), manner, stop, seat }
    }

    pub(super) async fn run<S, F>(mut self, mut stream: TcpStream, peer: SocketAddr, service: S)
    where
        S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let _counted = Gauged::one(&self.hall.open);
        let _ = stream.set_nodelay(true);
        let mut viewer = Viewer::new(peer);
        if self.manner.proxy_protocol {
            let Some(behind) = self.introduced(&mut stream, peer).await else { return };
            let Some(seat) = accept::seat(&self.hall, behind) else { return };
            self.seat = Some(seat);
            viewer = Viewer::new(behind);
        }
        let Some(tls) = self.manner.tls.clone() else { return self.http(stream, viewer, service).await };
        viewer.tls = true;
        match timeout(self.bounds.tls_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                viewer.certified = stream.get_ref().1.peer_certificates().is_some();
                self.http(stream, viewer, service).await;
            }
            Ok(Err(error)) => {
                self.hall.metrics.edge.connection_cut("tls");
                tracing::debug!(%peer, %error, "TLS handshake failed");
            }
            Err(_) => {
                self.hall.metrics.edge.connection_cut("tls_timeout");
                tracing::debug!(%peer, "TLS handshake took too long");
            }
        }
    }

    /// Who is behind the proxy that connected; `None`: it is to be closed.
    async fn introduced(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        // SECURITY: whoever may write this header may call himself anybody.
        let trusted = is_among(peer.ip(), &self.bounds.trusted);
        let read =
            async { if trusted { proxy_protocol::read(stream).await } else { Err(Refused::Untrusted) } };
        let refused = match timeout(self.bounds.head_timeout, read).await {
            Ok(Ok(behind)) => return Some(behind.unwrap_or(peer)),
            Ok(Err(refused)) => refused,
            Err(_) => Refused::Slow,
        };
        self.hall.metrics.edge.connection_cut(refused.kind());
        tracing::debug!(%peer, %refused, "no PROXY header that could be believed");
        None
    }

    async fn http<I, S, F>(mut self, io: I, viewer: Viewer, service: S)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Fn(Viewer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let (peer, pulse) = (viewer.peer, Pulse::new(&self.bounds));
        let watching = Arc::clone(&pulse);
        let service = service_fn(move |request: Request<Incoming>| {
            let in_flight = watching.asks(request.version());
            let answer = service(viewer.clone(), request);
            async move {
                let mut answer = answer.await;
                if in_flight.is_last() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer.map(|body| Answering::new(body, in_flight)))
            }
        });
        let builder = self.builder();
        let io = TokioIo::new(Watched { io, pulse: Arc::clone(&pulse) });
        let connection = builder.serve_connection(io, service);
        tokio::pin!(connection);
        // Waiting for the last request, and then for the end.
        let (mut stopping, mut ending) = (false, false);
        let ended = loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => break ended,
                () = self.stop.pressed(), if !stopping => {
                    stopping = true;
                    pulse.is_stopped();
                    // HTTP/2 has a way to say it: what is in flight is finished, nothing new is read.
                    ending = pulse.is_http2();
                    if ending {
                        connection.as_mut().graceful_shutdown();
                    }
                }
                silence = pulse.ceases() => match silence {
                    // The same; but who does not end soon has nothing in flight and is cut.
                    Silence::Idle if !ending => {
                        ending = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Silence::Idle => return,
                    Silence::Stuck | Silence::Late => {
                        self.hall.metrics.edge.connection_cut(silence.kind());
                        return;
                    }
                },
            }
            if ending && pulse.rests() {
                match timeout(GOODBYE, connection.as_mut()).await {
                    Ok(ended) => break ended,
                    Err(_) if pulse.rests() => return,
                    Err(_) => {}
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a viewer's connection ended badly");
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let (bounds, http2) = (&self.bounds, self.bounds.http2);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // No timer for heads: see `pulse`. No `pipeline_flush`: with it, hyper throws an answer away when the
        // connection ends with bytes unread, as after a request whose body nobody wanted.
        builder.http1().max_buf_size(bounds.max_head_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(http2.ping)
            .keep_alive_timeout(http2.ping_timeout)
            .max_header_list_size(u32::try_from(bounds.max_head_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(http2.max_streams)
            // SECURITY: rapid reset (CVE-2023-44487) and its twin by our own resets (CVE-2025-8671).
            .max_pending_accept_reset_streams(http2.max_resets)
            .max_local_error_reset_streams(http2.max_resets);
        builder
    }
}

impl Pulse {
    /// A pulse under these bounds.
    fn new(bounds: &Bounds) -> Arc<Self> {
        let stop = LAST_REQUEST;
        Self::with(bounds.head_timeout, bounds.idle_timeout, bounds.request_timeout, stop)
    }
}
