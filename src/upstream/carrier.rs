//! Carrier of one request and its answer: an HTTP/1.1 connection, or a stream of an HTTP/2 connection.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http_body::SizeHint;
use hyper::Response;

use super::body::Body;
use super::error::{BodyError, SendFailure};
use super::http1::Http1Connection;
use super::http2::Http2Stream;
use super::request_body::IdleTimer;
use crate::config::settings::Timeouts;

/// Carrier of one request and its answer.
#[derive(Debug)]
pub(super) enum ActiveConnection {
    /// An HTTP/1.1 connection, alone.
    Own(Box<Http1Connection>),
    /// An HTTP/2 connection, with others.
    Shared(Http2Stream),
}

impl ActiveConnection {
    pub(super) async fn send(
        &mut self,
        head: &Parts,
        body: &mut Body,
        times: &Timeouts,
    ) -> Result<Response<()>, SendFailure> {
        match self {
            Self::Own(connection) => connection.send(head, body, times).await,
            // Boxed, because most requests do not need it.
            Self::Shared(stream) => Box::pin(stream.send(head, body, times)).await,
        }
    }

    /// True for an unshared connection that carried a request before: its server may have closed it since.
    pub(super) fn is_used(&self) -> bool {
        matches!(self, Self::Own(connection) if connection.idle_since > connection.born)
    }

    /// True if a request was sent on an unshared connection, and its answer has not come.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Self::Own(connection) if connection.is_awaited())
    }

    /// Waits for the head of that answer. False: the connection broke.
    pub(super) async fn answer(&mut self) -> bool {
        match self {
            Self::Own(connection) => connection.answer().await,
            Self::Shared(_) => false,
        }
    }

    /// The next piece of the answer's body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Self::Own(connection) => connection.poll_body(cx),
            Self::Shared(stream) => stream.poll_body(cx),
        }
    }

    /// True if nothing is left of the answer's body.
    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(connection) => connection.is_end_stream(),
            Self::Shared(stream) => stream.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(connection) => connection.size_hint(),
            Self::Shared(stream) => stream.size_hint(),
        }
    }

    /// The idle timer of the connection. A timer for each request would cost more than the rest of its bookkeeping.
    pub(super) fn waits(&mut self) -> &mut IdleTimer {
        match self {
            Self::Own(connection) => &mut connection.waits,
            Self::Shared(stream) => &mut stream.waits,
        }
    }
}
