//! Bodies that are read at the speed of whoever sends them, and not of whoever takes them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http_body::Body as _;
use hyper::Response;

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
        if let (Some(client), false) = (caller.client(), body.is_end_stream()) {
            let waits = is_sent_at_once(&head.headers);
            body = buffered(body, self.buffer, client, waits).await;
        }
        if let Some(transfer) = body.transfer() {
            self.watch(caller, transfer);
        }
        Response::from_parts(head, body)
    }

    /// The same for what a viewer sends: up to `upstream.buffer` bytes of it are here before a permit is asked for.
    pub(super) async fn buffered_upload(&self, caller: &Caller, mut body: Body) -> Result<Body, BodyError> {
        if let Body::Viewer(upload) = &mut body {
            upload.belongs_to(caller.client().cloned());
        }
        let Some(client) = caller.client() else { return Ok(body) };
        match buffered(body, self.buffer, client, true).await {
            Body::Chain(begun, rest) => match *rest {
                Body::Broken(end) => Err(end.into_error().unwrap_or(BodyError::ViewerCut)),
                rest => Ok(Body::Chain(begun, Box::new(rest))),
            },
            Body::Broken(end) => Err(end.into_error().unwrap_or(BodyError::ViewerCut)),
            body => Ok(body),
        }
    }
}

/// Is the whole body on its way? One that is made bit by bit (a stream of events, a page that grows) is passed on as it
/// comes. Images are not: viewers show them when they are whole.
fn is_sent_at_once(fields: &HeaderMap) -> bool {
    fields.contains_key(CONTENT_LENGTH)
        || fields.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"image/"))
}

/// Reads up to about `most` bytes of a body into the memory of this client. Nothing is lost of a longer one, of one that
/// breaks, or where there is no memory. `waits`: for the next bytes, too; otherwise only what is here already is read.
async fn buffered(mut body: Body, most: usize, client: &Arc<Client>, waits: bool) -> Body {
    let fits = |size: u64| usize::try_from(size).is_ok_and(|size| size <= most);
    if !fits(body.size_hint().lower()) {
        return body;
    }
    let mut begun = Pieces::default();
    let mut has_room = true;
    while has_room && begun.size <= most && !body.is_end_stream() {
        let next = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending if waits => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        });
        match next.await {
            // Trailers are not passed on.
            Some(Some(Ok(frame))) => has_room = frame.into_data().is_ok_and(|bytes| begun.push(bytes, client)),
            Some(Some(Err(error))) => {
                body = Body::broken(error);
                break;
            }
            Some(None) => body = Body::Empty,
            None => break,
        }
    }
    begun.followed_by(body, client)
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
            (0, rest) => rest,
            (1, Body::Empty) => self.whole.pop_front().map_or(Body::Empty, Body::Full),
            (_, rest) => Body::Chain(self.whole, Box::new(rest)),
        }
    }
}
