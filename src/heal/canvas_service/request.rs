//! Canvas requests and the way they are sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::cluster::SharedFlight;
use crate::config::settings::Rung;
use crate::heal::canvas_service::ask::CanvasOrder;
use crate::heal::canvas_service::circuit_breaker::BreakerState;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::response::{CacheStatus, CanvasResponse};
use crate::heal::canvas_service::shared_request::{CanvasRequests, Freshness};
use crate::heal::canvas_service::viewer_queue::is_canvas;
use crate::heal::canvas_service::{CanvasService, variants};
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::evidence::Evidence;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::observe::{EventKind, Span};
use crate::upstream::guard::CanvasTarget;

/// Interval at which a request checks whether others wait for its permit.
const HANG_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Time that others wait for the one request that tries a service which only failed, and interval of their checks.
const TRIAL_LASTS: Duration = Duration::from_secs(5);
const TRIAL_CHECK_INTERVAL: Duration = Duration::from_millis(20);

impl CanvasService {
    /// True if a request may go out. While one request tries whether the service is well again, the others wait for its
    /// result: a viewer who came a moment later must not get a 404.
    async fn passes(&self) -> bool {
        let deadline = Instant::now() + TRIAL_LASTS;
        loop {
            let now = Instant::now();
            if self.breaker.try_acquire(now).is_ok() {
                return true;
            }
            if self.breaker.state(now) != BreakerState::HalfOpen || now >= deadline {
                return false;
            }
            tokio::time::sleep(TRIAL_CHECK_INTERVAL).await;
        }
    }

    /// Counts one more request that makes the service build something, or register a file.
    pub(in crate::heal) fn count_request(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Records the duration of this answer. A stored document does not count.
    pub(in crate::heal) fn took(&self, target: &str, answer: CanvasResponse, took: Duration) {
        let may_be_old = answer != CanvasResponse::Built && took < self.bounds.build_after;
        let carries = matches!(answer, CanvasResponse::Built | CanvasResponse::Carries);
        if may_be_old || !carries || !is_canvas(target) {
            return;
        }
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let before = self.build_time.load(Ordering::Relaxed);
        // The last four samples count for about two thirds.
        let time = if before == 0 { took } else { before - before / 4 + took / 4 };
        self.build_time.store(time, Ordering::Relaxed);
    }

    /// Recent time to build a canvas; `None`: none was built.
    pub(in crate::heal) fn build_time(&self) -> Option<Duration> {
        let time = self.build_time.load(Ordering::Relaxed);
        (time > 0).then(|| Duration::from_micros(time))
    }

    /// Requests counted by `count_request` since the program began.
    pub(in crate::heal) fn requests_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// True if a request must wait for the end of a fault: a canvas built now would be stored without its image, and no
    /// viewer waits for it.
    pub(in crate::heal) fn is_not_for(&self, urgency: &FlightPriority) -> bool {
        urgency.is_for_nobody()
            && self.variants.known(Instant::now()) != Some(true)
            && !self.fault_tracker.is_healthy()
    }

    /// True if the service asked for a pause, and the request must keep it: only those of the sweep lane do, because no
    /// viewer waits for them.
    pub(in crate::heal) fn rests_from(&self, urgency: &FlightPriority) -> bool {
        urgency.lane() == Priority::Background && self.failures.retry_after(Instant::now()).is_some()
    }

    /// Waits for `work`, a request that was sent, while holding its permit. A hanging request loses the permit when others
    /// wait, and goes on without it: two canvases that never answer must not keep all others from being healed.
    pub(in crate::heal) async fn hold<T, P>(
        &self,
        permit: &mut Option<P>,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        let mut pause = self.bounds.hang_after;
        let mut hangs = None;
        loop {
            match tokio::time::timeout(pause, &mut work).await {
                Ok(answer) => {
                    drop(hangs);
                    return answer;
                }
                Err(_) if permit.is_some() && self.lanes.waiting().iter().any(|waiting| *waiting > 0) => {
                    // A service that hangs gets only a few times as many requests as there are permits.
                    if let Ok(own) = Arc::clone(&self.hanging).try_acquire_owned() {
                        self.metrics.event(EventKind::CanvasHangs);
                        (hangs, *permit) = (Some(own), None);
                    }
                }
                Err(_) => {}
            }
            pause = HANG_CHECK_INTERVAL;
        }
    }
}

impl CanvasService {
    /// True if the stored canvas itself may be requested. False where the service builds beside, or where that is not known
    /// yet.
    pub(in crate::heal) fn may_overwrite(&self, canvas: &CanvasTarget) -> bool {
        canvas.variant.is_none() || !self.uses_variants || self.variants.known(Instant::now()) == Some(false)
    }

