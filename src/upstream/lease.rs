//! What an answer's body holds of its connection.

use std::task::{Context, Poll};
use std::time::Duration;

use super::carrier::ActiveConnection;
use super::server::InFlightGuard;

/// A connection that carries a body. Dropping it early closes the connection: what is left of the body can
/// not be told from the next answer. (With HTTP/2 it can, and only the stream is reset.)
#[derive(Debug)]
pub(super) struct ResponseLease {
    carrier: Option<ActiveConnection>,
    load: Option<InFlightGuard>,
}

impl ResponseLease {
    /// Creates a lease; the body may stall for at most `silence`.
    pub(super) fn new(mut carrier: ActiveConnection, load: InFlightGuard, silence: Duration) -> Self {
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
        if let (Some(ActiveConnection::Own(connection)), Some(load)) = (self.carrier.take(), self.load.take())
        {
            load.give_back(connection);
        }
    }
}
