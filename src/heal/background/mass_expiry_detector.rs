//! Detects that everything expired at once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::settings::MassExpirySettings;

/// `MassExpiryDetector` notices many identifiers that expire within a short time. Time is an argument.
#[derive(Debug, Default)]
pub(in crate::heal) struct MassExpiryDetector {
    seen: Mutex<DetectorState>,
}

#[derive(Debug, Default)]
struct DetectorState {
    /// The last expired identifiers, oldest first; never more than `MassExpirySettings::ids`.
    ids: VecDeque<(Instant, Arc<str>)>,
    /// Identifiers in `ids`: each counts once.
    known: HashSet<Arc<str>>,
    /// Time of the last identifier of a mass expiry that was already reported.
    during: Option<Instant>,
    /// Images expired since the sweep began.
    again: bool,
}

/// A mass expiry is over when no identifier expired for this many times `within`.
pub(in crate::heal) const OVER_AFTER: u32 = 6;

impl MassExpiryDetector {
    /// A sweep of all images begins now.
    pub(in crate::heal) fn begins_anew(&self) {
        self.seen.lock().again = false;
    }

    /// Ends a sweep of all images: a later expiry is another mass expiry. True: an image expired during the sweep.
    pub(in crate::heal) fn ends(&self) -> bool {
        let mut seen = self.seen.lock();
        seen.during = None;
        seen.again
    }

    /// Notes that this identifier was found expired. True: a mass expiry begins with it (reported once).
    pub(in crate::heal) fn note(&self, key: &Arc<str>, bounds: MassExpirySettings, now: Instant) -> bool {
        let mut seen = self.seen.lock();
        if let Some(last) = seen.during {
            if now.duration_since(last) < bounds.within * OVER_AFTER {
                (seen.during, seen.again) = (Some(now), true);
                return false;
            }
            seen.during = None;
        }
        let DetectorState { ids, known, during, .. } = &mut *seen;
        while let Some((_, old)) = ids.pop_front_if(|(when, _)| now.duration_since(*when) >= bounds.within) {
            known.remove(&old);
        }
        if known.insert(Arc::clone(key)) {
            ids.push_back((now, Arc::clone(key)));
        }
        let begins = ids.len() >= bounds.ids;
        if begins {
            ids.clear();
            known.clear();
            *during = Some(now);
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BOUNDS: MassExpirySettings = MassExpirySettings { ids: 3, within: Duration::from_secs(10) };

    fn key(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn many_distinct_identifiers_in_a_short_time_are_a_mass_expiry_told_once() {
        let (detector, now) = (MassExpiryDetector::default(), Instant::now());
        assert!(!detector.note(&key("a"), BOUNDS, now));
        assert!(!detector.note(&key("a"), BOUNDS, now), "the same one again is no other");
        assert!(!detector.note(&key("b"), BOUNDS, now));
        assert!(detector.note(&key("c"), BOUNDS, now));
        for name in ["d", "e", "f", "g"] {
            assert!(!detector.note(&key(name), BOUNDS, now));
        }
    }

    #[test]
    fn a_slow_trickle_is_none_and_a_new_one_is_told_after_the_old_one_ended() {
        let (detector, now) = (MassExpiryDetector::default(), Instant::now());
        for (second, name) in (0u64..).step_by(6).zip(["a", "b", "c", "d"]) {
            assert!(!detector.note(&key(name), BOUNDS, now + Duration::from_secs(second)));
        }
        let later = now + Duration::from_secs(100);
        let told = ["a", "b", "c"].map(|name| detector.note(&key(name), BOUNDS, later));
        assert_eq!(told, [false, false, true]);
        let much_later = later + Duration::from_secs(100);
        let told = ["a", "b", "c"].map(|name| detector.note(&key(name), BOUNDS, much_later));
        assert_eq!(told, [false, false, true]);
    }
}
