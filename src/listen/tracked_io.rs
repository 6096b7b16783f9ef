//! The bytes of a connection, seen as they pass.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::ConnectionLimits;
use super::activity::ConnectionActivity;
use super::malformed::{self, MalformedStatus};

/// Connection preface of an HTTP/2 client (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes read at once before hyper reads: most heads, so that a malformed one is known as a whole; and while a request is
/// in flight, enough to notice that the other side is gone.
const AHEAD: usize = 512;

/// A stream whose bytes are watched.
#[derive(Debug)]
pub(super) struct TrackedIo<I> {
    io: I,
    activity: Arc<ConnectionActivity>,
    /// Bytes that came already and are to be read once more.
    unread: Bytes,
    /// Only accepted protocol; `None`: detected from the first bytes.
    only: Option<DetectedProtocol>,
    /// True if hyper's own answer to a malformed head is withheld, because a better one follows.
    withholds: bool,
    /// The beginning of the head that comes now.
    head: Vec<u8>,
    /// Answer of hyper that was withheld.
    withheld: Option<MalformedStatus>,
    /// Time for which a viewer that half-closed the connection counts as waiting.
    half_closed: Duration,
    /// Deadline of that wait, since the half-close or the last progress.
    left: Option<Pin<Box<Sleep>>>,
}

/// Protocol of the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DetectedProtocol {
    /// HTTP/1, or bytes of neither; hyper will refuse those.
    Http1,
    /// HTTP/2, by its preface.
    Http2,
    /// The other side is gone.
    End,
}

impl<I> TrackedIo<I> {
    pub(super) fn new(io: I, activity: Arc<ConnectionActivity>) -> Self {
        Self {
            io,
            activity,
            unread: Bytes::new(),
            only: None,
            withholds: false,
            head: Vec::new(),
            withheld: None,
            half_closed: Duration::ZERO,
            left: None,
        }
    }

    /// Sets the limits; `only` is the version that was agreed upon by ALPN.
    pub(super) fn under(self, bounds: &ConnectionLimits, only: Option<DetectedProtocol>) -> Self {
        Self { only, withholds: bounds.explains, half_closed: bounds.half_closed_timeout, ..self }
    }

    /// Puts back bytes that HTTP/1 read and did not use.
    pub(super) fn with_unread(mut self, unread: Bytes) -> Self {
        let unread =
            if self.unread.is_empty() { unread } else { [&unread[..], &self.unread[..]].concat().into() };
        self.withheld = None;
        Self { unread, only: Some(DetectedProtocol::Http1), head: Vec::new(), ..self }
    }

    /// HTTP/1 is spoken from now on.
    pub(super) fn in_http1(self) -> Self {
        Self { only: Some(DetectedProtocol::Http1), ..self }
    }

    /// Switches to a tunnel: hyper's own answers are no longer withheld.
    pub(super) fn beyond_http(self) -> Self {
        Self { withholds: false, ..self }
    }

    /// Takes the answer by which hyper refused a head, with the beginning of that head as far as it is known.
    pub(super) fn refused(&mut self) -> Option<(MalformedStatus, Vec<u8>)> {
        let refused = self.withheld.take()?;
        let is_known = self.activity.has_begun();
        Some((refused, if is_known { std::mem::take(&mut self.head) } else { Vec::new() }))
    }

    pub(super) fn activity(&self) -> &Arc<ConnectionActivity> {
        &self.activity
    }

    fn track_write<T>(&mut self, written: Poll<T>, bytes: impl FnOnce(&T) -> usize) -> Poll<T> {
        self.activity.record_write(match &written {
            Poll::Ready(written) => Some(bytes(written)),
            Poll::Pending => None,
        });
        if let (Some(left), true) = (&mut self.left, written.is_ready()) {
            left.as_mut().reset(Instant::now() + self.half_closed);
        }
        written
    }

