//! Nested requests: whether the service's own way to the image server works. Checked before a document is rebuilt for a
//! viewer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::register_path::register_path;
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::evidence::Evidence;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::heal::ladder::HealOutcome;
use crate::heal::ladder::rebuild::ServiceHealth;
use crate::heal::repair::documents::{
    BELIEVED, DocumentOrder, LackingImages, NestedCheck, RebuildEffect, RepairResult, carries,
};
use crate::heal::repair::{Repairs, fingerprint};
use crate::iiif::IdentifierKind;
use crate::iiif::canvas::rebuild_target;
use crate::iiif::manifest::Canvas;
use crate::index::DocumentContent;
use crate::observe::EventKind;
use crate::upstream::guard::CanvasTarget;

/// Time for which files that seem gone are believed gone. (Each file is remembered by itself, and for longer.)
const SEEMS_GONE_FOR: Duration = Duration::from_secs(10);

impl Repairs {
    /// Finds the first missing image whose file is there. `Err`: not now.
    pub(in crate::heal) async fn first_existing_image(
        self: &Arc<Self>,
        order: DocumentOrder<'_>,
    ) -> Result<LackingImages, RepairResult> {
        let DocumentOrder { service, poisoned, urgency, .. } = order;
        let Some(route) = self.lookup.image_route() else {
            return Err(RepairResult::Failed);
        };
        let (mut is_unknown, mut seems, mut is_refused) = (poisoned.is_cut_short, false, false);
        for key in &poisoned.missing {
            let Some(image) = self.lookup.find(route, key, &poisoned.trace) else {
                is_unknown = true;
                continue;
            };
            match self.check_nested_request(service, &image, urgency).await {
                NestedCheck::Gone => {}
                NestedCheck::SeemsGone => seems = true,
                NestedCheck::Refused => (seems, is_refused) = (true, true),
                NestedCheck::Unwell => {
                    self.metrics.event(EventKind::RebuildWithheld);
                    return Err(RepairResult::Unwell);
                }
                nested => return Ok(LackingImages::There(Box::new(image), nested)),
            }
        }
        if is_unknown {
            return Err(RepairResult::Failed);
        }
        // UPSTREAM: a canvas that is gone and a repository in trouble are both 500: another page of the book tells which.
        if is_refused && !self.another_page_is_well(order, route).await {
            return Err(RepairResult::Unwell);
        }
        Ok(LackingImages::Gone(if seems { SEEMS_GONE_FOR } else { BELIEVED }))
    }

    /// True if each image that a document still lacks after a rebuild is gone, or is one that the service can certainly
    /// request.
    pub(in crate::heal) async fn are_rightly_lacking(
        self: &Arc<Self>,
        order: DocumentOrder<'_>,
        canvases: &[Canvas],
    ) -> bool {
        let DocumentOrder { service, poisoned, urgency, .. } = order;
        let Some(route) = self.lookup.image_route().filter(|_| !poisoned.is_cut_short) else { return false };
        for key in poisoned.missing.iter().filter(|key| !carries(canvases, key)) {
            let Some(image) = self.lookup.find(route, key, &poisoned.trace) else { return false };
            let nested = self.check_nested_request(service, &image, urgency).await;
            if nested != NestedCheck::Proven && !nested.is_gone() {
                return false;
            }
        }
        true
    }

    /// Builds the document beside the stored one. `Err`: the effect of a rebuild, where no document came, or where the
    /// service cannot build beside.
    pub(in crate::heal) async fn build_beside(
        self: &Arc<Self>,
        order: DocumentOrder<'_>,
        image: &IndexedImage,
    ) -> Result<Arc<DocumentContent>, RebuildEffect> {
        let beside = self.beside(order, image).await.ok_or(RebuildEffect::Unknown)?;
        let built = self.document(order.service, &beside, image, order.urgency).await;
        built.ok_or(RebuildEffect::Worse)
    }

    /// Tells whether a rebuild would make the document better, by one that was built beside, where the service does that:
    /// registering an image does not test the file store, and while that fails every document comes without images.
    pub(in crate::heal) async fn compare_beside(
        self: &Arc<Self>,
        order: DocumentOrder<'_>,
        stored: &DocumentContent,
        built: &DocumentContent,
    ) -> RebuildEffect {
        let DocumentOrder { service, poisoned, urgency, .. } = order;
        let Some(route) = self.lookup.image_route() else { return RebuildEffect::Worse };
        for key in stored.images().filter(|key| !carries(&built.canvases, key)) {
            let Some(lost) = self.lookup.find(route, key, &poisoned.trace) else {
                return RebuildEffect::Worse;
            };
            if !self.check_nested_request(service, &lost, urgency).await.is_gone() {
                return RebuildEffect::Worse;
            }
        }
        let is_better = built.images().any(|key| !carries(&stored.canvases, key));
        if is_better { RebuildEffect::Better } else { RebuildEffect::NoBetter }
    }

    /// The request that builds the document beside the stored one. `None`: the service cannot do that.
    async fn beside(
        self: &Arc<Self>,
        order: DocumentOrder<'_>,
        image: &IndexedImage,
    ) -> Option<CanvasRequestKey> {
        let DocumentOrder { service, poisoned, urgency, .. } = order;
        // A document requested with `allow` or `disallow` has no variant.
        if poisoned.target.contains("allow=") {
            return None;
        }
        if self.services.honours_variants(service).await.is_none() {
            // A canvas tells whether the service builds beside: its first request is a plain GET where it does not.
            self.nested_by_canvas(image, urgency, NestedCheck::Likely).await;
        }
        if self.services.honours_variants(service).await != Some(true) {
            return None;
        }
        let target = format!("{}&disallow=x-iiif-mender/none", rebuild_target(&poisoned.target));
        Some(CanvasRequestKey { service: poisoned.mark, target: target.into(), rung: Rung::Variant })
    }

