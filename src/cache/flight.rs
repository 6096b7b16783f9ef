//! Sharing of one request by all readers of a tile that is not cached: the first reader sends it, the others get its answer
//! as it comes.
//!
//! The sender may leave, and may be slow: the request goes on for those who wait, and a task reads its body at the image
//! server's speed. An answer that is not for all ends the sharing, and those who wait send their own requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::stream::unfold;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::cached_response::{CachedHead, CachedResponse};
use super::request::CacheRequest;
use crate::upstream::{Body, BodyError, BudgetPermit, MemoryBudget};

/// State of a shared request.
#[derive(Debug, Clone, Default)]
enum FlightState {
    /// No answer yet.
    #[default]
    Waiting,
    /// The answer is here as far as these pieces go.
    Streaming { head: Arc<CachedHead>, length: Option<usize>, pieces: Vec<Bytes> },
    /// Complete answer.
    Whole(CachedResponse),
    /// The answer is for the first reader alone: an error, a private answer, or a long one.
    NotShared,
    /// No answer: the image server fails.
    Failed,
}

/// Requests for tiles that are under way, by their keys.
#[derive(Debug, Default)]
pub(super) struct TileFlights(Arc<DashMap<Box<[u8]>, watch::Receiver<FlightState>>>);

/// Role of a reader of a tile that is not cached.
#[derive(Debug)]
pub enum FlightRole {
    /// Sends the request, and publishes the answer.
    Leader(FlightLeader),
    /// Waits for the request of another reader.
    Follower(FlightFollower),
}

/// Right to send the one request for a tile. If it is dropped unused, the readers who wait choose another leader.
#[derive(Debug)]
pub struct FlightLeader {
    flights: Arc<DashMap<Box<[u8]>, watch::Receiver<FlightState>>>,
    key: Box<[u8]>,
    state: watch::Sender<FlightState>,
}

/// Counter of the readers who wait for a leader. Must not outlive the leader's request: the readers would not notice its
/// end.
#[derive(Debug)]
pub struct FlightWatch(watch::Sender<FlightState>);

impl FlightWatch {
    /// True if readers wait. (One receiver stands in the list.)
    pub fn has_followers(&self) -> bool {
        self.0.receiver_count() > 1
    }
}

/// An answer as it comes.
#[derive(Debug)]
pub struct StreamingResponse {
    head: Arc<CachedHead>,
    length: usize,
    body: Body,
}

impl StreamingResponse {
    /// The answer, as it is at `now`.
    pub fn into_answer(self, now: Instant) -> Response<Body> {
        let mut response = self.head.response(StatusCode::OK, self.body, now);
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(self.length));
        response
    }
}

/// Reader who waits for another reader's request.
#[derive(Debug)]
pub struct FlightFollower(watch::Receiver<FlightState>);

/// Result for a reader who waited.
#[derive(Debug)]
pub enum FlightResult {
    /// Complete answer.
    Whole(CachedResponse),
    /// The answer as it comes.
    Streaming(StreamingResponse),
    /// The leader left before there was an answer: another reader must lead.
    Abandoned,
    /// The reader's own request is to be sent.
    NotShared,
    /// The image server fails.
    Failed,
}

impl TileFlights {
    /// Joins the request for this tile, or begins one.
    pub(super) fn join(&self, wanted: &CacheRequest) -> FlightRole {
        let lead = |state| FlightLeader { flights: Arc::clone(&self.0), key: wanted.key.clone(), state };
        match self.0.entry(wanted.key.clone()) {
            // The leader of the flight has gone.
            Entry::Occupied(mut flight) if flight.get().has_changed().is_err() => {
                let (state, follower) = watch::channel(FlightState::Waiting);
                flight.insert(follower);
                FlightRole::Leader(lead(state))
            }
            Entry::Occupied(flight) => FlightRole::Follower(FlightFollower(flight.get().clone())),
            Entry::Vacant(place) => {
                let (state, follower) = watch::channel(FlightState::Waiting);
                place.insert(follower);
                FlightRole::Leader(lead(state))
            }
        }
    }
}

