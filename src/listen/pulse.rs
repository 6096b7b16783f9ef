//! What a connection does, seen at its bytes, and when that is too little.
//!
//! hyper has no limit for a connection that says nothing, and its limit for heads counts the time between two
//! requests as well. So the bytes and the requests are watched here. Nothing is armed for a request: one timer a
//! connection looks at what was noted, because a timer for each request costs more than the request's bookkeeping.

mod exchange;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use exchange::Exchange;

use super::in_flight::{InFlight, Turn};
use crate::upstream::PIECE;

/// How a connection has used up its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing was asked for a while: it may end in all politeness.
    Idle,
    /// It began to ask and did not end, or it does not take its answer.
    Stuck,
    /// An answer takes longer than any may.
    Late,
    /// Nothing moves in another protocol than HTTP.
    Unmoved,
}

impl Silence {
    /// The word used in labels.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Stuck => "stuck",
            Self::Late => "late",
            Self::Unmoved => "upgrade_idle",
        }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// To end it.
    Over(Silence),
    /// To look again after so long.
    Again(Duration),
}

/// After so many milliseconds without a request a connection is at leisure: a reader looks at the page.
const LULL: u64 = 1000;

/// The notes about one connection: moments in milliseconds since it opened, zero for "not so".
#[derive(Debug)]
pub(super) struct Pulse {
    opened: Instant,
    head_timeout: Duration,
    idle_timeout: Duration,
    /// How long [`PIECE`] bytes of an answer may take.
    pace: Duration,
    request_timeout: Duration,
    /// How long who rests may still ask when we stop.
    last_request: Duration,
    /// Requests whose answers have not ended.
    pub(super) in_flight: AtomicU32,
    /// Anything was asked at all.
    asked: AtomicBool,
    /// One of the requests came with a body.
    had_body: AtomicBool,
    /// Frames other than requests come as well, so bytes do not mean that a head has begun.
    is_http2: AtomicBool,
    /// What is neither asked nor answered in HTTP as usual.
    exchange: Exchange,
    /// The last answer ended.
    pub(super) rested: AtomicU64,
    /// The first byte since then.
    pub(super) began: AtomicU64,
    /// The other side takes nothing.
    blocked: AtomicU64,
    /// The other side took nothing at some time since then, and has not taken [`PIECE`] bytes yet.
    pub(super) slow: AtomicU64,
    /// What it took since then.
    taken: AtomicUsize,
    /// The last request came.
    asked_at: AtomicU64,
    /// We are told to stop.
    pub(super) stopped: AtomicU64,
    /// The answers of an HTTP/2 connection: one may stand while others move.
    turns: Mutex<Vec<Arc<Turn>>>,
}

impl Pulse {
    pub(super) fn with(
        head_timeout: Duration,
        idle_timeout: Duration,
        pace: Duration,
        request_timeout: Duration,
        last_request: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            head_timeout,
            idle_timeout,
            pace,
            request_timeout,
            last_request,
            in_flight: AtomicU32::new(0),
            asked: AtomicBool::new(false),
            had_body: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            exchange: Exchange::default(),
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

    /// A request's head is here. It is in flight until what this gives is dropped.
    pub(super) fn asks(self: &Arc<Self>, version: http::Version, has_body: bool) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.asked.store(true, Relaxed);
        self.exchange.asks();
        if has_body {
            self.had_body.store(true, Relaxed);
        }
        self.note(&self.asked_at);
        let is_http2 = version == http::Version::HTTP_2;
        self.is_http2.store(is_http2, Relaxed);
        let turn = is_http2.then(|| {
            let turn = Arc::new(Turn::new(self.asked_at.load(Relaxed)));
            self.turns().push(Arc::clone(&turn));
            turn
        });
        InFlight::new(Arc::clone(self), turn)
    }

    /// We stop: who rests may ask once more, within a short while.
    pub(super) fn is_stopped(&self) {
        self.note(&self.stopped);
    }

    /// HTTP/2 was spoken.
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    pub(super) fn turns(&self) -> MutexGuard<'_, Vec<Arc<Turn>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is asked at this moment.
    pub(super) fn rests(&self) -> bool {
        self.in_flight.load(Relaxed) == 0
    }

    /// How long nobody needs to look. A head that never ends is cut a little late; nobody minds.
    pub(super) fn step(&self) -> Duration {
        (self.head_timeout.min(self.idle_timeout) / 4).max(Duration::from_millis(5))
    }

