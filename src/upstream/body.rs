//! The one body type, for requests and answers alike.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use super::pool::Lease;

/// A body: nothing, some bytes, or a stream from either side.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes that are already here.
    Full(Bytes),
    /// What a viewer sends.
    Viewer(Incoming),
    /// What an upstream answers.
    Upstream(Box<FromUpstream>),
    /// The beginning is here, the rest still streams.
    Chain(VecDeque<Bytes>, Box<Body>),
    /// It is known to break here; `None` once that was said.
    Broken(Option<BodyError>),
    /// Somebody listens.
    Teed(Box<Teed>),
    /// Made by another room.
    Shaped(Shaped),
}

/// A body that is listened to as it goes by. Its pieces are shared, not copied.
pub struct Teed {
    body: Body,
    heard: Vec<Bytes>,
    /// How many more bytes may be heard; beyond that the listener is let go.
    left: usize,
    done: Option<Listener>,
}

/// A body that another room makes.
pub struct Shaped(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send + Sync>>);

impl std::fmt::Debug for Shaped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shaped").finish_non_exhaustive()
    }
}

type Listener = Box<dyn FnOnce(Vec<Bytes>) + Send + Sync>;

impl std::fmt::Debug for Teed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teed").field("body", &self.body).field("left", &self.left).finish_non_exhaustive()
    }
}

/// Why a body ended before its end. The peer sees an aborted message, never a clean short one.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream cut it.
    #[error("the upstream cut the body")]
    Upstream(#[source] hyper::Error),
    /// The viewer cut it.
    #[error("the viewer cut the body")]
    Viewer(#[source] hyper::Error),
    /// The upstream was silent for too long in the middle.
    #[error("the upstream stalled in the middle of a body")]
    Stalled,
    /// It cannot be unpacked, or its file cannot be read to the end.
    #[error("the body cannot be read to its end")]
    Unreadable(#[source] std::io::Error),
}

/// A streaming answer. Holds its place and its connection until it ends.
#[derive(Debug)]
pub struct FromUpstream {
    incoming: Incoming,
    lease: Lease,
    /// Freed with the body.
    place: Option<OwnedSemaphorePermit>,
    patience: Duration,
    /// Armed only while nothing comes: a body that flows never touches the clock.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(super) fn from_upstream(
        incoming: Incoming,
        mut lease: Lease,
        place: OwnedSemaphorePermit,
        patience: Duration,
    ) -> Self {
        if incoming.is_end_stream() {
            lease.end();
            return Self::Empty;
        }
        Self::Upstream(Box::new(FromUpstream {
            incoming,
            lease,
            place: Some(place),
            patience,
            silence: None,
        }))
    }

    /// A viewer's request body; `Empty` for a GET or HEAD without one, so that the request may be repeated.
    pub fn from_viewer(method: &http::Method, incoming: Incoming) -> Self {
        let repeatable = matches!(*method, http::Method::GET | http::Method::HEAD);
        if repeatable && incoming.is_end_stream() { Self::Empty } else { Self::Viewer(incoming) }
    }

    /// The same body; `done` gets all of it once it has gone by whole, unless it is longer than `most` bytes.
    #[must_use]
    pub fn tee(self, most: usize, done: impl FnOnce(Vec<Bytes>) + Send + Sync + 'static) -> Self {
        Self::Teed(Box::new(Teed { body: self, heard: Vec::new(), left: most, done: Some(Box::new(done)) }))
    }

    /// A body that another room makes.
    pub fn shaped(body: impl HttpBody<Data = Bytes, Error = BodyError> + Send + Sync + 'static) -> Self {
        Self::Shaped(Shaped(Box::pin(body)))
    }

    /// Reads the whole body, up to `most` bytes.
    pub async fn collect(self, most: usize) -> Result<Bytes, CollectError> {
        match self {
            Self::Empty => Ok(Bytes::new()),
            Self::Full(bytes) if bytes.len() <= most => Ok(bytes),
            body => Ok(http_body_util::Limited::new(body, most).collect().await?.to_bytes()),
        }
    }
}

/// Too long, or [`BodyError`].
type CollectError = Box<dyn std::error::Error + Send + Sync>;

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(_) => {
                let Self::Full(bytes) = std::mem::take(&mut *self) else { return Poll::Ready(None) };
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Viewer(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Viewer)))
            }
            Self::Upstream(stream) => stream.poll_frame(cx),
            Self::Chain(begun, rest) => match begun.pop_front() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Pin::new(&mut **rest).poll_frame(cx),
            },
            Self::Broken(error) => Poll::Ready(error.take().map(Err)),
            Self::Teed(teed) => teed.poll_frame(cx),
            Self::Shaped(Shaped(body)) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Viewer(incoming) => incoming.is_end_stream(),
            Self::Upstream(stream) => stream.incoming.is_end_stream(),
            Self::Chain(begun, rest) => begun.is_empty() && rest.is_end_stream(),
            Self::Broken(error) => error.is_none(),
            // The listener is told at the end, so the end must be polled for.
            Self::Teed(teed) => teed.done.is_none() && teed.body.is_end_stream(),
            Self::Shaped(Shaped(body)) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Viewer(incoming) => incoming.size_hint(),
            Self::Upstream(stream) => stream.incoming.size_hint(),
            Self::Chain(begun, rest) => {
                let here: u64 = begun.iter().map(|bytes| bytes.len() as u64).sum();
                let there = rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(here + there.lower());
                if let Some(upper) = there.upper() {
                    hint.set_upper(here + upper);
                }
                hint
            }
            Self::Broken(_) => SizeHint::default(),
            Self::Teed(teed) => teed.body.size_hint(),
            Self::Shaped(Shaped(body)) => body.size_hint(),
        }
    }
}

