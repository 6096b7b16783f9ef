//! Poison: a canvas that came back, and was cached, without its image. Cured in the background.
//!
//! UPSTREAM: only `update=true` on that same URL cures it, and only after the fault ended; duplicates hide behind
//! one another, so that up to three rebuilds are needed, each proven by a plain GET (upstream.md "Poison", "Load").

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_request::DONE;
use crate::heal::evidence::{Evidence, Probe, asks_for_login, proves_nothing};
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::heal::ladder::FollowUp;
use crate::heal::ladder::rebuild::ServiceHealth;
use crate::heal::repair::Repairs;
use crate::heal::repair::documents::{FIRST_PAUSE, NextRepair};
use crate::observe::EventKind;
use crate::upstream::guard::CanvasTarget;

/// Maximum of cures under way; a canvas beyond that stays poisoned until its next request.
const CURES: usize = 1_000;

/// Rebuilds of one canvas at most that brought it back whole and yet did not last: duplicates hide.
const REBUILDS: u32 = 3;

/// Longest time for the cure of one canvas.
const LONGEST: Duration = Duration::from_mins(30);

/// Time after a fault in which its end is noticed at once.
const SOON: Duration = Duration::from_mins(1);

/// Poll interval for the end of a fault that was seen.
const FAULT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// `CureAttempt` is the result of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CureAttempt {
    Cured,
    /// The file itself is gone, so an empty canvas is the truth.
    FileIsGone,
    /// Rebuilt whole, but the next plain GET was not.
    Rebuilt,
    /// The service is not well.
    Unwell,
}

impl Repairs {
    /// Does the work that a heal of this image left.
    pub(in crate::heal) fn follow_up(self: &Arc<Self>, follow_up: FollowUp, image: &IndexedImage) {
        match follow_up {
            // After an early release: the canvas request still runs, and its canvas may yet be poisoned.
            FollowUp::WatchCanvas { service, request, mut flight } => {
                let (repairs, image) = (Arc::clone(self), image.clone());
                self.home.spawn(async move {
                    if flight.wait().await == Some(CanvasResponse::Lacks) {
                        repairs.repair_canvas(&service, &request, &image);
                    }
                });
            }
            FollowUp::RepairCanvas { service, request } => self.repair_canvas(&service, &request, image),
            FollowUp::CanvasIsWhole => self.state.poisoned_images.note([&*image.key], false),
        }
    }

    /// Starts repairs of the canvases that came without this image, which is there.
    pub(in crate::heal) fn repair_empty_canvases(self: &Arc<Self>, image: &IndexedImage) {
        for (service, canvas) in self.services.asked_canvases(image) {
            let visit = CanvasRequest::visit(&canvas);
            let came_without = |request: &CanvasRequest| {
                let has_failed = self.services.cooldowns.failed_at(&request.flight).is_some();
                has_failed && service.failure(&request.flight).is_none()
            };
            if came_without(&visit) || came_without(&CanvasRequest::rebuild(&canvas)) {
                self.repair_canvas(&service, &visit, image);
            }
        }
    }

    /// Starts the repair of a canvas that came back without its image; one per canvas.
    pub(in crate::heal) fn repair_canvas(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        request: &CanvasRequest,
        image: &IndexedImage,
    ) {
        let Some(canvas) = service.touched(request).cloned() else { return };
        self.state.poisoned_images.note([&*image.key], true);
        // A ladder without this rung means no rebuild, not even in the background.
        if !self.settings.heal.ladder.contains(&Rung::Rebuild) {
            return;
        }
        if self.state.canvas_repairs.len() >= CURES {
            self.metrics.event(EventKind::CureRefused);
            return;
        }
        let key = CanvasRequest::rebuild(&canvas).flight;
        self.state.canvas_repairs.join_or_start(&key, Priority::Background, |urgency| {
            let (repairs, service, image) = (Arc::clone(self), Arc::clone(service), image.clone());
            async move {
                let name = format!("cure {}", service.name_of(&CanvasRequest::rebuild(&canvas).flight));
                // One node cures the canvas for all.
                if let Ok(own) = repairs.services.try_lead(&name).await {
                    repairs.repair_until_healthy(&service, &canvas, &image, &urgency).await;
                    own.finish(DONE);
                }
            }
        });
    }

    async fn repair_until_healthy(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &CanvasTarget,
        indexed: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) {
        self.metrics.event(EventKind::Poisoned);
        tracing::warn!(request = %indexed.trace, canvas = %canvas.visit, "poisoned: it came back without its image; curing it when the service is well");
        let rebuilds = AtomicU32::new(0);
        let attempt = || async {
            let ended = self.attempt_canvas_repair(service, canvas, indexed, urgency).await;
            match ended {
                CureAttempt::Rebuilt if rebuilds.fetch_add(1, Ordering::Relaxed) + 1 == REBUILDS => {
                    ControlFlow::Break(ended)
                }
                CureAttempt::Rebuilt => ControlFlow::Continue(NextRepair::AtOnce),
                CureAttempt::Unwell => ControlFlow::Continue(NextRepair::Later),
                CureAttempt::Cured | CureAttempt::FileIsGone => ControlFlow::Break(ended),
            }
        };
        let ended = self.until_well(service, FIRST_PAUSE * 4, attempt).await;
        let rebuilds = rebuilds.into_inner();
        match ended {
            Some(CureAttempt::Cured) => {
                self.state.poisoned_images.note([&*indexed.key], false);
                self.metrics.event(EventKind::Cured);
                tracing::info!(request = %indexed.trace, canvas = %canvas.visit, rebuilds, "cured");
            }
            Some(CureAttempt::FileIsGone) => {
                self.state.poisoned_images.note([&*indexed.key], false);
                tracing::info!(request = %indexed.trace, canvas = %canvas.visit, "not poisoned: the file of its image is gone");
            }
            _ => {
                self.metrics.event(EventKind::CureFailed);
                tracing::warn!(request = %indexed.trace, canvas = %canvas.visit, rebuilds, "still poisoned; giving up until it is seen again");
            }
        }
    }

