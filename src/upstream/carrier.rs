//! What carries one request and its answer: an HTTP/1.1 connection, or a stream of an HTTP/2 connection.

use http::request::Parts;
use hyper::Response;
use hyper::body::Incoming;

use super::body::Body;
use super::connection::{Http1Connection, SendFailure};
use super::http2::Http2Stream;
use super::request_body::IdleTimer;
use crate::config::settings::Timeouts;

/// What carries one request and its answer.
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
    ) -> Result<Response<Incoming>, SendFailure> {
        match self {
            Self::Own(connection) => connection.send(head, body, times).await,
            // Boxed, because most requests do not need it.
            Self::Shared(stream) => Box::pin(stream.send(head, body, times)).await,
        }
    }

    /// Whether a request was sent on an unshared connection, and its answer has not come.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Self::Own(connection) if connection.is_awaited())
    }

    /// Waits for that answer.
    pub(super) async fn answer(&mut self) -> Option<Incoming> {
        match self {
            Self::Own(connection) => connection.answer().await,
            Self::Shared(_) => None,
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