impl Teed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(bytes), true) = (frame.data_ref(), self.done.is_some()) {
                    self.hear(bytes.clone());
                }
            }
            Some(Err(_)) => self.done = None,
            None => {}
        }
        // Told with the last frame: hyper does not ask once more when the length is known.
        if self.body.is_end_stream()
            && let Some(done) = self.done.take()
        {
            done(std::mem::take(&mut self.heard));
        }
        Poll::Ready(frame)
    }

    fn hear(&mut self, bytes: Bytes) {
        if let Some(left) = self.left.checked_sub(bytes.len()) {
            self.left = left;
            self.heard.push(bytes);
        } else {
            self.done = None;
            self.heard = Vec::new();
        }
    }
}

impl FromUpstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            return self.poll_silence(cx);
        };
        self.silence = None;
        // Given back as early as possible: the last frame, not the call after it.
        if self.incoming.is_end_stream() || frame.is_none() {
            self.lease.end();
            self.place = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Upstream)))
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let patience = self.patience;
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Stalled)))
    }
}

/// An answer that is kept back while its image is healed. What fits the cap is in memory; a longer body stays
/// where it is, in the upstream's connection, and costs no memory either.
#[derive(Debug)]
pub struct Held {
    head: Parts,
    body: Body,
}

impl Held {
    /// Takes in at most about `cap` bytes of the body within `time`; nothing of it is ever lost.
    pub async fn hold(answer: Response<Body>, cap: usize, time: Duration) -> Self {
        let (head, mut body) = answer.into_parts();
        let mut begun = VecDeque::new();
        let mut size = 0;
        let deadline = Instant::now() + time;
        while size < cap && !body.is_end_stream() {
            match tokio::time::timeout_at(deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    size += bytes.len();
                    begun.push_back(bytes);
                }
                // A break is kept, so that the viewer sees an aborted message and not a clean short one.
                Ok(Some(Err(error))) => {
                    body = Body::Broken(Some(error));
                    break;
                }
                Ok(None) | Err(_) => break,
            }
        }
        let body = if body.is_end_stream() && begun.len() <= 1 {
            begun.pop_front().map_or(Body::Empty, Body::Full)
        } else {
            Body::Chain(begun, Box::new(body))
        };
        Self { head, body }
    }

    /// The answer's status.
    pub fn status(&self) -> http::StatusCode {
        self.head.status
    }

    /// Lets it go, as it was.
    pub fn release(self) -> Response<Body> {
        Response::from_parts(self.head, self.body)
    }
}
