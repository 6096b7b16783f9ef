//! One HTTP/1.1 connection to an upstream.

use std::time::Instant;

use http::request::Parts;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper::{Request, Response};

use super::body::Body;

/// One connection; at most one request at a time.
#[derive(Debug)]
pub(super) struct Connection {
    sender: http1::SendRequest<Body>,
    reused: bool,
    /// When it was last given back to the pool.
    pub(super) idle_since: Instant,
}

/// How a request failed before the head of an answer.
#[derive(Debug)]
pub(super) enum SendFailure {
    /// Nothing was written; here is the body again.
    Unsent(Body),
    /// The connection was closed under a request without a body before any byte of an answer.
    Stale,
    /// Anything else.
    Broken(hyper::Error),
}

impl Connection {
    /// Starts HTTP/1.1 on a fresh stream; a task of its own drives it.
    pub(super) async fn open<I>(io: I) -> hyper::Result<Self>
    where
        I: Read + Write + Send + Unpin + 'static,
    {
        let (sender, driver) = http1::Builder::new().handshake(io).await?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to an upstream ended badly");
            }
        });
        Ok(Self { sender, reused: false, idle_since: Instant::now() })
    }

    /// It carried a request before this one, so the upstream may have closed it meanwhile.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Marks it as one that waits for its next request.
    pub(super) fn rest(&mut self, now: Instant) {
        self.reused = true;
        self.idle_since = now;
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, head: &Parts, body: Body) -> Result<Response<Incoming>, SendFailure> {
        let bodyless = matches!(body, Body::Empty);
        // The last answer was read to its end, so this waits at most for the driver to notice.
        if self.sender.ready().await.is_err() {
            return Err(SendFailure::Unsent(body));
        }
        let request = Request::from_parts(head.clone(), body);
        self.sender.try_send_request(request).await.map_err(|mut failure| match failure.take_message() {
            Some(request) => SendFailure::Unsent(request.into_body()),
            None if bodyless && is_stale(failure.error()) => SendFailure::Stale,
            None => SendFailure::Broken(failure.into_error()),
        })
    }
}

/// UPSTREAM: a keep-alive timeout that races with our write shows as an incomplete message or a reset.
fn is_stale(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_incomplete_message()
        || error.is_closed()
        || io.is_some_and(|io| {
            matches!(io.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
        })
}
