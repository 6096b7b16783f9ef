//! Circuit breaker of a canvas service: after failures in a row no request goes out for a while, then one tries.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// `CircuitBreaker` is the breaker of one canvas service. Time is an argument, so that tests need no clock.
#[derive(Debug)]
pub(in crate::heal) struct CircuitBreaker {
    state: Mutex<CircuitState>,
    /// Failures in a row that open the breaker.
    failures: u32,
    /// Time that the breaker stays open before one request may try.
    open_for: Duration,
}

#[derive(Debug, Clone, Copy)]
enum CircuitState {
    Closed {
        failures: u32,
    },
    Open {
        since: Instant,
        until: Instant,
    },
    /// Open, with one request under way as a trial. Another may try if the first has not ended by then.
    HalfOpen {
        since: Instant,
        until: Instant,
    },
}

/// `BreakerStatus` is a breaker as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerStatus {
    /// State.
    pub state: BreakerState,
    /// Time that the service has been failing without an answer that closed the breaker.
    pub open_for: Option<Duration>,
    /// Time until the next request tries.
    pub next_try: Option<Duration>,
}

/// `BreakerState` is the public state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// No request passes.
    Open,
    /// A request tries.
    HalfOpen,
}

impl CircuitBreaker {
    pub(in crate::heal) fn new(failures: u32, open_for: Duration) -> Self {
        Self { state: Mutex::new(CircuitState::Closed { failures: 0 }), failures: failures.max(1), open_for }
    }

    /// A breaker with other bounds that shares the state of this one.
    pub(in crate::heal) fn under(&self, failures: u32, open_for: Duration) -> Self {
        Self { state: Mutex::new(*self.state.lock()), failures: failures.max(1), open_for }
    }

    /// True if the breaker has these bounds.
    pub(in crate::heal) fn has_limits(&self, failures: u32, open_for: Duration) -> bool {
        self.failures == failures.max(1) && self.open_for == open_for
    }

    /// Checks whether a request may go out. `Err`: retry after this time.
    pub(in crate::heal) fn try_acquire(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock();
        match *state {
            CircuitState::Closed { .. } => Ok(()),
            CircuitState::Open { until, .. } | CircuitState::HalfOpen { until, .. } if now < until => {
                Err(until - now)
            }
            CircuitState::Open { since, .. } | CircuitState::HalfOpen { since, .. } => {
                *state = CircuitState::HalfOpen { since, until: now + self.open_for };
                Ok(())
            }
        }
    }

    /// Closes the breaker: a healthy answer came, or the service is known to be well again. True: the breaker was open
    /// until now.
    pub(in crate::heal) fn record_success(&self) -> bool {
        let before = std::mem::replace(&mut *self.state.lock(), CircuitState::Closed { failures: 0 });
        !matches!(before, CircuitState::Closed { .. })
    }

    /// Counts a failure that speaks against the service, not against one canvas. True: the breaker opened now.
    pub(in crate::heal) fn record_failure(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let (failures, since) = match *state {
            CircuitState::Closed { failures } => (failures + 1, now),
            CircuitState::HalfOpen { since, .. } => (self.failures, since),
            // A request from before the breaker opened; nothing changes.
            CircuitState::Open { .. } => return false,
        };
        let opens = failures >= self.failures;
        *state = if opens {
            CircuitState::Open { since, until: now + self.open_for }
        } else {
            CircuitState::Closed { failures }
        };
        opens
    }

    /// Opens the breaker: another node found that the service only fails.
    pub(in crate::heal) fn force_open(&self, until: Instant) {
        let mut state = self.state.lock();
        let since = match *state {
            CircuitState::Open { since, .. } | CircuitState::HalfOpen { since, .. } => since,
            CircuitState::Closed { .. } => Instant::now(),
        };
        *state = CircuitState::Open { since, until };
    }

