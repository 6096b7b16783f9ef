//! Passive health of one server: whether it may get requests. Pure: time is an argument.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::settings;

/// Status of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerStatus {
    /// Server in use.
    Up,
    /// Trial: out before, and dialled since. One request at a time tries the server.
    Trial,
    /// Excluded.
    Out,
}

impl ServerStatus {
    /// Name in the API and on the dashboard.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Trial => "trial",
            Self::Out => "out",
        }
    }
}

const UP: u8 = 0;
const TRIAL: u8 = 1;
const OUT: u8 = 2;

/// Health of one server. A healthy request costs two loads.
#[derive(Debug)]
pub(super) struct PassiveHealth {
    standing: AtomicU8,
    /// Failures in a row.
    failures: AtomicU32,
    rare: Mutex<ColdState>,
    bounds: settings::HealthSettings,
}

/// State that matters only while the server is unfit, or while it is checked.
#[derive(Debug)]
struct ColdState {
    /// Length of the next time out.
    pause: Duration,
    /// Time of the next dial, while the server is out.
    due: Option<Instant>,
    /// True if the active checks find the server unwell.
    refuted: bool,
    good_checks: u32,
    bad_checks: u32,
}

impl PassiveHealth {
    pub(super) fn new(bounds: settings::HealthSettings) -> Self {
        let rare = ColdState { pause: bounds.out, due: None, refuted: false, good_checks: 0, bad_checks: 0 };
        Self { standing: AtomicU8::new(UP), failures: AtomicU32::new(0), rare: Mutex::new(rare), bounds }
    }

