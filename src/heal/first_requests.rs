//! First requests: while many ask for one image without an answer yet, the others wait for the first answer.
//!
//! Two hundred viewers who open an expired page at the same moment would each be sent on, be answered 404, and be sent on
//! once more after the heal. A few are enough to find out. Requests for an image that was well a moment ago never wait.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use http::StatusCode;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::config::settings::HealSettings;
use crate::iiif::Target;

/// Slots, one for each image requested at once; two images in one slot take turns.
const SLOTS: usize = 1024;

/// An image that was answered counts as well for this long.
const WELL_FOR: Duration = Duration::from_mins(1);

/// After a 404, requests skip the image server for this long and go straight to the heal. Not longer: the key may be
/// written any moment, and then the image must not be withheld.
const GONE_FOR: Duration = Duration::from_millis(250);

/// `FirstRequestLimiter` bounds the first requests for each image.
#[derive(Debug)]
pub(in crate::heal) struct FirstRequestLimiter {
    slots: Box<[Slot]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Slot {
    asked: Mutex<SlotState>,
    told: Notify,
}

/// State of the image in this slot.
#[derive(Debug, Default, Clone, Copy)]
struct SlotState {
    image: u64,
    unanswered: usize,
    known: LastResult,
}

#[derive(Debug, Default, Clone, Copy)]
enum LastResult {
    #[default]
    Nothing,
    Well(Instant),
    /// The request with this hash was 404; another one may be in the image server's cache.
    Gone(Instant, u64),
}

/// `FirstRequestPermit` is one request before its first answer. Dropping it makes room for the next one, and wakes the
/// waiters.
#[derive(Debug)]
pub(in crate::heal) struct FirstRequestPermit {
    counted: Option<(Arc<FirstRequestLimiter>, u64)>,
    is_gone: bool,
}

impl Default for FirstRequestLimiter {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| Slot::default()).collect(), hasher: RandomState::new() }
    }
}

impl FirstRequestLimiter {
    /// Waits for a permit for this identifier behind the route with this mark: until there is room, or another request was
    /// answered, or `heal.first_asks_wait` is over. `held` is called if the request has to wait.
    pub(in crate::heal) async fn acquire(
        self: &Arc<Self>,
        image: (u64, &str),
        target: Target<'_>,
        bounds: &HealSettings,
        held: impl FnOnce(),
    ) -> FirstRequestPermit {
        let image = self.hasher.hash_one(image);
        let of_target = || self.hasher.hash_one(target);
        if let Some(ask) = self.try_acquire(image, of_target, bounds.first_asks, Instant::now()) {
            return ask;
        }
        held();
        Box::pin(self.wait(image, of_target(), bounds)).await
    }

    async fn wait(self: &Arc<Self>, image: u64, target: u64, bounds: &HealSettings) -> FirstRequestPermit {
        let until = tokio::time::Instant::now() + bounds.first_asks_wait;
        loop {
            let mut told = std::pin::pin!(self.slot(image).told.notified());
            // Registered before the re-check, so that a notify in between is not lost.
            told.as_mut().enable();
            if let Some(ask) = self.try_acquire(image, || target, bounds.first_asks, Instant::now()) {
                return ask;
            }
            if timeout_at(until, told).await.is_err() {
                return FirstRequestPermit::unlimited();
            }
        }
    }

    /// Tries once. `None`: the request has to wait.
    fn try_acquire(
        self: &Arc<Self>,
        image: u64,
        target: impl Fn() -> u64,
        most: usize,
        now: Instant,
    ) -> Option<FirstRequestPermit> {
        let mut asked = self.slot(image).asked.lock();
        if asked.image != image {
            if asked.unanswered > 0 {
                return Some(FirstRequestPermit::unlimited());
            }
            *asked = SlotState { image, ..SlotState::default() };
        }
        match asked.known {
            LastResult::Well(until) if now < until => return Some(FirstRequestPermit::unlimited()),
            LastResult::Gone(until, gone) if now < until && gone == target() => {
                return Some(FirstRequestPermit { counted: None, is_gone: true });
            }
            _ if most > 0 && asked.unanswered >= most => return None,
            _ => asked.unanswered += 1,
        }
        drop(asked);
        Some(FirstRequestPermit { counted: Some((Arc::clone(self), image)), is_gone: false })
    }

    /// Notes that the image is back.
    pub(in crate::heal) fn record_ok(&self, mark: u64, identifier: &str) {
        self.set(self.hasher.hash_one((mark, identifier)), LastResult::Well(Instant::now() + WELL_FOR));
    }

