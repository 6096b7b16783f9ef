//! Missing files: bounded, each with a short first life, and forgotten after any proof of life.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use crate::config::settings::HealSettings;
use crate::heal::cooldowns::UNPROVEN_LIFE;

/// First life of a missing file that two sources report.
const PROVEN_LIFE: Duration = Duration::from_secs(10);

/// Entries at most. Beyond that the least used are forgotten, which costs a request, no more.
const ENTRIES: u64 = 100_000;

/// Time without use after which an entry is forgotten, whatever the settings.
const LONGEST: Duration = Duration::from_hours(24);

/// `MissingFiles` remembers which files are gone, by the lookup keys of their images and the marks of their routes.
#[derive(Debug)]
pub(in crate::heal) struct MissingFiles {
    missing: Cache<(u64, Arc<str>), MissingEntry>,
    /// True once any file was found missing.
    has_missing: Arc<AtomicBool>,
    longest: Duration,
}

#[derive(Debug, Clone, Copy)]
struct MissingEntry {
    until: Instant,
    life: Duration,
    noted: Instant,
    /// True if a fault is excluded: two sources showed it, or the canvas service was well since it first seemed so.
    is_proven: bool,
}

/// `Proof` is how well it is proven that a file is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum Proof {
    /// The canvas service knows the file and the image server finds none, or the image server does not find the file's own
    /// identifier.
    Shown,
    /// A canvas came without the image. A file store in trouble would have the same effect.
    Likely {
        /// Time of the last whole build.
        well_at: Option<Instant>,
    },
}

impl MissingFiles {
    pub(in crate::heal) fn new(heal: &HealSettings) -> Self {
        let missing = Cache::builder().max_capacity(ENTRIES).time_to_idle(LONGEST).build();
        Self { missing, has_missing: Arc::default(), longest: heal.missing }
    }

    /// Missing files with other settings that share the memory of these.
    pub(in crate::heal) fn under(&self, heal: &HealSettings) -> Self {
        let (missing, has_missing) = (self.missing.clone(), Arc::clone(&self.has_missing));
        Self { missing, has_missing, longest: heal.missing }
    }

    /// Notes that the file behind this identifier (of this image route) is gone, as far as `proof` goes. Returns for how
    /// long that is believed.
    pub(in crate::heal) fn note_missing(
        &self,
        route: u64,
        key: &Arc<str>,
        proof: Proof,
        now: Instant,
    ) -> Duration {
        let entry = self.missing.get(&(route, Arc::clone(key)));
        let before = entry.map(|missing| (missing.life, missing.noted));
        let is_believed = entry.is_some_and(|missing| now < missing.until);
        let life = match (proof, before) {
            (Proof::Shown, None) => PROVEN_LIFE,
            // Several readers at once find the same: that is one proof.
            (Proof::Shown, Some((life, _))) if life >= PROVEN_LIFE && is_believed => life,
            (Proof::Shown, Some((life, _))) => PROVEN_LIFE.max(life * 2),
            (Proof::Likely { well_at }, Some((life, noted))) if well_at.is_some_and(|well| well >= noted) => {
                life * 2
            }
            (Proof::Likely { .. }, _) => UNPROVEN_LIFE,
        };
        let is_proven = life > UNPROVEN_LIFE || entry.is_some_and(|missing| missing.is_proven);
        let life = life.min(self.longest);
        self.has_missing.store(true, Ordering::Relaxed);
        let missing = MissingEntry { until: now + life, life, noted: now, is_proven };
        self.missing.insert((route, Arc::clone(key)), missing);
        life
    }

    /// Notes that another node found the file missing, and for how much longer that node believes it.
    pub(in crate::heal) fn note_missing_elsewhere(
        &self,
        route: u64,
        key: &Arc<str>,
        left: Duration,
        now: Instant,
    ) {
        self.has_missing.store(true, Ordering::Relaxed);
        let is_proven = left > UNPROVEN_LIFE;
        let missing = MissingEntry { until: now + left, life: left, noted: now, is_proven };
        self.missing.insert((route, Arc::clone(key)), missing);
    }

    /// True if the file was found missing a while ago, and not before `recovered`.
    pub(in crate::heal) fn is_missing(
        &self,
        route: u64,
        key: &Arc<str>,
        recovered: Option<Instant>,
        now: Instant,
    ) -> bool {
        self.missing.get(&(route, Arc::clone(key))).is_some_and(|missing| {
            now < missing.until && recovered.is_none_or(|recovered| missing.noted > recovered)
        })
    }

    /// True if the file is proven to be gone, and the image was not seen since.
    pub(in crate::heal) fn is_proven(&self, route: u64, key: &Arc<str>) -> bool {
        self.missing.get(&(route, Arc::clone(key))).is_some_and(|missing| missing.is_proven)
    }

