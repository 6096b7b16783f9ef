//! The bytes of a connection, seen as they pass.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pulse::Pulse;

/// What a client of HTTP/2 says first (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose bytes are watched.
#[derive(Debug)]
pub(super) struct Watched<I> {
    io: I,
    pulse: Arc<Pulse>,
    /// Bytes that came already and are to be read once more.
    unread: Bytes,
    /// HTTP/1 was spoken, and nothing else will be.
    is_http1: bool,
}

/// How a silence ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// With a request of HTTP/1, or with what is none; hyper will say so.
    Http1,
    /// With the preface of HTTP/2.
    Http2,
    /// The other side is gone.
    End,
}

impl<I> Watched<I> {
    pub(super) fn new(io: I, pulse: Arc<Pulse>) -> Self {
        Self { io, pulse, unread: Bytes::new(), is_http1: false }
    }

    /// The same after a conversation in HTTP/1, which left these bytes.
    pub(super) fn unread(self, unread: Bytes) -> Self {
        Self { unread, is_http1: true, ..self }
    }

    fn noting<T>(&self, written: Poll<T>, bytes: impl FnOnce(&T) -> usize) -> Poll<T> {
        self.pulse.writes(match &written {
            Poll::Ready(written) => Some(bytes(written)),
            Poll::Pending => None,
        });
        written
    }

    /// What the bytes so far say; `None`: too few.
    fn opening(&self) -> Option<Opening> {
        match &*self.unread {
            [] => None,
            said if self.is_http1 || !PREFACE.starts_with(&said[..said.len().min(PREFACE.len())]) => {
                Some(Opening::Http1)
            }
            said => (said.len() >= PREFACE.len()).then_some(Opening::Http2),
        }
    }
}

impl<I: AsyncRead + Unpin> Watched<I> {
    /// Waits for the first bytes, as many as tell what is spoken. They stay to be read.
    pub(super) fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Opening>> {
        loop {
            if let Some(opening) = self.opening() {
                return Poll::Ready(Ok(opening));
            }
            let mut room = [0; PREFACE.len()];
            let mut room = ReadBuf::new(&mut room[self.unread.len()..]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut room))?;
            if room.filled().is_empty() {
                let began = !self.unread.is_empty();
                return Poll::Ready(Ok(if began { Opening::Http1 } else { Opening::End }));
            }
            self.pulse.reads();
            self.unread = [&self.unread, room.filled()].concat().into();
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
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
            self.pulse.reads();
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.noting(written, |written| *written.as_ref().unwrap_or(&0))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.noting(flushed, |_| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.noting(shut, |_| 0)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.noting(written, |written| *written.as_ref().unwrap_or(&0))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn stream() -> (DuplexStream, Watched<DuplexStream>) {
        let (theirs, ours) = duplex(256);
        let second = Duration::from_secs(1);
        (theirs, Watched::new(ours, Pulse::with(second, second, second, second, second)))
    }

    async fn opening(pieces: &[&[u8]]) -> (Opening, Vec<u8>) {
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
            (&[&b"GET / HTTP/1.1\r\n"[..]][..], Opening::Http1),
            (&[b"P", b"OST / HTTP/1.1\r\n"], Opening::Http1),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", b"\n", b"more"], Opening::Http2),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore at once"], Opening::Http2),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM"], Opening::Http1),
            (&[b"PRI * HTTP/1.1\r\n\r\n of some length"], Opening::Http1),
            (&[], Opening::End),
        ] {
            assert_eq!(opening(pieces).await, (expected, pieces.concat()), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn after_a_conversation_in_http_1_nothing_else_is_understood() {
        let (_theirs, ours) = stream();
        let mut ours = ours.unread(Bytes::from_static(PREFACE));
        assert_eq!(poll_fn(|cx| ours.poll_opening(cx)).await.expect("no error"), Opening::Http1);
    }
}