    /// Has the connection used up its time?
    pub(super) fn look(&self) -> Look {
        // Upstreams have timeouts of their own.
        let Some((end, silence)) = self.deadline() else { return Look::Again(self.step()) };
        match end.checked_sub(self.opened.elapsed()) {
            Some(left) if !left.is_zero() => Look::Again(left.min(self.step())),
            _ => Look::Over(silence),
        }
    }

    /// It has rested for a while in HTTP/1.1: nothing is in flight, nothing waits to be written, no head has begun, and
    /// no request had a body, of which something might be unread.
    pub(super) fn is_at_leisure(&self) -> bool {
        let is_zero = |noted: &AtomicU64| noted.load(Relaxed) == 0;
        self.rests()
            && self.asked.load(Relaxed)
            && !self.is_http2()
            && !self.is_switched()
            && !self.had_body.load(Relaxed)
            && is_zero(&self.began)
            && is_zero(&self.blocked)
            && self.now().saturating_sub(self.rested.load(Relaxed)) >= LULL
    }

    /// Bytes came while nothing is in flight. True: a head begins with them.
    pub(super) fn reads(&self) -> bool {
        self.moves();
        let begins = self.began.load(Relaxed) == 0;
        if begins {
            self.note(&self.began);
        }
        begins
    }

