//! Does the canvas service know where the file is? `GET {canvas service}/resources/{uuid}` tells expiry (404)
//! from a missing file (200), and while an identifier is alive it teaches its file URL (upstream.md "An expired
//! image"). A gateway may have it closed: that is found out, remembered, and tried again later.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use uuid::Uuid;

use super::timed_cache::TimedCache;
use crate::iiif::resource;
pub(super) use crate::iiif::resource::Said;

/// What is remembered of `/resources` of one canvas service.
#[derive(Debug)]
pub(super) struct Truth {
    closed_until: Mutex<Option<Instant>>,
    recheck: Duration,
    alive_for: Duration,
    alive: TimedCache<Uuid>,
}

/// Identifiers of which is remembered that they are alive, at most.
const ALIVE: u64 = 200_000;

/// How long a service that gave no answer is not asked again.
const UNHEARD: Duration = Duration::from_secs(2);

impl Truth {
    pub(super) fn new(alive_for: Duration, recheck: Duration) -> Self {
        Self { closed_until: Mutex::new(None), recheck, alive_for, alive: TimedCache::new(ALIVE) }
    }

    /// May it be asked at all?
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.closed().is_none_or(|until| now >= until)
    }

    /// It said "alive" a short while ago, and nothing spoke against it since.
    pub(super) fn remembers_alive(&self, uuid: Uuid) -> bool {
        self.alive.contains(&uuid)
    }

    /// The image answered 404: what was remembered is no longer true.
    pub(super) fn doubt(&self, uuid: Uuid) {
        self.alive.remove(&uuid);
    }

    /// It gave no answer at all: not asked for a moment, so that not every request waits for it in turn.
    pub(super) fn no_answer(&self, now: Instant) {
        *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(now + self.recheck.min(UNHEARD));
    }

    /// It says "expired" of an image that the image server shows: whoever speaks there, it is not the service.
    pub(super) fn distrust(&self, now: Instant) {
        *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + self.recheck);
    }

    /// Reads an answer and remembers what it means.
    pub(super) fn hear(&self, uuid: Uuid, status: StatusCode, body: &Bytes, now: Instant) -> Said {
        let said = resource::read(uuid, status.as_u16(), body);
        let closed = match &said {
            Said::Alive(_) => {
                self.alive.insert(uuid, (), self.alive_for);
                None
            }
            Said::Expired => {
                self.alive.remove(&uuid);
                None
            }
            // A service in trouble is not a closed door: it is asked again next time.
            Said::Nothing if status.is_server_error() => None,
            Said::Nothing => Some(now + self.recheck),
        };
        *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner) = closed;
        said
    }

    fn closed(&self) -> Option<Instant> {
        *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = Uuid::from_u128(0x13c0_9e7b_ddb5_30f5_a4ce_eece_bd33_0564);

    fn hear(truth: &Truth, status: u16, body: &'static str) -> Said {
        let status = StatusCode::from_u16(status).expect("a status");
        truth.hear(UUID, status, &Bytes::from_static(body.as_bytes()), Instant::now())
    }

    fn truth() -> Truth {
        Truth::new(Duration::from_mins(1), Duration::from_mins(1))
    }

    #[test]
    fn the_services_own_answers_tell_alive_from_expired() {
        let truth = truth();
        let url = "http://localhost:9000/fcrepo/rest/obj/a/files/a.jpg";
        assert_eq!(hear(&truth, 200, url), Said::Alive(url.to_owned()));
        assert!(truth.remembers_alive(UUID));
        let forgotten = "Resource with id 13c09e7b-ddb5-30f5-a4ce-eecebd330564 not found!";
        assert_eq!(hear(&truth, 404, forgotten), Said::Expired);
        assert!(!truth.remembers_alive(UUID));
        assert!(truth.is_open(Instant::now()));
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
            let truth = truth();
            assert_eq!(hear(&truth, status, body), Said::Nothing, "{status}");
            assert!(!truth.is_open(Instant::now()));
            assert!(truth.is_open(Instant::now() + Duration::from_secs(61)));
        }
    }

    #[test]
    fn a_service_in_trouble_is_asked_again() {
        let truth = truth();
        assert_eq!(hear(&truth, 503, ""), Said::Nothing);
        assert!(truth.is_open(Instant::now()));
    }

    #[test]
    fn a_service_that_says_nothing_is_asked_again_soon() {
        let (truth, now) = (truth(), Instant::now());
        truth.no_answer(now);
        assert!(!truth.is_open(now));
        assert!(truth.is_open(now + UNHEARD));
    }
}
