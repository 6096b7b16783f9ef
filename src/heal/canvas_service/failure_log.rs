//! Failure log: reasons of failed canvas requests, in words, and pauses that servers asked for (`Retry-After`).
//!
//! The ladder only needs to know *that* a rung did not help; a report needs the reason.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

use http::{HeaderMap, StatusCode};
use moka::sync::Cache;

use crate::upstream::fetch::retry_after;
use crate::upstream::{ErrorChain, UpstreamError};

/// Targets that are remembered. Beyond that the least used are forgotten, which costs a reason, no more.
const TARGETS: u64 = 10_000;

/// Upper bound of a requested pause.
const LONGEST_REST: Duration = Duration::from_mins(10);

/// `FailureReason` is the failure of the last request to one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::heal) struct FailureReason {
    /// Text for people.
    pub(in crate::heal) text: String,
    /// A retry after a while may succeed.
    pub(in crate::heal) passing: bool,
    /// Status that the service answered with; `None`: there was no whole answer, or no request.
    pub(in crate::heal) status: Option<StatusCode>,
}

/// `FailureLog` holds the failures of one canvas service.
#[derive(Debug)]
pub(in crate::heal) struct FailureLog {
    /// Last failures, and when they came.
    last: Cache<Arc<str>, (FailureReason, Instant)>,
    /// Text of the last failure of all targets, since the last answer that was none.
    latest: Mutex<Option<String>>,
    rest_until: Mutex<Option<Instant>>,
}

impl Default for FailureLog {
    fn default() -> Self {
        Self { last: Cache::new(TARGETS), latest: Mutex::new(None), rest_until: Mutex::new(None) }
    }
}

impl FailureLog {
    /// Notes that the request to `target` was answered.
    pub(in crate::heal) fn record_answer(&self, target: &str, status: StatusCode, fields: &HeaderMap) {
        if status.is_success() {
            self.last.invalidate(target);
            *self.latest.lock() = None;
            return;
        }
        if let Some(pause) = retry_after(status, fields, SystemTime::now()) {
            *self.rest_until.lock() = Some(Instant::now() + pause.min(LONGEST_REST));
        }
        let text = format!("the canvas service answered {status}");
        // UPSTREAM: 500 is an unknown canvas or a Fedora that refuses; a retry does not change that.
        let passing = status == StatusCode::TOO_MANY_REQUESTS
            || (status.is_server_error() && status != StatusCode::INTERNAL_SERVER_ERROR);
        self.note(target, FailureReason { text, passing, status: Some(status) });
    }

    /// Notes that the request to `target` was not answered.
    pub(in crate::heal) fn record_error(&self, target: &str, error: &UpstreamError) {
        let text = format!("the canvas service: {}", ErrorChain(error));
        self.note(target, FailureReason { text, passing: true, status: None });
    }

    /// Notes that the answer to `target` ended early.
    pub(in crate::heal) fn record_truncated(&self, target: &str) {
        let text = "the canvas service: the answer broke off, or stopped".to_owned();
        self.note(target, FailureReason { text, passing: true, status: None });
    }

    fn note(&self, target: &str, reason: FailureReason) {
        *self.latest.lock() = Some(reason.text.clone());
        self.last.insert(target.into(), (reason, Instant::now()));
    }

    /// Reason why the last request failed, whatever its target; `None` where it succeeded.
    pub(in crate::heal) fn latest(&self) -> Option<String> {
        self.latest.lock().clone()
    }

    /// Reason why the last request to `target` failed; `None` where it succeeded or was never made.
    pub(in crate::heal) fn last(&self, target: &str) -> Option<FailureReason> {
        self.last.get(target).map(|(reason, _)| reason)
    }

    /// Time of the last request to `target`, if it failed.
    pub(in crate::heal) fn failed_at(&self, target: &str) -> Option<Instant> {
        self.last.get(target).map(|(_, at)| at)
    }

    /// Time left of the pause that the service asked for.
    pub(in crate::heal) fn retry_after(&self, now: Instant) -> Option<Duration> {
        let until = *self.rest_until.lock();
        until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn a_failure_is_told_until_the_same_request_goes_well() {
        let failures = FailureLog::default();
        failures.record_answer("/canvas/a", StatusCode::INTERNAL_SERVER_ERROR, &HeaderMap::new());
        let reason = failures.last("/canvas/a").expect("a reason");
        assert_eq!(reason.text, "the canvas service answered 500 Internal Server Error");
        assert_eq!((reason.passing, reason.status), (false, Some(StatusCode::INTERNAL_SERVER_ERROR)));
        assert_eq!(failures.last("/canvas/b"), None);
        assert_eq!(failures.latest().as_ref(), Some(&reason.text));
        failures.record_answer("/canvas/a", StatusCode::OK, &HeaderMap::new());
        assert_eq!((failures.last("/canvas/a"), failures.latest()), (None, None));
        failures.record_truncated("/canvas/a");
        let reason = failures.last("/canvas/a").expect("a reason");
        assert_eq!(
            (reason.passing, reason.status),
            (true, None),
            "a broken answer proves nothing of the canvas"
        );
    }

    #[test]
    fn a_pause_that_the_server_asks_for_is_remembered_but_not_for_the_whole_night() {
        let failures = FailureLog::default();
        let mut fields = HeaderMap::new();
        for (text, most) in [("7", 7), ("999999", 600)] {
            fields.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
            failures.record_answer("/canvas/a", StatusCode::TOO_MANY_REQUESTS, &fields);
            let left = failures.retry_after(Instant::now()).expect("a pause");
            assert!(left <= Duration::from_secs(most) && left > Duration::from_secs(most - 2), "{text}");
        }
        assert_eq!(failures.retry_after(Instant::now() + LONGEST_REST), None);
        let failures = FailureLog::default();
        fields.insert(header::RETRY_AFTER, HeaderValue::from_static("soon"));
        failures.record_answer("/canvas/a", StatusCode::TOO_MANY_REQUESTS, &fields);
        assert_eq!(failures.retry_after(Instant::now()), None, "that is no time");
    }

    #[test]
    fn a_request_without_an_answer_may_go_well_the_next_time() {
        let failures = FailureLog::default();
        failures.record_error("/canvas/a", &UpstreamError::Busy);
        let reason = failures.last("/canvas/a").expect("a reason");
        assert_eq!((reason.passing, reason.status), (true, None));
        assert!(reason.text.starts_with("the canvas service: "), "{}", reason.text);
        for (status, passing) in [(429, true), (503, true), (500, false), (404, false)] {
            let status = StatusCode::from_u16(status).expect("a status");
            failures.record_answer("/canvas/a", status, &HeaderMap::new());
            assert_eq!(failures.last("/canvas/a").expect("a reason").passing, passing, "{status}");
        }
    }
}
