//! Bodies that are read at the speed of whoever sends them, and not of whoever takes them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::Response;
use tokio::sync::mpsc;

use super::body::{Body, BodyError};
use super::client::{Caller, Client};
use super::connection::READ_BUFFER;
use super::lease::Lease;
use super::server::{Answered, Load};
use super::transfer::Exchange;
use super::{Admission, Upstream};

/// A shorter piece is copied: it is a part of a read buffer, which it would keep in memory.
const SHORT: usize = 16 << 10;

impl Upstream {
    /// Takes in an answer. One for a viewer that is no longer than `upstream.buffer` is read to its end, so that its
    /// connection and its permits are free before the viewer has taken a byte. A longer one streams, and is ended when others
    /// wait for its permits while its viewer takes nothing.
    pub(super) async fn receive(
        &self,
        caller: &Caller,
        (mut answer, carrier): Answered,
        load: Load,
        admission: Admission,
        silence: Duration,
    ) -> Response<Body> {
        // SECURITY: where both stand, the length is wrong (RFC 9112 section 6.3), and hyper would believe it.
        if answer.headers().contains_key(TRANSFER_ENCODING) {
            answer.headers_mut().remove(CONTENT_LENGTH);
        }
        let (head, incoming) = answer.into_parts();
        let exchange = Exchange { incoming, lease: Lease::new(carrier, load), admission: Some(admission) };
        let mut body = Body::from_upstream(exchange, caller.client().cloned(), silence);
        let transfer = body.transfer().cloned();
        if let (Some(client), false) = (caller.client(), body.is_end_stream()) {
            body = buffered(body, self.buffer, client, Reading::of(&head.headers)).await;
        }
        if let (Some(transfer), true) = (&transfer, body.is_under_way()) {
            self.watch(caller, transfer);
        }
        Response::from_parts(head, body)
    }

    /// The same for what a viewer sends: up to `upstream.buffer` bytes of it are here before a permit is asked for.
    pub(super) async fn buffered_upload(
        &self,
        caller: &Caller,
        mut body: Body,
        silence: Duration,
    ) -> Result<Body, BodyError> {
        if let Body::Viewer(upload) = &mut body {
            upload.belongs_to(caller.client().cloned());
            upload.watch(silence);
        }
        let Some(client) = caller.client() else { return Ok(body) };
        match buffered(body, self.buffer, client, Reading::Whole).await {
            Body::Chain(begun, rest) => match *rest {
                Body::Broken(end) => Err(end.into_error().unwrap_or(BodyError::ViewerCut)),
                rest => Ok(Body::Chain(begun, Box::new(rest))),
            },
            Body::Broken(end) => Err(end.into_error().unwrap_or(BodyError::ViewerCut)),
            // A request whose method may not be repeated is told by its body.
            Body::Empty | Body::End => Ok(Body::Full(Bytes::new())),
            body => Ok(body),
        }
    }
}

/// How a body that is not here yet is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// It is waited for: nothing can be done with a part of it.
    Whole,
    /// What comes is passed on, and a task reads ahead of who takes it.
    Ahead,
}

impl Reading {
    /// Viewers show an image when it is whole. Anything else may be made bit by bit: a page that grows, a stream of events.
    fn of(fields: &HeaderMap) -> Self {
        let is_image = |kind: &HeaderValue| kind.as_bytes().starts_with(b"image/");
        if fields.get(CONTENT_TYPE).is_some_and(is_image) { Self::Whole } else { Self::Ahead }
    }
}

/// How often a body that is to be passed on as it comes is looked at before a task is started for it. The connection's own
/// task must run once in between; nearly all short answers are whole then.
const LOOKS: u32 = 2;

/// Reads up to about `most` bytes of a body into the memory of this client. Nothing is lost of a longer one, of one that
/// breaks, or where there is no memory.
async fn buffered(mut body: Body, most: usize, client: &Arc<Client>, reading: Reading) -> Body {
    let fits = |size: u64| usize::try_from(size).is_ok_and(|size| size <= most);
    if most == 0 || !fits(body.size_hint().lower()) {
        return body;
    }
    let is_sized = body.size_hint().exact().is_some();
    let (mut begun, mut has_room, mut looks) = (Pieces::default(), true, 0);
    while has_room && begun.size <= most && !body.is_end_stream() {
        let next = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending if reading == Reading::Whole => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        });
        match next.await {
            // Trailers are not passed on.
            Some(Some(Ok(frame))) => {
                has_room = frame.into_data().is_ok_and(|bytes| begun.push(bytes, client))
            }
            Some(Some(Err(error))) => {
                body = Body::broken(error);
                break;
            }
            Some(None) => body = Body::End,
            None if looks == LOOKS => {
                body = read_ahead(body, most - begun.size, Arc::clone(client));
                break;
            }
            None => {
                looks += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    if body.is_end_stream() {
        // A body that came without a length goes out without one: the head stays as it was.
        body = if is_sized { Body::Empty } else { Body::End };
    }
    begun.followed_by(body, client)
}

/// The same body, read up to about `most` bytes by a task of its own.
fn read_ahead(mut body: Body, most: usize, client: Arc<Client>) -> Body {
    let (send, parts) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut size, mut has_room) = (0, true);
        while has_room && size < most {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = send.closed() => return,
            };
            let bytes = match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    body = Body::broken(error);
                    break;
                }
                None => return,
            };
            size += bytes.len();
            let mut pieces = Pieces::default();
            has_room = pieces.push(bytes, &client) && pieces.end_short(&client);
            for piece in pieces.whole {
                let _ = send.send(Part::Piece(piece));
            }
            if body.is_end_stream() {
                return;
            }
        }
        let _ = send.send(Part::Rest(body));
    });
    Body::Ahead(Box::new(Ahead(parts)))
}

/// What a task reads of a body.
#[derive(Debug)]
pub struct Ahead(mpsc::UnboundedReceiver<Part>);

#[derive(Debug)]
enum Part {
    Piece(Bytes),
    /// What the task did not read.
    Rest(Body),
}

impl Ahead {
    /// The next piece; or what takes the place of this body.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Body>> {
        self.0.poll_recv(cx).map(|part| match part {
            Some(Part::Piece(bytes)) => Ok(bytes),
            Some(Part::Rest(body)) => Err(body),
            None => Err(Body::End),
        })
    }
}

/// What was read of a body.
#[derive(Debug, Default)]
struct Pieces {
    whole: VecDeque<Bytes>,
    /// Short pieces, put together. Each would cost more memory than it has bytes.
    short: Vec<u8>,
    size: usize,
}

impl Pieces {
    /// One more piece. False: it is here, but there is no memory for another one.
    fn push(&mut self, bytes: Bytes, client: &Arc<Client>) -> bool {
        self.size += bytes.len();
        if bytes.len() >= SHORT {
            // It is a part of a read buffer.
            return self.end_short(client) && self.keep(bytes, READ_BUFFER, client);
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
        self.whole.push_back(match share {
            Some(share) => share.keep(bytes),
            None => bytes,
        });
        has_room
    }

    fn followed_by(mut self, rest: Body, client: &Arc<Client>) -> Body {
        self.end_short(client);
        match (self.whole.len(), rest) {
            (0, Body::End) => Body::Empty,
            (0, rest) => rest,
            (1, Body::Empty) => self.whole.pop_front().map_or(Body::Empty, Body::Full),
            (_, rest) => Body::Chain(self.whole, Box::new(rest)),
        }
    }
}
