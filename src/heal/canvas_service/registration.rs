//! Registration of files at the canvas service: `GET {canvas service}/resources/{uuid}` tells expiry (404) from a missing
//! file (200), and for an identifier that is alive returns its file URL (upstream.md "An expired image"). A gateway may
//! block that path: a blocked path is detected, remembered, and tried again later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use uuid::Uuid;

use crate::heal::timed_cache::TimedCache;
pub(in crate::heal) use crate::iiif::registration::Registration;
use crate::iiif::{Identifier, IdentifierKind, registration};

/// `RegistrationCheck` remembers the answers of `/resources` of one canvas service.
#[derive(Debug)]
pub(in crate::heal) struct RegistrationCheck {
    closed: Mutex<UnavailablePeriod>,
    recheck: Duration,
    alive_for: Duration,
    /// Identifiers that were "alive", and when the service said so.
    alive: TimedCache<Uuid, Instant>,
    /// Identifiers that were "expired" a moment ago.
    expired: TimedCache<Uuid>,
    /// Time of the last "alive" of any image.
    confirmed: Mutex<Option<Instant>>,
    /// Time of the last answer.
    answered: Mutex<Option<Instant>>,
    /// Held by the one request that finds out whether the service answers.
    prober: Semaphore,
    /// A request waits for a slow answer.
    is_slow: AtomicBool,
}

/// `UnavailablePeriod` is a time without requests; twice as long each time there was no answer in between.
#[derive(Debug, Default)]
struct UnavailablePeriod {
    until: Option<Instant>,
    life: Duration,
}

/// Identifiers remembered as alive, at most.
const ALIVE: u64 = 200_000;

/// Identifiers remembered as expired a moment ago, at most.
const EXPIRED: u64 = 10_000;

/// Time for which "expired" is remembered: the probe and the heal that follows it need not both ask.
const EXPIRED_FOR: Duration = Duration::from_millis(500);

/// First pause for a service that gave no answer, or whose answer was wrong.
const FIRST_LIFE: Duration = Duration::from_secs(2);

/// A service that answered is believed to answer for this long.
const ANSWERS_FOR: Duration = Duration::from_secs(2);

/// Threshold of a slow answer: a single request waits for it, the others go on without.
const SLOW: Duration = Duration::from_millis(250);

/// `ProbePermit` marks the one request that waits for a slow answer.
struct ProbePermit<'a>(&'a AtomicBool);

impl Drop for ProbePermit<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl RegistrationCheck {
    pub(in crate::heal) fn new(alive_for: Duration, recheck: Duration) -> Self {
        Self {
            closed: Mutex::default(),
            recheck,
            alive_for,
            alive: TimedCache::new(ALIVE),
            expired: TimedCache::new(EXPIRED),
            confirmed: Mutex::new(None),
            answered: Mutex::new(None),
            prober: Semaphore::new(1),
            is_slow: AtomicBool::new(false),
        }
    }

    /// True if the check has these bounds.
    pub(in crate::heal) fn keeps_to(&self, alive_for: Duration, recheck: Duration) -> bool {
        (self.alive_for, self.recheck) == (alive_for, recheck)
    }

    /// True if the service may be asked at all.
    pub(in crate::heal) fn is_available(&self, now: Instant) -> bool {
        self.closed().until.is_none_or(|until| now >= until)
    }

    /// Waits for an answer of `/resources`; one request at a time waits for a slow answer. `None`: the answer is slow, and
    /// another request waits for it.
    pub(in crate::heal) async fn patiently<T>(&self, asked: impl Future<Output = T>) -> Option<T> {
        if self.is_slow.load(Ordering::Acquire) {
            return None;
        }
        // Until the service has answered, one request at a time tries.
        let _prober = if self.answered_lately() {
            None
        } else {
            let prober = tokio::time::timeout(SLOW, self.prober.acquire()).await.ok()?;
            prober.ok().filter(|_| !self.answered_lately())
        };
        let mut asked = std::pin::pin!(asked);
        if let Ok(answer) = tokio::time::timeout(SLOW, &mut asked).await {
            return Some(answer);
        }
        if self.is_slow.swap(true, Ordering::AcqRel) {
            return None;
        }
        let _waits = ProbePermit(&self.is_slow);
        Some(asked.await)
    }

    /// True if the service reported this identifier alive a short while ago, without evidence against it since.
    pub(in crate::heal) fn is_known_registered(&self, uuid: Uuid, since: Option<Instant>) -> bool {
        self.alive.get(&uuid).is_some_and(|said| since.is_none_or(|since| said >= since))
    }

