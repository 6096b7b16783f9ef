//! Poison that a viewer meets: a manifest or canvas that lacks images which the index knows. Rebuilt while the viewer
//! waits.
//!
//! UPSTREAM: while info.json fails, a canvas comes back 200 without its image, a presentation 200 with fewer canvases, and
//! both are cached; only `update=true` on that same URL cures it, and only after the fault ended. During the fault a
//! rebuild makes it worse (upstream.md "Poison"). So no rebuild begins before the service has shown, by registering one of
//! the missing images, that its own way to the image server works: registering touches no document.

pub(in crate::heal) mod background;
pub(in crate::heal) mod documents;
mod nested;
pub(in crate::heal) mod poisoned_images;
pub(in crate::heal) mod result;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::config::Settings;
use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::services::CanvasServices;
use crate::heal::canvas_service::shared_request::CanvasRequests;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::heal::image_lookup::ImageLookup;
use crate::heal::image_server::ImageServers;
use crate::heal::ladder::Ladder;
use crate::heal::missing_images::MissingImages;
use crate::heal::off_thread::off_thread;
pub use crate::heal::repair::documents::PoisonedDocument;
use crate::heal::repair::documents::{
    BELIEVED, DocumentOrder, DocumentRepairs, FIRST_PAUSE, LackingImages, NestedCheck, NextRepair,
    RebuildEffect, RepairResult, carries,
};
use crate::heal::viewer_limits::ViewerLimits;
use crate::iiif::canvas::rebuild_target;
use crate::iiif::manifest::Canvas;
use crate::index::DocumentContent;
use crate::index::learn::DocumentLearner;
use crate::observe::{EventKind, GaugeGuard, Metrics};

/// Documents in repair or waited for at once, at most.
const MAX_REPAIRS: usize = 1_000;

/// Rebuilds of one document at most that brought it back whole and yet did not last: duplicates hide.
const REBUILDS: usize = 3;

/// Number of rebuilds with an unchanged result, without proof, after which the result is believed for a while. Their
/// cool-downs grow.
const MAX_UNPROVEN_REBUILDS: u32 = 5;

/// `DocumentRepair` is the end of the repair for one viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentRepair {
    /// Whole again: the request is to be sent once more.
    Whole(Duration),
    /// Really shorter than before.
    Truth,
    /// The repair goes on, or waits for the service to be well.
    Pending,
    /// Cooling down: a repair did not help a short while ago.
    Cooling,
    /// No help.
    Failed,
    /// Repairs are off.
    Off,
}

/// Hash of a document's images, canvas by canvas.
pub fn fingerprint(canvases: &[Canvas]) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    for canvas in canvases {
        canvas.images.hash(&mut hasher);
    }
    hasher.finish()
}

/// `Repairs` rebuilds documents that lack images: for a viewer who waits, and in the background.
#[derive(Debug)]
pub(in crate::heal) struct Repairs {
    settings: Arc<Settings>,
    ladder: Arc<Ladder>,
    requests: Arc<CanvasRequests>,
    services: Arc<CanvasServices>,
    missing: Arc<MissingImages>,
    images: Arc<ImageServers>,
    lookup: Arc<ImageLookup>,
    pub(in crate::heal) state: Arc<DocumentRepairs>,
    /// Runtime of background work.
    home: Handle,
    metrics: Arc<Metrics>,
}

impl PoisonedDocument {
    fn rebuild(&self) -> CanvasRequestKey {
        // A document that a viewer requested with `update` was not compared.
        CanvasRequestKey {
            service: self.mark,
            target: rebuild_target(&self.target).into(),
            rung: Rung::Rebuild,
        }
    }

    fn lacks(&self) -> impl Iterator<Item = &str> {
        self.missing.iter().map(String::as_str)
    }

    fn visit(&self) -> CanvasRequestKey {
        CanvasRequestKey { service: self.mark, target: self.target.as_str().into(), rung: Rung::Visit }
    }
}

