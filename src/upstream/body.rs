//! The one body type, for requests and answers alike.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Notify;

use super::error::BodyError;
use super::request_body::RequestBody;
use super::tee::TeeBody;
use super::transfer::Transfer;

/// A body: nothing, some bytes, or a stream from either side.
#[derive(Debug, Default)]
pub enum Body {
    /// No body.
    #[default]
    Empty,
    /// Bytes that are already here.
    Full(Bytes),
    /// Body from a viewer.
    Viewer(Box<RequestBody>),
    /// The beginning is here, the rest still streams.
    Chain(VecDeque<Bytes>, Box<Body>),
    /// The end of a body whose length was not known.
    End,
    /// A body that breaks here.
    Broken(BodyAbort),
    /// A body that is copied while it is read.
    Teed(Box<TeeBody>),
    /// Made elsewhere.
    Shaped(BoxedBody),
}

/// A body that is made elsewhere.
pub struct BoxedBody(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send + Sync>>);

impl std::fmt::Debug for BoxedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shaped").finish_non_exhaustive()
    }
}

/// A body's bad end.
///
/// hyper throws away what it has not written yet when a body breaks: the last bytes, or the whole answer where it
/// broke at once, and the viewer would see a connection that closes for no reason. So a pause comes first.
#[derive(Debug)]
pub struct BodyAbort {
    error: Option<BodyError>,
    paused: bool,
}

impl BodyAbort {
    pub(super) fn new(error: BodyError) -> Self {
        Self { error: Some(error), paused: false }
    }

    /// Pending once, then the error, then nothing.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<BodyError>> {
        if !self.paused {
            self.paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.error.take())
    }

    pub(super) fn is_reported(&self) -> bool {
        self.error.is_none()
    }
}

impl Body {
    /// Transfer by which the body may be ended when others wait; `None`: the body holds nothing that others wait for.
    pub(super) fn transfer(&self) -> Option<&Arc<Transfer<()>>> {
        match self {
            Self::Viewer(upload) => Some(upload.transfer()),
            Self::Chain(_, rest) => rest.transfer(),
            _ => None,
        }
    }

    /// Progress of an upload, which may stall for at most `patience` from now on; `None`: no viewer sends this body.
    pub(super) fn watch_upload(&mut self, patience: Duration) -> Option<Arc<Notify>> {
        match self {
            Self::Viewer(upload) => Some(upload.watch(patience)),
            Self::Chain(_, rest) => rest.watch_upload(patience),
            _ => None,
        }
    }

    /// A viewer's request body; `Empty` for a GET, HEAD or OPTIONS without one, so that the request may be repeated.
    ///
    /// The body breaks with [`BodyError::ViewerTooLong`] after `most` bytes, and with [`BodyError::ViewerStalled`] when fewer
    /// than `min_rate` bytes come in a second.
    pub fn from_viewer(method: &Method, incoming: Incoming, most: usize, min_rate: usize) -> Self {
        let repeatable = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if repeatable && incoming.is_end_stream() {
            Self::Empty
        } else {
            Self::Viewer(Box::new(RequestBody::new(incoming, most, min_rate)))
        }
    }

    /// Copies the body while it is read. `done` gets all of it at its end, or `None` once it is longer than `most` bytes.
    /// `done` is not called for a body that breaks or that is not read to its end.
    #[must_use]
    pub fn tee(self, most: usize, done: impl FnOnce(Option<Vec<Bytes>>) + Send + Sync + 'static) -> Self {
        Self::Teed(Box::new(TeeBody::new(self, most, Box::new(done))))
    }

    /// A body that breaks at once.
    pub fn broken(error: BodyError) -> Self {
        Self::Broken(BodyAbort::new(error))
    }

    /// A body that is made elsewhere.
    pub fn shaped(body: impl HttpBody<Data = Bytes, Error = BodyError> + Send + Sync + 'static) -> Self {
        Self::Shaped(BoxedBody(Box::pin(body)))
    }

    /// True if the body is known to break.
    pub fn is_broken(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Chain(_, rest) => rest.is_broken(),
            _ => false,
        }
    }

    /// The pieces of a body of which all is here already; `None`: some of it is not, or it breaks.
    pub fn whole(&self) -> Option<Vec<&Bytes>> {
        match self {
            Self::Empty | Self::End => Some(Vec::new()),
            Self::Full(bytes) => Some(vec![bytes]),
            Self::Chain(begun, rest) => {
                let rest = rest.whole()?;
                Some(begun.iter().chain(rest).collect())
            }
            Self::Viewer(_) | Self::Broken(_) | Self::Teed(_) | Self::Shaped(_) => None,
        }
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
            Self::Empty | Self::End => Poll::Ready(None),
            Self::Full(_) => {
                let Self::Full(bytes) = std::mem::take(&mut *self) else { return Poll::Ready(None) };
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Viewer(upload) => upload.poll_frame(cx),
            Self::Chain(begun, rest) => match begun.pop_front() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Pin::new(&mut **rest).poll_frame(cx),
            },
            Self::Broken(end) => end.poll(cx).map(|error| error.map(Err)),
            Self::Teed(teed) => teed.poll_frame(cx),
            Self::Shaped(BoxedBody(body)) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::End => true,
            Self::Full(_) => false,
            Self::Viewer(upload) => upload.is_end_stream(),
            Self::Chain(begun, rest) => begun.is_empty() && rest.is_end_stream(),
            Self::Broken(end) => end.is_reported(),
            Self::Teed(teed) => teed.is_end_stream(),
            Self::Shaped(BoxedBody(body)) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Viewer(upload) => upload.size_hint(),
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
            Self::Broken(_) | Self::End => SizeHint::default(),
            Self::Teed(teed) => teed.size_hint(),
            Self::Shaped(BoxedBody(body)) => body.size_hint(),
        }
    }
}
