//! Would the service's own way to the image server work? Asked before a document is rebuilt for a viewer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::register_path::register_path;
use crate::heal::canvas_service::registration::Said;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_request::Freshness;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::evidence::{Evidence, Probe};
use crate::heal::flight_priority::FlightPriority;
use crate::heal::ladder::HealOutcome;
use crate::heal::ladder::rebuild::ServiceHealth;
use crate::heal::repair::documents::{BELIEVED, PoisonedDocument, RepairResult, carries};
use crate::heal::ward::{IndexedImage, Ward};
use crate::iiif::IdentifierKind;
use crate::iiif::canvas::rebuild_target;
use crate::iiif::manifest::Canvas;
use crate::index::DocumentContent;
use crate::upstream::guard::Allowed;

/// Would the service's nested request for this image be answered?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum NestedCheck {
    /// The service itself has just shown it.
    Proven,
    /// Nothing speaks against it.
    Likely,
    /// The file of this image is gone.
    Gone,
    /// So it seems: its canvas was built without it, and no key was written; or its canvas names other images.
    SeemsGone,
    /// So it seems: it is expired, and its canvas cannot be built.
    Refused,
    Unwell,
}

impl NestedCheck {
    /// Whether a document rightly lacks the image, as far as this goes.
    fn is_gone(self) -> bool {
        matches!(self, Self::Gone | Self::SeemsGone | Self::Refused)
    }
}

/// What was found out about the images that a document lacks.
#[derive(Debug)]
pub(in crate::heal) enum Lacking {
    /// This one is there, and so surely can the service ask for it.
    There(Box<IndexedImage>, NestedCheck),
    /// All are gone. Believed for so long.
    Gone(Duration),
}

/// How long it is believed of files that seem to be gone. (Each of them is remembered by itself, and for longer.)
const SEEMS: Duration = Duration::from_secs(10);

impl Ward {
    /// The first missing image whose file is there. `Err`: not now.
    pub(in crate::heal) async fn first_that_is_there(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        poisoned: &PoisonedDocument,
        urgency: &Arc<FlightPriority>,
    ) -> Result<Lacking, RepairResult> {
        let Some(route) = self.image_route() else {
            return Err(RepairResult::Failed);
        };
        let (mut is_unknown, mut seems, mut is_refused) = (poisoned.is_cut_short, false, false);
        for key in &poisoned.missing {
            let Some(patient) = self.patient(route, key, &poisoned.trace) else {
                is_unknown = true;
                continue;
            };
            match self.nested(service, &patient, urgency).await {
                NestedCheck::Gone => {}
                NestedCheck::SeemsGone => seems = true,
                NestedCheck::Refused => (seems, is_refused) = (true, true),
                NestedCheck::Unwell => {
                    self.metrics.event("rebuild_withheld");
                    return Err(RepairResult::Unwell);
                }
                nested => return Ok(Lacking::There(Box::new(patient), nested)),
            }
        }
        if is_unknown {
            return Err(RepairResult::Failed);
        }
        // UPSTREAM: a canvas that is gone and a repository in trouble are both 500: another page of the book tells.
        if is_refused && !self.another_page_is_well(service, poisoned, route, urgency).await {
            return Err(RepairResult::Unwell);
        }
        Ok(Lacking::Gone(if seems { SEEMS } else { BELIEVED }))
    }

    /// Whether each image that a document lacks after it was built anew is gone, or could have been asked for.
    pub(in crate::heal) async fn are_rightly_lacking(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        poisoned: &PoisonedDocument,
        canvases: &[Canvas],
        urgency: &Arc<FlightPriority>,
    ) -> bool {
        let Some(route) = self.image_route().filter(|_| !poisoned.is_cut_short) else { return false };
        for key in poisoned.missing.iter().filter(|key| !carries(canvases, key)) {
            let Some(patient) = self.patient(route, key, &poisoned.trace) else { return false };
            let nested = self.nested(service, &patient, urgency).await;
            if nested != NestedCheck::Proven && !nested.is_gone() {
                return false;
            }
        }
        true
    }

