//! Would the service's own way to the image server work? Asked before a document is rebuilt for a viewer.

use std::sync::Arc;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::register_path::register_path;
use crate::heal::canvas_service::registration::Said;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_request::Freshness;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::evidence::Probe;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::ladder::rebuild::ServiceHealth;
use crate::heal::repair::documents::{PoisonedDocument, RepairResult};
use crate::heal::ward::{IndexedImage, Ward};
use crate::iiif::IdentifierKind;

/// Missing images of one document that are looked at: one that is there is enough to rebuild it for.
const LOOKED_AT: usize = 3;

/// Would the service's nested request for this image be answered?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum NestedCheck {
    /// The service itself has just shown it.
    Proven,
    /// Nothing speaks against it.
    Likely,
    /// The file of this image is gone.
    Gone,
    Unwell,
}

impl Ward {
    /// The first missing image whose file is there, and how surely the service can ask for it. `Err`: not now.
    pub(in crate::heal) async fn first_that_is_there(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        poisoned: &PoisonedDocument,
        urgency: &Arc<FlightPriority>,
    ) -> Result<Option<(IndexedImage, NestedCheck)>, RepairResult> {
        let Some(route) = self.image_route() else {
            return Err(RepairResult::Failed);
        };
        let mut all_gone = false;
        for key in poisoned.missing.iter().take(LOOKED_AT) {
            let Some(patient) = self.patient(route, key, &poisoned.trace) else { continue };
            match self.nested(service, &patient, urgency).await {
                NestedCheck::Gone => all_gone = true,
                NestedCheck::Unwell => {
                    self.metrics.event("rebuild_withheld");
                    return Err(RepairResult::Unwell);
                }
                nested => return Ok(Some((patient, nested))),
            }
        }
        if all_gone { Ok(None) } else { Err(RepairResult::Failed) }
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
            return if is_well { NestedCheck::Likely } else { NestedCheck::Unwell };
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

    /// The service knows where its file is, and the image server finds nothing there.
    async fn is_gone_for_good(&self, patient: &IndexedImage) -> bool {
        let tile = self.look_at(patient, Probe::SmallTile.tail()).await;
        tile.is_ok_and(|status| self.is_expiry(status))
    }
}