    /// Time of the last "alive" for this identifier, if that is still believed.
    pub(in crate::heal) fn alive_at(&self, uuid: Uuid) -> Option<Instant> {
        self.alive.get(&uuid)
    }

    /// Notes that a whole manifest was built with these images, so their keys were written.
    pub(in crate::heal) fn note_built<'a>(&self, keys: impl Iterator<Item = &'a String>, now: Instant) {
        for key in keys {
            if let IdentifierKind::Uuid { uuid, .. } = Identifier::new(key).kind() {
                self.note_back(uuid);
                self.alive.insert(uuid, now, self.alive_for);
            }
        }
    }

    fn answered_lately(&self) -> bool {
        let answered = *self.answered.lock();
        answered.is_some_and(|at| at.elapsed() < ANSWERS_FOR)
    }

    /// True if the service reported this identifier expired a moment ago.
    pub(in crate::heal) fn remembers_expired(&self, uuid: Uuid) -> bool {
        self.expired.contains(&uuid)
    }

    /// True if the service reported any identifier alive within the time for which that is believed.
    pub(in crate::heal) fn was_confirmed(&self, now: Instant) -> bool {
        let confirmed = *self.confirmed.lock();
        confirmed.is_some_and(|at| now.saturating_duration_since(at) < self.alive_for.max(FIRST_LIFE))
    }

    /// Forgets "alive": the image answered 404.
    pub(in crate::heal) fn invalidate(&self, uuid: Uuid) {
        self.alive.remove(&uuid);
    }

    /// Forgets "expired": the image is back.
    pub(in crate::heal) fn note_back(&self, uuid: Uuid) {
        self.expired.remove(&uuid);
    }

    /// Begins a pause, so that not every request waits in vain: the service gave no answer at all, or a live image was
    /// reported expired, as by another server that answers in its place.
    pub(in crate::heal) fn suspend(&self, now: Instant) {
        let mut closed = self.closed();
        closed.life = (closed.life * 2).max(FIRST_LIFE).min(self.recheck);
        closed.until = Some(now + closed.life);
    }

    /// Reads an answer and remembers its meaning.
    pub(in crate::heal) fn record_response(
        &self,
        uuid: Uuid,
        status: StatusCode,
        body: &Bytes,
        now: Instant,
    ) -> Registration {
        *self.answered.lock() = Some(now);
        let said = registration::read(uuid, status.as_u16(), body);
        match &said {
            Registration::Alive(_) => {
                self.expired.remove(&uuid);
                self.alive.insert(uuid, now, self.alive_for);
                *self.confirmed.lock() = Some(now);
                *self.closed() = UnavailablePeriod::default();
            }
            Registration::Expired => {
                self.alive.remove(&uuid);
                self.expired.insert(uuid, (), EXPIRED_FOR);
                self.closed().until = None;
            }
            // A failing service is not a blocked path: the next look-up asks again.
            Registration::Nothing if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {}
            Registration::Nothing => self.closed().until = Some(now + self.recheck),
        }
        said
    }

    fn closed(&self) -> MutexGuard<'_, UnavailablePeriod> {
        self.closed.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = Uuid::from_u128(0x13c0_9e7b_ddb5_30f5_a4ce_eece_bd33_0564);

    fn hear(check: &RegistrationCheck, status: u16, body: &'static str) -> Registration {
        let status = StatusCode::from_u16(status).expect("a status");
        check.record_response(UUID, status, &Bytes::from_static(body.as_bytes()), Instant::now())
    }

    fn check() -> RegistrationCheck {
        RegistrationCheck::new(Duration::from_mins(1), Duration::from_mins(1))
    }

    #[test]
    fn the_services_own_answers_tell_alive_from_expired() {
        let check = check();
        let url = "http://localhost:9000/fcrepo/rest/obj/a/files/a.jpg";
        assert_eq!(hear(&check, 200, url), Registration::Alive(url.to_owned()));
        assert!(check.is_known_registered(UUID, None));
        let forgotten = "Resource with id 13c09e7b-ddb5-30f5-a4ce-eecebd330564 not found!";
        assert_eq!(hear(&check, 404, forgotten), Registration::Expired);
        assert!(!check.is_known_registered(UUID, None));
        assert!(check.is_available(Instant::now()));
    }

    #[test]
    fn a_gateways_refusal_closes_it_until_the_recheck() {
        for (status, body) in [
            (403, "Forbidden"),
            (404, "<p>/iiif-service/resources/13c09e7b-ddb5-30f5-a4ce-eecebd330564 was not found</p>"),
            (200, "<html>login</html>"),
            (404, r#"{"status":404,"path":"/iiif-service/resources/13c09e7b-ddb5-30f5-a4ce-eecebd330564"}"#),
            (404, "no route: /iiif-service/resources/13c09e7b-ddb5-30f5-a4ce-eecebd330564"),
        ] {
            let check = check();
            assert_eq!(hear(&check, status, body), Registration::Nothing, "{status}");
            assert!(!check.is_available(Instant::now()));
            assert!(check.is_available(Instant::now() + Duration::from_secs(61)));
        }
    }

    #[test]
    fn a_service_in_trouble_is_asked_again() {
        let check = check();
        assert_eq!(hear(&check, 503, ""), Registration::Nothing);
        assert!(check.is_available(Instant::now()));
    }

    #[test]
    fn a_service_that_says_nothing_is_asked_again_soon() {
        let (check, now) = (check(), Instant::now());
        check.suspend(now);
        assert!(!check.is_available(now));
        assert!(check.is_available(now + FIRST_LIFE));
    }

    const FORGOTTEN: &str = "Resource with id 13c09e7b-ddb5-30f5-a4ce-eecebd330564 not found!";
    const FILE: &str = "http://localhost:9000/fcrepo/rest/obj/a/files/a.jpg";

    #[tokio::test(start_paused = true)]
    async fn alive_is_believed_until_it_is_too_old_or_a_404_speaks_against_it() {
        let check = check();
        hear(&check, 200, FILE);
        let said = Instant::now();
        assert!(check.is_known_registered(UUID, Some(said)));
        assert!(!check.is_known_registered(UUID, Some(said + Duration::from_millis(1))));
        check.invalidate(UUID);
        assert!(!check.is_known_registered(UUID, None) && check.was_confirmed(said));
        assert!(!check.was_confirmed(said + Duration::from_mins(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_images_of_a_manifest_that_was_built_are_alive() {
        let check = check();
        hear(&check, 404, FORGOTTEN);
        check.note_built([UUID.to_string(), "no-uuid".to_owned()].iter(), Instant::now());
        assert!(check.is_known_registered(UUID, None) && !check.remembers_expired(UUID));
    }

    #[test]
    fn the_pause_doubles_up_to_the_recheck_and_an_answer_ends_it() {
        let (check, now) = (check(), Instant::now());
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            check.suspend(now);
            let until = now + Duration::from_secs(seconds);
            assert!(check.is_available(until) && !check.is_available(until - Duration::from_millis(1)));
        }
        hear(&check, 404, FORGOTTEN);
        assert!(check.is_available(now), "it answers");
        check.suspend(now);
        assert!(!check.is_available(now + FIRST_LIFE), "only \"alive\" shows that its answers are right");
        hear(&check, 200, FILE);
        check.suspend(now);
        assert!(check.is_available(now + FIRST_LIFE));
        assert!(check.keeps_to(Duration::from_mins(1), Duration::from_mins(1)));
        assert!(!check.keeps_to(Duration::from_mins(1), Duration::from_mins(2)));
    }

    /// An answer after this time, and when it came.
    async fn waits(check: &RegistrationCheck, millis: u64) -> (bool, u128) {
        let began = Instant::now();
        let answer = check.patiently(async { tokio::time::sleep(Duration::from_millis(millis)).await }).await;
        (answer.is_some(), began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn one_waits_for_a_slow_answer_and_the_others_go_on() {
        let check = check();
        hear(&check, 200, FILE);
        let late = async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            waits(&check, 100).await
        };
        let (first, second, late) = tokio::join!(waits(&check, 1_000), waits(&check, 1_000), late);
        // Either of the two is the one that waits.
        assert_eq!([first.min(second), first.max(second), late], [(false, 250), (true, 1_000), (false, 0)]);
        assert_eq!(waits(&check, 100).await, (true, 100), "the slow answer has come");
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_asks_until_the_service_has_answered_lately() {
        let check = check();
        let both = async || {
            let (one, other) = tokio::join!(waits(&check, 200), waits(&check, 200));
            [one.min(other), one.max(other)]
        };
        assert_eq!(both().await, [(true, 200), (true, 400)]);
        hear(&check, 404, FORGOTTEN);
        assert_eq!(both().await, [(true, 200), (true, 200)]);
        tokio::time::advance(ANSWERS_FOR).await;
        assert_eq!(both().await, [(true, 200), (true, 400)]);
    }
}
