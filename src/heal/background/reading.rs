//! Who reads what: the manifests in use, and those in which images had expired a short while ago.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::heal::timed_cache::TimedCache;

/// A manifest counts as being read for so long after its last page.
const READ_FOR: Duration = Duration::from_mins(30);

/// A manifest with an expired image is looked after for so long.
const FRAIL_FOR: Duration = Duration::from_mins(10);

/// A page from which was looked ahead is left alone for so long.
const LOOKED_FOR: Duration = Duration::from_secs(5);

/// Manifests remembered at most.
const MANIFESTS: u64 = 10_000;

/// The manifests that somebody reads.
#[derive(Debug)]
pub(in crate::heal) struct ReadingActivity {
    read: TimedCache<Arc<str>>,
    /// When an image of it had expired.
    frail: TimedCache<Arc<str>, Instant>,
    /// Canvases from which was looked ahead a moment ago: one look serves all tiles of a page.
    looked: TimedCache<Arc<str>, Instant>,
}

impl Default for ReadingActivity {
    fn default() -> Self {
        let new = || TimedCache::new(MANIFESTS);
        Self { read: new(), frail: TimedCache::new(MANIFESTS), looked: TimedCache::new(MANIFESTS) }
    }
}

impl ReadingActivity {
    /// Somebody reads a page of this manifest.
    pub(in crate::heal) fn at(&self, manifest: &Arc<str>) {
        if !self.read.contains(manifest) {
            self.read.insert(Arc::clone(manifest), (), READ_FOR);
        }
    }

    /// An image of this manifest had expired: the others probably have too.
    pub(in crate::heal) fn found_expired(&self, manifest: &Arc<str>) {
        self.frail.insert(Arc::clone(manifest), Instant::now(), FRAIL_FOR);
    }

    /// Had an image of it expired a short while ago?
    pub(in crate::heal) fn is_frail(&self, manifest: &str) -> bool {
        self.frail.contains(manifest)
    }

    /// When an image of it was last found expired: what was known of the others before is worth nothing.
    pub(in crate::heal) fn expired_at(&self, manifest: &str) -> Option<Instant> {
        self.frail.get(manifest)
    }

    /// Is it time to look ahead from this canvas? True once in a while; and once more where its image was found gone after
    /// the last look (`gone_at`), because then the pages behind it are probably gone as well.
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

    /// The manifests that are being read, in the order of their names: not in that of a hash.
    pub(in crate::heal) fn in_use(&self) -> Vec<Arc<str>> {
        let mut manifests = self.read.keys();
        manifests.sort_unstable();
        manifests
    }
}
