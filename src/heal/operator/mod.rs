//! Healing for batch commands and operators: check one image, heal one image. Limits, lanes, cool-downs and the breaker are
//! the proxy's own; all requests go in the sweep lane.

mod actions;
pub(in crate::heal) mod broken;
pub(in crate::heal) mod inspect;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use bytes::Bytes;
use tokio::time::timeout;

use crate::config::settings::Rung;
use crate::heal::Healer;
use crate::heal::background::start_heal::StartHeal;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::ask::AskCanvasService;
use crate::heal::canvas_service::circuit_breaker::BreakerState;
use crate::heal::canvas_service::failure_log::FailureReason;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::services::AskedCanvas;
use crate::heal::evidence::{Evidence, proves_nothing};
use crate::heal::flight_priority::FlightPriority;
use crate::heal::heals::{FILE_GONE, LEFT_ALONE};
use crate::heal::image::IndexedImage;
use crate::heal::ladder::{HealOutcome, NO_HELP, NO_ROUTE};
use crate::heal::missing_files::Proof;
use crate::iiif::IdentifierKind;
use crate::iiif::manifest::WalkError;
use crate::index::{DocumentContent, Owner};
use crate::observe::RequestTrace;
use crate::upstream::{ErrorChain, UpstreamError};

/// `ImageCheck` is the result of checking one image. A check rebuilds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageCheck {
    /// Alive.
    Alive,
    /// Expired: can be brought back.
    Expired,
    /// The service knows the file (or the identifier is the file's URL), and the image server does not find it.
    Missing,
    /// No evidence, for this reason.
    Unwell(String),
    /// No evidence without a viewer's credentials. Holds the answer.
    Hidden(String),
}

/// `ImageHealReport` is the result of the heal of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageHealReport {
    /// Result of the heal.
    pub ending: ImageHealResult,
    /// Reason why the image was not healed.
    pub reason: Option<String>,
    /// A retry after a pause may succeed.
    pub passing: bool,
    /// True if no request was sent: the service only fails, and is left alone for a while.
    pub was_withheld: bool,
    /// The canvas came back without its image, and was cured.
    pub was_poisoned: bool,
    /// Duration of the heal.
    pub took: Duration,
}

/// `ImageHealResult` is the result of a heal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageHealResult {
    /// Healed by this rung.
    Healed(Rung),
    /// Alive before any request was sent.
    Alive,
    /// The file is gone.
    Missing,
    /// Not back.
    Failed,
    /// Back, but the canvas is still without the image.
    Poisoned,
}

/// `CanvasVisit` is the result of the plain visit of one canvas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanvasVisit {
    /// The canvas, with the image or with nothing that speaks against it.
    Good,
    /// The canvas without its image.
    Poisoned,
    /// No canvas, for this reason.
    Failed {
        /// Reason.
        reason: String,
        /// A retry after a pause may succeed.
        passing: bool,
    },
}

/// The longest manifest that is fetched.
const LONGEST_MANIFEST: usize = 256 << 20;

/// Poll interval of an open breaker.
const BREAKER_POLL_INTERVAL: Duration = Duration::from_millis(100);

impl Healer {
    /// The image with this lookup key on `canvas` of `manifest`. `None`: no route is for images, or `[heal] identifiers`
    /// leaves the key out.
    pub fn image_by_key(&self, key: &str, owner: Option<Owner>) -> Option<IndexedImage> {
        let lookup = &self.parts.lookup;
        let service = lookup.service_index(owner.as_slice());
        let image = lookup.unowned(service, lookup.any_image_route()?, key, &RequestTrace::generate())?;
        Some(IndexedImage { owners: owner.into_iter().collect(), ..image })
    }

    /// The image with its other canvases too, as the index knows them.
    #[must_use]
    pub fn with_owners(&self, image: &IndexedImage) -> IndexedImage {
        let known = self.parts.lookup.index().owners(&image.key).unwrap_or_else(|_| Arc::new([]));
        let more = known.iter().filter(|more| image.owners.iter().all(|own| own.canvas != more.canvas));
        IndexedImage { owners: image.owners.iter().chain(more).cloned().collect(), ..image.clone() }
    }

    /// True if this canvas belongs to a presentation route, so that it may be requested.
    pub fn is_allowed_canvas(&self, canvas: &str) -> bool {
        self.parts.services.asked_canvas(canvas).is_some()
    }

    /// Checks the image by the cheapest truthful probe: `/resources/{uuid}` where the service answers it, else a probe of
    /// the image server that no cache can answer. `tiles`: requests a tile in any case, which also finds missing files.
    pub async fn check_image(&self, image: &IndexedImage, tiles: bool) -> ImageCheck {
        let said = self.parts.services.ask(image).await;
        let shown = match said {
            Registration::Expired => return ImageCheck::Expired,
            Registration::Alive(_) => Evidence::Alive,
            Registration::Nothing => self.parts.images.probe(image).await,
        };
        let needs_no_key = matches!(image.kind, IdentifierKind::FileUrl { .. });
        match shown {
            Evidence::Expired if needs_no_key => ImageCheck::Missing,
            Evidence::Expired => ImageCheck::Expired,
            Evidence::Alive if !tiles && said != Registration::Nothing => ImageCheck::Alive,
            Evidence::Alive | Evidence::Nothing => {
                self.look_at_tile(image, shown == Evidence::Alive || needs_no_key).await
            }
        }
    }

