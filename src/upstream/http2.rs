//! HTTP/2 connections to one server: each carries many requests at once.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderName, Uri, Version};
use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper::rt::{Read, Write};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;

use super::body::Body;
use super::error::{BodyError, SendFailure};
use super::framing;
use super::request_body::{IdleTimer, in_time};
use crate::config::settings::{self, Http2, Timeouts};

/// Window of one stream, bytes: a whole tile may be on its way unread.
const STREAM_WINDOW: u32 = 1 << 20;

/// Flow-control window of a connection in bytes. Viewers who read slowly share it, so it is many times that of a stream.
const CONNECTION_WINDOW: u32 = 32 << 20;

/// The longest frame: fewer than with the least that HTTP/2 allows (16 KiB).
const FRAME: u32 = 64 << 10;

/// The longest head of an answer.
const LONGEST_HEAD: u32 = 64 << 10;

/// An HTTP/2 connection.
#[derive(Debug)]
struct Http2Connection {
    sender: http2::SendRequest<Body>,
    streams: AtomicUsize,
    /// Limit of the server (`SETTINGS_MAX_CONCURRENT_STREAMS`), as the driver saw it last.
    allowed: Arc<AtomicUsize>,
    born: Instant,
    /// End of the last stream, in milliseconds since the connection was opened.
    quiet_since: AtomicU64,
}

/// A request on an HTTP/2 connection: counts until it is dropped.
#[derive(Debug)]
pub(super) struct Http2Stream {
    connection: Arc<Http2Connection>,
    scheme: Scheme,
    /// Timer for the head of an answer, or the next piece of its body.
    pub(super) waits: IdleTimer,
    /// Body of the answer.
    incoming: Option<Incoming>,
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        let quiet_since = u64::try_from(self.connection.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.connection.quiet_since.store(quiet_since, Ordering::Relaxed);
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All HTTP/2 connections to one server.
#[derive(Debug)]
pub(super) struct Http2Pool {
    open: Mutex<Vec<Arc<Http2Connection>>>,
    scheme: Scheme,
    is_allowed: bool,
    /// True if the last dial found that the server speaks HTTP/1.1.
    is_http1_server: AtomicBool,
    /// Lock held while dialling. Others wait, because they may share the new connection.
    pub(super) dialling: tokio::sync::Mutex<()>,
    keep: Duration,
    max_age: Duration,
    most_streams: usize,
    ping: Duration,
}

impl Http2Pool {
    pub(super) fn new(scheme: Scheme, bounds: &settings::UpstreamSettings) -> Self {
        let is_allowed = match bounds.http2 {
            Http2::Off => false,
            Http2::Auto => scheme == Scheme::HTTPS,
            Http2::Always => true,
        };
        Self {
            open: Mutex::default(),
            scheme,
            is_allowed,
            is_http1_server: AtomicBool::new(false),
            dialling: tokio::sync::Mutex::default(),
            keep: bounds.pool_idle,
            max_age: bounds.pool_max_age,
            most_streams: bounds.http2_streams,
            ping: bounds.http2_ping,
        }
    }

    /// True if HTTP/2 is allowed and the server is not known to speak HTTP/1.1.
    pub(super) fn may_be_used(&self) -> bool {
        self.is_allowed && !self.is_http1_server.load(Ordering::Relaxed)
    }

    /// Records whether a dial found that the server speaks HTTP/1.1.
    pub(super) fn record_dial(&self, is_http1_server: bool) {
        self.is_http1_server.store(is_http1_server, Ordering::Relaxed);
    }

    /// A share of the connection with the least to do; `None`: all are taken up, and another one is needed.
    pub(super) fn take(&self) -> Option<Http2Stream> {
        if !self.may_be_used() {
            return None;
        }
        let mut open = self.open.lock();
        open.retain(|connection| !connection.sender.is_closed() && connection.born.elapsed() < self.max_age);
        let connection = open.iter().min_by_key(|connection| connection.streams.load(Ordering::Relaxed))?;
        let most = self.most_streams.min(connection.allowed.load(Ordering::Relaxed));
        if connection.streams.load(Ordering::Relaxed) >= most {
            return None;
        }
        Some(self.share(connection))
    }

    /// Starts HTTP/2 on a fresh stream of bytes; a task of its own drives it.
    pub(super) async fn open<I>(&self, io: I) -> hyper::Result<Http2Stream>
    where
        I: Read + Write + Send + Unpin + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(LONGEST_HEAD);
        if !self.ping.is_zero() {
            builder.keep_alive_interval(self.ping).keep_alive_timeout(self.ping);
        }
        let (sender, driver) = builder.handshake(io).await?;
        let allowed = Arc::new(AtomicUsize::new(driver.current_max_send_streams()));
        let max_streams = Arc::clone(&allowed);
        tokio::spawn(async move {
            let mut driver = std::pin::pin!(driver);
            let ended = std::future::poll_fn(|cx| {
                let polled = driver.as_mut().poll(cx);
                max_streams.store(driver.current_max_send_streams(), Ordering::Relaxed);
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "an HTTP/2 connection to an upstream ended badly");
            }
        });
        let connection = Arc::new(Http2Connection {
            sender,
            streams: AtomicUsize::new(0),
            allowed,
            born: Instant::now(),
            quiet_since: AtomicU64::new(0),
        });
        let stream = self.share(&connection);
        self.open.lock().push(connection);
        Ok(stream)
    }

    /// Closes connections that are closed already, too old, or unused for a while.
    pub(super) fn prune(&self) {
        self.open.lock().retain(|connection| {
            let age = connection.born.elapsed();
            let quiet =
                age.saturating_sub(Duration::from_millis(connection.quiet_since.load(Ordering::Relaxed)));
            let is_used = connection.streams.load(Ordering::Relaxed) > 0 || quiet < self.keep;
            !connection.sender.is_closed() && age < self.max_age && is_used
        });
    }

    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }

    fn share(&self, connection: &Arc<Http2Connection>) -> Http2Stream {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        let waits = IdleTimer::new(Duration::MAX);
        Http2Stream { connection: Arc::clone(connection), scheme: self.scheme.clone(), waits, incoming: None }
    }
}

impl Http2Stream {
    /// Sends a request and waits for the head of its answer, as [`Http1Connection::send`] does.
    ///
    /// [`Http1Connection::send`]: super::http1::Http1Connection::send
    pub(super) async fn send(
        &mut self,
        head: &Parts,
        body: &mut Body,
        times: &Timeouts,
    ) -> Result<Response<()>, SendFailure> {
        let bodyless = matches!(body, Body::Empty);
        let upload = body.watch_upload(times.body);
        let Some(head) = as_http2(head, &self.scheme) else { return Err(SendFailure::Target) };
        let request = Request::from_parts(head, std::mem::take(body));
        let answer = pin!(self.connection.sender.clone().try_send_request(request));
        let answer = in_time(upload.as_deref(), &mut self.waits, times.first_byte, answer).await;
        let answer = answer.ok_or(SendFailure::Late)?.map_err(|failure| {
            if bodyless && was_refused(failure.error()) {
                SendFailure::Unsent
            } else {
                failed(failure, bodyless, body)
            }
        })?;
        let (mut head, incoming) = answer.into_parts();
        framing::settle(&mut head.headers).map_err(SendFailure::Framing)?;
        self.incoming = Some(incoming);
        Ok(Response::from_parts(head, ()))
    }

    /// The next piece of the answer's body. (Trailers are not passed on.)
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        let upstream = |error| BodyError::Upstream(io::Error::other(error));
        Poll::Ready(
            frame.and_then(|frame| frame.map_err(upstream).map(|frame| frame.into_data().ok()).transpose()),
        )
    }

    /// True if nothing is left of the answer's body.
    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

/// Kind of a failure. An unwritten body is put back.
fn failed(mut failure: TrySendError<Request<Body>>, bodyless: bool, body: &mut Body) -> SendFailure {
    match failure.take_message() {
        Some(request) => {
            *body = request.into_body();
            SendFailure::Unsent
        }
        None if bodyless && is_stale(failure.error()) => SendFailure::Stale,
        None => is_client_error(failure.into_error()),
    }
}

/// Tells whether the request broke, or its answer.
fn is_client_error(error: hyper::Error) -> SendFailure {
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        match error.downcast_ref::<BodyError>() {
            Some(BodyError::ViewerStalled) => return SendFailure::Viewer(BodyError::ViewerStalled),
            Some(BodyError::ViewerTooLong) => return SendFailure::Viewer(BodyError::ViewerTooLong),
            Some(BodyError::Viewer(_)) => return SendFailure::Viewer(BodyError::ViewerCut),
            _ => cause = error.source(),
        }
    }
    SendFailure::Broken(io::Error::other(error))
}

/// UPSTREAM: a keep-alive timeout that races with our write shows as an incomplete message or a reset.
fn is_stale(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let http2 = source.and_then(|source| source.downcast_ref::<h2::Error>()).and_then(h2::Error::get_io);
    let io = source.and_then(|source| source.downcast_ref::<io::Error>()).or(http2);
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || io
            .is_some_and(|io| matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

/// Converts a request head to HTTP/2: `Host` becomes `:authority`, and fields about the connection go (RFC
/// 9113 sections 8.2.2 and 8.3.1).
fn as_http2(head: &Parts, scheme: &Scheme) -> Option<Parts> {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    let mut head = head.clone();
    let host = head.headers.remove(HOST)?;
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        head.headers.remove(name);
    }
    let mut target = http::uri::Parts::default();
    target.scheme = Some(scheme.clone());
    target.authority = Some(Authority::try_from(host.as_bytes()).ok()?);
    target.path_and_query = head.uri.path_and_query().cloned();
    head.uri = Uri::from_parts(target).ok()?;
    head.version = Version::HTTP_2;
    Some(head)
}

/// True if the server declares that it did not process this request: refused, or sent after the last one of a connection
/// that it closes (RFC 9113 sections 6.8 and 8.7).
fn was_refused(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_becomes_the_authority_and_nothing_is_left_of_the_connection() {
        let head = Request::get("/a%2Fb;1?x=%2C")
            .header("host", "images.test:81")
            .header("connection", "close, x")
            .header("transfer-encoding", "chunked")
            .header("te", "trailers")
            .header("accept", "image/jpeg")
            .body(())
            .expect("a request");
        let head = as_http2(&head.into_parts().0, &Scheme::HTTPS).expect("it can be written");
        assert_eq!(head.uri, "https://images.test:81/a%2Fb;1?x=%2C");
        assert_eq!(head.headers.len(), 1, "{:?}", head.headers);
    }
}
