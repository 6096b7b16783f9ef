//! HTTP on one connection: silent at first, then HTTP/1 or HTTP/2, and silent again while no request is in flight.
//!
//! hyper keeps its buffers (16 KiB) for as long as a connection of HTTP/1 lives, and most connections of viewers rest most
//! of the time. So an idle connection is parked: hyper gives the stream back, and begins anew with the next byte.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::tracked_io::{DetectedProtocol, TrackedIo};
use super::{ConnectionLimits, EndCause, malformed, tunnel};

/// Error for first bytes that are neither HTTP/1 nor the preface of HTTP/2: an answer in either would be a guess.
#[derive(Debug, thiserror::Error)]
#[error("the first bytes are neither HTTP/1 nor the preface of HTTP/2")]
pub(super) struct UnknownProtocol;

/// HTTP of a connection, whatever the layers below and above. Ready when the connection has ended.
pub(super) trait DriveHttp: Future<Output = Result<(), EndCause>> + Unpin {
    /// Frees memory kept for the next request.
    ///
    /// Allowed only without a request in flight, with nothing left to write, and if no request had a body: unread bytes of
    /// a body would be read as the next request.
    fn park(&mut self);

    /// Ends the connection as soon as the requests in flight have ended.
    fn graceful_shutdown(&mut self);
}

/// A connection's HTTP. Ready when the connection has ended.
pub(super) struct HttpConnection<I, S: HttpService<Incoming>> {
    state: HttpState<I, S>,
    service: S,
    bounds: Arc<ConnectionLimits>,
}

type Http1Stream<I> = TokioIo<TrackedIo<I>>;

/// State of a connection; large states are boxed, so that a silent connection needs little memory.
enum HttpState<I, S: HttpService<Incoming>> {
    Silent(TrackedIo<I>),
    Http1(Box<http1::Connection<Http1Stream<I>, S>>),
    Http2(Pin<Box<http2::Connection<Http1Stream<I>, S, TokioExecutor>>>),
    /// Tunnel of another protocol.
    Tunnel(Pin<Box<dyn Future<Output = Result<(), EndCause>> + Send>>),
    Over,
}

impl<I, S, B> HttpConnection<I, S>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B> + Clone,
    S::Error: Into<EndCause>,
    B: Body + 'static,
    B::Error: Into<EndCause>,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    pub(super) fn new(io: TrackedIo<I>, service: S, bounds: Arc<ConnectionLimits>) -> Self {
        Self { state: HttpState::Silent(io), service, bounds }
    }

    fn http1(&self, io: TrackedIo<I>) -> HttpState<I, S> {
        let mut builder = http1::Builder::new();
        // No timer for heads: see `activity`. No `pipeline_flush`: with it, hyper drops an answer when the connection ends
        // with bytes unread, as after a request whose body was not read. `half_close`: see `tracked_io`.
        builder.max_buf_size(self.bounds.max_head_bytes).half_close(true);
        let io = TokioIo::new(io.in_http1());
        HttpState::Http1(Box::new(builder.serve_connection(io, self.service.clone())))
    }

    /// HTTP/1 has ended: for good, or to go on in another protocol.
    fn switch(&mut self) {
        let HttpState::Http1(connection) = std::mem::replace(&mut self.state, HttpState::Over) else {
            return;
        };
        let parts = connection.into_parts();
        let io = parts.io.into_inner();
        if let Some(tunnel) = io.activity().upgrade().and_then(|upgrade| upgrade.take()) {
            self.state = HttpState::Tunnel(Box::pin(tunnel::pass(io, parts.read_buf, tunnel)));
        }
    }

    /// Replaces a head that hyper could not parse by a substitute request. hyper's own answer was held back; the service
    /// answers the substitute with an error in its usual form.
    fn explain(&mut self, error: hyper::Error) -> Result<(), EndCause> {
        let HttpState::Http1(connection) = std::mem::replace(&mut self.state, HttpState::Over) else {
            return Err(error.into());
        };
        let mut io = connection.into_parts().io.into_inner();
        let Some((refused, head)) = io.refused() else { return Err(error.into()) };
        if io.activity().is_new() && malformed::is_no_http(&head) {
            return Err(UnknownProtocol.into());
        }
        io.activity().note_malformed(refused.0);
        self.state = self.http1(io.with_unread(malformed::stand_in(&head)));
        Ok(())
    }

    fn http2(&self, io: TrackedIo<I>) -> HttpState<I, S> {
        let (bounds, http2) = (&self.bounds, self.bounds.http2);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(http2.ping)
            .keep_alive_timeout(http2.ping_timeout)
            .max_header_list_size(u32::try_from(bounds.max_head_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(http2.max_streams)
            // SECURITY: rapid reset (CVE-2023-44487) and its counterpart by our own resets (CVE-2025-8671).
            .max_pending_accept_reset_streams(http2.max_resets)
            .max_local_error_reset_streams(http2.max_resets);
        HttpState::Http2(Box::pin(builder.serve_connection(TokioIo::new(io), self.service.clone())))
    }
}

// Every part that is pinned is boxed.
impl<I, S: HttpService<Incoming>> Unpin for HttpConnection<I, S> {}

impl<I, S, B> DriveHttp for HttpConnection<I, S>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B> + Clone,
    S::Error: Into<EndCause>,
    B: Body + 'static,
    B::Error: Into<EndCause>,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    fn park(&mut self) {
        match std::mem::replace(&mut self.state, HttpState::Over) {
            HttpState::Http1(connection) => {
                let parts = connection.into_parts();
                self.state = HttpState::Silent(parts.io.into_inner().with_unread(parts.read_buf));
            }
            other => self.state = other,
        }
    }

    fn graceful_shutdown(&mut self) {
        match &mut self.state {
            HttpState::Silent(_) | HttpState::Tunnel(_) => self.state = HttpState::Over,
            HttpState::Http1(connection) => Pin::new(&mut **connection).graceful_shutdown(),
            HttpState::Http2(connection) => connection.as_mut().graceful_shutdown(),
            HttpState::Over => {}
        }
    }
}