    /// The other side takes so many bytes of what is written; `None`: nothing.
    pub(super) fn writes(&self, taken: Option<usize>) {
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

    /// When the time is up, as things are now.
    fn deadline(&self) -> Option<(Duration, Silence)> {
        let moment = |noted: &AtomicU64| Duration::from_millis(noted.load(Relaxed));
        if self.blocked.load(Relaxed) != 0 {
            let silent = moment(&self.blocked) + self.idle_timeout;
            let slow = moment(&self.slow).saturating_add(self.pace);
            return Some((silent.min(slow), Silence::Stuck));
        }
        if self.is_switched() {
            return Some((moment(self.exchange.moved()) + self.idle_timeout, Silence::Unmoved));
        }
        if !self.rests() {
            return if self.is_http2() {
                self.first_turn()
            } else {
                Some((moment(&self.asked_at) + self.request_timeout, Silence::Late))
            };
        }
        let asked = self.asked.load(Relaxed);
        let began = self.began.load(Relaxed) != 0 && !(asked && self.is_http2());
        let end = if began {
            (moment(&self.began) + self.head_timeout, Silence::Stuck)
        } else if asked {
            (moment(&self.rested) + self.idle_timeout, Silence::Idle)
        } else {
            (self.head_timeout, Silence::Idle)
        };
        if self.stopped.load(Relaxed) == 0 {
            return Some(end);
        }
        let stops = moment(&self.stopped).max(moment(&self.rested)) + self.last_request;
        Some(if stops < end.0 { (stops, Silence::Idle) } else { end })
    }

    /// The first of the answers of an HTTP/2 connection whose time is up.
    fn first_turn(&self) -> Option<(Duration, Silence)> {
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
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);
    const PACE: Duration = Duration::from_secs(32);
    const TOTAL: Duration = Duration::from_hours(1);

    fn pulse() -> Arc<Pulse> {
        Pulse::with(HEAD, IDLE, PACE, TOTAL, Duration::from_secs(1))
    }

    #[test]
    fn a_connection_that_says_nothing_has_the_time_of_a_head() {
        assert_eq!(pulse().deadline(), Some((HEAD, Silence::Idle)));
    }

    #[test]
    fn a_head_that_began_has_its_own_time_and_a_request_in_flight_all_the_time_it_needs() {
        let pulse = pulse();
        pulse.began.store(2000, Relaxed);
        assert_eq!(pulse.deadline(), Some((HEAD + Duration::from_secs(2), Silence::Stuck)));
        let asked = pulse.asks(http::Version::HTTP_11, false);
        assert_eq!(pulse.deadline().map(|(_, silence)| silence), Some(Silence::Late));
        drop(asked);
        let (end, silence) = pulse.deadline().expect("a deadline");
        assert!(silence == Silence::Idle && end >= IDLE && end < IDLE + Duration::from_secs(1));
    }

    #[test]
    fn only_who_rests_for_a_while_and_never_sent_a_body_is_at_leisure() {
        // Open for a minute already.
        let opened = Instant::now().checked_sub(TOTAL / 60).expect("the machine runs for longer");
        let new = Arc::into_inner(pulse()).expect("nobody else has it");
        let pulse = Arc::new(Pulse { opened, ..new });
        assert!(!pulse.is_at_leisure(), "nothing was asked");
        let asked = pulse.asks(http::Version::HTTP_11, false);
        assert!(!pulse.is_at_leisure(), "in flight");
        drop(asked);
        assert!(!pulse.is_at_leisure(), "only now");
        pulse.rested.store(pulse.now() - LULL, Relaxed);
        assert!(pulse.is_at_leisure());
        for noted in [&pulse.began, &pulse.blocked] {
            noted.store(1, Relaxed);
            assert!(!pulse.is_at_leisure());
            noted.store(0, Relaxed);
        }
        drop(pulse.asks(http::Version::HTTP_11, true));
        pulse.rested.store(1, Relaxed);
        assert!(!pulse.is_at_leisure(), "some of the body may be unread");
    }

    #[test]
    fn a_viewer_that_takes_nothing_is_stuck_even_with_a_request_in_flight() {
        let pulse = pulse();
        let _asked = pulse.asks(http::Version::HTTP_11, false);
        pulse.writes(None);
        pulse.blocked.store(1000, Relaxed);
        pulse.slow.store(1000, Relaxed);
        assert_eq!(pulse.deadline(), Some((PACE + Duration::from_secs(1), Silence::Stuck)));
        let patient = Pulse::with(HEAD, IDLE, Duration::MAX, TOTAL, Duration::from_secs(1));
        patient.blocked.store(1000, Relaxed);
        assert_eq!(patient.deadline(), Some((IDLE + Duration::from_secs(1), Silence::Stuck)));
    }

    #[test]
    fn who_takes_a_little_now_and_then_is_too_slow_all_the_same() {
        let pulse = pulse();
        let _asked = pulse.asks(http::Version::HTTP_11, false);
        pulse.writes(None);
        let since = pulse.slow.load(Relaxed);
        for _ in 0..3 {
            pulse.writes(Some(PIECE / 4));
            assert_eq!(pulse.deadline().map(|(_, silence)| silence), Some(Silence::Late));
            pulse.writes(None);
            assert_eq!(pulse.slow.load(Relaxed), since);
        }
        pulse.writes(Some(PIECE / 4));
        assert_eq!(pulse.slow.load(Relaxed), 0);
    }

    #[test]
    fn one_answer_of_many_that_is_not_taken_is_seen() {
        let pulse = pulse();
        let (moving, standing) =
            (pulse.asks(http::Version::HTTP_2, false), pulse.asks(http::Version::HTTP_2, false));
        assert_eq!(pulse.deadline().map(|(_, silence)| silence), Some(Silence::Late));
        moving.gives(1);
        standing.gives(1);
        moving.waits_for_us();
        assert_ne!(moving.turn.as_ref().map(|turn| turn.waits.load(Relaxed)), Some(0), "a piece is unsent");
        moving.took();
        moving.waits_for_us();
        let (end, silence) = pulse.deadline().expect("a deadline");
        assert!(silence == Silence::Stuck && end >= PACE && end < PACE + Duration::from_secs(5));
        drop(standing);
        assert_eq!(pulse.deadline().map(|(_, silence)| silence), Some(Silence::Late));
    }

    #[test]
    fn who_rests_when_we_stop_may_ask_once_more_and_its_answer_says_that_it_is_the_last() {
        let pulse = pulse();
        let before = pulse.asks(http::Version::HTTP_11, false);
        assert!(!before.is_last());
        pulse.is_stopped();
        assert!(before.is_last());
        drop(before);
        let (end, silence) = pulse.deadline().expect("a deadline");
        assert!(silence == Silence::Idle && end < Duration::from_secs(5));
        assert!(!pulse.asks(http::Version::HTTP_2, false).is_last());
    }

    #[test]
    fn frames_between_the_requests_of_http_2_begin_no_head() {
        let pulse = pulse();
        drop(pulse.asks(http::Version::HTTP_2, false));
        pulse.began.store(5, Relaxed);
        assert_eq!(pulse.deadline().map(|(_, silence)| silence), Some(Silence::Idle));
    }
}