impl FlightLeader {
    /// Handle by which others can see whether readers wait.
    pub fn watch(&self) -> FlightWatch {
        FlightWatch(self.state.clone())
    }

    /// Ends the sharing: each of the others sends its own request, unless the image server has just failed.
    pub fn stop_sharing(self, has_failed: bool) {
        self.state.send_replace(if has_failed { FlightState::Failed } else { FlightState::NotShared });
    }

    /// Gives the whole answer to the others.
    pub(super) fn share_whole(self, response: CachedResponse) {
        self.state.send_replace(FlightState::Whole(response));
    }

    /// Reads the body in a task of its own and passes each piece to all readers. The returned body is the leader's. `keep`
    /// makes the answer of the whole body.
    ///
    /// A body of unknown length goes to the others at its end: only then is it known not to be too long.
    ///
    /// SECURITY: the leader's client answers for the memory. A piece that is handed out has its permit until the last
    /// reader is done with it, however slow; a body that the cache keeps has none, as `cache.memory` bounds it.
    pub(super) fn share_stream(
        self,
        head: Arc<CachedHead>,
        body: Body,
        bounds: SharedBodyBounds,
        keep: impl FnOnce(Bytes) -> CachedResponse + Send + 'static,
    ) -> Body {
        // Reserves memory for the whole body, so that readers who have begun get it to its end.
        let Some(reserved) = bounds.budget.take(bounds.length.unwrap_or_default()) else {
            self.stop_sharing(false);
            return body;
        };
        let rest = RestOfBody::default();
        let streaming = FlightState::Streaming { head, length: bounds.length, pieces: Vec::new() };
        self.state.send_replace(streaming);
        let own = pieces(self.state.subscribe(), Some(Arc::clone(&rest)));
        tokio::spawn(async move {
            match self.read_body(body, &bounds, reserved).await {
                ReadEnd::Whole(pieces) => {
                    let whole: Bytes = pieces.concat().into();
                    drop(pieces);
                    let permit = bounds.budget.count(whole.len());
                    let CachedResponse { head, body } = keep(whole);
                    self.share_whole(CachedResponse { head, body: permit.keep(body) });
                }
                ReadEnd::TooLong(pieces, left) => {
                    *rest.lock() = Some((pieces, left));
                    self.stop_sharing(false);
                }
                // Dropping the sender shows the readers that the body is cut.
                ReadEnd::Broken => {}
            }
        });
        own
    }

    async fn read_body(
        &self,
        mut body: Body,
        bounds: &SharedBodyBounds,
        mut reserved: BudgetPermit,
    ) -> ReadEnd {
        let (mut size, mut all) = (0, Vec::new());
        loop {
            let bytes = match body.frame().await {
                None => break,
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return ReadEnd::Broken,
            };
            size += bytes.len();
            let permit = match bounds.length {
                Some(_) => Some(reserved.split(bytes.len())),
                None if size <= bounds.most => bounds.budget.take(bytes.len()),
                None => None,
            };
            let Some(permit) = permit else {
                all.push(bytes);
                return ReadEnd::TooLong(all, body);
            };
            let bytes = permit.keep(bytes);
            all.push(bytes.clone());
            self.state.send_modify(|state| {
                if let FlightState::Streaming { pieces, .. } = state {
                    pieces.push(bytes);
                }
            });
        }
        let is_whole = bounds.length.is_none_or(|length| length == size);
        if is_whole { ReadEnd::Whole(all) } else { ReadEnd::Broken }
    }
}

/// Limits of a body that several readers share.
#[derive(Debug)]
pub(super) struct SharedBodyBounds {
    /// Length of the body, where the answer states it.
    pub(super) length: Option<usize>,
    /// The longest body that is shared.
    pub(super) most: usize,
    /// Memory for the body.
    pub(super) budget: MemoryBudget,
}