    /// The stored canvas that this request may have had overwritten.
    pub(in crate::heal) fn touched<'a>(&self, request: &'a CanvasRequest) -> Option<&'a CanvasTarget> {
        let canvas = request.canvas.as_ref()?;
        (request.flight.rung != Rung::Variant || self.may_overwrite(canvas)).then_some(canvas)
    }
}

impl CanvasRequests {
    /// Sends one request to a canvas service, in its lane, past the breaker.
    pub(in crate::heal) async fn send(&self, order: &CanvasOrder<'_>, own: &SharedFlight) -> CanvasResponse {
        let CanvasOrder { service, request, urgency, wanted, .. } = *order;
        let started = Instant::now();
        let mut span = Span::step(&order.image.trace, request.rung.as_str());
        let image = &order.image.with_span(&span);
        let is_book = request.is_book();
        let mut permit = service.acquire_permit(urgency, Some(request)).await;
        let Some(got) = &permit else { return CanvasResponse::Withheld };
        if wanted == Freshness::OrLanded
            && got.was_contended()
            && self.evidence(image).await == Evidence::Alive
        {
            return CanvasResponse::Needless;
        }
        urgency.mark_sent();
        own.mark_sent();
        if wanted == Freshness::OrLanded && service.is_not_for(urgency) {
            return CanvasResponse::Withheld;
        }
        if service.rests_from(urgency) || !service.passes().await {
            return CanvasResponse::Withheld;
        }
        let (target, key, trace) = (&request.target, &image.key, &image.trace);
        let asked = async {
            match request.rung {
                Rung::Register => service.register(target, trace).await,
                Rung::Rebuild => service.get_canvas(target, key, trace, CacheStatus::Now).await.0,
                Rung::Variant => self.send_variant(service, target, image).await,
                _ => service.get_canvas(target, key, trace, CacheStatus::NowOrLongAgo).await.0,
            }
        };
        // A request for a whole manifest takes long without hanging.
        let answer = if is_book { asked.await } else { service.hold(&mut permit, asked).await };
        service.request_ended(request, answer, image, started.elapsed());
        span.text("iiif_mender.answer", answer.as_str());
        answer
    }

    /// Asks for the canvas beside. If the service is not known to build beside, the first request has no `update`: a
    /// service that cannot answers as to a plain visit. One that can may answer with an old canvas, for which no key was
    /// written.
    async fn send_variant(
        &self,
        service: &CanvasService,
        target: &str,
        image: &IndexedImage,
    ) -> CanvasResponse {
        let (key, trace) = (&image.key, &image.trace);
        if service.variants.known(Instant::now()) != Some(true) {
            let began = Instant::now();
            let (answer, status) = service.get_canvas(target, key, trace, CacheStatus::NowOrLongAgo).await;
            self.share_variants(service);
            let is_honoured = service.variants.known(Instant::now()) == Some(true);
            if !is_honoured && answer.is_about_the_service() && began.elapsed() < service.bounds.hang_after {
                return self.visit_in_trouble(service, target, image).await.unwrap_or(answer);
            }
            if !is_honoured && matches!(answer, CanvasResponse::Refused | CanvasResponse::Unclear) {
                let is_clear = answer == CanvasResponse::Refused && is_about_the_request(status);
                return self.visit_instead(service, target, image, is_clear).await.unwrap_or(answer);
            }
            if !is_honoured || self.evidence(image).await != Evidence::Expired {
                return answer;
            }
        }
        let target_anew = variants::built_anew(target);
        let (answer, status) = service.get_canvas(&target_anew, key, trace, CacheStatus::Now).await;
        self.share_variants(service);
        if answer == CanvasResponse::Refused && is_about_the_request(status) {
            return self.visit_instead(service, target, image, true).await.unwrap_or(answer);
        }
        answer
    }