    /// Retries until the cure is done, at once when the service builds something whole. `soon`: the longest pause in the
    /// first minute. `None`: given up after half an hour.
    pub(super) async fn until_well<T, F>(
        &self,
        service: &CanvasService,
        soon: Duration,
        attempt: impl Fn() -> F,
    ) -> Option<T>
    where
        F: Future<Output = ControlFlow<T, NextRepair>>,
    {
        let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
        while began.elapsed() < LONGEST {
            match attempt().await {
                ControlFlow::Break(ended) => return Some(ended),
                ControlFlow::Continue(NextRepair::AtOnce) => continue,
                ControlFlow::Continue(NextRepair::Later) => {}
            }
            // For a fault that was just seen a check costs no request.
            let next = if service.fault_tracker.is_healthy() { pause } else { FAULT_POLL_INTERVAL };
            service.fault_tracker.until_good(next.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            let most = if began.elapsed() < SOON { soon } else { self.settings.heal.backoff_max };
            pause = (pause * 2).min(most);
        }
        None
    }

    async fn attempt_canvas_repair(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &CanvasTarget,
        image: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> CureAttempt {
        // A fault that only the service sees shows in its builds: one request at a time finds out, at intervals of at least
        // this time.
        if !service.fault_tracker.is_healthy() {
            return CureAttempt::Unwell;
        }
        // A plain GET changes nothing, and closes the breaker when the service is back. While the breaker is open none is
        // sent.
        if !service.breaker_is_closed() {
            return match self
                .requests
                .answer(service, &CanvasRequest::visit(canvas).flight, image, urgency)
                .await
            {
                CanvasResponse::Built | CanvasResponse::Carries => CureAttempt::Cured,
                _ => CureAttempt::Unwell,
            };
        }
        let Some(_alone) = service.try_alone() else { return CureAttempt::Unwell };
        let tile = self.images.look_at(image, Probe::SmallTile.tail()).await;
        let is_hidden =
            tile.as_ref().is_ok_and(|status| asks_for_login(*status) || *status == StatusCode::FORBIDDEN);
        let is_shown = tile.is_ok_and(|status| !self.images.is_expiry(status) && !proves_nothing(status));
        let is_well = match (self.services.ask(image).await, is_shown) {
            // An image server that asks for a login first shows nothing of the image, and is not unwell either.
            _ if is_hidden => self.ladder.health(service, image).await != ServiceHealth::Unwell,
            (Registration::Alive(_), false) => {
                let is_gone = self.images.shows_nothing(image).await;
                return if is_gone { CureAttempt::FileIsGone } else { CureAttempt::Unwell };
            }
            (Registration::Alive(_) | Registration::Nothing, true) => {
                self.ladder.nested_request_works(image).await
            }
            // Poisoned and expired: the image's own info.json cannot be well before the image is registered again.
            (Registration::Expired, _) | (Registration::Nothing, false) => {
                self.ladder.health(service, image).await != ServiceHealth::Unwell
            }
        };
        if !is_well {
            return CureAttempt::Unwell;
        }
        // A plain GET first: another request may have cured the canvas, and a good canvas is never rebuilt.
        match self.requests.answer(service, &CanvasRequest::visit(canvas).flight, image, urgency).await {
            CanvasResponse::Built | CanvasResponse::Carries => return CureAttempt::Cured,
            CanvasResponse::Lacks => {}
            _ => return CureAttempt::Unwell,
        }
        match self.requests.answer(service, &CanvasRequest::rebuild(canvas).flight, image, urgency).await {
            CanvasResponse::Built | CanvasResponse::Carries => {}
            // A service that builds a canvas writes the key first, unless there is no file to write it for.
            CanvasResponse::Lacks
                if self.requests.evidence(image).await != Evidence::Alive
                    && self.ladder.look_at_file(image).await != Some(false) =>
            {
                return CureAttempt::FileIsGone;
            }
            // A fault without any other sign: the service's own way to the image server is broken.
            _ => return CureAttempt::Unwell,
        }
        match self.requests.answer(service, &CanvasRequest::visit(canvas).flight, image, urgency).await {
            CanvasResponse::Built | CanvasResponse::Carries => CureAttempt::Cured,
            CanvasResponse::Lacks => CureAttempt::Rebuilt,
            _ => CureAttempt::Unwell,
        }
    }
}