    pub(super) fn status(&self) -> ServerStatus {
        match self.standing.load(Ordering::Relaxed) {
            UP => ServerStatus::Up,
            TRIAL => ServerStatus::Trial,
            _ => ServerStatus::Out,
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Records an answer. Returns the new status where it changed.
    pub(super) fn record_success(&self) -> Option<ServerStatus> {
        if self.failures.load(Ordering::Relaxed) == 0 && self.standing.load(Ordering::Relaxed) == UP {
            return None;
        }
        self.failures.store(0, Ordering::Relaxed);
        let mut rare = self.rare.lock();
        // Its checks count more than one answer.
        if rare.refuted {
            return None;
        }
        rare.pause = self.bounds.out;
        rare.due = None;
        self.set_status(UP)
    }

    /// Records a failure: not reached, or no answer in time. Returns the new status where it changed.
    pub(super) fn record_failure(&self, now: Instant) -> Option<ServerStatus> {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let mut rare = self.rare.lock();
        match self.status() {
            ServerStatus::Out => return None,
            ServerStatus::Up if failures < self.bounds.failures => return None,
            ServerStatus::Up => {}
            ServerStatus::Trial => {
                rare.pause = (rare.pause * 2).min(self.bounds.out_max.max(self.bounds.out));
            }
        }
        rare.due = Some(now + rare.pause);
        self.set_status(OUT)
    }

    /// True when the server is out and due for a dial: for one caller, who reports with [`PassiveHealth::record_dial`].
    pub(super) fn is_due(&self, now: Instant) -> bool {
        if self.standing.load(Ordering::Relaxed) != OUT {
            return false;
        }
        let mut rare = self.rare.lock();
        let is_due = !rare.refuted && rare.due.is_some_and(|due| due <= now);
        if is_due {
            rare.due = None;
        }
        is_due
    }

    /// The dial of [`HealthSettings::is_due`] ended.
    pub(super) fn record_dial(&self, worked: bool, now: Instant) -> Option<ServerStatus> {
        let mut rare = self.rare.lock();
        if self.status() != ServerStatus::Out || rare.refuted {
            return None;
        }
        if worked {
            return self.set_status(TRIAL);
        }
        // A dial costs no viewer anything, so the pause does not grow.
        rare.due = Some(now + rare.pause);
        None
    }

    /// A check ended.
    pub(super) fn record_check(&self, good: bool) -> Option<ServerStatus> {
        let mut rare = self.rare.lock();
        if good {
            (rare.good_checks, rare.bad_checks) = (rare.good_checks.saturating_add(1), 0);
        } else {
            (rare.good_checks, rare.bad_checks) = (0, rare.bad_checks.saturating_add(1));
        }
        if rare.good_checks >= self.bounds.healthy_after {
            rare.refuted = false;
            if self.status() == ServerStatus::Up {
                return None;
            }
            rare.pause = self.bounds.out;
            rare.due = None;
            self.failures.store(0, Ordering::Relaxed);
            return self.set_status(UP);
        }
        if rare.bad_checks >= self.bounds.unhealthy_after {
            rare.refuted = true;
            return self.set_status(OUT);
        }
        None
    }

    /// Sets the status. The lock is held.
    fn set_status(&self, standing: u8) -> Option<ServerStatus> {
        let before = self.standing.swap(standing, Ordering::Relaxed);
        (before != standing).then(|| self.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> PassiveHealth {
        let out = Duration::from_secs(1);
        PassiveHealth::new(settings::HealthSettings {
            out,
            out_max: 3 * out,
            ..settings::HealthSettings::default()
        })
    }

    fn fails(health: &PassiveHealth, now: Instant) {
        while health.record_failure(now).is_none() {}
    }

    #[test]
    fn three_failures_in_a_row_put_it_out_and_an_answer_between_them_does_not_count_them() {
        let (health, now) = (health(), Instant::now());
        assert_eq!(
            (health.record_failure(now), health.record_failure(now), health.record_success()),
            (None, None, None)
        );
        assert_eq!((health.record_failure(now), health.record_failure(now)), (None, None));
        assert_eq!(health.record_failure(now), Some(ServerStatus::Out));
        assert_eq!(health.record_failure(now), None, "it is out already");
    }

    #[test]
    fn it_is_dialled_after_its_pause_by_one_and_tried_by_one_request() {
        let (health, now) = (health(), Instant::now());
        fails(&health, now);
        assert!(!health.is_due(now));
        let later = now + Duration::from_secs(1);
        assert!(health.is_due(later));
        assert!(!health.is_due(later), "somebody dials it");
        assert_eq!(health.record_dial(false, later), None);
        assert!(!health.is_due(later));
        let later = later + Duration::from_secs(1);
        assert!(health.is_due(later), "a failed dial does not make the pause longer");
        assert_eq!(health.record_dial(true, later), Some(ServerStatus::Trial));
        assert_eq!(health.record_success(), Some(ServerStatus::Up));
    }

    #[test]
    fn a_trial_that_fails_doubles_the_pause_up_to_its_bound() {
        let (health, mut now) = (health(), Instant::now());
        fails(&health, now);
        for pause in [1, 2, 3, 3] {
            let pause = Duration::from_secs(pause);
            assert!(!health.is_due(now + pause / 2));
            now += pause;
            assert!(health.is_due(now), "{pause:?}");
            assert_eq!(health.record_dial(true, now), Some(ServerStatus::Trial));
            assert_eq!(health.record_failure(now), Some(ServerStatus::Out));
        }
    }

    #[test]
    fn checks_count_more_than_requests() {
        let (health, now) = (health(), Instant::now());
        assert_eq!((health.record_check(false), health.record_check(false)), (None, None));
        assert_eq!(health.record_check(false), Some(ServerStatus::Out));
        assert_eq!(health.record_success(), None);
        assert_eq!(health.status(), ServerStatus::Out);
        assert!(!health.is_due(now + Duration::from_secs(9)), "its checks bring it back");
        assert_eq!(health.record_check(true), None);
        assert_eq!(health.record_check(true), Some(ServerStatus::Up));
        fails(&health, now);
        assert_eq!(
            health.record_check(true),
            Some(ServerStatus::Up),
            "out by its requests, in by its checks"
        );
    }
}
