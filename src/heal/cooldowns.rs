//! Cool-downs of heals that did not help: bounded, with an end, and apart from successes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use moka::sync::Cache;

use crate::config::settings::{HealSettings, Rung};
use crate::heal::canvas_service::viewer_queue::is_canvas;

/// `CanvasRequestKey` is one canvas on one rung of one canvas service (by its mark, so that a reload of the configuration
/// changes nothing).
///
/// UPSTREAM: all pages of a PDF share one key and one canvas in the cache (upstream.md "Identifiers"), so they share
/// flights and cool-downs too: two that differ only in `page` are the same.
#[derive(Debug, Clone)]
pub(in crate::heal) struct CanvasRequestKey {
    pub(in crate::heal) service: u64,
    /// Path and query of the request.
    pub(in crate::heal) target: Arc<str>,
    pub(in crate::heal) rung: Rung,
}

impl CanvasRequestKey {
    /// The key as text, for other nodes.
    pub(in crate::heal) fn cluster_key(&self) -> String {
        let (_, rung, path, query) = self.identity();
        query.fold(format!("{} {path}", rung.as_str()), |words, pair| format!("{words}&{pair}"))
    }

    /// True for a request for a whole manifest, of which several pages are gone.
    pub(in crate::heal) fn is_book(&self) -> bool {
        self.rung == Rung::Variant && !is_canvas(&self.target)
    }

    /// Fields that equality and hash compare.
    fn identity(&self) -> (u64, Rung, &str, impl Iterator<Item = &str>) {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let query = query.split('&').filter(|pair| !pair.starts_with("page=") && !pair.is_empty());
        (self.service, self.rung, path, query)
    }
}

impl PartialEq for CanvasRequestKey {
    fn eq(&self, other: &Self) -> bool {
        let (own, others) = (self.identity(), other.identity());
        (own.0, own.1, own.2) == (others.0, others.1, others.2) && own.3.eq(others.3)
    }
}

impl Eq for CanvasRequestKey {}

impl Hash for CanvasRequestKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (service, rung, path, query) = self.identity();
        (service, rung, path).hash(state);
        query.for_each(|pair| pair.hash(state));
    }
}

/// Heals of one canvas that succeeded within one cool-down before it counts as flapping.
const FLAPPING: u32 = 5;

/// Entries at most in each memory. Beyond that the least used are forgotten, which costs a request, no more.
const ENTRIES: u64 = 100_000;

/// Time without use after which an entry is forgotten, whatever the settings.
const LONGEST: Duration = Duration::from_hours(24);

/// First life of evidence against a canvas or a file; doubled with each further proof.
const FIRST_LIFE: Duration = Duration::from_secs(1);

/// Longest life of evidence against a canvas, until the service was seen to be well: a fault looks like a canvas that
/// cannot be built, or a missing file, and the end of a fault cannot be seen.
pub(in crate::heal) const UNPROVEN_LIFE: Duration = Duration::from_secs(2);

/// `Cooldowns` holds the cool-downs of all rungs.
#[derive(Debug)]
pub(in crate::heal) struct Cooldowns {
    rungs: Cache<CanvasRequestKey, CooldownEntry>,
    cooldown: Duration,
    backoff_max: Duration,
}

#[derive(Debug, Clone, Copy)]
struct CooldownEntry {
    /// Failures in a row.
    failures: u32,
    /// Successes since `since`.
    successes: u32,
    since: Instant,
    /// End of the cool-down.
    until: Instant,
    /// Time of the last write.
    noted: Instant,
}

impl Cooldowns {
    pub(in crate::heal) fn new(heal: &HealSettings) -> Self {
        Self {
            rungs: Cache::builder().max_capacity(ENTRIES).time_to_idle(LONGEST).build(),
            cooldown: heal.cooldown,
            backoff_max: heal.backoff_max,
        }
    }

    /// Cool-downs with other settings that share the memory of these, also for heals that still use these.
    pub(in crate::heal) fn under(&self, heal: &HealSettings) -> Self {
        Self { rungs: self.rungs.clone(), cooldown: heal.cooldown, backoff_max: heal.backoff_max }
    }

