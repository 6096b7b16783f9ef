//! Requests in flight, until the last byte of the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::activity::{ConnectionActivity, TimeoutKind};

/// Answer on an HTTP/2 connection.
///
/// SECURITY: a viewer who opens no window for a stream takes nothing of its answer, while the connection's bytes flow.
#[derive(Debug)]
pub(super) struct StreamActivity {
    /// Time at which the request came.
    pub(super) asked: u64,
    /// The viewer is the next to move, since then; zero: we are.
    pub(super) waits: AtomicU64,
    /// Pieces of the answer that were given to hyper and are not written yet.
    unsent: AtomicUsize,
}

impl StreamActivity {
    /// Deadline of the answer: of the whole, or of a piece that the viewer does not take.
    pub(super) fn deadline(&self, whole: Duration, piece: Duration) -> (Duration, TimeoutKind) {
        let (late, waits) = (Duration::from_millis(self.asked) + whole, self.waits.load(Relaxed));
        let stuck = Duration::from_millis(waits) + piece;
        if waits != 0 && stuck < late { (stuck, TimeoutKind::Stuck) } else { (late, TimeoutKind::Late) }
    }

    pub(super) fn new(asked: u64) -> Self {
        Self { asked, waits: AtomicU64::new(0), unsent: AtomicUsize::new(0) }
    }
}

/// A request, from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) activity: Arc<ConnectionActivity>,
    pub(super) turn: Option<Arc<StreamActivity>>,
}

impl InFlight {
    pub(super) fn new(activity: Arc<ConnectionActivity>, turn: Option<Arc<StreamActivity>>) -> Self {
        Self { activity, turn }
    }

    /// True if the server stops and this answer must have `Connection: close`. (HTTP/2 sends GOAWAY.)
    pub(super) fn is_last(&self) -> bool {
        self.turn.is_none() && self.activity.stopped.load(Relaxed) != 0
    }

    /// True for HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.turn.is_some()
    }

    /// Records that the head or a piece of the body goes out: the viewer is the next to move.
    pub(super) fn gives(&self, pieces: usize) {
        let Some(turn) = &self.turn else { return };
        turn.unsent.fetch_add(pieces, Relaxed);
        if turn.waits.load(Relaxed) == 0 {
            self.activity.note(&turn.waits);
        }
    }

    /// Records that the viewer took a piece. The time of the next one begins.
    pub(super) fn took(&self) {
        let Some(turn) = &self.turn else { return };
        turn.unsent.fetch_sub(1, Relaxed);
        self.activity.note(&turn.waits);
    }

    /// Records that the viewer has taken everything, and waits for us.
    pub(super) fn waits_for_us(&self) {
        if let Some(turn) = &self.turn
            && turn.unsent.load(Relaxed) == 0
        {
            turn.waits.store(0, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let activity = &self.activity;
        if let Some(own) = &self.turn {
            activity.turns().retain(|turn| !Arc::ptr_eq(turn, own));
        }
        activity.note(&activity.rested);
        // A viewer that takes nothing of what hyper has to write stays as slow as before.
        if activity.blocked.load(Relaxed) == 0 {
            activity.slow.store(0, Relaxed);
        }
        activity.began.store(0, Relaxed);
        activity.in_flight.fetch_sub(1, Relaxed);
    }
}
