//! Whether one server is fit to be asked. Pure: time is an argument.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::settings;

/// How a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In use.
    Up,
    /// Was out and could be dialled: one request at a time tries it.
    Trial,
    /// Passed over.
    Out,
}

const UP: u8 = 0;
const TRIAL: u8 = 1;
const OUT: u8 = 2;

/// What is known of one server's health. A healthy request costs two loads.
#[derive(Debug)]
pub(super) struct Health {
    standing: AtomicU8,
    /// Failures in a row.
    failures: AtomicU32,
    rare: Mutex<Rare>,
    bounds: settings::Health,
}

/// What matters only while something is wrong, or while it is checked.
#[derive(Debug)]
struct Rare {
    /// How long it is out the next time.
    pause: Duration,
    /// When it may be dialled again, while it is out.
    due: Option<Instant>,
    /// The active checks say that the server is not well.
    refuted: bool,
    good_checks: u32,
    bad_checks: u32,
}

impl Health {
    pub(super) fn new(bounds: settings::Health) -> Self {
        let rare = Rare { pause: bounds.out, due: None, refuted: false, good_checks: 0, bad_checks: 0 };
        Self { standing: AtomicU8::new(UP), failures: AtomicU32::new(0), rare: Mutex::new(rare), bounds }
    }

    pub(super) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Relaxed) {
            UP => Standing::Up,
            TRIAL => Standing::Trial,
            _ => Standing::Out,
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Records an answer. Returns the new status where it changed.
    pub(super) fn good(&self) -> Option<Standing> {
        if self.failures.load(Ordering::Relaxed) == 0 && self.standing.load(Ordering::Relaxed) == UP {
            return None;
        }
        self.failures.store(0, Ordering::Relaxed);
        let mut rare = self.rare.lock();
        // What its checks say counts more than one answer.
        if rare.refuted {
            return None;
        }
        rare.pause = self.bounds.out;
        rare.due = None;
        self.now_stands(UP)
    }

    /// Records a failure: not reached, or no answer in time. Returns the new status where it changed.
    pub(super) fn bad(&self, now: Instant) -> Option<Standing> {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let mut rare = self.rare.lock();
        match self.standing() {
            Standing::Out => return None,
            Standing::Up if failures < self.bounds.failures => return None,
            Standing::Up => {}
            Standing::Trial => rare.pause = (rare.pause * 2).min(self.bounds.out_max.max(self.bounds.out)),
        }
        rare.due = Some(now + rare.pause);
        self.now_stands(OUT)
    }

    /// True when the server is out and due for a dial: for one caller, who reports with [`Health::dialled`].
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

    /// The dial of [`Health::is_due`] ended.
    pub(super) fn dialled(&self, worked: bool, now: Instant) -> Option<Standing> {
        let mut rare = self.rare.lock();
        if self.standing() != Standing::Out || rare.refuted {
            return None;
        }
        if worked {
            return self.now_stands(TRIAL);
        }
        // Dialling costs nobody anything, so the pause does not grow.
        rare.due = Some(now + rare.pause);
        None
    }

    /// A check ended.
    pub(super) fn checked(&self, good: bool) -> Option<Standing> {
        let mut rare = self.rare.lock();
        if good {
            (rare.good_checks, rare.bad_checks) = (rare.good_checks.saturating_add(1), 0);
        } else {
            (rare.good_checks, rare.bad_checks) = (0, rare.bad_checks.saturating_add(1));
        }
        if rare.good_checks >= self.bounds.healthy_after {
            rare.refuted = false;
            if self.standing() == Standing::Up {
                return None;
            }
            rare.pause = self.bounds.out;
            rare.due = None;
            self.failures.store(0, Ordering::Relaxed);
            return self.now_stands(UP);
        }
        if rare.bad_checks >= self.bounds.unhealthy_after {
            rare.refuted = true;
            return self.now_stands(OUT);
        }
        None
    }

    /// The lock is held.
    fn now_stands(&self, standing: u8) -> Option<Standing> {
        let before = self.standing.swap(standing, Ordering::Relaxed);
        (before != standing).then(|| self.standing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        let out = Duration::from_secs(1);
        Health::new(settings::Health { out, out_max: 3 * out, ..settings::Health::default() })
    }

    fn fails(health: &Health, now: Instant) {
        while health.bad(now).is_none() {}
    }

    #[test]
    fn three_failures_in_a_row_put_it_out_and_an_answer_between_them_does_not_count_them() {
        let (health, now) = (health(), Instant::now());
        assert_eq!((health.bad(now), health.bad(now), health.good()), (None, None, None));
        assert_eq!((health.bad(now), health.bad(now)), (None, None));
        assert_eq!(health.bad(now), Some(Standing::Out));
        assert_eq!(health.bad(now), None, "it is out already");
    }

    #[test]
    fn it_is_dialled_after_its_pause_by_one_and_tried_by_one_request() {
        let (health, now) = (health(), Instant::now());
        fails(&health, now);
        assert!(!health.is_due(now));
        let later = now + Duration::from_secs(1);
        assert!(health.is_due(later));
        assert!(!health.is_due(later), "somebody dials it");
        assert_eq!(health.dialled(false, later), None);
        assert!(!health.is_due(later));
        let later = later + Duration::from_secs(1);
        assert!(health.is_due(later), "a failed dial does not make the pause longer");
        assert_eq!(health.dialled(true, later), Some(Standing::Trial));
        assert_eq!(health.good(), Some(Standing::Up));
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
            assert_eq!(health.dialled(true, now), Some(Standing::Trial));
            assert_eq!(health.bad(now), Some(Standing::Out));
        }
    }

    #[test]
    fn checks_count_more_than_requests() {
        let (health, now) = (health(), Instant::now());
        assert_eq!((health.checked(false), health.checked(false)), (None, None));
        assert_eq!(health.checked(false), Some(Standing::Out));
        assert_eq!(health.good(), None);
        assert_eq!(health.standing(), Standing::Out);
        assert!(!health.is_due(now + Duration::from_secs(9)), "its checks bring it back");
        assert_eq!(health.checked(true), None);
        assert_eq!(health.checked(true), Some(Standing::Up));
        fails(&health, now);
        assert_eq!(health.checked(true), Some(Standing::Up), "out by its requests, in by its checks");
    }
}
