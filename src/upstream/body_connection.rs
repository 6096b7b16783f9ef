//! The connection of an answer's body, and its return to the pool.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::SizeHint;

use super::carrier::ActiveConnection;
use super::error::BodyError;
use super::server::InFlightGuard;

/// Connection that carries a body. Dropping it before the end closes the connection: the rest of the body could not be told from the
/// next answer. (With HTTP/2 it can, and only the stream is reset.)
#[derive(Debug)]
pub(super) struct BodyConnection {
    carrier: Option<ActiveConnection>,
    load: Option<InFlightGuard>,
}

impl BodyConnection {
    /// Starts the body, which may stall for at most `silence`.
    pub(super) fn new(mut carrier: ActiveConnection, load: InFlightGuard, silence: Duration) -> Self {
        carrier.waits().begin(silence);
        Self { carrier: Some(carrier), load: Some(load) }
    }

    /// The next piece of the body; an error once nothing came for too long.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(carrier) = &mut self.carrier else { return Poll::Ready(None) };
        let polled = carrier.poll_body(cx);
        if polled.is_ready() {
            carrier.waits().reset();
            return polled;
        }
        ready!(carrier.waits().poll_over(cx));
        Poll::Ready(Some(Err(BodyError::Stalled)))
    }

    /// True if nothing is left of the body.
    pub(super) fn is_end_stream(&self) -> bool {
        self.carrier.as_ref().is_none_or(ActiveConnection::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.carrier.as_ref().map_or_else(SizeHint::default, ActiveConnection::size_hint)
    }

    /// Gives the connection back after the whole body was read, for the next request.
    pub(super) fn give_back(&mut self) {
        if let (Some(ActiveConnection::Own(connection)), Some(load)) = (self.carrier.take(), self.load.take())
        {
            load.give_back(connection);
        }
    }
}