impl Repairs {
    /// Creates the repairs of documents. `state`: the repairs under way, and their findings.
    pub(in crate::heal) fn new(
        settings: Arc<Settings>,
        (ladder, requests): (Arc<Ladder>, Arc<CanvasRequests>),
        (images, lookup): (Arc<ImageServers>, Arc<ImageLookup>),
        missing: Arc<MissingImages>,
        (state, home): (Arc<DocumentRepairs>, Handle),
    ) -> Self {
        let services = Arc::clone(&requests.services);
        let metrics = Arc::clone(services.metrics());
        Self { settings, ladder, requests, services, missing, images, lookup, state, home, metrics }
    }

    /// Has the document rebuilt if that can help and do no harm; waits for the rebuild at most `heal.wait`.
    pub(in crate::heal) async fn mend_document(
        self: &Arc<Self>,
        poisoned: PoisonedDocument,
        limits: &ViewerLimits,
    ) -> DocumentRepair {
        let started = Instant::now();
        let heal = &self.settings.heal;
        let key = poisoned.rebuild();
        if self.state.shortened.get(&key) == Some(poisoned.carries) {
            return DocumentRepair::Truth;
        }
        self.state.poisoned_images.note(poisoned.lacks(), true);
        if !heal.enabled
            || !heal.ladder.contains(&Rung::Rebuild)
            || self.services.on(poisoned.route).is_none()
        {
            return DocumentRepair::Off;
        }
        if self.services.cooldowns.remaining(&key, None, started).is_some() {
            return DocumentRepair::Cooling;
        }
        if self.state.running.len() >= MAX_REPAIRS {
            return DocumentRepair::Pending;
        }
        let Some(_waiting) = limits.wait() else { return DocumentRepair::Pending };
        let _counted = GaugeGuard::inc(&self.metrics.waiting);
        self.metrics.event(EventKind::PoisonSeen);
        let poisoned = Arc::new(poisoned);
        let mended = timeout(heal.wait, self.join_repair(&key, &poisoned, Priority::Viewer)).await;
        match mended {
            Ok(RepairResult::Shorter(carries, _)) if carries == poisoned.carries => DocumentRepair::Truth,
            // Perhaps shorter than the index knew, and yet longer than the viewer's document.
            Ok(RepairResult::Whole | RepairResult::Shorter(..)) => DocumentRepair::Whole(started.elapsed()),
            Ok(RepairResult::Failed) => DocumentRepair::Failed,
            Ok(RepairResult::Unwell) => {
                self.retry_in_background(key, poisoned);
                DocumentRepair::Pending
            }
            Err(_) => DocumentRepair::Pending,
        }
    }

    /// Joins the one try for this document, or starts it.
    async fn join_repair(
        self: &Arc<Self>,
        key: &CanvasRequestKey,
        poisoned: &Arc<PoisonedDocument>,
        lane: Priority,
    ) -> RepairResult {
        let mut handle = self.state.running.join_or_start(key, lane, |urgency| {
            let (repairs, key, poisoned) = (Arc::clone(self), key.clone(), Arc::clone(poisoned));
            async move { repairs.mend_in_the_fleet(&key, &poisoned, &urgency).await }
        });
        let mended = handle.wait().await.unwrap_or(RepairResult::Failed);
        if matches!(mended, RepairResult::Whole | RepairResult::Shorter(..)) {
            self.state.poisoned_images.note(poisoned.lacks(), false);
        }
        mended
    }