    /// Would the document be no worse, were it built anew? It is built beside first, where the service does that: to register
    /// an image says nothing of the file store, and in a fault of that whatever is built comes without its images.
    pub(in crate::heal) async fn may_build_over(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        poisoned: &PoisonedDocument,
        stored: &DocumentContent,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> bool {
        // One that was asked for with `allow` or `disallow` has no other place.
        if self.honours_variants(service).await != Some(true) || poisoned.target.contains("allow=") {
            return true;
        }
        let target = format!("{}&disallow=x-iiif-mender/none", rebuild_target(&poisoned.target));
        let beside = CanvasRequestKey { service: poisoned.mark, target: target.into(), rung: Rung::Variant };
        let Some(built) = self.document(service, &beside, patient, urgency).await else { return false };
        let Some(route) = self.image_route() else { return false };
        let stored = stored.canvases.iter().flat_map(|canvas| &canvas.images);
        for key in stored.filter(|key| !carries(&built.canvases, key)) {
            let Some(lost) = self.patient(route, key, &poisoned.trace) else { return false };
            if !self.nested(service, &lost, urgency).await.is_gone() {
                return false;
            }
        }
        true
    }

    /// A page that the document has is built beside, with its image.
    async fn another_page_is_well(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        poisoned: &PoisonedDocument,
        route: usize,
        urgency: &Arc<FlightPriority>,
    ) -> bool {
        let pages = self.index.manifest_canvases(&poisoned.name).unwrap_or_default();
        let mut has = pages.iter().filter_map(|page| page.keys.first());
        let Some(key) = has.find(|key| !poisoned.missing.contains(key)) else { return false };
        let Some(patient) = self.patient(route, key, &poisoned.trace) else { return false };
        matches!(self.nested(service, &patient, urgency).await, NestedCheck::Proven | NestedCheck::Likely)
    }

    pub(in crate::heal) async fn nested(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> NestedCheck {
        let said = self.ask(patient).await;
        let is_alive = matches!(said, Said::Alive(_));
        if is_alive && self.is_gone_for_good(patient).await {
            return NestedCheck::Gone;
        }
        let health = self.health(service, patient).await;
        if health == ServiceHealth::Unwell || is_alive && health != ServiceHealth::Well {
            return NestedCheck::Unwell;
        }
        let file = match (said, &patient.kind) {
            (Said::Alive(url), _) if !url.is_empty() => Some(url),
            (_, IdentifierKind::Uuid { uuid, .. }) => self.file_url(*uuid),
            _ => None,
        };
        let Some(path) = file.as_deref().and_then(register_path) else {
            let is_well = health == ServiceHealth::Well || service.wellness.is_well();
            let otherwise = if is_well { NestedCheck::Likely } else { NestedCheck::Unwell };
            return self.nested_by_canvas(patient, urgency, otherwise).await;
        };
        let flight = CanvasRequestKey { service: service.mark, target: path.into(), rung: Rung::Register };
        let answer = self.fly(service, &flight, patient, urgency, Freshness::Anew).0.landed().await;
        if answer == Some(CanvasResponse::Built) || answer == Some(CanvasResponse::Carries) {
            return NestedCheck::Proven;
        }
        // To register writes the key first; where nothing is behind it, the file is gone.
        let is_registered = matches!(self.ask(patient).await, Said::Alive(_));
        if is_registered && self.is_gone_for_good(patient).await {
            NestedCheck::Gone
        } else {
            NestedCheck::Unwell
        }
    }

    /// The same where nobody says which file it is: its canvas is built beside the stored one, which takes the nested
    /// request, and writes the key if there is a file.
    async fn nested_by_canvas(
        self: &Arc<Self>,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
        otherwise: NestedCheck,
    ) -> NestedCheck {
        let canvas = patient.owners.iter().find_map(|owner| self.asked_canvas(&owner.canvas));
        let Some((service, canvas)) = canvas else { return otherwise };
        let may = self.settings.heal.ladder.contains(&Rung::Variant);
        let Some(request) = CanvasRequest::variant(&canvas).filter(|_| may) else { return otherwise };
        if self.honours_variants(&service).await == Some(false) {
            return otherwise;
        }
        let boarded = Instant::now();
        if self.is_known_missing(patient) {
            return NestedCheck::SeemsGone;
        }
        let cools = self.memory.cooling(&request.flight, service.recovered(), boarded).is_some();
        if cools && self.evidence(patient).await == Evidence::Expired {
            return NestedCheck::Refused;
        }
        let asked = async || {
            let (mut seat, _) = self.fly(&service, &request.flight, patient, urgency, Freshness::Anew);
            seat.landed().await
        };
        let mut answer = asked().await;
        // The first one of all may come out of the service's cache: then it only tells that it builds beside.
        if answer == Some(CanvasResponse::Carries) && self.honours_variants(&service).await == Some(true) {
            answer = asked().await;
        }
        let seen = Instant::now();
        let is_expired = self.evidence(patient).await == Evidence::Expired;
        match answer {
            Some(CanvasResponse::Built) => NestedCheck::Proven,
            // Whoever builds a canvas writes the key first, unless there is no file to write it for.
            Some(CanvasResponse::Lacks) if is_expired => match self.gone_or_in_trouble(patient, seen).await {
                HealOutcome::Missing => NestedCheck::SeemsGone,
                _ => NestedCheck::Unwell,
            },
            Some(CanvasResponse::Unclear) if self.is_disowned(&service, &canvas, patient, urgency).await => {
                NestedCheck::SeemsGone
            }
            Some(CanvasResponse::Refused) if is_expired => {
                self.rung_failed(&service, &request.flight, boarded);
                NestedCheck::Refused
            }
            Some(CanvasResponse::Carries | CanvasResponse::Unclear | CanvasResponse::Refused) => otherwise,
            _ => NestedCheck::Unwell,
        }
    }

    /// Its canvas is good, with other images and without this one.
    async fn is_disowned(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        canvas: &Allowed,
        patient: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> bool {
        let visit = CanvasRequest::visit(canvas).flight;
        let read = self.document(service, &visit, patient, urgency).await;
        read.is_some_and(|read| {
            read.canvases.iter().any(|canvas| !canvas.images.is_empty())
                && !carries(&read.canvases, &patient.key)
        })
    }

    /// The service knows where its file is, and the image server finds nothing there.
    async fn is_gone_for_good(&self, patient: &IndexedImage) -> bool {
        let tile = self.look_at(patient, Probe::SmallTile.tail()).await;
        tile.is_ok_and(|status| self.is_expiry(status))
    }
}