    /// Notes that the heal is over.
    pub(in crate::heal) fn clear(&self, mark: u64, identifier: &str) {
        self.set(self.hasher.hash_one((mark, identifier)), LastResult::Nothing);
    }

    fn set(&self, image: u64, known: LastResult) {
        let mut asked = self.slot(image).asked.lock();
        if asked.image == image {
            asked.known = known;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn slot(&self, image: u64) -> &Slot {
        &self.slots[image as usize % SLOTS]
    }
}

impl Slot {}

impl FirstRequestPermit {
    /// A permit that is not counted.
    pub(in crate::heal) fn unlimited() -> Self {
        Self { counted: None, is_gone: false }
    }

    /// True if a request for the image was answered 404 a moment ago.
    pub(in crate::heal) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Records an answer that is not an expiry. Only a picture proves that the image is well.
    pub(in crate::heal) fn record_ok(self, status: StatusCode) {
        if let Some((firsts, image)) = self.counted.as_ref().filter(|_| status.is_success()) {
            firsts.set(*image, LastResult::Well(Instant::now() + WELL_FOR));
        }
    }

    /// Notes that the image server answered 404 to a request for this target.
    pub(in crate::heal) fn record_expired(self, target: Target<'_>) {
        if let Some((firsts, image)) = &self.counted {
            let target = firsts.hasher.hash_one(target);
            firsts.set(*image, LastResult::Gone(Instant::now() + GONE_FOR, target));
        }
    }
}

impl Drop for FirstRequestPermit {
    fn drop(&mut self) {
        let Some((firsts, image)) = self.counted.take() else { return };
        let slot = firsts.slot(image);
        slot.asked.lock().unanswered -= 1;
        slot.told.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: fn() -> Instant = Instant::now;

    #[test]
    fn no_more_than_so_many_ask_before_one_is_answered() {
        let firsts = Arc::new(FirstRequestLimiter::default());
        let first = firsts.try_acquire(7, || 1, 2, NOW()).expect("room");
        let second = firsts.try_acquire(7, || 1, 2, NOW()).expect("room");
        assert!(firsts.try_acquire(7, || 1, 2, NOW()).is_none());
        // Another image, and one that shares the slot: neither waits.
        assert!(firsts.try_acquire(8, || 1, 2, NOW()).is_some());
        assert!(
            firsts.try_acquire(7 + SLOTS as u64, || 1, 2, NOW()).is_some_and(|ask| ask.counted.is_none())
        );
        // A request that leaves without an answer makes room for one.
        drop(first);
        let third = firsts.try_acquire(7, || 1, 2, NOW()).expect("room");
        assert!(firsts.try_acquire(7, || 1, 2, NOW()).is_none());
        drop((second, third));
        assert_eq!(firsts.slot(7).asked.lock().unanswered, 0);
    }

    #[test]
    fn an_image_that_is_well_is_asked_for_by_everybody_and_one_that_is_gone_by_nobody() {
        let firsts = Arc::new(FirstRequestLimiter::default());
        firsts.try_acquire(7, || 1, 1, NOW()).expect("room").record_ok(StatusCode::OK);
        let many: Vec<_> = (0..9).filter_map(|_| firsts.try_acquire(7, || 1, 1, NOW())).collect();
        assert_eq!((many.len(), firsts.slot(7).asked.lock().unanswered), (9, 0));
        let later = NOW() + WELL_FOR;
        let ask = firsts.try_acquire(7, || 1, 1, later).expect("room");
        assert!(firsts.try_acquire(7, || 1, 1, later).is_none());
        ask.record_expired(Target::Base);
        let same = firsts.hasher.hash_one(Target::Base);
        assert!(firsts.try_acquire(7, || same, 1, NOW()).expect("word").is_gone());
        let other = firsts.try_acquire(7, || 2, 1, NOW()).expect("room");
        assert!(!other.is_gone(), "another tile may be in the image server's cache");
        assert!(
            firsts.try_acquire(7, || 3, 1, NOW()).is_none(),
            "but not all of them at once: the next waits for an answer"
        );
        drop(other);
        assert!(!firsts.try_acquire(7, || same, 1, NOW() + GONE_FOR).expect("room").is_gone());
    }

    #[test]
    fn without_a_bound_nobody_is_held() {
        let firsts = Arc::new(FirstRequestLimiter::default());
        let many: Vec<_> = (0..99).filter_map(|_| firsts.try_acquire(7, || 1, 0, NOW())).collect();
        assert_eq!(many.len(), 99);
    }
}
