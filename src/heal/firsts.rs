//! First asks: while many ask for one image and nobody has an answer yet, the others wait for the first one.
//!
//! Two hundred who open an expired page in the same moment would each be sent on, be answered 404, and be sent on once
//! more after the heal. A few are enough to find out. Readers of an image that was well a moment ago are never held.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use http::StatusCode;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::config::settings::Heal;

/// So many images are looked after at once; two that share a place take turns.
const PLACES: usize = 1024;

/// An image that was answered is well for so long.
const WELL_FOR: Duration = Duration::from_mins(1);

/// An image that was 404 is not asked for first for so long: it is about to be healed, or was.
const GONE_FOR: Duration = Duration::from_secs(1);

/// The images that are asked for.
#[derive(Debug)]
pub(super) struct Firsts {
    places: Box<[Place]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Place {
    asked: Mutex<Asked>,
    told: Notify,
}

/// What is known of the image that has this place.
#[derive(Debug, Default, Clone, Copy)]
struct Asked {
    image: u64,
    unanswered: usize,
    known: Known,
}

#[derive(Debug, Default, Clone, Copy)]
enum Known {
    #[default]
    Nothing,
    Well(Instant),
    Gone(Instant),
}

/// One request before its first answer. Dropping it makes room for the next one, and wakes those who wait.
#[derive(Debug)]
pub(super) struct FirstAsk {
    counted: Option<(Arc<Firsts>, u64)>,
    is_gone: bool,
}

impl Default for Firsts {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| Place::default()).collect(), hasher: RandomState::new() }
    }
}

impl Firsts {
    /// Lets a request for this identifier of this route in: at once, or when somebody else was answered, or after
    /// `heal.first_asks_wait`. `held` is called if it has to wait.
    pub(super) async fn ask(
        self: &Arc<Self>,
        mark: u64,
        identifier: &str,
        bounds: &Heal,
        held: impl FnOnce(),
    ) -> FirstAsk {
        let image = self.hasher.hash_one((mark, identifier));
        if let Some(ask) = self.enter(image, bounds.first_asks, Instant::now()) {
            return ask;
        }
        held();
        Box::pin(self.wait(image, bounds)).await
    }

    async fn wait(self: &Arc<Self>, image: u64, bounds: &Heal) -> FirstAsk {
        let until = tokio::time::Instant::now() + bounds.first_asks_wait;
        loop {
            let mut told = std::pin::pin!(self.place(image).told.notified());
            // From here on no word is missed.
            told.as_mut().enable();
            if let Some(ask) = self.enter(image, bounds.first_asks, Instant::now()) {
                return ask;
            }
            if timeout_at(until, told).await.is_err() {
                return FirstAsk::free();
            }
        }
    }

    /// `None`: it has to wait.
    fn enter(self: &Arc<Self>, image: u64, most: usize, now: Instant) -> Option<FirstAsk> {
        let mut asked = self.place(image).lock();
        if asked.image != image {
            if asked.unanswered > 0 {
                return Some(FirstAsk::free());
            }
            *asked = Asked { image, ..Asked::default() };
        }
        match asked.known {
            Known::Well(until) if now < until => return Some(FirstAsk::free()),
            Known::Gone(until) if now < until => return Some(FirstAsk { counted: None, is_gone: true }),
            _ if most > 0 && asked.unanswered >= most => return None,
            _ => asked.unanswered += 1,
        }
        drop(asked);
        Some(FirstAsk { counted: Some((Arc::clone(self), image)), is_gone: false })
    }

    /// It is back.
    pub(super) fn found_well(&self, mark: u64, identifier: &str) {
        self.know(self.hasher.hash_one((mark, identifier)), Known::Well(Instant::now() + WELL_FOR));
    }

    /// The heal is over.
    pub(super) fn forget(&self, mark: u64, identifier: &str) {
        self.know(self.hasher.hash_one((mark, identifier)), Known::Nothing);
    }

    fn know(&self, image: u64, known: Known) {
        let mut asked = self.place(image).lock();
        if asked.image == image {
            asked.known = known;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn place(&self, image: u64) -> &Place {
        &self.places[image as usize % PLACES]
    }
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FirstAsk {
    /// Nobody counts it.
    pub(super) fn free() -> Self {
        Self { counted: None, is_gone: false }
    }

    /// Somebody was answered 404 a moment ago.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// It was answered, and is not expired. Only a picture says that the image is well.
    pub(super) fn found(self, status: StatusCode) {
        if status.is_success() {
            self.finds(|now| Known::Well(now + WELL_FOR));
        }
    }

    /// The image server had forgotten it.
    pub(super) fn found_gone(self) {
        self.finds(|now| Known::Gone(now + GONE_FOR));
    }

    fn finds(&self, known: impl FnOnce(Instant) -> Known) {
        if let Some((firsts, image)) = &self.counted {
            firsts.know(*image, known(Instant::now()));
        }
    }
}

impl Drop for FirstAsk {
    fn drop(&mut self) {
        let Some((firsts, image)) = self.counted.take() else { return };
        let place = firsts.place(image);
        place.lock().unanswered -= 1;
        place.told.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: fn() -> Instant = Instant::now;

    #[test]
    fn no_more_than_so_many_ask_before_one_is_answered() {
        let firsts = Arc::new(Firsts::default());
        let first = firsts.enter(7, 2, NOW()).expect("room");
        let second = firsts.enter(7, 2, NOW()).expect("room");
        assert!(firsts.enter(7, 2, NOW()).is_none());
        // Another image, and one that shares the place: they are not held.
        assert!(firsts.enter(8, 2, NOW()).is_some());
        assert!(firsts.enter(7 + PLACES as u64, 2, NOW()).is_some_and(|ask| ask.counted.is_none()));
        // Who leaves without an answer makes room for one.
        drop(first);
        let third = firsts.enter(7, 2, NOW()).expect("room");
        assert!(firsts.enter(7, 2, NOW()).is_none());
        drop((second, third));
        assert_eq!(firsts.place(7).lock().unanswered, 0);
    }

    #[test]
    fn an_image_that_is_well_is_asked_for_by_everybody_and_one_that_is_gone_by_nobody() {
        let firsts = Arc::new(Firsts::default());
        firsts.enter(7, 1, NOW()).expect("room").found(StatusCode::OK);
        let many: Vec<_> = (0..9).filter_map(|_| firsts.enter(7, 1, NOW())).collect();
        assert_eq!((many.len(), firsts.place(7).lock().unanswered), (9, 0));
        let later = NOW() + WELL_FOR;
        let ask = firsts.enter(7, 1, later).expect("room");
        assert!(firsts.enter(7, 1, later).is_none());
        ask.found_gone();
        assert!(firsts.enter(7, 1, NOW()).expect("word").is_gone());
        assert!(!firsts.enter(7, 1, NOW() + GONE_FOR).expect("room").is_gone());
    }

    #[test]
    fn without_a_bound_nobody_is_held() {
        let firsts = Arc::new(Firsts::default());
        let many: Vec<_> = (0..99).filter_map(|_| firsts.enter(7, 0, NOW())).collect();
        assert_eq!(many.len(), 99);
    }
}
