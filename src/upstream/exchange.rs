//! An answer that streams, with what it holds: its connection and its permits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use super::RequestPermits;
use super::body::{Body, BodyAbort};
use super::body_connection::BodyConnection;
use super::client::Client;
use super::error::BodyError;
use super::tee::is_over;
use super::transfer::{Release, Transfer};

/// Streaming answer, with the resources to give back at its end.
#[derive(Debug)]
pub(super) struct StreamingExchange {
    pub(super) connection: BodyConnection,
    #[expect(dead_code, reason = "free when dropped")]
    pub(super) admission: Option<RequestPermits>,
}

impl HttpBody for StreamingExchange {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.connection.poll_body(cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.connection.size_hint()
    }
}

/// Resources of a streaming answer. The lock is uncontended: only the end of a transfer takes it, for a moment.
pub(super) type HeldExchange = Mutex<Option<StreamingExchange>>;

impl Release for HeldExchange {
    fn release(&self) {
        let exchange = self.lock().take();
        drop(exchange);
    }
}

impl StreamingExchange {
    /// Hands out the exchange, which is given back when its client takes nothing while others wait.
    pub(super) fn into_transfer(self, client: Option<Arc<Client>>) -> Arc<Transfer<HeldExchange>> {
        Transfer::new(client.map(|client| client as _), Mutex::new(Some(self)))
    }

    /// The body of an exchange that has no client (a health check, a drained answer).
    pub(super) fn into_body(self) -> Body {
        stream(self.into_transfer(None))
    }
}

/// The body of an answer that streams.
pub(super) fn stream(transfer: Arc<Transfer<HeldExchange>>) -> Body {
    Body::shaped(ResponseBody { transfer, end: None })
}

/// A streaming answer. Holds its permit and its connection until it ends, or until others need them more.
#[derive(Debug)]
struct ResponseBody {
    transfer: Arc<Transfer<HeldExchange>>,
    /// Set once the body broke.
    end: Option<BodyAbort>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(end) = &mut self.end {
            return end.poll(cx).map(|error| error.map(Err));
        }
        let mut held = self.transfer.held.lock();
        let Some(exchange) = &mut *held else {
            drop(held);
            return if self.transfer.is_ended() {
                self.breaks(BodyError::Ended, cx)
            } else {
                Poll::Ready(None)
            };
        };
        let polled = Pin::new(&mut *exchange).poll_frame(cx);
        // The connection is given back with the last frame, not with the call after it.
        let is_over = match &polled {
            Poll::Ready(frame) => is_over(&*exchange, frame.as_ref()),
            Poll::Pending => false,
        };
        if is_over && let Some(mut exchange) = held.take() {
            exchange.connection.give_back();
        }
        drop(held);
        self.transfer.waits_for_client(polled.is_ready());
        match ready!(polled) {
            Some(Err(error)) => self.breaks(error, cx),
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.end.as_ref().is_some_and(BodyAbort::is_reported)
            || self.end.is_none() && self.transfer.held.lock().is_none() && !self.transfer.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.transfer.held.lock().as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl ResponseBody {
    fn breaks(
        &mut self,
        error: BodyError,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let end = self.end.insert(BodyAbort::new(error));
        end.poll(cx).map(|error| error.map(Err))
    }
}
