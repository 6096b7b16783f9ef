//! Request bodies from viewers, on their way to an upstream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use super::client::Client;
use super::error::BodyError;
use super::tee::is_over;
use super::transfer::Transfer;

/// A viewer's request body.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// Bytes that may still be sent.
    left: usize,
    silence: IdleTimer,
    /// Time in which [`PIECE`] bytes must come.
    pace: Duration,
    /// Bytes of the current piece.
    piece: usize,
    /// Notification, once, when no more bytes will be sent: the body has ended, or broke off.
    over: Arc<Notify>,
    transfer: Arc<Transfer<()>>,
}

/// Bytes after which a client slower than `server.min_rate` is detected: 32 s with the default of 512 bytes a second.
pub const PIECE: usize = 16 << 10;

/// Time for [`PIECE`] bytes at `min_rate` bytes a second; without end where that is zero.
pub fn pace(min_rate: usize) -> Duration {
    let seconds = PIECE.checked_div(min_rate);
    seconds.map_or(Duration::MAX, |seconds| Duration::from_secs(seconds as u64).max(Duration::from_secs(1)))
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, most: usize, min_rate: usize) -> Self {
        let pace = pace(min_rate);
        Self {
            incoming,
            left: most,
            silence: IdleTimer::new(pace),
            pace,
            piece: 0,
            over: Arc::default(),
            transfer: Transfer::new(None, ()),
        }
    }

    /// Sets the client that uploads.
    pub(super) fn belongs_to(&mut self, client: Arc<Client>) {
        self.transfer = Transfer::new(Some(client), ());
    }

    pub(super) fn transfer(&self) -> &Arc<Transfer<()>> {
        &self.transfer
    }

    /// Sets how long the viewer may be silent within the body; returns a notification of its end.
    pub(super) fn watch(&mut self, patience: Duration) -> Arc<Notify> {
        self.silence = IdleTimer::new(patience.min(self.pace));
        Arc::clone(&self.over)
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        self.transfer.waits_for_client(polled.is_pending());
        let Poll::Ready(frame) = polled else {
            if self.silence.poll_over(cx).is_pending() {
                ready!(self.transfer.poll_ended(cx));
            }
            return Poll::Ready(Some(Err(BodyError::ViewerStalled)));
        };
        self.silence.pause();
        if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
            let length = data.map_or(0, Bytes::len);
            self.piece += length;
            if self.piece >= PIECE {
                self.piece = 0;
                self.silence.reset();
            }
            if length > self.left {
                return Poll::Ready(Some(Err(BodyError::ViewerTooLong)));
            }
            self.left -= length;
        }
        if is_over(&self.incoming, frame.as_ref()) {
            self.over.notify_one();
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

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.over.notify_one();
    }
}

/// Awaits the answer; `None`: timeout. The clock starts when the request has been sent. The future is passed pinned: moved
/// in, it would take its memory twice.
pub(super) async fn in_time<A>(
    upload: Option<&Notify>,
    waits: &mut IdleTimer,
    patience: Duration,
    mut answer: Pin<&mut (impl Future<Output = A> + ?Sized)>,
) -> Option<A> {
    if let Some(upload) = upload {
        tokio::select! {
            biased;
            // An upstream may answer before it has everything.
            answer = answer.as_mut() => return Some(answer),
            () = upload.notified() => {}
        }
    }
    waits.begin(patience);
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => waits.poll_over(cx).map(|()| None),
    })
    .await
}

/// Timer of the longest silence: within a body, or before the head of an answer. Armed once and then left alone: when it
/// fires, the present silence is measured. Arming it for each silence costs more than the rest of the bookkeeping of a
/// request.
#[derive(Debug)]
pub(super) struct IdleTimer {
    patience: Duration,
    /// Time used up before this wait.
    used: Duration,
    /// Start of this wait.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, used: Duration::ZERO, since: None, timer: None }
    }

    /// Starts a new timeout of at most `patience` with the next poll.
    pub(super) fn begin(&mut self, patience: Duration) {
        self.patience = patience;
        self.reset();
    }

    /// Resets the timer: bytes came.
    pub(super) fn reset(&mut self) {
        (self.used, self.since) = (Duration::ZERO, None);
    }

    /// Pauses the timer: bytes came, but not enough, so the time used up still counts.
    pub(super) fn pause(&mut self) {
        if let Some(since) = self.since.take() {
            self.used = self.used.saturating_add(since.elapsed());
        }
    }

    /// Runs the timer while no bytes come: ready when the time is over.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let Some(end) = since.checked_add(self.patience.saturating_sub(self.used)) else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        // The new timeout is shorter than the one before.
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn lasts(silence: &mut IdleTimer) -> Duration {
        let began = Instant::now();
        poll_fn(|cx| silence.poll_over(cx)).await;
        began.elapsed()
    }

    fn is_over(silence: &mut IdleTimer) -> bool {
        silence.poll_over(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn the_patience_is_for_each_silence_anew() {
        let mut silence = IdleTimer::new(PATIENCE);
        for _ in 0..5 {
            assert!(!is_over(&mut silence));
            tokio::time::advance(PATIENCE * 9 / 10).await;
            assert!(!is_over(&mut silence));
            silence.reset();
        }
        let lasted = lasts(&mut silence).await;
        assert!(lasted >= PATIENCE && lasted < PATIENCE + Duration::from_secs(1), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_patience_after_a_longer_one_is_kept_too() {
        let mut silence = IdleTimer::new(PATIENCE);
        assert!(!is_over(&mut silence));
        silence.begin(PATIENCE / 10);
        let lasted = lasts(&mut silence).await;
        assert!(lasted >= PATIENCE / 10 && lasted < PATIENCE / 5, "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_too_slowly_uses_up_the_patience() {
        let mut silence = IdleTimer::new(PATIENCE);
        for _ in 0..9 {
            assert!(!is_over(&mut silence));
            tokio::time::advance(PATIENCE / 10).await;
            silence.pause();
            // The other side does not ask for more now; such time is not the client's.
            tokio::time::advance(PATIENCE).await;
        }
        let lasted = lasts(&mut silence).await;
        assert!(lasted <= PATIENCE / 5, "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn endless_patience_never_ends() {
        let mut silence = IdleTimer::new(Duration::MAX);
        assert!(!is_over(&mut silence));
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert!(!is_over(&mut silence));
    }
}
