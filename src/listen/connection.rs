//! Life of a connection: PROXY header, TLS handshake, requests, end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::EndCause;
use super::activity::{ConnectionActivity, NextCheck};
use super::http::{DriveHttp, HttpConnection, UnknownProtocol};
use super::in_flight::InFlight;
use super::proxy_protocol::{self, ProxyHeaderError};
use super::stream_activity::TimeoutKind;
use super::tracked_body::TrackedBody;
use super::tracked_io::{DetectedProtocol, TrackedIo};
use super::{ConnectionLimits, ListenerGroup, Shutdown, SocketProtocol};
use crate::config::settings::is_among;
use crate::observe::GaugeGuard;
use crate::proxy::{ClientInfo, MalformedHead};
use crate::upstream::{Body, ClientConnection, Upgrade};

/// Time that the other side has for its part of a graceful close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time in which a kept connection may send one more request after a stop; its answer says that it is the last. Closing the
/// connection at once would break a request that is on its way.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// Event that a connection waits for.
enum Wakeup {
    End(Result<(), EndCause>),
    Stop,
    /// A deadline may have passed.
    Look,
}

/// Context of one connection.
pub(super) struct ClientSocket {
    group: Arc<ListenerGroup>,
    bounds: Arc<ConnectionLimits>,
    protocol: Arc<SocketProtocol>,
    stop: Shutdown,
    /// The client of the connection; `None`: not yet known.
    client: Option<ClientConnection>,
    activity: Arc<ConnectionActivity>,
}

impl ClientSocket {
    pub(super) fn new(
        group: &Arc<ListenerGroup>,
        protocol: Arc<SocketProtocol>,
        stop: Shutdown,
        client: Option<ClientConnection>,
        is_trusted: bool,
    ) -> Self {
        let bounds = group.bounds.load_full();
        let activity = ConnectionActivity::new(&bounds);
        let connection = Self { group: Arc::clone(group), bounds, protocol, stop, client, activity };
        connection.tells_whose(is_trusted);
        connection
    }

    /// Records the client, for eviction. A trusted proxy has many viewers behind it.
    fn tells_whose(&self, is_trusted: bool) {
        if let Some(client) = &self.client {
            self.activity.belongs_to((!is_trusted).then(|| Arc::clone(client.client())));
        }
    }

    /// Activity record of the connection.
    pub(super) fn activity(&self) -> Arc<ConnectionActivity> {
        Arc::clone(&self.activity)
    }

    pub(super) async fn run<S, F>(mut self, mut stream: TcpStream, peer: SocketAddr, service: S)
    where
        S: Fn(ClientInfo, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let _counted = GaugeGuard::inc(&self.group.open);
        let _ = stream.set_nodelay(true);
        let mut address = peer;
        if self.protocol.proxy_protocol {
            let Some(behind) = self.read_proxy_header(&mut stream, peer).await else { return };
            address = behind;
            self.client = self.group.client(behind);
            self.tells_whose(is_among(behind.ip(), &self.bounds.trusted));
        }
        let Some(client) = &self.client else { return };
        let viewer = ClientInfo::new(address, Arc::clone(client.client()));
        match self.protocol.tls.clone() {
            None => self.serve_http(stream, viewer, None, service).await,
            // Boxed, so that a plain connection does not hold space for TLS.
            Some(tls) => Box::pin(self.accept_tls(tls, stream, viewer, service)).await,
        }
    }

