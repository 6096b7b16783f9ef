//! Activity of a connection, measured at its bytes, and the timeouts that follow from it.
//!
//! hyper has no limit for a connection that sends nothing, and its limit for heads counts the time between two
//! requests as well. So bytes and requests are tracked here. No timer is armed for a request: one timer a connection
//! checks the timestamps, because a timer for each request costs more than the request's bookkeeping.

mod exchange;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use exchange::ExchangeActivity;
use parking_lot::{Mutex, MutexGuard};

use super::stream_activity::{StreamActivity, TimeoutKind};
use crate::upstream::{Client, PIECE};

/// Progress of a connection's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestProgress {
    /// No request in flight.
    Resting,
    /// The viewer has taken nothing of an answer, or too little, for a while.
    Stuck,
    /// A request is being answered.
    Moving,
}

/// Result of a check of the deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextCheck {
    /// End the connection.
    Over(TimeoutKind),
    /// Check again after this time.
    Again(Duration),
}

/// Milliseconds without a request after which a connection counts as idle: the reader is looking at the page.
const IDLE_AFTER_MS: u64 = 1000;

/// Timestamps of one connection, in milliseconds since it was accepted; zero: never.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    opened: Instant,
    /// The client, as soon as it is known. The inner `None`: a trusted proxy, which has many viewers behind it.
    client: OnceLock<Option<Arc<Client>>>,
    head_timeout: Duration,
    idle_timeout: Duration,
    /// Time in which the client must take [`PIECE`] bytes of an answer.
    pace: Duration,
    request_timeout: Duration,
    /// Time for a last request on an idle connection during a shutdown.
    last_request: Duration,
    /// Requests whose answers have not ended.
    pub(super) in_flight: AtomicU32,
    /// True once a request came.
    asked: AtomicBool,
    /// True once a request came with a body.
    had_body: AtomicBool,
    /// Frames other than requests come as well, so bytes do not mean that a head has begun.
    is_http2: AtomicBool,
    /// State beyond plain HTTP exchanges.
    exchange: ExchangeActivity,
    /// End of the last answer.
    pub(super) rested: AtomicU64,
    /// First byte since then.
    pub(super) began: AtomicU64,
    /// Time since which the other side takes nothing.
    pub(super) blocked: AtomicU64,
    /// Time since which the other side, having taken nothing for a while, has not taken [`PIECE`] bytes.
    pub(super) slow: AtomicU64,
    /// Bytes taken since then.
    taken: AtomicUsize,
    /// Last request.
    asked_at: AtomicU64,
    /// Time of the order to stop.
    pub(super) stopped: AtomicU64,
    /// Streams of an HTTP/2 connection: one may be stuck while others move.
    turns: Mutex<Vec<Arc<StreamActivity>>>,
}