    /// True if any file was found missing. A quick check for requests that are well.
    pub(in crate::heal) fn remembers_missing(&self) -> bool {
        self.has_missing.load(Ordering::Relaxed)
    }

    /// True if this identifier (of this image route) was found missing at all.
    pub(in crate::heal) fn is_remembered_missing(&self, route: u64, key: &str) -> bool {
        self.missing.contains_key(&(route, Arc::from(key)))
    }

    /// Forgets that the file was missing: the image was seen. True: there was an entry.
    pub(in crate::heal) fn clear_missing(&self, route: u64, key: &Arc<str>) -> bool {
        self.missing.remove(&(route, Arc::clone(key))).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> MissingFiles {
        let longest = Duration::from_mins(10);
        MissingFiles { missing: Cache::new(100), has_missing: Arc::default(), longest }
    }

    #[test]
    fn a_missing_file_is_believed_for_longer_each_time_the_service_was_well_in_between() {
        let (memory, now) = (memory(), Instant::now());
        let key: Arc<str> = "id".into();
        let life = |proof, after: u64| {
            memory.note_missing(0, &key, proof, now + Duration::from_secs(after)).as_secs()
        };
        let unproven = Proof::Likely { well_at: None };
        assert_eq!([life(unproven, 0), life(unproven, 3), life(unproven, 6)], [2, 2, 2]);
        assert_eq!(life(Proof::Likely { well_at: Some(now) }, 8), 2, "it was well before, and not since");
        assert!(!memory.is_proven(0, &key));
        let well = |at| Proof::Likely { well_at: Some(now + Duration::from_secs(at)) };
        assert_eq!([life(well(8), 9), life(well(10), 20), life(Proof::Shown, 40)], [4, 8, 16]);
        assert!(memory.is_proven(0, &key) && !memory.is_proven(1, &key));
        assert_eq!(life(unproven, 60), 2);
        assert!(memory.is_proven(0, &key), "what was proven does not end because it seems so again");
        assert!((0u64..20).map(|time| life(Proof::Shown, 100 + time)).all(|life| life <= 600));
    }

    #[test]
    fn a_missing_file_is_remembered_for_a_while_and_forgotten_when_seen_or_at_the_end_of_a_fault() {
        let (memory, now) = (memory(), Instant::now());
        let key: Arc<str> = "id".into();
        memory.note_missing(0, &key, Proof::Shown, now);
        assert!(memory.is_missing(0, &key, None, now));
        assert!(!memory.is_missing(1, &key, None, now));
        assert!(!memory.is_missing(0, &key, None, now + PROVEN_LIFE));
        assert!(!memory.is_missing(0, &key, Some(now), now));
        assert!(memory.is_missing(0, &key, Some(now - PROVEN_LIFE), now), "that fault was over before");
        assert!(memory.clear_missing(0, &key) && !memory.clear_missing(0, &key));
        assert!(!memory.is_missing(0, &key, None, now));
    }

    #[test]
    fn what_several_readers_find_at_once_is_one_proof() {
        let (memory, now) = (memory(), Instant::now());
        let key: Arc<str> = "id".into();
        for reader in 0..8 {
            memory.note_missing(0, &key, Proof::Shown, now + Duration::from_millis(reader));
        }
        assert!(!memory.is_missing(0, &key, None, now + PROVEN_LIFE + Duration::from_millis(8)));
        assert_eq!(memory.note_missing(0, &key, Proof::Shown, now + PROVEN_LIFE * 2), PROVEN_LIFE * 2);
    }

    #[test]
    fn what_another_node_found_is_believed_for_as_long_as_there() {
        let (memory, now) = (memory(), Instant::now());
        let (unproven, proven): (Arc<str>, Arc<str>) = ("unproven".into(), "proven".into());
        assert!(!memory.remembers_missing());
        for (key, left) in [(&unproven, UNPROVEN_LIFE), (&proven, UNPROVEN_LIFE * 2)] {
            memory.note_missing_elsewhere(0, key, left, now);
            assert!(memory.remembers_missing() && memory.is_missing(0, key, None, now));
            assert!(!memory.is_missing(0, key, None, now + left));
        }
        assert!(!memory.is_proven(0, &unproven) && memory.is_proven(0, &proven));
        let known = |key| memory.is_remembered_missing(0, key);
        assert!(known("proven") && !known("other") && !memory.is_remembered_missing(1, "proven"));
    }

    #[test]
    fn one_missing_file_is_enough_for_a_closer_look_at_all() {
        let (memory, key): (_, Arc<str>) = (memory(), "id".into());
        memory.note_missing(0, &key, Proof::Likely { well_at: None }, Instant::now());
        assert!(memory.remembers_missing());
    }
}
