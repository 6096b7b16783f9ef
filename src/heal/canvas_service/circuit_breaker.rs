//! A breaker per canvas service: when it only fails, leave it alone for a while, then try once.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The breaker of one canvas service. Time is an argument, so that tests need no clock.
#[derive(Debug)]
pub(in crate::heal) struct CircuitBreaker {
    state: Mutex<State>,
    /// So many failures in a row open it.
    failures: u32,
    /// How long it stays open before one request may try.
    open_for: Duration,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One request is trying; another may when that one is not heard of until then.
    HalfOpen {
        until: Instant,
    },
}

/// What a breaker looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// No request passes.
    Open,
    /// One request is trying.
    HalfOpen,
}

impl CircuitBreaker {
    pub(in crate::heal) fn new(failures: u32, open_for: Duration) -> Self {
        Self { state: Mutex::new(State::Closed { failures: 0 }), failures: failures.max(1), open_for }
    }

    /// The same breaker with other bounds: what it has seen stays.
    pub(in crate::heal) fn under(&self, failures: u32, open_for: Duration) -> Self {
        Self { state: Mutex::new(*self.state.lock()), failures: failures.max(1), open_for }
    }

    /// Does it keep to these bounds?
    pub(in crate::heal) fn keeps_to(&self, failures: u32, open_for: Duration) -> bool {
        self.failures == failures.max(1) && self.open_for == open_for
    }

    /// May a request go out? `Err`: ask again after this time.
    pub(in crate::heal) fn pass(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock();
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until } | State::HalfOpen { until } if now < until => Err(until - now),
            State::Open { .. } | State::HalfOpen { .. } => {
                *state = State::HalfOpen { until: now + self.open_for };
                Ok(())
            }
        }
    }

    /// A request was answered as a healthy service answers, or somebody knows that the service is well again.
    /// True: it was open until now.
    pub(in crate::heal) fn good(&self) -> bool {
        let before = std::mem::replace(&mut *self.state.lock(), State::Closed { failures: 0 });
        !matches!(before, State::Closed { .. })
    }

    /// A request failed in a way that speaks against the service, not against one canvas. True: it opened now.
    pub(in crate::heal) fn bad(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let failures = match *state {
            State::Closed { failures } => failures + 1,
            State::HalfOpen { .. } => self.failures,
            // A request from before it opened; it opens no further.
            State::Open { .. } => return false,
        };
        let opens = failures >= self.failures;
        *state = if opens { State::Open { until: now + self.open_for } } else { State::Closed { failures } };
        opens
    }

    /// Another node found that the service only fails.
    pub(in crate::heal) fn leave_alone(&self, until: Instant) {
        *self.state.lock() = State::Open { until };
    }

    pub(in crate::heal) fn state(&self, now: Instant) -> BreakerState {
        match *self.state.lock() {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(10);

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_request_try() {
        let breaker = CircuitBreaker::new(3, OPEN_FOR);
        let start = Instant::now();
        assert!(!breaker.bad(start));
        breaker.good();
        assert!(!breaker.bad(start));
        assert!(!breaker.bad(start));
        assert_eq!(breaker.state(start), BreakerState::Closed);
        assert!(breaker.bad(start));
        assert_eq!(breaker.pass(start), Err(OPEN_FOR));
        let later = start + OPEN_FOR;
        assert_eq!(breaker.pass(later), Ok(()));
        assert_eq!(breaker.pass(later), Err(OPEN_FOR), "only one tries");
        breaker.good();
        assert_eq!(breaker.pass(later), Ok(()));
    }

    #[test]
    fn a_failed_trial_opens_it_again_and_a_lost_trial_does_not_keep_it_shut() {
        let breaker = CircuitBreaker::new(1, OPEN_FOR);
        let start = Instant::now();
        assert!(breaker.bad(start));
        let second = start + OPEN_FOR;
        assert_eq!(breaker.pass(second), Ok(()));
        assert!(breaker.bad(second));
        assert_eq!(breaker.pass(second), Err(OPEN_FOR));
        let third = second + OPEN_FOR;
        assert_eq!(breaker.pass(third), Ok(()));
        assert_eq!(breaker.pass(third + OPEN_FOR), Ok(()), "the trial was never heard of");
    }
}