    /// True if the document comes with the same images once more, or cannot be built beside.
    pub(in crate::heal) async fn is_built_so_again(
        self: &Arc<Self>,
        order: DocumentOrder<'_>,
        image: &IndexedImage,
        built: u64,
    ) -> bool {
        match self.build_beside(order, image).await {
            Ok(again) => fingerprint(&again.canvases) == built,
            Err(effect) => effect == RebuildEffect::Unknown,
        }
    }

    /// Checks the service by another page: a page that the document has is built beside, with its image.
    async fn another_page_is_well(self: &Arc<Self>, order: DocumentOrder<'_>, route: usize) -> bool {
        let DocumentOrder { service, poisoned, urgency, .. } = order;
        let pages = self.lookup.index().manifest_canvases(&poisoned.name).unwrap_or_default();
        let mut has = pages.iter().filter_map(|page| page.keys.first());
        let Some(key) = has.find(|key| !poisoned.missing.contains(key)) else { return false };
        let Some(image) = self.lookup.find(route, key, &poisoned.trace) else { return false };
        matches!(
            self.check_nested_request(service, &image, urgency).await,
            NestedCheck::Proven | NestedCheck::Likely
        )
    }

    pub(in crate::heal) async fn check_nested_request(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        image: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> NestedCheck {
        let said = self.services.ask(image).await;
        let is_alive = matches!(said, Registration::Alive(_));
        if is_alive && self.images.shows_nothing(image).await {
            return NestedCheck::Gone;
        }
        let health = self.ladder.health(service, image).await;
        if health == ServiceHealth::Unwell || is_alive && health != ServiceHealth::Well {
            return NestedCheck::Unwell;
        }
        let file = match (said, &image.kind) {
            (Registration::Alive(url), _) if !url.is_empty() => Some(url.into()),
            (_, IdentifierKind::Uuid { uuid, .. }) => self.services.files().of(*uuid),
            _ => None,
        };
        let Some(path) = file.as_deref().and_then(register_path) else {
            let is_well = health == ServiceHealth::Well || service.fault_tracker.is_healthy();
            let otherwise = if is_well { NestedCheck::Likely } else { NestedCheck::Unwell };
            return self.nested_by_canvas(image, urgency, otherwise).await;
        };
        let flight = CanvasRequestKey { service: service.mark, target: path.into(), rung: Rung::Register };
        let answer = self.requests.answer(service, &flight, image, urgency).await;
        if matches!(answer, CanvasResponse::Built | CanvasResponse::Carries) {
            return NestedCheck::Proven;
        }
        // Registering writes the key first; if the image still does not show, its file is gone.
        let is_registered = matches!(self.services.ask(image).await, Registration::Alive(_));
        if is_registered && self.images.shows_nothing(image).await {
            NestedCheck::Gone
        } else {
            NestedCheck::Unwell
        }
    }

    /// Checks an image whose file URL is not known: its canvas is built beside the stored one. The service makes the nested
    /// request for that, and writes the key if there is a file.
    async fn nested_by_canvas(
        self: &Arc<Self>,
        image: &IndexedImage,
        urgency: &Arc<FlightPriority>,
        otherwise: NestedCheck,
    ) -> NestedCheck {
        let canvas = image.owners.iter().find_map(|owner| self.services.asked_canvas(&owner.canvas));
        let Some((service, canvas)) = canvas else { return otherwise };
        let may = self.settings.heal.ladder.contains(&Rung::Variant);
        let Some(request) = CanvasRequest::variant(&canvas).filter(|_| may) else { return otherwise };
        if self.services.honours_variants(&service).await == Some(false) {
            return otherwise;
        }
        let boarded = Instant::now();
        if self.missing.is_known(image) {
            return NestedCheck::SeemsGone;
        }
        if self.services.cools(&service, &request.flight)
            && self.requests.evidence(image).await == Evidence::Expired
        {
            return NestedCheck::Refused;
        }
        let asked = async || self.requests.answer(&service, &request.flight, image, urgency).await;
        let mut answer = asked().await;
        // The first variant of all may come out of the service's cache: then it only tells that the service builds beside.
        if answer == CanvasResponse::Carries && self.services.honours_variants(&service).await == Some(true) {
            answer = asked().await;
        }
        let seen = Instant::now();
        let is_expired = self.requests.evidence(image).await == Evidence::Expired;
        match answer {
            CanvasResponse::Built => NestedCheck::Proven,
            // A service that builds a canvas writes the key first, unless there is no file to write it for.
            CanvasResponse::Lacks if is_expired => match self.ladder.gone_or_in_trouble(image, seen).await {
                HealOutcome::Missing => NestedCheck::SeemsGone,
                _ => NestedCheck::Unwell,
            },
            CanvasResponse::Unclear if self.is_disowned(&service, &canvas, image, urgency).await => {
                NestedCheck::SeemsGone
            }
            CanvasResponse::Refused if is_expired => {
                self.services.request_failed(&service, &request.flight, boarded, false);
                NestedCheck::Refused
            }
            CanvasResponse::Carries | CanvasResponse::Unclear | CanvasResponse::Refused => otherwise,
            _ => NestedCheck::Unwell,
        }
    }

    /// True if the image's canvas is good, with other images and without this one.
    async fn is_disowned(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &CanvasTarget,
        image: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> bool {
        let visit = CanvasRequest::visit(canvas).flight;
        let read = self.document(service, &visit, image, urgency).await;
        read.is_some_and(|read| read.images().next().is_some() && !carries(&read.canvases, &image.key))
    }
}
