//! What is remembered of heals that did not help: bounded, with an end, and apart from successes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use moka::sync::Cache;

use crate::config::settings::{Heal, Rung};

/// One canvas on one rung of one canvas service (by its mark, so that a reload of the configuration changes nothing).
///
/// UPSTREAM: all pages of a PDF share one key and one canvas in the cache (upstream.md "Identifiers"), so they share
/// flights and cool-downs too: two that differ only in `page` are the same.
#[derive(Debug, Clone)]
pub(super) struct RungOf {
    pub(super) service: u64,
    /// Path and query that are asked for.
    pub(super) target: Arc<str>,
    pub(super) rung: Rung,
}

impl RungOf {
    /// The same in words, for other nodes.
    pub(super) fn words(&self) -> String {
        let (_, rung, path, query) = self.known_by();
        query.fold(format!("{} {path}", rung.as_str()), |words, pair| format!("{words}&{pair}"))
    }

    /// What it is known by.
    fn known_by(&self) -> (u64, Rung, &str, impl Iterator<Item = &str>) {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let query = query.split('&').filter(|pair| !pair.starts_with("page=") && !pair.is_empty());
        (self.service, self.rung, path, query)
    }
}

impl PartialEq for RungOf {
    fn eq(&self, other: &Self) -> bool {
        let (own, others) = (self.known_by(), other.known_by());
        (own.0, own.1, own.2) == (others.0, others.1, others.2) && own.3.eq(others.3)
    }
}

impl Eq for RungOf {}

impl Hash for RungOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (service, rung, path, query) = self.known_by();
        (service, rung, path).hash(state);
        query.for_each(|pair| pair.hash(state));
    }
}

/// Heals of one canvas that succeeded within one cool-down before it counts as flapping.
const FLAPPING: u32 = 5;

/// Entries at most in each memory; beyond it the least used are forgotten, which costs a request, no more.
const ENTRIES: u64 = 100_000;

/// Nobody asked for it for so long: forgotten, whatever the settings say.
const LONGEST: Duration = Duration::from_hours(24);

/// Cool-downs and missing files.
#[derive(Debug)]
pub(super) struct Memory {
    rungs: Cache<RungOf, Past>,
    missing: Cache<(u64, Arc<str>), Instant>,
    cooldown: Duration,
    backoff_max: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Past {
    /// Failures in a row.
    failures: u32,
    /// Successes since `since`.
    successes: u32,
    since: Instant,
    /// Not before this.
    until: Instant,
    /// When this was last written.
    noted: Instant,
}

impl Memory {
    pub(super) fn new(heal: &Heal) -> Self {
        Self {
            rungs: Cache::builder().max_capacity(ENTRIES).time_to_idle(LONGEST).build(),
            missing: Cache::builder().max_capacity(ENTRIES).time_to_idle(LONGEST).build(),
            cooldown: heal.cooldown,
            backoff_max: heal.backoff_max,
        }
    }

    /// The same memory under other settings: what is remembered stays, also for climbs that still have this one.
    pub(super) fn under(&self, heal: &Heal) -> Self {
        Self {
            rungs: self.rungs.clone(),
            missing: self.missing.clone(),
            cooldown: heal.cooldown,
            backoff_max: heal.backoff_max,
        }
    }

    /// What happened on this rung, unless it is too long ago to count.
    fn past(&self, rung: &RungOf, now: Instant) -> Option<Past> {
        let counts = self.backoff_max.max(self.cooldown) * 2;
        self.rungs.get(rung).filter(|past| now.saturating_duration_since(past.noted) < counts)
    }

