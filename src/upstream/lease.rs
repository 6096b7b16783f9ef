//! What carries a request and its answer, and what an answer's body holds of it.

use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use hyper::Response;
use hyper::body::Incoming;

use super::body::Body;
use super::connection::{Connection, SendFailure};
use super::server::Load;
use super::trunk::Stream;
use super::upload::Silence;
use crate::config::settings::Timeouts;

/// What carries one request and its answer.
#[derive(Debug)]
pub(super) enum Carrier {
    /// An HTTP/1.1 connection, alone.
    Own(Box<Connection>),
    /// An HTTP/2 connection, with others.
    Shared(Stream),
}

impl Carrier {
    pub(super) async fn send(
        &mut self,
        head: &Parts,
        body: &mut Body,
        times: &Timeouts,
    ) -> Result<Response<Incoming>, SendFailure> {
        match self {
            Self::Own(connection) => connection.send(head, body, times).await,
            // Boxed: what most requests need no room for.
            Self::Shared(stream) => Box::pin(stream.send(head, body, times)).await,
        }
    }
}

impl Carrier {
    /// A request was sent on it, of which nobody else knows, and its answer has not come.
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

    /// Its timer. One for each request would cost more than the rest of the request's bookkeeping.
    fn waits(&mut self) -> &mut Silence {
        match self {
            Self::Own(connection) => &mut connection.waits,
            Self::Shared(stream) => &mut stream.waits,
        }
    }
}

/// A connection that carries a body. Dropping it early closes the connection: what is left of the body can
/// not be told from the next answer. (With HTTP/2 it can, and only the stream is reset.)
#[derive(Debug)]
pub(super) struct Lease {
    carrier: Option<Carrier>,
    load: Option<Load>,
}

impl Lease {
    /// The body may be silent for so long.
    pub(super) fn new(mut carrier: Carrier, load: Load, silence: Duration) -> Self {
        carrier.waits().begin(silence);
        Self { carrier: Some(carrier), load: Some(load) }
    }

    /// Something came.
    pub(super) fn is_heard(&mut self) {
        if let Some(carrier) = &mut self.carrier {
            carrier.waits().broken();
        }
    }

    /// Nothing came: ready once that was so for too long.
    pub(super) fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.carrier.as_mut().map_or(Poll::Pending, |carrier| carrier.waits().poll_over(cx))
    }

    /// The body was read to its end: the connection may carry the next request.
    pub(super) fn end(&mut self) {
        if let (Some(Carrier::Own(connection)), Some(load)) = (self.carrier.take(), self.load.take()) {
            load.give_back(connection);
        }
    }
}