    /// Visits the canvas whose variant was answered as if the service were unwell, which a gateway may do to the parameter.
    /// If the canvas itself is answered, and its variant once more is not, the service takes no variants.
    async fn visit_in_trouble(
        &self,
        service: &CanvasService,
        variant: &str,
        image: &IndexedImage,
    ) -> Option<CanvasResponse> {
        let answer = self.visit_instead(service, variant, image, false).await?;
        if answer == CanvasResponse::Carries && self.evidence(image).await == Evidence::Expired {
            let (key, trace) = (&image.key, &image.trace);
            let (again, _) = service.get_canvas(variant, key, trace, CacheStatus::NowOrLongAgo).await;
            if again.is_about_the_service() {
                service.heard_of_variants(false);
                self.share_variants(service);
            }
        }
        Some(answer)
    }

    /// Visits the canvas whose variant was refused, which does no harm. If the refusal is clear, a canvas in answer shows
    /// that the service, or a gateway before it, takes no variants. `None`: no visit is needed, or there is none.
    async fn visit_instead(
        &self,
        service: &CanvasService,
        variant: &str,
        image: &IndexedImage,
        is_clear: bool,
    ) -> Option<CanvasResponse> {
        let visit = variants::plain(variant).filter(|visit| is_canvas(visit))?;
        // A canvas may be built whatever becomes of its answer.
        if self.evidence(image).await == Evidence::Alive {
            return None;
        }
        let (key, trace) = (&image.key, &image.trace);
        let (answer, _) = service.get_canvas(visit, key, trace, CacheStatus::NowOrLongAgo).await;
        if is_clear && matches!(answer, CanvasResponse::Carries | CanvasResponse::Lacks) {
            service.heard_of_variants(false);
            self.share_variants(service);
        }
        // A stored canvas without its image is no proof that the file is gone.
        Some(if answer == CanvasResponse::Lacks && !is_clear { CanvasResponse::Unclear } else { answer })
    }
}

/// True if a refusal is about the request itself.
///
/// UPSTREAM: 500 is the service's own answer to any canvas that it does not know, or cannot build (upstream.md "Errors").
fn is_about_the_request(status: Option<StatusCode>) -> bool {
    status.is_some_and(|status| !status.is_server_error())
}

/// `CanvasRequest` is one request to a canvas service, and the canvas it is about.
#[derive(Debug, Clone)]
pub(in crate::heal) struct CanvasRequest {
    pub(in crate::heal) flight: CanvasRequestKey,
    /// `None`: the request leaves the stored canvas alone. (A variant does so where the service builds beside.)
    pub(in crate::heal) canvas: Option<CanvasTarget>,
}

impl CanvasRequest {
    pub(in crate::heal) fn visit(canvas: &CanvasTarget) -> Self {
        let flight = CanvasRequestKey {
            service: canvas.mark,
            target: canvas.visit.as_str().into(),
            rung: Rung::Visit,
        };
        Self { flight, canvas: Some(canvas.clone()) }
    }

    /// The request for the variant of this canvas. `None`: the canvas has no variant.
    pub(in crate::heal) fn variant(canvas: &CanvasTarget) -> Option<Self> {
        let target = canvas.variant.as_deref()?.into();
        let flight = CanvasRequestKey { service: canvas.mark, target, rung: Rung::Variant };
        Some(Self { flight, canvas: Some(canvas.clone()) })
    }

    pub(in crate::heal) fn rebuild(canvas: &CanvasTarget) -> Self {
        let flight = CanvasRequestKey {
            service: canvas.mark,
            target: canvas.rebuild.as_str().into(),
            rung: Rung::Rebuild,
        };
        Self { flight, canvas: Some(canvas.clone()) }
    }

    /// Builds the request for a new canvas beside the good one, which stays as it is. The key is written nevertheless.
    ///
    /// UPSTREAM: the service's cache key is path, `allow` and `disallow` together; a `disallow` that fits no file leaves
    /// nothing out of the canvas, and has a place of its own in the cache. A service that knows no `disallow` does what it
    /// does for any rebuild.
    pub(in crate::heal) fn rebuild_variant(canvas: &CanvasTarget) -> Self {
        let target = format!("{}&disallow=x-iiif-mender/none", canvas.rebuild);
        Self {
            flight: CanvasRequestKey { service: canvas.mark, target: target.into(), rung: Rung::Rebuild },
            canvas: None,
        }
    }
}
