//! Response bodies, read at the upstream's speed and not at the client's.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::Response;
use tokio::sync::mpsc;

use super::Upstream;
use super::attempt::Attempt;
use super::body::Body;
use super::client::{Caller, Client};
use super::error::BodyError;
use super::exchange::{StreamingExchange, stream};
use super::http1::READ_BUFFER;
use super::tee::is_over;

use crate::config::settings::RouteKind;

/// A shorter piece is copied: it is a slice of a read buffer, which it would keep in memory.
const SHORT: usize = 16 << 10;

impl Upstream {
    /// Takes in an answer. An answer for a viewer that is no longer than `upstream.buffer` is read to its end, so that its
    /// connection and its permits are free before the viewer has taken a byte. A longer one streams, and is ended when
    /// others wait for its permits while its viewer takes nothing.
    ///
    /// Arguments are moved before the future is made, which would otherwise hold them twice.
    pub(super) fn receive<'a>(
        &'a self,
        caller: &'a Caller,
        answer: Response<()>,
        attempt: Attempt,
        silence: Duration,
    ) -> impl Future<Output = Response<Body>> + Send + 'a {
        let (head, ()) = answer.into_parts();
        let mut exchange = attempt.answered(silence);
        async move {
            if let Some(begun) = &mut exchange
                && begun.is_end_stream()
            {
                begun.connection.give_back();
                exchange = None;
            }
            let body = match (&mut exchange, caller.client()) {
                (None, _) => Body::Empty,
                (Some(_), None) => exchange.take().map_or(Body::Empty, StreamingExchange::into_body),
                (Some(begun), Some(client)) => {
                    let length = begun.size_hint().exact();
                    let reading = BodyReading::of(&head.headers, length);
                    self.take_in(caller, client, &mut exchange, reading).await
                }
            };
            Response::from_parts(head, body)
        }
    }

    /// The body of an answer for this client.
    async fn take_in(
        &self,
        caller: &Caller,
        client: &Arc<Client>,
        exchange: &mut Option<StreamingExchange>,
        reading: BodyReading,
    ) -> Body {
        let Some(begun) = exchange else { return Body::Empty };
        let mut pieces = ReadPieces {
            counts_short: caller.shares_connection() || caller.kind() != Some(RouteKind::Image),
            ..ReadPieces::default()
        };
        let most = if caller.collects() { 0 } else { self.buffer };
        let rest = match read(begun, most, client, reading, &mut pieces).await {
            ReadResult::Whole(end) => {
                begun.connection.give_back();
                end
            }
            ReadResult::Broken(error) => Body::broken(error),
            ReadResult::Begun(left) => {
                let Some(begun) = exchange.take() else { return Body::Empty };
                let transfer = begun.into_transfer(Some(Arc::clone(client)));
                // hyper does not poll a body whose client opens no window.
                transfer.waits_for_client(true);
                self.watch(caller, &(Arc::clone(&transfer) as _));
                let body = stream(transfer);
                if left > 0 { read_ahead(body, left, Arc::clone(client)) } else { body }
            }
        };
        pieces.followed_by(rest)
    }

    /// Reads up to `upstream.buffer` bytes of an upload, before a permit is taken.
    pub(super) async fn receive_upload(
        &self,
        caller: &Caller,
        mut body: Body,
        silence: Duration,
    ) -> Result<Body, BodyError> {
        let Some(client) = caller.client() else { return Ok(body) };
        if let Body::Viewer(upload) = &mut body {
            upload.belongs_to(Arc::clone(client));
            upload.watch(silence);
        }
        let mut begun = ReadPieces { counts_short: true, ..ReadPieces::default() };
        match read(&mut body, self.buffer, client, BodyReading::Whole, &mut begun).await {
            // The answer to a method that may not be repeated is checked by its body, and keeps its framing.
            ReadResult::Whole(Body::Empty) if begun.whole.is_none() => Ok(Body::Full(Bytes::new())),
            ReadResult::Whole(end) if begun.whole.is_none() => {
                Ok(Body::Chain(VecDeque::from([Bytes::new()]), Box::new(end)))
            }
            ReadResult::Whole(end) => Ok(begun.followed_by(end)),
            ReadResult::Begun(_) => Ok(begun.followed_by(body)),
            ReadResult::Broken(error) => Err(error),
        }
    }
}

/// Way to read a body that is not here yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyReading {
    /// Wait for the whole body: nothing can be done with a part of it.
    Whole,
    /// The body streams, and a task reads ahead of the client.
    Ahead,
}

impl BodyReading {
    /// Chooses by type and length. Viewers show an image when it is whole. Anything else may be made bit by bit: a page
    /// that grows, a stream of events. A body that is short by its length (an error, an info.json) is on its way already.
    fn of(fields: &HeaderMap, length: Option<u64>) -> Self {
        let is_image = |kind: &HeaderValue| kind.as_bytes().starts_with(b"image/");
        let is_short = length.is_some_and(|length| length <= SHORT as u64);
        if is_short || fields.get(CONTENT_TYPE).is_some_and(is_image) { Self::Whole } else { Self::Ahead }
    }
}

/// Part of a body that was read.
enum ReadResult {
    /// Whole body. The end of the pieces records whether the length was known, so that the head stays as it was.
    Whole(Body),
    /// The body goes on; bytes that may still be read ahead.
    Begun(usize),
    Broken(BodyError),
}

/// Polls of a body that is to be passed on as it comes, before a task is started for it. The task of an HTTP/2 connection
/// must run once in between; nearly all short answers are whole then.
const RETRIES_OF_A_READ: u32 = 2;