impl<I, S, B> Future for HttpConnection<I, S>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B> + Clone,
    S::Error: Into<EndCause>,
    B: Body + 'static,
    B::Error: Into<EndCause>,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    type Output = Result<(), EndCause>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let opening = match &mut self.state {
                HttpState::Http1(connection) => match ready!(Pin::new(&mut **connection).poll(cx)) {
                    Ok(()) => {
                        self.switch();
                        continue;
                    }
                    Err(error) => {
                        self.explain(error)?;
                        continue;
                    }
                },
                HttpState::Http2(connection) => return connection.as_mut().poll(cx).map_err(EndCause::from),
                HttpState::Tunnel(tunnel) => return tunnel.as_mut().poll(cx),
                HttpState::Over => return Poll::Ready(Ok(())),
                HttpState::Silent(io) => ready!(io.poll_opening(cx))?,
            };
            let HttpState::Silent(io) = std::mem::replace(&mut self.state, HttpState::Over) else { continue };
            self.state = match opening {
                DetectedProtocol::Http1 => self.http1(io),
                DetectedProtocol::Http2 => self.http2(io),
                DetectedProtocol::End => HttpState::Over,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::activity::ConnectionActivity;
    use super::*;
    use crate::config::Settings;

    async fn hello(request: Request<Incoming>) -> Result<Response<Full<&'static [u8]>>, Infallible> {
        Ok(Response::new(Full::new(if request.uri() == "/1" { b"<1>" } else { b"<2>" })))
    }

    /// Sends bytes and reads up to the end of the answer, while `ours` runs.
    async fn says(theirs: &mut DuplexStream, ours: &mut impl DriveHttp, said: &str) -> String {
        let mut heard = Vec::new();
        let exchange = async {
            theirs.write_all(said.as_bytes()).await.expect("room");
            while !heard.ends_with(b">") {
                assert_ne!(theirs.read_buf(&mut heard).await.expect("bytes"), 0);
            }
        };
        tokio::select! {
            () = exchange => {}
            _ = ours => panic!("it ended"),
        }
        String::from_utf8_lossy(&heard).into_owned()
    }

    #[tokio::test]
    async fn a_parked_connection_keeps_nothing_but_its_bytes_and_goes_on() {
        let (mut theirs, ours) = duplex(1024);
        let second = Duration::from_secs(1);
        let io = TrackedIo::new(ours, ConnectionActivity::with(second, second, second, second, second));
        let bounds = Arc::new(ConnectionLimits::from(&Settings::default().server));
        let mut ours = HttpConnection::new(io, service_fn(hello), bounds);
        let (first, half) = ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /2 HTTP/1.1\r\nHo");
        assert!(says(&mut theirs, &mut ours, &format!("{first}{half}")).await.ends_with("<1>"));
        ours.park();
        assert!(matches!(&ours.state, HttpState::Silent(_)));
        ours.park();
        assert!(says(&mut theirs, &mut ours, "st: a\r\n\r\n").await.ends_with("<2>"));
        assert!(matches!(&ours.state, HttpState::Http1(_)));
        ours.park();
        assert!(says(&mut theirs, &mut ours, first).await.ends_with("<1>"));
        ours.park();
        drop(theirs);
        assert!((&mut ours).await.is_ok() && matches!(ours.state, HttpState::Over));
    }

    #[tokio::test]
    async fn a_silent_connection_ends_at_once_when_it_is_told_to() {
        let (theirs, ours) = duplex(1024);
        let second = Duration::from_secs(1);
        let io = TrackedIo::new(ours, ConnectionActivity::with(second, second, second, second, second));
        let mut ours = HttpConnection::new(
            io,
            service_fn(hello),
            Arc::new(ConnectionLimits::from(&Settings::default().server)),
        );
        ours.graceful_shutdown();
        assert!(ours.await.is_ok());
        drop(theirs);
    }
}