    /// Retries in the background until the service is well. A viewer who comes in between starts a try of his own, and so
    /// does not wait for the next one here.
    fn retry_in_background(self: &Arc<Self>, key: CanvasRequestKey, poisoned: Arc<PoisonedDocument>) {
        if self.state.retried.len() >= MAX_REPAIRS {
            self.metrics.event(EventKind::CureRefused);
            return;
        }
        let Some(service) = self.services.on(poisoned.route).cloned() else { return };
        self.state.retried.join_or_start(&key.clone(), Priority::Background, |_| {
            let repairs = Arc::clone(self);
            async move {
                let attempt = || async {
                    let is_well = service.fault_tracker.is_healthy();
                    if is_well
                        && repairs.join_repair(&key, &poisoned, Priority::Background).await
                            != RepairResult::Unwell
                    {
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(NextRepair::Later)
                };
                // A viewer's try has just shown that the service is not well.
                service.fault_tracker.until_good(FIRST_PAUSE).await;
                repairs.until_well(&service, repairs.settings.heal.backoff_max, attempt).await;
            }
        });
    }

    pub(in crate::heal) async fn attempt_repair(self: &Arc<Self>, order: DocumentOrder<'_>) -> RepairResult {
        let DocumentOrder { service, key, poisoned, .. } = order;
        let boarded = Instant::now();
        let (image, nested) = match self.first_existing_image(order).await {
            Ok(LackingImages::There(image, nested)) => (*image, nested),
            // Every file is gone: the document is right as it is, and a rebuild would change nothing.
            Ok(LackingImages::Gone(life)) => {
                self.state.shortened.insert(key.clone(), poisoned.carries, life);
                return RepairResult::Shorter(poisoned.carries, life);
            }
            Err(unwell) => return unwell,
        };
        let mended = self.rebuild_document(order, &image, nested, boarded).await;
        match mended {
            RepairResult::Whole | RepairResult::Shorter(..) => {
                self.services.cooldowns.record_success(key, boarded, Instant::now());
            }
            RepairResult::Unwell | RepairResult::Failed => {
                self.services.request_failed(service, key, boarded, false);
            }
        }
        match mended {
            RepairResult::Whole => self.metrics.event(EventKind::Cured),
            RepairResult::Shorter(..) => self.metrics.event(EventKind::PoisonRefuted),
            RepairResult::Unwell | RepairResult::Failed => self.metrics.event(EventKind::CureFailed),
        }
        tracing::info!(request = %poisoned.trace, document = %poisoned.target, ended = ?mended, "a document lacked images that the index knows");
        mended
    }

    async fn rebuild_document(
        self: &Arc<Self>,
        order: DocumentOrder<'_>,
        image: &IndexedImage,
        nested: NestedCheck,
        began: Instant,
    ) -> RepairResult {
        let DocumentOrder { service, key, poisoned, urgency } = order;
        let visit = poisoned.visit();
        // Where no viewer has just received the document, it may be stored no more: a plain GET during a fault that has not
        // shown yet would store one without images. A document built beside shows the fault. (It is not needed where a canvas
        // came whole since the repair began.)
        let mut built = None;
        let has_built = service.fault_tracker.well_at().is_some_and(|at| at >= began);
        if urgency.is_for_nobody() && !has_built {
            match self.build_beside(order, image).await {
                Ok(beside) if !carries(&beside.canvases, &image.key) => return RepairResult::Unwell,
                Err(RebuildEffect::Worse) => return RepairResult::Unwell,
                beside => built = Some(beside),
            }
        }
        for _ in 0..REBUILDS {
            // A plain GET first: another request may have cured the document, and a good one is never rebuilt.
            let stored = match self.document(service, &visit, image, urgency).await {
                Some(read) if carries(&read.canvases, &image.key) => return RepairResult::Whole,
                Some(stored) => stored,
                None => return RepairResult::Unwell,
            };
            let built = match built.take() {
                Some(built) => built,
                None => self.build_beside(order, image).await,
            };
            let effect = match built {
                Ok(built) => self.compare_beside(order, &stored, &built).await,
                Err(effect) => effect,
            };
            let read = match effect {
                RebuildEffect::Better | RebuildEffect::Unknown => {
                    self.document(service, key, image, urgency).await
                }
                // The stored document may be lost in the meantime: then the one built in a fault would be the only one.
                RebuildEffect::NoBetter => Some(stored),
                RebuildEffect::Worse => {
                    self.metrics.event(EventKind::RebuildWithheld);
                    return RepairResult::Unwell;
                }
            };
            match read {
                Some(read) if carries(&read.canvases, &image.key) => {}
                Some(read) => {
                    // The effect of a fault that has begun since must not be taken for the truth. A fault that comes and goes
                    // may have been there for this one build: most often it leaves no image at all.
                    let built = fingerprint(&read.canvases);
                    let is_proven = nested == NestedCheck::Proven
                        && read.images().next().is_some()
                        && self.are_rightly_lacking(order, &read.canvases).await
                        && self.is_built_so_again(order, image, built).await;
                    if !is_proven {
                        return self.built_in_vain(key, built);
                    }
                    self.state.shortened.insert(key.clone(), built, BELIEVED);
                    self.accept_shorter_document(read, poisoned.name.clone()).await;
                    return RepairResult::Shorter(built, BELIEVED);
                }
                None => return RepairResult::Unwell,
            }
        }
        match self.document(service, &visit, image, urgency).await {
            Some(read) if carries(&read.canvases, &image.key) => RepairResult::Whole,
            _ => RepairResult::Failed,
        }
    }

    /// Counts a rebuild in vain: a service that seemed well built the document anew, and it lacks an image without proof of
    /// either state. An unchanged result is believed in the end, for longer each time: not everything can be proven, and a
    /// rebuild costs the service minutes.
    fn built_in_vain(&self, key: &CanvasRequestKey, built: u64) -> RepairResult {
        let before = self
            .state
            .futile_rebuilds
            .get(key)
            .filter(|(same, _)| *same == built)
            .map_or(0, |(_, times)| times);
        self.state.futile_rebuilds.insert(key.clone(), (built, before + 1), 2 * BELIEVED);
        let Some(more) = before.checked_sub(MAX_UNPROVEN_REBUILDS) else { return RepairResult::Failed };
        let life = self.settings.heal.backoff_max.saturating_mul(2u32.saturating_pow(more)).min(BELIEVED);
        self.state.shortened.insert(key.clone(), built, life);
        RepairResult::Shorter(built, life)
    }

    /// Requests a document in its lane, past the breaker. `None`: no readable document.
    pub(in crate::heal) async fn document(
        &self,
        service: &CanvasService,
        flight: &CanvasRequestKey,
        image: &IndexedImage,
        urgency: &FlightPriority,
    ) -> Option<Arc<DocumentContent>> {
        let started = Instant::now();
        let _permit = service.acquire_permit(urgency, None).await?;
        urgency.mark_sent();
        let _counted = GaugeGuard::inc(&self.metrics.canvas_in_flight);
        let answer = match service.breaker.try_acquire(Instant::now()) {
            Ok(()) => service.document(&flight.target, &image.trace).await,
            Err(_) => return None,
        };
        let read = match answer {
            Ok(body) => {
                service.record_success();
                let index = Arc::clone(self.lookup.index());
                let read = move || index.read_document(&body).ok();
                off_thread(read).await.flatten()
            }
            Err(answer) => {
                service.request_ended(flight, answer, image, started.elapsed());
                return None;
            }
        };
        let whole = read.as_ref().is_some_and(|read| carries(&read.canvases, &image.key));
        let answer = if whole { CanvasResponse::Carries } else { CanvasResponse::Lacks };
        service.request_ended(flight, answer, image, started.elapsed());
        read
    }

    /// Accepts what a healthy service builds as the truth, although it is less than the index knew.
    async fn accept_shorter_document(&self, read: Arc<DocumentContent>, name: String) {
        #[cfg(test)]
        if self.services.files().is_idle() {
            return;
        }
        let index = Arc::clone(self.lookup.index());
        let believe = move || DocumentLearner::new(&index).believe(&read.document, &read.canvases, &name);
        let written = off_thread(believe).await;
        if let Some(Err(error)) = written {
            tracing::warn!(%error, "a shorter document cannot be remembered");
        }
    }
}