impl ConnectionActivity {
    pub(super) fn with(
        head_timeout: Duration,
        idle_timeout: Duration,
        pace: Duration,
        request_timeout: Duration,
        last_request: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            client: OnceLock::new(),
            head_timeout,
            idle_timeout,
            pace,
            request_timeout,
            last_request,
            in_flight: AtomicU32::new(0),
            asked: AtomicBool::new(false),
            had_body: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            exchange: ExchangeActivity::default(),
            rested: AtomicU64::new(0),
            began: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            taken: AtomicUsize::new(0),
            asked_at: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
            turns: Mutex::default(),
        })
    }

    /// Records that a request's head is here. HTTP/2: returns the activity of its stream.
    pub(super) fn request_started(
        &self,
        version: http::Version,
        has_body: bool,
    ) -> Option<Arc<StreamActivity>> {
        self.in_flight.fetch_add(1, Relaxed);
        self.asked.store(true, Relaxed);
        self.exchange.asks();
        if has_body {
            self.had_body.store(true, Relaxed);
        }
        self.note(&self.asked_at);
        let is_http2 = version == http::Version::HTTP_2;
        self.is_http2.store(is_http2, Relaxed);
        is_http2.then(|| {
            let turn = Arc::new(StreamActivity::new(self.asked_at.load(Relaxed)));
            self.turns().push(Arc::clone(&turn));
            turn
        })
    }

    /// Starts the shutdown: an idle client may send one more request, within a short while.
    pub(super) fn shutdown_started(&self) {
        self.note(&self.stopped);
    }

    /// True for HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    pub(super) fn turns(&self) -> MutexGuard<'_, Vec<Arc<StreamActivity>>> {
        self.turns.lock()
    }

    /// True if no request is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(Relaxed) == 0
    }

    /// Interval between checks. A head that never ends is therefore cut a little late, which does no harm.
    pub(super) fn check_interval(&self) -> Duration {
        (self.head_timeout.min(self.idle_timeout) / 4).max(Duration::from_millis(5))
    }

    /// Checks the deadlines of the connection.
    pub(super) fn next_check(&self) -> NextCheck {
        // No deadline: upstreams have timeouts of their own.
        let Some((end, silence)) = self.deadline() else { return NextCheck::Again(self.check_interval()) };
        match end.checked_sub(self.opened.elapsed()) {
            Some(left) if !left.is_zero() => NextCheck::Again(left.min(self.check_interval())),
            _ => NextCheck::Over(silence),
        }
    }

    /// True when the connection has been idle for a while in HTTP/1.1: nothing is in flight, nothing waits to be written, no head has begun, and
    /// no request had a body, of which something might be unread.
    pub(super) fn can_park(&self) -> bool {
        let is_zero = |noted: &AtomicU64| noted.load(Relaxed) == 0;
        self.is_idle()
            && self.asked.load(Relaxed)
            && !self.is_http2()
            && !self.is_switched()
            && !self.had_body.load(Relaxed)
            && is_zero(&self.began)
            && is_zero(&self.blocked)
            && self.now().saturating_sub(self.rested.load(Relaxed)) >= IDLE_AFTER_MS
    }

    /// Sets the client; `None`: a trusted proxy.
    pub(super) fn belongs_to(&self, client: Option<Arc<Client>>) {
        let _first = self.client.set(client);
    }

    /// The client; `None`: the PROXY header has not been read.
    #[expect(
        clippy::option_option,
        reason = "three things are told apart: not yet known, a trusted proxy, a client"
    )]
    pub(super) fn client(&self) -> Option<Option<&Arc<Client>>> {
        self.client.get().map(Option::as_ref)
    }

    /// True if no request is in flight and nearly all of the last answer is taken. HTTP/1.1 gives a body to hyper piece by
    /// piece, and a large one at once: the request has ended when most of it has not been taken yet. A tunnel is never
    /// unused.
    fn is_unused(&self) -> bool {
        let is_taken = self.blocked.load(Relaxed) == 0 && (self.is_http2() || !self.owes());
        self.is_idle() && is_taken && !self.is_switched()
    }

    /// Progress of the connection, and how long it has been in that state.
    pub(super) fn progress(&self, now: Instant) -> (RequestProgress, Duration) {
        let now = now.saturating_duration_since(self.opened);
        let since = |moment: u64| now.saturating_sub(Duration::from_millis(moment));
        if self.is_unused() {
            return (RequestProgress::Resting, since(self.rested.load(Relaxed)));
        }
        let slow = match self.slow.load(Relaxed) {
            // HTTP/2: the earliest stream if all of them wait; zero if one does not.
            0 if self.is_http2() => {
                self.turns().iter().map(|turn| turn.waits.load(Relaxed)).min().unwrap_or(0)
            }
            slow => slow,
        };
        match since(slow) {
            stuck if slow != 0 && stuck >= Duration::from_millis(IDLE_AFTER_MS) => {
                (RequestProgress::Stuck, stuck)
            }
            _ => (RequestProgress::Moving, since(self.asked_at.load(Relaxed))),
        }
    }

    /// Records that bytes came without a request in flight. True: a head begins with them.
    pub(super) fn record_read(&self) -> bool {
        self.moves();
        let begins = self.began.load(Relaxed) == 0;
        if begins {
            self.note(&self.began);
        }
        begins
    }

    /// Records that the peer took bytes of what is written; `None`: nothing.
    pub(super) fn record_write(&self, taken: Option<usize>) {
        if taken.is_some() {
            self.moves();
        }
        let is_blocked = self.blocked.load(Relaxed) != 0;
        match taken {
            None if is_blocked => {}
            None => {
                self.note(&self.blocked);
                if self.slow.load(Relaxed) == 0 {
                    self.note(&self.slow);
                    self.taken.store(0, Relaxed);
                }
            }
            Some(bytes) => {
                if is_blocked {
                    self.blocked.store(0, Relaxed);
                }
                if self.slow.load(Relaxed) != 0 && self.taken.fetch_add(bytes, Relaxed) + bytes >= PIECE {
                    self.slow.store(0, Relaxed);
                }
            }
        }
    }

    /// Deadline of the connection in its present state, from its opening.
    fn deadline(&self) -> Option<(Duration, TimeoutKind)> {
        let moment = |noted: &AtomicU64| Duration::from_millis(noted.load(Relaxed));
        if self.blocked.load(Relaxed) != 0 {
            let silent = moment(&self.blocked) + self.idle_timeout;
            let slow = moment(&self.slow).saturating_add(self.pace);
            return Some((silent.min(slow), TimeoutKind::Stuck));
        }
        if self.is_switched() {
            return Some((moment(self.exchange.moved()) + self.idle_timeout, TimeoutKind::Unmoved));
        }
        if !self.is_idle() {
            return if self.is_http2() {
                self.first_turn()
            } else {
                Some((moment(&self.asked_at) + self.request_timeout, TimeoutKind::Late))
            };
        }
        let asked = self.asked.load(Relaxed);
        let began = self.began.load(Relaxed) != 0 && !(asked && self.is_http2());
        let end = if began {
            (moment(&self.began) + self.head_timeout, TimeoutKind::Stuck)
        } else if asked {
            (moment(&self.rested) + self.idle_timeout, TimeoutKind::Idle)
        } else {
            (self.head_timeout, TimeoutKind::Idle)
        };
        if self.stopped.load(Relaxed) == 0 {
            return Some(end);
        }
        let stops = moment(&self.stopped).max(moment(&self.rested)) + self.last_request;
        Some(if stops < end.0 { (stops, TimeoutKind::Idle) } else { end })
    }

    /// The first of the answers of an HTTP/2 connection whose time is up.
    fn first_turn(&self) -> Option<(Duration, TimeoutKind)> {
        let patience = self.idle_timeout.min(self.pace);
        let turns = self.turns();
        turns.iter().map(|turn| turn.deadline(self.request_timeout, patience)).min_by_key(|(end, _)| *end)
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    pub(super) fn note(&self, moment: &AtomicU64) {
        moment.store(self.now(), Relaxed);
    }
}

#[cfg(test)]
impl ConnectionActivity {
    /// Activity of a connection that has been open for a minute.
    pub(super) fn of_a_test() -> Arc<Self> {
        let second = Duration::from_secs(1);
        let activity = Self::with(10 * second, 75 * second, 32 * second, 3600 * second, second);
        let opened = Instant::now().checked_sub(60 * second).expect("the machine runs for longer");
        Arc::new(Self { opened, ..Arc::into_inner(activity).expect("nobody else has it") })
    }

    pub(super) fn is_switched_in_a_test(&self) {
        self.note(self.exchange.moved());
    }

    pub(super) fn is_stuck_since(&self, moment: u64) {
        self.slow.store(moment, Relaxed);
    }
}