    /// Breaker as operators see it at `now`.
    pub(in crate::heal) fn status(&self, now: Instant) -> BreakerStatus {
        let (open_for, next_try) = match *self.state.lock() {
            CircuitState::Closed { .. } => (None, None),
            CircuitState::Open { since, until } | CircuitState::HalfOpen { since, until } => {
                (Some(now.saturating_duration_since(since)), Some(until.saturating_duration_since(now)))
            }
        };
        BreakerStatus { state: self.state(now), open_for, next_try }
    }

    pub(in crate::heal) fn state(&self, now: Instant) -> BreakerState {
        match *self.state.lock() {
            CircuitState::Closed { .. } => BreakerState::Closed,
            CircuitState::Open { until, .. } if now < until => BreakerState::Open,
            CircuitState::Open { .. } | CircuitState::HalfOpen { .. } => BreakerState::HalfOpen,
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
        assert!(!breaker.record_failure(start));
        breaker.record_success();
        assert!(!breaker.record_failure(start));
        assert!(!breaker.record_failure(start));
        assert_eq!(breaker.state(start), BreakerState::Closed);
        assert!(breaker.record_failure(start));
        assert_eq!(breaker.try_acquire(start), Err(OPEN_FOR));
        let told = breaker.status(start + OPEN_FOR / 4);
        assert_eq!((told.open_for, told.next_try), (Some(OPEN_FOR / 4), Some(OPEN_FOR * 3 / 4)));
        let later = start + OPEN_FOR;
        assert_eq!(breaker.try_acquire(later), Ok(()));
        assert_eq!(breaker.try_acquire(later), Err(OPEN_FOR), "only one tries");
        breaker.record_success();
        assert_eq!(breaker.try_acquire(later), Ok(()));
    }

    #[test]
    fn a_failed_trial_opens_it_again_and_a_lost_trial_does_not_keep_it_shut() {
        let breaker = CircuitBreaker::new(1, OPEN_FOR);
        let start = Instant::now();
        assert!(breaker.record_failure(start));
        let second = start + OPEN_FOR;
        assert_eq!(breaker.try_acquire(second), Ok(()));
        assert!(breaker.record_failure(second));
        assert_eq!(breaker.status(second).open_for, Some(OPEN_FOR), "failing since the start");
        assert_eq!(breaker.try_acquire(second), Err(OPEN_FOR));
        let third = second + OPEN_FOR;
        assert_eq!(breaker.try_acquire(third), Ok(()));
        assert_eq!(breaker.try_acquire(third + OPEN_FOR), Ok(()), "the trial was never heard of");
    }

    #[test]
    fn other_bounds_keep_the_state_and_equal_ones_are_known() {
        let breaker = CircuitBreaker::new(3, OPEN_FOR);
        assert!(breaker.has_limits(3, OPEN_FOR));
        assert!(!breaker.has_limits(2, OPEN_FOR) && !breaker.has_limits(3, OPEN_FOR * 2));
        let start = Instant::now();
        while !breaker.record_failure(start) {}
        let other = breaker.under(1, OPEN_FOR * 2);
        assert!(other.has_limits(1, OPEN_FOR * 2));
        assert_eq!(other.try_acquire(start), Err(OPEN_FOR), "as it was opened");
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_for_what_another_node_found_and_is_half_open_when_that_is_over() {
        let (breaker, start) = (CircuitBreaker::new(3, OPEN_FOR), Instant::now());
        breaker.force_open(start + OPEN_FOR / 2);
        assert_eq!(breaker.state(start), BreakerState::Open);
        assert_eq!(breaker.try_acquire(start), Err(OPEN_FOR / 2));
        let later = start + OPEN_FOR / 2;
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        assert_eq!(breaker.try_acquire(later), Ok(()));
        breaker.force_open(later + OPEN_FOR);
        assert_eq!(breaker.status(later).open_for, Some(OPEN_FOR / 2), "failing since the start");
    }
}