    async fn look_at_tile(&self, indexed: &IndexedImage, registered: bool) -> ImageCheck {
        match self.parts.images.look_at_tile(indexed).await {
            Ok((status, _)) if self.parts.images.is_expiry(status) && registered => ImageCheck::Missing,
            Ok((status, _)) if self.parts.images.is_expiry(status) => ImageCheck::Expired,
            Ok((status, _)) if matches!(status.as_u16(), 401 | 403 | 407) => {
                ImageCheck::Hidden(format!("the image server answered {status}"))
            }
            Ok((status, _)) if proves_nothing(status) => {
                ImageCheck::Unwell(format!("the image server answered {status}"))
            }
            Ok((status, true)) => ImageCheck::Unwell(format!(
                "the image server answered {status} with a web page in the place of a picture"
            )),
            Ok(_) => ImageCheck::Alive,
            Err(error) => ImageCheck::Unwell(format!("the image server: {}", ErrorChain(&error))),
        }
    }

    /// Heals the image, and waits until the canvas itself is known to be good as well.
    pub async fn heal_image(&self, image: &IndexedImage) -> ImageHealReport {
        let (heals, started) = (Arc::clone(&self.parts.heals), Instant::now());
        let verdict = heals.start(image, Priority::Background).wait().await.unwrap_or(HealOutcome::Failed);
        // UPSTREAM: a service that registers a file writes its key, whether the file is there or not.
        let is_proven = !matches!(verdict, HealOutcome::Healed(Rung::Register) | HealOutcome::Alive);
        let verdict = if is_proven { verdict } else { self.confirmed(verdict, image).await };
        let canvases = self.parts.services.asked_canvases(image);
        let is_back = matches!(verdict, HealOutcome::Healed(_) | HealOutcome::Alive);
        // Without its image the canvas cannot be cured either: no wait for that.
        let (was_poisoned, cured) =
            if is_back { self.poison_is_cured(&canvases, image).await } else { (false, false) };
        if is_back {
            self.parts.broken.clear(&image.key);
        }
        let (ending, reason, passing) = match verdict {
            HealOutcome::Healed(_) | HealOutcome::Alive if was_poisoned && !cured => {
                (ImageHealResult::Poisoned, Some("its canvas comes back without images".to_owned()), false)
            }
            HealOutcome::Healed(rung) => (ImageHealResult::Healed(rung), None, false),
            HealOutcome::Alive => (ImageHealResult::Alive, None, false),
            HealOutcome::Missing => (ImageHealResult::Missing, Some(FILE_GONE.to_owned()), false),
            HealOutcome::Cooling | HealOutcome::Failed | HealOutcome::NoRung => {
                let FailureReason { text, passing, .. } = self.parts.heals.failure_reason(image, verdict);
                (ImageHealResult::Failed, Some(text), passing)
            }
        };
        let was_withheld = reason.as_deref() == Some(LEFT_ALONE);
        ImageHealReport { ending, reason, passing, was_withheld, was_poisoned, took: started.elapsed() }
    }

    /// Requests one canvas of the image, as the old script did, whatever its state.
    pub async fn visit_canvas(&self, image: &IndexedImage, canvas: &str) -> CanvasVisit {
        let parts = &self.parts;
        let Some((service, allowed)) = parts.services.asked_canvas(canvas) else {
            return CanvasVisit::Failed { reason: NO_ROUTE.to_owned(), passing: false };
        };
        let request = CanvasRequest::visit(&allowed);
        match self.landed_visit(&service, &request, image).await {
            CanvasResponse::Built
            | CanvasResponse::Carries
            | CanvasResponse::Unclear
            | CanvasResponse::Needless => CanvasVisit::Good,
            CanvasResponse::Lacks => CanvasVisit::Poisoned,
            CanvasResponse::Withheld => CanvasVisit::Failed { reason: LEFT_ALONE.to_owned(), passing: true },
            CanvasResponse::Refused | CanvasResponse::Busy | CanvasResponse::Unwell => {
                match service.failures.last(&request.flight.target) {
                    Some(remark) => CanvasVisit::Failed { reason: remark.text, passing: remark.passing },
                    None => CanvasVisit::Failed { reason: NO_HELP.to_owned(), passing: true },
                }
            }
        }
    }

    /// Cures a canvas that is known to be poisoned; true when a plain visit returns the image afterwards.
    pub async fn repair_canvas(&self, image: &IndexedImage, canvas: &str) -> bool {
        let parts = &self.parts;
        let Some((service, allowed)) = parts.services.asked_canvas(canvas) else { return false };
        parts.repairs.repair_canvas(&service, &CanvasRequest::visit(&allowed), image);
        self.poison_is_cured(&[(service, allowed)], image).await == (true, true)
    }

