//! Reading activity: the manifests in use, and those whose images expired a short while ago.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::heal::timed_cache::TimedCache;

/// A manifest counts as being read for this long after its last page.
const READ_FOR: Duration = Duration::from_mins(30);

/// A manifest with an expired image counts as frail for this long.
const FRAIL_FOR: Duration = Duration::from_mins(10);

/// Minimum time between two prefetches from one page.
const LOOKED_FOR: Duration = Duration::from_secs(5);

/// Manifests remembered at most.
const MANIFESTS: u64 = 10_000;

/// `ReadingActivity` holds the manifests that viewers read now.
#[derive(Debug)]
pub(in crate::heal) struct ReadingActivity {
    read: TimedCache<Arc<str>>,
    /// Manifests with an expired image, and when.
    frail: TimedCache<Arc<str>, Expiry>,
    /// Canvases whose next pages were probed a moment ago: one round serves all tiles of a page.
    looked: TimedCache<Arc<str>, Instant>,
}

/// `Expiry` says when images of one manifest had expired.
#[derive(Debug, Clone, Copy)]
struct Expiry {
    /// The last time that an image was found gone.
    last: Instant,
    /// The last time that an image was found gone for a new reason: the first image, or one that was proven alive since the
    /// expiry before.
    began: Instant,
}

impl Default for ReadingActivity {
    fn default() -> Self {
        let new = || TimedCache::new(MANIFESTS);
        Self { read: new(), frail: TimedCache::new(MANIFESTS), looked: TimedCache::new(MANIFESTS) }
    }
}

impl ReadingActivity {
    /// Notes that a viewer reads a page of this manifest.
    pub(in crate::heal) fn at(&self, manifest: &Arc<str>) {
        if !self.read.contains(manifest) {
            self.read.insert(Arc::clone(manifest), (), READ_FOR);
        }
    }

    /// Notes that an image of this manifest had expired: the others probably have too.
    pub(in crate::heal) fn found_expired(&self, manifest: &Arc<str>) {
        let last = Instant::now();
        let began = self.frail.get(&**manifest).map_or(last, |before| before.began);
        self.frail.insert(Arc::clone(manifest), Expiry { last, began }, FRAIL_FOR);
    }

    /// Notes that an image, proven alive at this time, is gone. If that proof is newer than the known expiry, another
    /// expiry happened: nothing seen before now counts.
    pub(in crate::heal) fn expired_again(&self, manifest: &str, alive_at: Instant) {
        let Some(before) = self.frail.get(manifest).filter(|before| before.began <= alive_at) else { return };
        let began = Instant::now();
        self.frail.insert(manifest.into(), Expiry { began, ..before }, FRAIL_FOR);
    }

    /// Notes that all images of this manifest are probably gone, despite earlier proofs.
    pub(in crate::heal) fn all_expired(&self, manifest: &Arc<str>) {
        let now = Instant::now();
        self.frail.insert(Arc::clone(manifest), Expiry { last: now, began: now }, FRAIL_FOR);
    }

    /// True if an image of this manifest expired a short while ago.
    pub(in crate::heal) fn is_frail(&self, manifest: &str) -> bool {
        self.frail.contains(manifest)
    }

    /// Time at which an image of this manifest was last found expired: older proofs of its other images are worthless to a
    /// reader.
    pub(in crate::heal) fn expired_at(&self, manifest: &str) -> Option<Instant> {
        self.frail.get(manifest).map(|expiry| expiry.last)
    }

    /// Time at which the last expiry was noticed, as far as can be told: images found gone one after the other, with none
    /// alive in between, expired together. For probes that no reader waits for: each page is probed once for each expiry,
    /// and not once for each page before it.
    pub(in crate::heal) fn expiry_began(&self, manifest: &str) -> Option<Instant> {
        self.frail.get(manifest).map(|expiry| expiry.began)
    }

    /// True if a prefetch from this canvas is due: once in a while, and once more where its image was found gone after the
    /// last one (`gone_at`), because then the pages after it are probably gone as well.
    pub(in crate::heal) fn may_look_from(&self, canvas: &str, gone_at: Option<Instant>) -> bool {
        let is_due = self
            .looked
            .get(canvas)
            .is_none_or(|at| gone_at.map_or_else(|| at.elapsed() >= LOOKED_FOR, |gone_at| gone_at > at));
        if is_due {
            self.looked.insert(canvas.into(), Instant::now(), LOOKED_FOR);
        }
        is_due
    }

    /// The manifests that are being read, sorted by name and not in hash order.
    pub(in crate::heal) fn in_use(&self) -> Vec<Arc<str>> {
        let mut manifests = self.read.keys();
        manifests.sort_unstable();
        manifests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn images_that_were_found_gone_one_after_the_other_went_together_unless_one_was_alive_in_between() {
        let (readers, manifest) = (ReadingActivity::default(), Arc::from("m"));
        let second = || tokio::time::advance(Duration::from_secs(1));
        let first = Instant::now();
        readers.found_expired(&manifest);
        second().await;
        readers.found_expired(&manifest);
        assert_eq!(readers.expiry_began("m"), Some(first));
        assert_eq!(readers.expired_at("m"), Some(Instant::now()));
        // The image was alive before the known expiry, and is gone because of it.
        readers.expired_again("m", first - Duration::from_millis(1));
        assert_eq!(readers.expiry_began("m"), Some(first));
        let alive_at = Instant::now();
        second().await;
        readers.expired_again("m", alive_at);
        assert_eq!(readers.expiry_began("m"), Some(Instant::now()));
        second().await;
        readers.all_expired(&manifest);
        assert_eq!(readers.expiry_began("m"), Some(Instant::now()));
        readers.expired_again("other", Instant::now());
        assert!(!readers.is_frail("other"), "nothing is known of it");
    }
}