    /// How long this rung is to be left alone, if it is.
    pub(super) fn cooling(&self, rung: &RungOf, now: Instant) -> Option<Duration> {
        let past = self.rungs.get(rung)?;
        past.until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// The rung was tried and did not help: left alone for the cool-down, twice as long each time, with jitter.
    ///
    /// Several images of one canvas share its flight and each tell how it ended for them; `boarded` is when the
    /// teller came aboard. It counts once, and one image that was helped speaks for the canvas.
    /// Says for how long, if it counted.
    pub(super) fn failed(&self, rung: &RungOf, boarded: Instant, now: Instant) -> Option<Duration> {
        let past = self.past(rung, now);
        if past.is_some_and(|past| past.noted >= boarded) {
            return None;
        }
        let failures = past.map_or(0, |past| past.failures).saturating_add(1);
        let factor = 2u32.saturating_pow((failures - 1).min(16));
        let pause = self.cooldown.saturating_mul(factor).min(self.backoff_max.max(self.cooldown));
        let pause = pause.mul_f64(0.9 + 0.2 * fastrand::f64());
        self.rungs.insert(
            rung.clone(),
            Past { failures, successes: 0, since: now, until: now + pause, noted: now },
        );
        Some(pause)
    }

    /// Another node tried the rung in vain: left alone for as long as that one leaves it.
    pub(super) fn cool(&self, rung: &RungOf, left: Duration, now: Instant) {
        let failures = self.rungs.get(rung).map_or(0, |past| past.failures);
        let past = Past { failures, successes: 0, since: now, until: now + left, noted: now };
        self.rungs.insert(rung.clone(), past);
    }

    /// The rung helped: it may help again at once, unless the image is lost again and again.
    pub(super) fn succeeded(&self, rung: &RungOf, boarded: Instant, now: Instant) {
        let past = self.past(rung, now);
        if past.is_some_and(|past| past.noted >= boarded && past.failures == 0) {
            return;
        }
        let past = past.filter(|past| now.duration_since(past.since) < self.cooldown);
        let (since, successes) = past.map_or((now, 1), |past| (past.since, past.successes + 1));
        let until = if successes >= FLAPPING { now + self.cooldown } else { now };
        self.rungs.insert(rung.clone(), Past { failures: 0, successes, since, until, noted: now });
    }

    /// The file behind this identifier (of this image route) is gone; believed for so long.
    pub(super) fn file_is_missing(&self, route: u64, key: &Arc<str>, time: Duration, now: Instant) {
        self.missing.insert((route, Arc::clone(key)), now + time);
    }

    /// Was it found missing a while ago?
    pub(super) fn is_missing(&self, route: u64, key: &Arc<str>, now: Instant) -> bool {
        self.missing.get(&(route, Arc::clone(key))).is_some_and(|until| now < until)
    }

    /// Forgets how this went.
    pub(super) fn forget(&self, rung: &RungOf) {
        self.rungs.invalidate(rung);
    }

    /// Forgets that it was missing: it was seen.
    pub(super) fn found(&self, route: u64, key: &Arc<str>) {
        self.missing.invalidate(&(route, Arc::clone(key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory {
            rungs: Cache::new(100),
            missing: Cache::new(100),
            cooldown: Duration::from_secs(10),
            backoff_max: Duration::from_mins(1),
        }
    }

    /// Aboard after all that was noted before: a flight of its own.
    const AFTER: Duration = Duration::from_nanos(1);

    fn rung() -> RungOf {
        RungOf { service: 0, target: "/canvas/a".into(), rung: Rung::Visit }
    }

    #[test]
    fn pages_of_one_pdf_share_a_canvas_and_other_queries_do_not() {
        let of = |target: &str| RungOf { target: target.into(), ..rung() };
        let memory = memory();
        memory.failed(&of("/canvas/a?page=1"), Instant::now() + AFTER, Instant::now());
        for same in ["/canvas/a?page=2", "/canvas/a"] {
            assert!(memory.cooling(&of(same), Instant::now()).is_some(), "{same}");
        }
        memory.forget(&of("/canvas/a?page=3"));
        assert!(
            memory.cooling(&of("/canvas/a?page=1"), Instant::now()).is_none(),
            "forgotten for all of them"
        );
        for other in ["/canvas/b?page=1", "/canvas/a?allow=image/jpeg&page=1"] {
            assert!(memory.cooling(&of(other), Instant::now()).is_none(), "{other}");
        }
    }

    #[test]
    fn failures_cool_down_longer_each_time_up_to_a_bound() {
        let (memory, now) = (memory(), Instant::now());
        assert_eq!(memory.cooling(&rung(), now), None);
        let mut last = Duration::ZERO;
        for expected in [10, 20, 40, 60, 60] {
            memory.failed(&rung(), now + AFTER, now);
            last = memory.cooling(&rung(), now).expect("it cools");
            let expected = Duration::from_secs(expected);
            assert!(
                last >= expected.mul_f64(0.9) && last <= expected.mul_f64(1.1),
                "{last:?} of {expected:?}"
            );
        }
        assert_eq!(memory.cooling(&rung(), now + last), None);
    }

    #[test]
    fn a_success_does_not_stop_the_next_heal_but_flapping_does() {
        let (memory, now) = (memory(), Instant::now());
        for _ in 1..FLAPPING {
            memory.succeeded(&rung(), now + AFTER, now);
            assert_eq!(memory.cooling(&rung(), now), None);
        }
        memory.succeeded(&rung(), now + AFTER, now);
        assert!(memory.cooling(&rung(), now).is_some());
        assert_eq!(memory.cooling(&rung(), now + Duration::from_secs(10)), None);
    }

    #[test]
    fn many_images_of_one_canvas_tell_of_one_flight_and_it_counts_once() {
        let (memory, boarded) = (memory(), Instant::now());
        let landed = boarded + Duration::from_secs(1);
        for _ in 0..20 {
            memory.failed(&rung(), boarded, landed);
        }
        let pause = memory.cooling(&rung(), landed).expect("it cools");
        assert!(pause <= Duration::from_secs(11), "counted once: {pause:?}");
        memory.succeeded(&rung(), boarded, landed);
        assert_eq!(memory.cooling(&rung(), landed), None, "one image that was helped speaks for the canvas");
        for _ in 0..20 {
            memory.succeeded(&rung(), boarded, landed);
            memory.failed(&rung(), boarded, landed);
        }
        assert_eq!(memory.cooling(&rung(), landed), None, "that is no flapping");
    }

    #[test]
    fn a_missing_file_is_remembered_for_a_while_and_forgotten_when_seen() {
        let (memory, now) = (memory(), Instant::now());
        let key: Arc<str> = "id".into();
        memory.file_is_missing(0, &key, Duration::from_mins(5), now);
        assert!(memory.is_missing(0, &key, now));
        assert!(!memory.is_missing(1, &key, now));
        assert!(!memory.is_missing(0, &key, now + Duration::from_mins(5)));
        memory.found(0, &key);
        assert!(!memory.is_missing(0, &key, now));
    }
}
