//! The body of an answer, on its way out.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::pulse::InFlight;
use crate::upstream::{Body, BodyError};

/// An answer's body, which knows whose it is.
#[derive(Debug)]
pub(super) struct Answering {
    body: Body,
    in_flight: InFlight,
}

impl Answering {
    /// The head goes out now.
    pub(super) fn new(body: Body, in_flight: InFlight) -> Self {
        in_flight.is_viewers_turn(true);
        Self { body, in_flight }
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.in_flight.is_viewers_turn(polled.is_ready());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