    /// The entry of this rung, unless it is too old to count.
    fn past(&self, rung: &CanvasRequestKey, now: Instant) -> Option<CooldownEntry> {
        let counts = self.backoff_max.max(self.cooldown) * 2;
        self.rungs.get(rung).filter(|past| now.saturating_duration_since(past.noted) < counts)
    }

    /// Rest of this rung's cool-down, if any. An entry from before `recovered`, when its service was seen to be well again,
    /// does not count any more.
    pub(in crate::heal) fn remaining(
        &self,
        rung: &CanvasRequestKey,
        recovered: Option<Instant>,
        now: Instant,
    ) -> Option<Duration> {
        let past = self.rungs.get(rung)?;
        if past.failures > 0 && recovered.is_some_and(|recovered| past.noted <= recovered) {
            return None;
        }
        past.until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Time of the last failure of this rung, if it did not help since and the failure is remembered.
    pub(in crate::heal) fn failed_at(&self, rung: &CanvasRequestKey) -> Option<Instant> {
        self.rungs.get(rung).filter(|past| past.failures > 0).map(|past| past.noted)
    }

    /// Begins the cool-down of a rung that did not help: short at first, twice as long each time, with jitter. The limit is
    /// two seconds as long as the service has built nothing whole since the try before (`well_at`).
    ///
    /// Several images of one canvas share its flight, and each reports how it ended for them. `boarded` is when the
    /// reporter joined the flight. A flight counts once, and one image that was helped speaks for the canvas. Returns the
    /// cool-down, if the report counted.
    pub(in crate::heal) fn record_failure(
        &self,
        rung: &CanvasRequestKey,
        boarded: Instant,
        well_at: Option<Instant>,
        now: Instant,
    ) -> Option<Duration> {
        let past = self.past(rung, now);
        if past.is_some_and(|past| past.noted >= boarded) {
            return None;
        }
        let before = past.filter(|past| past.failures > 0);
        let was_well = before.is_none_or(|past| well_at.is_some_and(|well| well >= past.noted));
        let failures = before.map_or(0, |past| past.failures);
        let failures = if was_well { failures.saturating_add(1) } else { failures };
        let factor = 2u32.saturating_pow((failures - 1).min(16));
        let longest = self.backoff_max.max(self.cooldown);
        let pause = self.cooldown.min(FIRST_LIFE).saturating_mul(factor).min(longest);
        let pause = pause.mul_f64(0.9 + 0.2 * fastrand::f64());
        let pause = if was_well { pause } else { pause.min(UNPROVEN_LIFE) };
        self.rungs.insert(
            rung.clone(),
            CooldownEntry { failures, successes: 0, since: now, until: now + pause, noted: now },
        );
        Some(pause)
    }

    /// Notes that another node tried the rung in vain: the cool-down is as long as there.
    pub(in crate::heal) fn set_remaining(&self, rung: &CanvasRequestKey, left: Duration, now: Instant) {
        let failures = self.rungs.get(rung).map_or(1, |past| past.failures.max(1));
        let past = CooldownEntry { failures, successes: 0, since: now, until: now + left, noted: now };
        self.rungs.insert(rung.clone(), past);
    }

    /// Notes that the rung helped: it may be tried again at once, unless the image is lost again and again.
    pub(in crate::heal) fn record_success(&self, rung: &CanvasRequestKey, boarded: Instant, now: Instant) {
        let past = self.past(rung, now);
        if past.is_some_and(|past| past.noted >= boarded && past.failures == 0) {
            return;
        }
        let past = past.filter(|past| now.duration_since(past.since) < self.cooldown);
        let (since, successes) = past.map_or((now, 1), |past| (past.since, past.successes + 1));
        // A rung that overwrites nothing may be tried as often as needed.
        let is_harmless = matches!(rung.rung, Rung::Register | Rung::Variant);
        let until = if successes >= FLAPPING && !is_harmless { now + self.cooldown } else { now };
        self.rungs.insert(rung.clone(), CooldownEntry { failures: 0, successes, since, until, noted: now });
    }

    /// Forgets the entry of this rung.
    pub(in crate::heal) fn clear(&self, rung: &CanvasRequestKey) {
        self.rungs.invalidate(rung);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Cooldowns {
        Cooldowns {
            rungs: Cache::new(100),
            cooldown: Duration::from_secs(10),
            backoff_max: Duration::from_mins(1),
        }
    }

    /// A join time after all entries: a flight of its own.
    const AFTER: Duration = Duration::from_nanos(1);

    fn rung() -> CanvasRequestKey {
        CanvasRequestKey { service: 0, target: "/canvas/a".into(), rung: Rung::Visit }
    }

    #[test]
    fn pages_of_one_pdf_share_a_canvas_and_other_queries_do_not() {
        let of = |target: &str| CanvasRequestKey { target: target.into(), ..rung() };
        let memory = memory();
        memory.record_failure(&of("/canvas/a?page=1"), Instant::now() + AFTER, None, Instant::now());
        for same in ["/canvas/a?page=2", "/canvas/a"] {
            assert!(memory.remaining(&of(same), None, Instant::now()).is_some(), "{same}");
        }
        for other in ["/canvas/b?page=1", "/canvas/a?allow=image/jpeg&page=1"] {
            assert!(memory.remaining(&of(other), None, Instant::now()).is_none(), "{other}");
            assert_ne!(of("/canvas/a?page=1"), of(other));
        }
        memory.clear(&of("/canvas/a?page=3"));
        assert!(
            memory.remaining(&of("/canvas/a?page=1"), None, Instant::now()).is_none(),
            "forgotten for all of them"
        );
    }

    #[test]
    fn only_a_variant_of_something_else_than_a_canvas_is_a_whole_manifest() {
        for (target, rung, is_book) in [
            ("/s/presentation/a?disallow=none", Rung::Variant, true),
            ("/s/canvas/a?disallow=none", Rung::Variant, false),
            ("/s/image/a?disallow=none", Rung::Variant, false),
            ("/s/presentation/a?update=true", Rung::Rebuild, false),
        ] {
            let request = CanvasRequestKey { service: 0, target: target.into(), rung };
            assert_eq!(request.is_book(), is_book, "{target}");
        }
    }

    #[test]
    fn failures_cool_down_longer_each_time_up_to_a_bound() {
        let (memory, now) = (memory(), Instant::now());
        assert_eq!(memory.remaining(&rung(), None, now), None);
        let mut last = Duration::ZERO;
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            memory.record_failure(&rung(), now + AFTER, Some(now), now);
            last = memory.remaining(&rung(), None, now).expect("it cools");
            let expected = Duration::from_secs(expected);
            assert!(
                last >= expected.mul_f64(0.9) && last <= expected.mul_f64(1.1),
                "{last:?} of {expected:?}"
            );
        }
        assert_eq!(memory.remaining(&rung(), None, now + last), None);
    }

    #[test]
    fn a_failure_counts_until_its_longest_cool_down_has_passed_twice() {
        let (memory, began) = (memory(), Instant::now());
        let fails = |after: u64| {
            let now = began + Duration::from_secs(after);
            memory.record_failure(&rung(), now, Some(now), now).expect("it counts").as_secs_f64()
        };
        let (first, second, third) = (fails(0), fails(119), fails(119 + 120));
        assert!(first < 1.2 && second > 1.7 && third < 1.2, "{first} {second} {third}");
    }

    #[test]
    fn a_cool_down_that_another_node_tells_of_lasts_as_long_as_there() {
        let (memory, now) = (memory(), Instant::now());
        memory.record_success(&rung(), now, now);
        memory.set_remaining(&rung(), Duration::from_secs(7), now);
        assert_eq!(memory.remaining(&rung(), None, now), Some(Duration::from_secs(7)));
        assert_eq!(memory.remaining(&rung(), Some(now), now), None, "it is one of a failure");
    }

    #[test]
    fn a_success_does_not_stop_the_next_heal_but_flapping_does() {
        let (memory, now) = (memory(), Instant::now());
        for _ in 1..FLAPPING {
            memory.record_success(&rung(), now + AFTER, now);
            assert_eq!(memory.remaining(&rung(), None, now), None);
        }
        memory.record_success(&rung(), now + AFTER, now);
        assert!(memory.remaining(&rung(), None, now).is_some());
        assert_eq!(memory.remaining(&rung(), None, now + Duration::from_secs(10)), None);
        assert!(memory.remaining(&rung(), Some(now + AFTER), now).is_some(), "a fault is not its reason");
    }

    #[test]
    fn an_image_that_is_lost_now_and_then_does_not_flap() {
        let (memory, now) = (memory(), Instant::now());
        for _ in 1..FLAPPING {
            memory.record_success(&rung(), now + AFTER, now);
        }
        let later = now + Duration::from_secs(10);
        for _ in 1..FLAPPING {
            memory.record_success(&rung(), later + AFTER, later);
            assert_eq!(memory.remaining(&rung(), None, later), None);
        }
    }

    #[test]
    fn many_images_of_one_canvas_tell_of_one_flight_and_it_counts_once() {
        let (memory, boarded) = (memory(), Instant::now());
        let landed = boarded + Duration::from_secs(1);
        for _ in 0..20 {
            memory.record_failure(&rung(), boarded, None, landed);
        }
        let pause = memory.remaining(&rung(), None, landed).expect("it cools");
        assert!(pause <= Duration::from_secs(11), "counted once: {pause:?}");
        memory.record_success(&rung(), boarded, landed);
        assert_eq!(
            memory.remaining(&rung(), None, landed),
            None,
            "one image that was helped speaks for the canvas"
        );
        for _ in 0..20 {
            memory.record_success(&rung(), boarded, landed);
            memory.record_failure(&rung(), boarded, None, landed);
        }
        assert_eq!(memory.remaining(&rung(), None, landed), None, "that is no flapping");
    }

    #[test]
    fn as_long_as_nothing_shows_that_the_service_is_well_nothing_cools_for_long() {
        let (memory, now) = (memory(), Instant::now());
        let mut pauses = (0u32..20).map(|second| {
            let now = now + Duration::from_secs(3) * second;
            memory.record_failure(&rung(), now, Some(now - Duration::from_mins(1)), now).expect("it counts")
        });
        assert!(pauses.all(|pause| pause <= UNPROVEN_LIFE));
        // Those failures do not make the first proven one last longer, and proven ones no unproven one.
        let later = now + Duration::from_mins(1);
        let pause =
            |well_at| memory.record_failure(&rung(), later + AFTER, well_at, later).expect("it counts");
        for expected in [2.0, 4.0, 8.0, 16.0] {
            let pause = pause(Some(later)).as_secs_f64();
            assert!((0.9 * expected..=1.1 * expected).contains(&pause), "{pause} of {expected}");
        }
        assert!(pause(None) <= UNPROVEN_LIFE);
    }

    #[test]
    fn the_first_failure_after_a_success_is_a_first_one() {
        let (memory, now) = (memory(), Instant::now());
        memory.record_success(&rung(), now + AFTER, now);
        let pause = memory.record_failure(&rung(), now + AFTER, None, now).expect("it counts");
        assert!((0.9..=1.1).contains(&pause.as_secs_f64()), "{pause:?}");
    }

    #[test]
    fn what_failed_during_a_fault_is_tried_again_at_its_end() {
        let (memory, now) = (memory(), Instant::now());
        memory.record_failure(&rung(), now + AFTER, None, now);
        assert!(memory.remaining(&rung(), None, now).is_some());
        assert_eq!(memory.remaining(&rung(), Some(now + AFTER), now), None);
        let later = now + Duration::from_secs(5);
        memory.record_failure(&rung(), later, None, later);
        assert!(
            memory.remaining(&rung(), Some(now), later).is_some(),
            "it failed after the end of that fault"
        );
    }
}