    async fn accept_tls<S, F>(self, tls: TlsAcceptor, stream: TcpStream, mut viewer: ClientInfo, service: S)
    where
        S: Fn(ClientInfo, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let peer = viewer.peer;
        viewer.tls = true;
        match timeout(self.bounds.tls_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                viewer.certified = session.peer_certificates().is_some();
                // Only the negotiated protocol is served (RFC 9113 section 3.2).
                let only = session.alpn_protocol().map(|name| match name {
                    b"h2" => DetectedProtocol::Http2,
                    _ => DetectedProtocol::Http1,
                });
                // Boxed: otherwise each future that the stream passes through would hold it.
                self.serve_http(Box::new(stream), viewer, only, service).await;
            }
            Ok(Err(error)) => {
                self.group.metrics.edge.connection_cut("tls");
                tracing::debug!(%peer, %error, "TLS handshake failed");
            }
            Err(_) => {
                self.group.metrics.edge.connection_cut("tls_timeout");
                tracing::debug!(%peer, "TLS handshake took too long");
            }
        }
    }

    /// Reads the PROXY header: the address behind the proxy; `None`: the connection is to be closed.
    async fn read_proxy_header(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        // SECURITY: a peer that may write this header may claim any address.
        let trusted = is_among(peer.ip(), &self.bounds.trusted);
        let read = async {
            if trusted { proxy_protocol::read(stream).await } else { Err(ProxyHeaderError::Untrusted) }
        };
        let refused = match timeout(self.bounds.head_timeout, read).await {
            Ok(Ok(behind)) => return Some(behind.unwrap_or(peer)),
            Ok(Err(refused)) => refused,
            Err(_) => ProxyHeaderError::Slow,
        };
        self.group.metrics.edge.connection_cut(refused.kind());
        tracing::debug!(%peer, %refused, "no PROXY header that could be believed");
        None
    }

    async fn serve_http<I, S, F>(self, io: I, viewer: ClientInfo, only: Option<DetectedProtocol>, service: S)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Fn(ClientInfo, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let (peer, activity) = (viewer.peer, Arc::clone(&self.activity));
        let watching = Arc::clone(&activity);
        let service = service_fn(move |mut request: Request<Incoming>| {
            if let Some(status) = watching.malformed() {
                request.extensions_mut().insert(MalformedHead(status));
            }
            let in_flight = InFlight::start(&watching, request.version(), !request.body().is_end_stream());
            let answer = service(viewer.clone(), request);
            async move {
                let mut answer = answer.await;
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    if let Some(upgrade) = answer.extensions_mut().remove::<Upgrade>() {
                        in_flight.activity.switches(upgrade);
                    }
                } else if in_flight.is_last() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer.map(|body| TrackedBody::new(body, in_flight)))
            }
        });
        let io = TrackedIo::new(io, Arc::clone(&activity)).under(&self.bounds, only);
        let http = HttpConnection::new(io, service, Arc::clone(&self.bounds));
        let group = Arc::clone(&self.group);
        if let Err(error) = self.drive(http, &activity).await {
            if error.is::<UnknownProtocol>() {
                group.metrics.edge.connection_cut("preface");
            } else if is_half_closed(&*error) {
                group.metrics.edge.connection_cut("half_closed");
            }
            tracing::debug!(%peer, %error, "a viewer's connection ended badly");
        }
    }

    /// Drives the connection until a deadline of `activity`, or until a short time after a shutdown is requested.
    async fn drive(self, mut http: impl DriveHttp, activity: &ConnectionActivity) -> Result<(), EndCause> {
        let mut stop = self.stop.clone();
        let (mut shutdown, mut timer) = (pin!(stop.requested()), pin!(sleep(activity.check_interval())));
        // `stopping`: waiting for the last request; `ending`: waiting for the end.
        let (mut stopping, mut ending) = (false, false);
        loop {
            let mut asked = None;
            let event = poll_fn(|cx| {
                if let Poll::Ready(ended) = Pin::new(&mut http).poll(cx) {
                    return Poll::Ready(Wakeup::End(ended));
                }
                // These futures are pending until they wake the task; polling them each time would cost more than the rest.
                let first = asked.as_ref().is_none_or(|waker: &Waker| !waker.will_wake(cx.waker()));
                if first {
                    asked = Some(cx.waker().clone());
                }
                let may_be_pressed = !stopping && (first || self.stop.may_be_requested());
                if may_be_pressed && shutdown.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Wakeup::Stop);
                }
                let rings = (first || timer.is_elapsed()) && timer.as_mut().poll(cx).is_ready();
                if rings { Poll::Ready(Wakeup::Look) } else { Poll::Pending }
            });
            match event.await {
                Wakeup::End(ended) => return ended,
                Wakeup::Stop => {
                    stopping = true;
                    activity.shutdown_started();
                    // HTTP/2 has GOAWAY: requests in flight are finished, no new ones are read.
                    if activity.is_http2() {
                        ending = true;
                        http.graceful_shutdown();
                    }
                }
                Wakeup::Look => {}
            }
            match activity.next_check() {
                NextCheck::Again(after) => timer.as_mut().reset(Instant::now() + after),
                // GOAWAY here as well; a connection that does not end soon has nothing in flight and is cut.
                NextCheck::Over(TimeoutKind::Idle) if !ending => {
                    ending = true;
                    http.graceful_shutdown();
                }
                NextCheck::Over(TimeoutKind::Idle) => return Ok(()),
                NextCheck::Over(silence) => {
                    self.group.metrics.edge.connection_cut(silence.kind());
                    return Ok(());
                }
            }
            if activity.can_park() {
                http.park();
            }
            if ending && activity.is_idle() {
                match timeout(CLOSE_TIMEOUT, &mut http).await {
                    Ok(ended) => return ended,
                    Err(_) if activity.is_idle() => return Ok(()),
                    Err(_) => {}
                }
            }
        }
    }
}

/// True if the wait of a half-closed viewer timed out.
fn is_half_closed(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionAborted)
}

impl ConnectionActivity {
    /// Creates the activity of a connection under these limits.
    fn new(bounds: &ConnectionLimits) -> Arc<Self> {
        let stop = LAST_REQUEST;
        Self::with(bounds.head_timeout, bounds.idle_timeout, bounds.pace, bounds.request_timeout, stop)
    }
}
