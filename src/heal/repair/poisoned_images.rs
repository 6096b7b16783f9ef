//! Poisoned images: images that are alive, while their canvas or manifest lacks them.

use std::time::Duration;

use crate::heal::timed_cache::TimedCache;

/// Images remembered at most. Beyond that those seen longest ago are forgotten.
const IMAGES: u64 = 10_000;

/// Time for which an entry is believed, unless a document shows otherwise.
const BELIEVED: Duration = Duration::from_hours(24);

/// `PoisonedImages` are images that a document was seen without. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::heal) struct PoisonedImages(TimedCache<Box<str>>);

impl Default for PoisonedImages {
    fn default() -> Self {
        Self(TimedCache::new(IMAGES))
    }
}

impl PoisonedImages {
    /// Notes whether a document lacks the images with these lookup keys (false: it has them, or rightly not).
    pub(in crate::heal) fn note<'a>(&self, keys: impl IntoIterator<Item = &'a str>, lacks: bool) {
        for key in keys {
            if lacks {
                self.0.insert(key.into(), (), BELIEVED);
            } else {
                self.0.remove(key);
            }
        }
    }

    /// True if the image with this lookup key is lacking in a document, as far as is known.
    pub(in crate::heal) fn contains(&self, key: &str) -> bool {
        self.0.contains(key)
    }
}
