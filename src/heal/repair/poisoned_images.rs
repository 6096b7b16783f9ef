//! Which images are there and yet lacking in their canvas or manifest: what the pages call *poisoned*.

use std::time::Duration;

use crate::heal::timed_cache::TimedCache;

/// Images remembered at most; of more, those that were seen longest ago are forgotten.
const IMAGES: u64 = 10_000;

/// For so long it is believed, unless somebody sees otherwise.
const BELIEVED: Duration = Duration::from_hours(24);

/// Images that a document was seen without. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::heal) struct PoisonedImages(TimedCache<Box<str>>);

impl Default for PoisonedImages {
    fn default() -> Self {
        Self(TimedCache::new(IMAGES))
    }
}

impl PoisonedImages {
    /// A document came without the images with these lookup keys, or it was seen to have them (or rightly not).
    pub(in crate::heal) fn note<'a>(&self, keys: impl IntoIterator<Item = &'a str>, lacks: bool) {
        for key in keys {
            if lacks {
                self.0.insert(key.into(), (), BELIEVED);
            } else {
                self.0.remove(key);
            }
        }
    }

    /// Is the image with this lookup key lacking in a document, as far as is known?
    pub(in crate::heal) fn contains(&self, key: &str) -> bool {
        self.0.contains(key)
    }
}
