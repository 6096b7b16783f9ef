//! A whole book beside: where several pages of a manifest are gone, one request brings back all of them.
//!
//! UPSTREAM: a presentation asked for with a `disallow` that fits nothing is built beside the stored one, and writes the
//! keys of all its pages: 200 of them in 4.4 s, one nested call at a time (upstream.md "Ways back to life").

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_request::Freshness;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::ladder::HealOutcome;
use crate::heal::single_flight::FlightHandle;
use crate::heal::ward::{IndexedImage, Ward};
use crate::observe::Trace;

/// So many pages that are gone make it worth to ask for the book.
const PAGES: u32 = 2;

/// `BookProgress` is how far somebody who goes through manifests, page by page, has come in the present one.
#[derive(Debug, Default)]
pub(in crate::heal) struct BookProgress {
    manifest: String,
    gone: u32,
    was_asked: bool,
    /// What was seen before counts no more.
    since: Option<Instant>,
}

impl BookProgress {
    /// What was seen before now counts no more.
    pub(in crate::heal) fn from_now() -> Self {
        Self { since: Some(Instant::now()), ..Self::default() }
    }

    fn turn_to(&mut self, manifest: &str) {
        if self.manifest != manifest {
            *self = Self { manifest: manifest.to_owned(), since: self.since, ..Self::default() };
        }
    }
}

impl Ward {
    /// Looks at one page of a manifest. Where it is gone a seat on its heal, unless the whole book was healed at once.
    pub(in crate::heal) async fn look_at_page(
        self: &Arc<Self>,
        route: usize,
        (manifest, key): (&str, &str),
        lane: Priority,
        progress: &mut BookProgress,
        trace: &Trace,
    ) -> Option<FlightHandle<HealOutcome>> {
        progress.turn_to(manifest);
        let patient = self.patient(route, key, trace)?;
        if !self.is_gone_now(&patient, progress.since).await {
            return None;
        }
        progress.gone += 1;
        if progress.gone >= PAGES && !progress.was_asked {
            progress.was_asked = true;
            let now = Instant::now();
            if self.heal_book(manifest, &patient, lane).await {
                progress.since = Some(Instant::now());
            }
            // Whether the book helped or not, a reader may have had this page healed while it was asked for.
            if !self.is_gone_now(&patient, Some(now)).await {
                return None;
            }
        }
        Some(self.board(&patient, lane))
    }

    /// Has the whole manifest built beside. False: that is not possible here, or did not help.
    async fn heal_book(self: &Arc<Self>, manifest: &str, patient: &IndexedImage, lane: Priority) -> bool {
        let Some(allowed) = self.guard.allow(manifest) else { return false };
        let (Some(service), Some(request)) = (self.service(allowed.route), CanvasRequest::variant(&allowed))
        else {
            return false;
        };
        let now = Instant::now();
        if service.variants.known(now) != Some(true)
            || !self.settings.heal.ladder.contains(&Rung::Variant)
            || self.memory.cooling(&request.flight, service.recovered(), now).is_some()
        {
            return false;
        }
        let urgency = FlightPriority::new(lane);
        let (mut seat, _) = self.fly(service, &request.flight, patient, &urgency, Freshness::Anew);
        let answer = seat.landed().await.unwrap_or(CanvasResponse::Unwell);
        let helped =
            matches!(answer, CanvasResponse::Built | CanvasResponse::Carries | CanvasResponse::Unclear);
        if helped {
            self.metrics.event("book_healed");
            self.was_healed(patient);
        } else if !answer.is_about_the_service() {
            self.rung_failed(service, &request.flight, now);
        }
        helped
    }
}
