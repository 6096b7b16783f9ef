//! The body of an answer, on its way out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::in_flight::InFlight;
use crate::upstream::{Body, BodyError, PIECE};

/// An answer's body, which knows whose it is.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: Body,
    /// Bytes of the body that are not given to hyper yet.
    rest: Bytes,
    in_flight: TrackedRequest,
}

/// The request that is answered.
#[derive(Debug)]
enum TrackedRequest {
    /// The bytes of an HTTP/1 connection are watched as a whole.
    Http1(#[expect(dead_code, reason = "the request is in flight until it is dropped")] InFlight),
    /// Each answer of an HTTP/2 connection is watched, until its last piece is written. hyper takes a piece as soon as
    /// there is any window, and keeps it as long as that is too small.
    Http2(Arc<InFlight>),
}

/// A piece of an answer; dropped when it is written.
struct TrackedPiece {
    bytes: Bytes,
    in_flight: Arc<InFlight>,
}

impl AsRef<[u8]> for TrackedPiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for TrackedPiece {
    fn drop(&mut self) {
        self.in_flight.took();
    }
}

impl TrackedBody {
    /// Wraps the body of an answer whose head goes out now.
    pub(super) fn new(body: Body, in_flight: InFlight) -> Self {
        in_flight.gives(0);
        let in_flight = if in_flight.is_http2() {
            TrackedRequest::Http2(Arc::new(in_flight))
        } else {
            TrackedRequest::Http1(in_flight)
        };
        Self { body, rest: Bytes::new(), in_flight }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let own = &mut *self;
        let TrackedRequest::Http2(in_flight) = &own.in_flight else {
            return Pin::new(&mut own.body).poll_frame(cx);
        };
        if own.rest.is_empty() {
            let polled = Pin::new(&mut own.body).poll_frame(cx);
            if polled.is_pending() {
                in_flight.waits_for_us();
            }
            match ready!(polled).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(bytes))) => own.rest = bytes,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let bytes = own.rest.split_to(own.rest.len().min(PIECE));
        in_flight.gives(1);
        let piece = TrackedPiece { bytes, in_flight: Arc::clone(in_flight) };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (here, left) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(left.lower() + here);
        if let Some(upper) = left.upper() {
            hint.set_upper(upper + here);
        }
        hint
    }
}