/// End of the reading of a shared body.
enum ReadEnd {
    Whole(Vec<Bytes>),
    TooLong(Vec<Bytes>, Body),
    Broken,
}

impl Drop for FlightLeader {
    fn drop(&mut self) {
        // Another flight may have begun under this key.
        let own = self.state.subscribe();
        self.flights.remove_if(&self.key, |_, flight| flight.same_channel(&own));
    }
}

impl FlightFollower {
    /// Waits for the answer, at most for `timeout`.
    pub async fn wait(mut self, wanted: &CacheRequest, asked: &HeaderMap, timeout: Duration) -> FlightResult {
        let is_told = |state: &FlightState| {
            !matches!(state, FlightState::Waiting | FlightState::Streaming { length: None, .. })
        };
        let told = tokio::time::timeout(timeout, self.0.wait_for(is_told)).await;
        let told = told.map(|told| told.map(|state| state.clone()));
        let state = match told {
            Err(_) => return FlightResult::NotShared,
            // The body broke before its end: another request may succeed.
            Ok(Err(_)) => return FlightResult::Abandoned,
            Ok(Ok(state)) => state,
        };
        match state {
            FlightState::Whole(response) if response.head.is_for(wanted, asked) => {
                FlightResult::Whole(response)
            }
            FlightState::Streaming { head, length: Some(length), .. } if head.is_for(wanted, asked) => {
                FlightResult::Streaming(StreamingResponse { head, length, body: pieces(self.0, None) })
            }
            FlightState::Failed => FlightResult::Failed,
            _ => FlightResult::NotShared,
        }
    }
}

/// Body that is too long to be shared: the pieces read so far, and the rest. Its leader takes it.
type RestOfBody = Arc<Mutex<Option<(Vec<Bytes>, Body)>>>;

/// A reader of a shared body.
struct PieceReader {
    flight: watch::Receiver<FlightState>,
    /// Pieces that it has had.
    at: usize,
    /// Bytes that it has had.
    read: usize,
    rest: Option<RestOfBody>,
    /// Body of the reader's own, from here on.
    own: Option<Body>,
}

/// A shared body as one of its readers sees it.
fn pieces(flight: watch::Receiver<FlightState>, rest: Option<RestOfBody>) -> Body {
    let reader = PieceReader { flight, at: 0, read: 0, rest, own: None };
    let frames = unfold(reader, |mut reader| async move { reader.next().await.map(|frame| (frame, reader)) });
    Body::shaped(StreamBody::new(frames))
}

impl PieceReader {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        loop {
            if let Some(own) = &mut self.own {
                return own.frame().await;
            }
            if let Some(piece) = self.piece_at_hand() {
                self.at += 1;
                self.read += piece.len();
                return Some(Ok(Frame::data(piece)));
            }
            if self.own.is_none() && self.flight.changed().await.is_err() {
                self.own = Some(Body::broken(BodyError::Shared));
            }
        }
    }

    /// The next piece, if it is here.
    fn piece_at_hand(&mut self) -> Option<Bytes> {
        let state = self.flight.borrow_and_update();
        match &*state {
            FlightState::Streaming { pieces, .. } => return pieces.get(self.at).cloned(),
            FlightState::Whole(response) => {
                let left = response.body.slice(self.read.min(response.body.len())..);
                self.own = Some(left.into());
            }
            FlightState::NotShared => {
                let rest = self.rest.as_ref().and_then(|rest| rest.lock().take());
                self.own = Some(match rest {
                    Some((all, body)) => Body::Chain(all.into_iter().skip(self.at).collect(), Box::new(body)),
                    None => Body::broken(BodyError::Shared),
                });
            }
            FlightState::Waiting | FlightState::Failed => {}
        }
        None
    }
}
