//! The bodies of the stand-ins' answers: whole, cut short or stuck.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// End of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Clean,
    Cut,
    Hangs,
}

/// A pause before each byte.
struct Drip {
    every: Duration,
    next: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl std::fmt::Debug for Drip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a byte each {:?}", self.every)
    }
}

/// A body of known frames: with a length, chunked, cut short or stuck.
#[derive(Debug)]
pub struct Flow {
    frames: VecDeque<Bytes>,
    ending: Ending,
    exact: Option<u64>,
    flushed: bool,
    drip: Option<Drip>,
}

impl Flow {
    /// A body with `Content-Length`.
    pub fn sized(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let exact = Some(bytes.len() as u64);
        Self { frames: VecDeque::from([bytes]), ending: Ending::Clean, exact, flushed: false, drip: None }
    }

    /// A body without a length: hyper sends it chunked, as Jetty does.
    pub fn chunked(bytes: impl Into<Bytes>) -> Self {
        Self { exact: None, ..Self::sized(bytes) }
    }

    /// Breaks the body off after `count` bytes (its announced length stays).
    #[must_use]
    pub fn cut_after(self, count: usize) -> Self {
        self.shortened(count, Ending::Cut)
    }

    /// Stops the body after `count` bytes without an end.
    #[must_use]
    pub fn stuck_after(self, count: usize) -> Self {
        self.shortened(count, Ending::Hangs)
    }

    /// Sends the body a byte at a time with a pause before each.
    #[must_use]
    pub fn dripping(mut self, every: Duration) -> Self {
        let bytes: Vec<u8> = self.frames.iter().flatten().copied().collect();
        self.frames = bytes.into_iter().map(|byte| Bytes::from(vec![byte])).collect();
        self.drip = Some(Drip { every, next: None });
        self
    }

    fn shortened(mut self, count: usize, ending: Ending) -> Self {
        let whole: Vec<u8> = self.frames.iter().flatten().copied().take(count).collect();
        self.frames = VecDeque::from([Bytes::from(whole)]);
        self.ending = ending;
        self
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(drip) = self.drip.as_mut() {
            let every = drip.every;
            let next = drip.next.get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
            std::task::ready!(next.as_mut().poll(cx));
            drip.next = None;
        }
        while let Some(frame) = self.frames.pop_front() {
            if !frame.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
        }
        match self.ending {
            Ending::Clean => Poll::Ready(None),
            Ending::Hangs => Poll::Pending,
            // hyper drops its write buffer when a body fails: a pause first lets the bytes out.
            Ending::Cut if !self.flushed => {
                self.flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ending::Cut => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ending == Ending::Clean && self.frames.iter().all(Bytes::is_empty) && self.exact.is_some()
    }

    fn size_hint(&self) -> SizeHint {
        self.exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
