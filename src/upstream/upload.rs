//! What a viewer sends, on its way to an upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::body::BodyError;

/// A viewer's request body.
#[derive(Debug)]
pub struct FromViewer {
    incoming: Incoming,
    /// How many more bytes are taken.
    left: usize,
    silence: Silence,
    progress: Arc<Progress>,
}

/// How far an upload is. The connection that carries it has one as well.
#[derive(Debug, Default)]
pub(super) struct Progress {
    whole: AtomicBool,
    over: Notify,
}

impl Progress {
    /// It was sent to its end: the connection may carry the next request.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Waits until nothing more will be sent, because that was all or because it broke off. For one waiter.
    pub(super) async fn over(&self) {
        self.over.notified().await;
    }
}

impl FromViewer {
    pub(super) fn new(incoming: Incoming, most: usize) -> Self {
        Self { incoming, left: most, silence: Silence::new(Duration::MAX), progress: Arc::default() }
    }

    /// How long the viewer may be silent in the middle from now on, and how to see how far it is.
    pub(super) fn watch(&mut self, patience: Duration) -> Arc<Progress> {
        self.silence = Silence::new(patience);
        Arc::clone(&self.progress)
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            ready!(self.silence.poll_over(cx));
            return Poll::Ready(Some(Err(BodyError::ViewerStalled)));
        };
        self.silence.broken();
        if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
            let length = data.map_or(0, Bytes::len);
            if length > self.left {
                return Poll::Ready(Some(Err(BodyError::ViewerTooLong)));
            }
            self.left -= length;
        }
        if frame.is_none() || self.incoming.is_end_stream() {
            self.progress.whole.store(true, Ordering::Release);
            self.progress.over.notify_one();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Viewer)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for FromViewer {
    fn drop(&mut self) {
        // A body without a byte is never polled.
        if self.incoming.is_end_stream() {
            self.progress.whole.store(true, Ordering::Release);
        }
        self.progress.over.notify_one();
    }
}

/// The longest silence within a body. The timer is armed only while nothing comes: a body that flows never
/// touches the clock.
#[derive(Debug)]
pub(super) struct Silence {
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, timer: None }
    }

    /// Something came.
    pub(super) fn broken(&mut self) {
        self.timer = None;
    }

    /// Nothing came: ready once that was so for too long.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience))).as_mut().poll(cx)
    }
}