    /// Notes bytes that came, maybe of a head.
    fn note_bytes(&mut self, bytes: &[u8]) {
        if !self.activity.is_idle() {
            return;
        }
        if self.activity.record_read() {
            self.head.clear();
        }
        if self.withholds && self.only != Some(DetectedProtocol::Http2) {
            let room = malformed::LONGEST.saturating_sub(self.head.len());
            self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// True if these bytes are hyper's own answer to a malformed head: no other bytes are written while no request is in
    /// flight and no answer is left. They are withheld.
    fn withholds(&mut self, bytes: &[u8]) -> bool {
        if self.withholds
            && !self.activity.owes()
            && self.withheld.is_none()
            && self.only == Some(DetectedProtocol::Http1)
        {
            self.withheld = MalformedStatus::of(bytes);
        }
        self.withheld.is_some()
    }

    /// Protocol of the bytes so far; `None`: too few.
    fn opening(&self) -> Option<DetectedProtocol> {
        match &*self.unread {
            [] => None,
            _ if self.only.is_some() => self.only,
            said if !PREFACE.starts_with(&said[..said.len().min(PREFACE.len())]) => {
                Some(DetectedProtocol::Http1)
            }
            said => (said.len() >= PREFACE.len()).then_some(DetectedProtocol::Http2),
        }
    }
}

impl<I: AsyncRead + Unpin> TrackedIo<I> {
    /// Waits for enough first bytes to detect the protocol. The bytes stay to be read.
    pub(super) fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<DetectedProtocol>> {
        loop {
            if let Some(opening) = self.opening() {
                return Poll::Ready(Ok(opening));
            }
            let mut room = [const { MaybeUninit::uninit() }; AHEAD];
            let mut room = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut room))?;
            if room.filled().is_empty() {
                let began = !self.unread.is_empty();
                return Poll::Ready(Ok(if began { DetectedProtocol::Http1 } else { DetectedProtocol::End }));
            }
            self.unread = [&self.unread, room.filled()].concat().into();
            self.note_bytes(room.filled());
        }
    }

    /// Checks whether the peer is still there: while an answer is made, hyper reads nothing (`half_close`). A viewer that
    /// half-closed and waits cannot be told from one that is gone until bytes are written, so the wait is limited.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.only == Some(DetectedProtocol::Http2) || self.activity.is_idle() || !self.unread.is_empty() {
            return Ok(());
        }
        let mut room = [const { MaybeUninit::uninit() }; AHEAD];
        let mut room = ReadBuf::uninit(&mut room);
        match Pin::new(&mut self.io).poll_read(cx, &mut room)? {
            Poll::Ready(()) if room.filled().is_empty() => {
                let patience = self.half_closed;
                let left = self.left.get_or_insert_with(|| Box::pin(sleep(patience)));
                if patience.is_zero() || left.as_mut().poll(cx).is_ready() {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            Poll::Ready(()) => self.unread = Bytes::copy_from_slice(room.filled()),
            Poll::Pending => {}
        }
        Ok(())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for TrackedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.has_remaining() {
            let fits = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(fits));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.note_bytes(&buf.filled()[before..]);
        }
        read
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TrackedIo<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.withholds(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.track_write(written, |written| *written.as_ref().unwrap_or(&0))
    }

    /// hyper calls this with every poll of the connection, and only where nothing is left to be written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.withheld.is_some() {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.activity.record_write(flushed.is_ready().then_some(0));
        ready!(flushed)?;
        self.activity.mark_flushed();
        self.poll_left(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.withheld.is_some() {
            return Poll::Ready(Ok(()));
        }
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.track_write(shut, |_| 0)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.withholds(bufs.first().map_or(&[][..], |first| first)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.track_write(written, |written| *written.as_ref().unwrap_or(&0))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn stream() -> (DuplexStream, TrackedIo<DuplexStream>) {
        let (theirs, ours) = duplex(256);
        let second = Duration::from_secs(1);
        (theirs, TrackedIo::new(ours, ConnectionActivity::with(second, second, second, second, second)))
    }

    async fn opening(pieces: &[&[u8]]) -> (DetectedProtocol, Vec<u8>) {
        let (mut theirs, mut ours) = stream();
        let said = async {
            for piece in pieces {
                theirs.write_all(piece).await.expect("room");
                tokio::task::yield_now().await;
            }
            drop(theirs);
        };
        let (opening, ()) = tokio::join!(poll_fn(|cx| ours.poll_opening(cx)), said);
        let mut all = Vec::new();
        ours.read_to_end(&mut all).await.expect("bytes");
        (opening.expect("no error"), all)
    }

    #[tokio::test]
    async fn the_first_bytes_tell_what_is_spoken_and_stay() {
        for (pieces, expected) in [
            (&[&b"GET / HTTP/1.1\r\n"[..]][..], DetectedProtocol::Http1),
            (&[b"P", b"OST / HTTP/1.1\r\n"], DetectedProtocol::Http1),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", b"\n", b"more"], DetectedProtocol::Http2),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore at once"], DetectedProtocol::Http2),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM"], DetectedProtocol::Http1),
            (&[b"PRI * HTTP/1.1\r\n\r\n of some length"], DetectedProtocol::Http1),
            (&[], DetectedProtocol::End),
        ] {
            assert_eq!(opening(pieces).await, (expected, pieces.concat()), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn after_a_conversation_in_http_1_nothing_else_is_understood() {
        let (_theirs, ours) = stream();
        let mut ours = ours.with_unread(Bytes::from_static(PREFACE));
        assert_eq!(poll_fn(|cx| ours.poll_opening(cx)).await.expect("no error"), DetectedProtocol::Http1);
    }
}
