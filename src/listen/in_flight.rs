//! Requests in flight, until the last byte of the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::activity::ConnectionActivity;
use super::stream_activity::StreamActivity;

/// A request, from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) activity: Arc<ConnectionActivity>,
    pub(super) turn: Option<Arc<StreamActivity>>,
}

impl InFlight {
    /// Records that a request's head is here. The request is in flight until the guard is dropped.
    pub(super) fn start(activity: &Arc<ConnectionActivity>, version: http::Version, has_body: bool) -> Self {
        Self { activity: Arc::clone(activity), turn: activity.request_started(version, has_body) }
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
