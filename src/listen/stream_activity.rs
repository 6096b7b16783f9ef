//! Activity of one stream of an HTTP/2 connection, and the timeouts that a connection or a stream can exceed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Timeout that a connection has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeoutKind {
    /// No request came for a while: a graceful end.
    Idle,
    /// The client began a request and did not end it, or does not take its answer.
    Stuck,
    /// An answer takes longer than any may.
    Late,
    /// Tunnel of another protocol than HTTP without traffic.
    Unmoved,
}

impl TimeoutKind {
    /// Name in labels.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Stuck => "stuck",
            Self::Late => "late",
            Self::Unmoved => "upgrade_idle",
        }
    }
}

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
    pub(super) unsent: AtomicUsize,
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
