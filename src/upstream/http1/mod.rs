//! HTTP/1.1 to upstreams (RFC 9112), one connection at a time: the task that sends a request reads its answer. No task of
//! its own drives the connection, so a request needs no hand-over between tasks (docs/decisions/0013-an-http1-client.md).

mod body;
mod head;
mod stream;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::future::poll_fn;
use std::io::{Error, ErrorKind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body::{Body as _, SizeHint};
use hyper::Response;
use tokio::io::{AsyncWrite as _, ReadHalf, split};

use super::body::Body;
use super::error::{BodyError, SendFailure};
use super::request_body::{IdleTimer, in_time};
use crate::config::settings::Timeouts;
use body::{BodyDecoder, Decoded, invalid};
use head::{HeadReader, RequestFraming};
pub(super) use stream::Stream;
use upload::UploadTask;

/// Bytes that are read at once; a head must fit as well. Less is too little for a tile, and more is too much for hundreds
/// of connections (docs/decisions/0004-the-data-path.md).
pub(super) const READ_BUFFER: usize = 64 * 1024;

/// Least room for a read. A read buffer serves several short answers before the next one is taken, and a tile of 32 KiB is
/// read at once: with 16 KiB every second tile took two reads, and 5 % more processor time.
const LEAST_ROOM: usize = 40 * 1024;

/// `Http1Connection` is an HTTP/1.1 connection; it has at most one request at a time.
#[derive(Debug)]
pub(super) struct Http1Connection {
    wire: Wire,
    /// Timer for the head of an answer, or the next piece of its body.
    pub(super) waits: IdleTimer,
    /// The connection carries a single request, and no other one after that.
    pub(super) alone: bool,
    /// Time at which the connection was last given back to the pool.
    pub(super) idle_since: Instant,
    /// Time at which the connection was opened.
    pub(super) born: Instant,
}

impl Http1Connection {
    pub(super) fn new(stream: Stream) -> Self {
        let (now, waits) = (Instant::now(), IdleTimer::new(Duration::MAX));
        Self { wire: Wire::new(stream), waits, alone: false, idle_since: now, born: now }
    }

    /// True while the last request was sent and has no answer.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.wire.state, State::Head) && self.wire.write.is_empty()
    }

    /// Waits for the head of that answer. False: the connection broke.
    pub(super) async fn answer(&mut self) -> bool {
        poll_fn(|cx| self.wire.poll_answer(cx)).await.is_ok()
    }

    /// True if the server closed the idle connection, or sent unsolicited bytes.
    pub(super) fn is_closed(&mut self) -> bool {
        self.wire.poll_fill(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Marks the connection idle; true: it may carry the next request. False while the last request's body still goes up
    /// (the upstream answered early): the next request would wait for the rest of it.
    pub(super) fn mark_idle(&mut self, now: Instant) -> bool {
        self.idle_since = now;
        !self.alone && self.wire.reset()
    }

    /// Sends a request and waits for the head of its answer: as long as its body goes up (which may be silent
    /// for `times.body`), and then for `times.first_byte`. The body is taken; where nothing was written it stays.
    pub(super) async fn send(
        &mut self,
        head: &Parts,
        body: &mut Body,
        times: &Timeouts,
    ) -> Result<Response<()>, SendFailure> {
        let progress = body.watch_upload(times.body);
        self.wire.begin(head, body);
        let Self { wire, waits, .. } = self;
        let answer = pin!(poll_fn(|cx| wire.poll_answer(cx)));
        let answer = in_time(progress.as_deref(), waits, times.first_byte, answer).await;
        let answer = answer.unwrap_or(Err(SendFailure::Late));
        if matches!(answer, Err(SendFailure::Unsent)) {
            *body = std::mem::take(&mut self.wire.body);
        }
        answer
    }

    /// The next piece of the answer's body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.wire.poll_body(cx)
    }

    /// True if nothing is left of the answer's body.
    pub(super) fn is_end_stream(&self) -> bool {
        matches!(&self.wire.state, State::Body(body) if body.is_ended())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.wire.state {
            State::Body(body) => body.size_hint(),
            State::Idle | State::Head => SizeHint::default(),
        }
    }

    /// Stream for another protocol, with the bytes of that protocol that came already. `None`: an upload has a half of it.
    pub(super) fn into_stream(self) -> Option<(Stream, Bytes)> {
        match self.wire.io {
            WireIo::Whole(stream) => Some((stream, self.wire.read.freeze())),
            WireIo::Half(_) | WireIo::Closed => None,
        }
    }
}

/// `Wire` is the connection's bytes and where in a message they are.
struct Wire {
    io: WireIo,
    /// Bytes that came and are not used yet.
    read: BytesMut,
    /// The request's head, and how much of it was written.
    write: Vec<u8>,
    written: usize,
    /// The request's body, until the head was written.
    body: Body,
    framing: RequestFraming,
    upload: Option<UploadTask>,
    is_head: bool,
    /// True if a byte came since the request began.
    was_heard: bool,
    keeps_alive: bool,
    heads: HeadReader,
    state: State,
}

/// `WireIo` is the stream, or the half that an upload leaves.
enum WireIo {
    Whole(Stream),
    Half(ReadHalf<Stream>),
    Closed,
}

/// `State` is the next step of the connection.
#[derive(Debug)]
enum State {
    /// Idle: the connection waits for a request.
    Idle,
    /// The head of an answer.
    Head,
    /// The body of an answer.
    Body(BodyDecoder),
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Wire {
    fn new(stream: Stream) -> Self {
        Self {
            io: WireIo::Whole(stream),
            read: BytesMut::new(),
            write: Vec::new(),
            written: 0,
            body: Body::Empty,
            framing: RequestFraming::Bodyless,
            upload: None,
            is_head: false,
            was_heard: false,
            keeps_alive: true,
            heads: HeadReader::default(),
            state: State::Idle,
        }
    }

    /// Begins a request, and takes its body.
    fn begin(&mut self, head: &Parts, body: &mut Body) {
        self.body = std::mem::take(body);
        self.framing = match &self.body {
            Body::Empty => RequestFraming::Bodyless,
            body => body.size_hint().exact().map_or(RequestFraming::Chunked, RequestFraming::Length),
        };
        self.write.clear();
        head::write(&mut self.write, head, self.framing);
        (self.written, self.was_heard) = (0, false);
        self.is_head = head.method == http::Method::HEAD;
        (self.heads, self.state) = (HeadReader::default(), State::Head);
    }

    /// Ends an exchange. True: the connection may have the next one.
    fn reset(&mut self) -> bool {
        let is_whole = matches!(&self.state, State::Body(body) if body.is_ended());
        self.state = State::Idle;
        if let Some(upload) = self.upload.take() {
            let io = std::mem::replace(&mut self.io, WireIo::Closed);
            if let (WireIo::Half(half), Some(other)) = (io, upload.into_whole()) {
                self.io = WireIo::Whole(half.unsplit(other));
            }
        }
        // SECURITY: an answer may come before the whole head was written: the server would read the next one as the rest of
        // it.
        let is_sent = self.write.is_empty();
        is_whole && is_sent && self.keeps_alive && self.read.is_empty() && matches!(self.io, WireIo::Whole(_))
    }

    /// Writes the request, and reads until the head of the answer is there.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, SendFailure>> {
        // Answers are read even while the server takes nothing: it may have refused the request already.
        if let Poll::Ready(Err(failure)) = self.poll_write(cx) {
            return Poll::Ready(Err(failure));
        }
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(error) = upload.poll_broken(cx)
        {
            return Poll::Ready(Err(SendFailure::Viewer(error)));
        }
        loop {
            if let Some(head) = self.heads.take(&mut self.read, self.is_head)? {
                self.keeps_alive = head.keeps_alive;
                self.state = State::Body(head.body);
                return Poll::Ready(Ok(head.answer));
            }
            if self.read.len() >= READ_BUFFER {
                let error = invalid("the head is longer than is read");
                return Poll::Ready(Err(SendFailure::Broken(error)));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Err(self.closed(ErrorKind::UnexpectedEof.into()))),
                Ok(_) => self.was_heard = true,
                Err(error) => return Poll::Ready(Err(self.closed(error))),
            }
        }
    }

    /// Kind of failure of a request whose connection ended.
    ///
    /// UPSTREAM: a keep-alive timeout that races with our request shows as an end or a reset. After the first byte, of an
    /// interim answer or of half a head, the request is not repeated.
    fn closed(&self, error: Error) -> SendFailure {
        if self.written == 0 {
            return SendFailure::Unsent;
        }
        let is_end = matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        );
        match (is_end && self.framing == RequestFraming::Bodyless, self.was_heard) {
            (true, false) => SendFailure::Stale,
            (true, true) => SendFailure::Ended,
            (false, _) => SendFailure::Broken(error),
        }
    }

    /// Writes the rest of the head, and starts the upload of the body behind it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendFailure>> {
        if self.write.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let WireIo::Whole(stream) = &mut self.io else { return Poll::Ready(Err(SendFailure::Unsent)) };
        let mut stream = Pin::new(stream);
        while let Some(rest) = self.write.get(self.written..)
            && !rest.is_empty()
        {
            match ready!(stream.as_mut().poll_write(cx, rest)) {
                Ok(size) if size > 0 => self.written += size,
                _ if self.written == 0 => return Poll::Ready(Err(SendFailure::Unsent)),
                // The server may have answered before it closed.
                _ => break,
            }
        }
        // With TLS the bytes may still be here. An error shows where the answer is read.
        let _ = ready!(stream.as_mut().poll_flush(cx));
        self.write.clear();
        if self.framing != RequestFraming::Bodyless
            && let WireIo::Whole(stream) = std::mem::replace(&mut self.io, WireIo::Closed)
        {
            let (half, other) = split(stream);
            self.io = WireIo::Half(half);
            self.upload = Some(UploadTask::start(std::mem::take(&mut self.body), self.framing, other));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(error) = upload.poll_broken(cx)
        {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let State::Body(body) = &mut self.state else { return Poll::Ready(None) };
            match body.decode(&mut self.read) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Upstream(error)))),
            }
            let came = ready!(self.poll_fill(cx));
            let State::Body(body) = &mut self.state else { return Poll::Ready(None) };
            let ended = match came {
                Ok(0) => {
                    self.keeps_alive = false;
                    body.close()
                }
                Ok(_) => continue,
                Err(error) => Err(error),
            };
            return Poll::Ready(ended.err().map(|error| Err(BodyError::Upstream(error))));
        }
    }

    /// Reads available bytes. Zero: the server closed its side.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        if self.read.capacity() - self.read.len() < LEAST_ROOM {
            self.read.reserve(READ_BUFFER);
        }
        match &mut self.io {
            WireIo::Whole(stream) => tokio_util::io::poll_read_buf(Pin::new(stream), cx, &mut self.read),
            WireIo::Half(half) => tokio_util::io::poll_read_buf(Pin::new(half), cx, &mut self.read),
            WireIo::Closed => Poll::Ready(Ok(0)),
        }
    }
}

/// Reads an answer that comes in pieces and ends with a close: its status and body. `None`: the answer is refused or cut.
/// For the fuzz target.
#[doc(hidden)]
pub fn read_answer<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, is_head: bool) -> Option<(u16, Vec<u8>)> {
    let (mut read, mut heads, mut head, mut whole) =
        (BytesMut::new(), HeadReader::default(), None, Vec::new());
    for piece in pieces {
        read.extend_from_slice(piece);
        if head.is_none() {
            head = heads.take(&mut read, is_head).ok()?;
        }
        let Some(head) = &mut head else { continue };
        while let Decoded::Data(data) = head.body.decode(&mut read).ok()? {
            whole.extend_from_slice(&data);
        }
    }
    let mut head = head?;
    head.body.close().ok()?;
    Some((head.answer.status().as_u16(), whole))
}