/// Reads up to about `most` bytes of a body into the memory of this client; fewer where there is no memory for them.
async fn read(
    body: &mut (impl HttpBody<Data = Bytes, Error = BodyError> + Unpin),
    most: usize,
    client: &Arc<Client>,
    reading: BodyReading,
    begun: &mut ReadPieces,
) -> ReadResult {
    let hint = body.size_hint();
    let is_short = usize::try_from(hint.lower()).is_ok_and(|size| size <= most);
    if most == 0 || !is_short {
        return ReadResult::Begun(0);
    }
    let end = if hint.exact().is_some() { Body::Empty } else { Body::End };
    let mut looks = 0;
    let read = loop {
        if body.is_end_stream() {
            break ReadResult::Whole(end);
        }
        let next = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending if reading == BodyReading::Whole => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        });
        let next = next.await;
        let is_whole = next.as_ref().is_some_and(|frame| is_over(body, frame.as_ref()));
        match next {
            Some(Some(Ok(frame))) => {
                // Trailers are not passed on.
                let has_room = frame.into_data().map_or(true, |bytes| begun.push(bytes, client));
                if is_whole {
                    break ReadResult::Whole(end);
                }
                if !has_room || begun.size > most {
                    break ReadResult::Begun(0);
                }
            }
            Some(Some(Err(error))) => break ReadResult::Broken(error),
            Some(None) => break ReadResult::Whole(end),
            None if looks == RETRIES_OF_A_READ => break ReadResult::Begun(most - begun.size),
            None => {
                looks += 1;
                tokio::task::yield_now().await;
            }
        }
    };
    begun.end_short(client);
    read
}

/// Lets a task of its own read up to about `most` bytes of the body.
fn read_ahead(mut body: Body, most: usize, client: Arc<Client>) -> Body {
    let (send, parts) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut size, mut has_room) = (0, true);
        while has_room && size < most {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = send.closed() => return,
            };
            let is_whole = is_over(&body, frame.as_ref());
            let bytes = match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    body = Body::broken(error);
                    break;
                }
                None => return,
            };
            size += bytes.len();
            let mut pieces = ReadPieces { counts_short: true, ..ReadPieces::default() };
            has_room = pieces.push(bytes, &client) && pieces.end_short(&client);
            if is_whole {
                // With a known length the last piece is known to be the last: hyper does not poll again.
                body = pieces.followed_by(Body::End);
                break;
            }
            for piece in pieces.whole.into_iter().chain(pieces.more) {
                let _ = send.send(BodyPart::Piece(piece));
            }
        }
        let _ = send.send(BodyPart::Rest(body));
    });
    Body::shaped(ReadAhead::Parts(parts))
}

/// A body that a task reads.
#[derive(Debug)]
enum ReadAhead {
    Parts(mpsc::UnboundedReceiver<BodyPart>),
    /// Rest of the body, which the task did not read.
    Rest(Body),
}

#[derive(Debug)]
enum BodyPart {
    Piece(Bytes),
    /// Rest of the body, which the task did not read.
    Rest(Body),
}

impl HttpBody for ReadAhead {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut *self {
                Self::Rest(body) => return Pin::new(body).poll_frame(cx),
                Self::Parts(parts) => match ready!(parts.poll_recv(cx)) {
                    Some(BodyPart::Piece(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    Some(BodyPart::Rest(body)) => *self = Self::Rest(body),
                    None => *self = Self::Rest(Body::End),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Rest(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Parts(_) => SizeHint::default(),
            Self::Rest(body) => body.size_hint(),
        }
    }
}

/// The pieces that were read.
#[derive(Debug, Default)]
struct ReadPieces {
    /// Mostly the only one.
    whole: Option<Bytes>,
    more: VecDeque<Bytes>,
    /// Short pieces, put together. Each would cost more memory than it has bytes.
    short: Vec<u8>,
    size: usize,
    /// A short body counts, too. Not on HTTP/1: there is one for each connection, and no more than one read buffer.
    counts_short: bool,
}

impl ReadPieces {
    /// Adds a piece. False: there is no memory for another one.
    fn push(&mut self, bytes: Bytes, client: &Arc<Client>) -> bool {
        self.size += bytes.len();
        if bytes.len() >= SHORT {
            // The piece is a slice of a read buffer.
            return self.end_short(client) && self.keep(bytes, READ_BUFFER, client);
        }
        if !self.counts_short && self.size == bytes.len() {
            self.whole = Some(bytes);
            return true;
        }
        if self.short.is_empty() {
            self.short.reserve_exact(bytes.len());
        }
        self.short.extend_from_slice(&bytes);
        self.short.len() < SHORT || self.end_short(client)
    }

    fn end_short(&mut self, client: &Arc<Client>) -> bool {
        let short = std::mem::take(&mut self.short);
        short.is_empty() || self.keep(short.into(), 0, client)
    }

    fn keep(&mut self, bytes: Bytes, least: usize, client: &Arc<Client>) -> bool {
        let share = client.take(bytes.len().max(least));
        let has_room = share.is_some();
        let bytes = match share {
            Some(share) => share.keep(bytes),
            None => bytes,
        };
        match self.whole {
            None => self.whole = Some(bytes),
            Some(_) => self.more.push_back(bytes),
        }
        has_room
    }

    fn followed_by(mut self, rest: Body) -> Body {
        match (self.whole, rest) {
            (None, Body::End) => Body::Empty,
            (None, rest) => rest,
            (Some(only), Body::Empty) if self.more.is_empty() => Body::Full(only),
            (Some(first), rest) => {
                self.more.push_front(first);
                Body::Chain(self.more, Box::new(rest))
            }
        }
    }
}