    /// Reads a document as the index does.
    pub fn read_document(&self, bytes: &[u8]) -> Result<Arc<DocumentContent>, WalkError> {
        self.parts.lookup.index().read_document(bytes)
    }

    /// Time that the canvas services are to be left alone: a service asked for a pause, or only fails.
    pub fn retry_after(&self) -> Option<Duration> {
        let now = Instant::now();
        let rests = self.parts.services.all().iter().filter_map(|service| {
            let open = service.breaker.state(now) == BreakerState::Open;
            service.failures.retry_after(now).or(open.then_some(BREAKER_POLL_INTERVAL))
        });
        rests.max()
    }

    /// True if this manifest can be requested as a whole, beside the stored one.
    pub fn may_heal_book(&self, manifest: &str) -> bool {
        self.parts.prefetch.books().request(manifest).is_some()
    }

    /// Has a whole manifest built beside, of which several images are gone. False: no help.
    pub async fn heal_book(&self, manifest: &str, image: &IndexedImage) -> bool {
        self.parts.prefetch.books().heal(manifest, image, Priority::Background).await
    }

    /// Number of requests that made canvas services build something or register a file.
    pub fn requests_sent(&self) -> u64 {
        self.parts.services.all().iter().map(|service| service.requests_sent()).sum()
    }

    /// Cool-down of a rung that did not help.
    pub fn cooldown(&self) -> Duration {
        self.parts.settings.heal.cooldown
    }

    /// Fetches a document of a presentation route: a manifest, a collection, a canvas. `anew`: with `update=true`. Sent in
    /// the sweep lane like everything else here, because the service makes as many reads for it as it has pages.
    pub async fn document(&self, url: &str, anew: bool) -> Result<Bytes, DocumentError> {
        let parts = &self.parts;
        let (service, allowed) = parts.services.asked_canvas(url).ok_or(DocumentError::NotOurs)?;
        let _permit = service.acquire_permit(&FlightPriority::new(Priority::Background), None).await;
        let target = if anew { &allowed.rebuild } else { &allowed.visit };
        if anew {
            service.count_request();
        }
        match service
            .follow(target, &RequestTrace::generate(), parts.settings.heal.timeout, LONGEST_MANIFEST)
            .await
        {
            Ok(reply) if reply.status.is_success() => Ok(reply.body),
            Ok(reply) => Err(DocumentError::Status(reply.status)),
            Err(error) => Err(DocumentError::NoAnswer(error)),
        }
    }
}

/// `DocumentError` is the reason why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The URL belongs to no presentation route.
    #[error("it belongs to no presentation route of the configuration")]
    NotOurs,
    /// Status other than 2xx.
    #[error("the canvas service answered {0}")]
    Status(http::StatusCode),
    /// No answer from the service.
    #[error("{}", ErrorChain(.0))]
    NoAnswer(UpstreamError),
}

impl Healer {
    /// Confirms "registered": without effect where the image server finds no file.
    async fn confirmed(&self, verdict: HealOutcome, image: &IndexedImage) -> HealOutcome {
        if self.parts.is_missing(image).await {
            return HealOutcome::Missing;
        }
        if verdict != HealOutcome::Healed(Rung::Register) || !self.parts.images.shows_nothing(image).await {
            return verdict;
        }
        // `/resources` is closed: the file's own identifier may tell.
        if self.parts.ladder.look_at_file(image).await == Some(true) {
            self.parts.missing.note(image, Proof::Shown);
            return HealOutcome::Missing;
        }
        HealOutcome::Failed
    }

    async fn landed_visit(
        &self,
        service: &Arc<CanvasService>,
        request: &CanvasRequest,
        image: &IndexedImage,
    ) -> CanvasResponse {
        let urgency = FlightPriority::new(Priority::Background);
        self.parts.requests.answer(service, &request.flight, image, &urgency).await
    }

    /// Returns whether these canvases were poisoned, and whether they are well now. Waits for canvas requests that still
    /// run (the image is back before they end), and for cures, but not for ever: some services stay unwell.
    async fn poison_is_cured(&self, canvases: &[AskedCanvas], image: &IndexedImage) -> (bool, bool) {
        let (mut was_poisoned, mut cured) = (false, true);
        for (service, allowed) in canvases {
            let visit = CanvasRequest::visit(allowed);
            if let Some(mut flight) = self.parts.requests.find(&visit.flight)
                && flight.wait().await == Some(CanvasResponse::Lacks)
            {
                self.parts.repairs.repair_canvas(service, &visit, image);
            }
            let Some(mut cure) =
                self.parts.repairs.state.canvas_repairs.find(&CanvasRequest::rebuild(allowed).flight)
            else {
                continue;
            };
            was_poisoned = true;
            let in_time = timeout(self.parts.settings.heal.backoff_max, cure.wait()).await.is_ok();
            cured &= in_time && self.landed_visit(service, &visit, image).await == CanvasResponse::Carries;
        }
        (was_poisoned, cured)
    }
}
