//! Broken images for operators: recorded as requests end, and explained on demand.

use std::time::Duration;

use http::{StatusCode, header};
use tokio::time::Instant;

use crate::heal::background::start_heal::StartHeal;
use crate::heal::broken_entry::{BrokenEntry, ImageFailure, READERS, Referrer};
use crate::heal::broken_reason::BrokenReason;
use crate::heal::canvas_service::circuit_breaker::BreakerState;
use crate::heal::canvas_service::failure_log::FailureReason;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::services::AskedCanvas;
use crate::heal::image::IndexedImage;
use crate::heal::ladder::{HealOutcome, NO_HELP, NO_ROUTE};
use crate::heal::{Healer, ImageExchange};
use crate::iiif::{CanvasUrl, Target};
use crate::index::{IndexError, Owner};
use crate::observe::{EventKind, RequestTrace, now_ms};
use crate::outcome::Outcome;

/// `BrokenImage` is an image that readers did not get, and that was not seen well since.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BrokenImage {
    /// Number of its last request that failed: later ones have larger numbers.
    pub number: i64,
    /// Lookup key.
    pub identifier: String,
    /// The canvas that owns it, and the manifest, where the index knows them.
    #[serde(flatten)]
    pub owner: Option<Owner>,
    /// Reason why readers do not get the image.
    pub reason: BrokenReason,
    /// The reason in a sentence.
    pub why: String,
    /// Earliest time at which a heal is tried again, unix milliseconds, where one has just failed.
    pub until: Option<i64>,
    /// Status that the last reader got.
    pub status: u16,
    /// Distinct clients, at most [`Self::MOST_READERS`], which stands for as many or more.
    pub readers: usize,
    /// Requests.
    pub requests: u64,
    /// First and last request, unix milliseconds.
    pub first: i64,
    /// Last request, unix milliseconds.
    pub last: i64,
    /// Pages that ask for an image which no manifest names, as clients sent them.
    pub referrers: Vec<Referrer>,
    /// URL of a picture of it, for readers.
    pub picture: Option<String>,
}

impl BrokenImage {
    /// Maximum of distinct clients.
    pub const MOST_READERS: usize = READERS;
}

/// `BrokenFilter` selects broken images.
#[derive(Debug, Clone, Copy, Default)]
pub struct BrokenFilter {
    /// Images that a manifest names, or those that none does; `None`: both.
    pub is_known: Option<bool>,
    /// Highest number, exclusive.
    pub before: Option<i64>,
    /// Images at most.
    pub limit: usize,
}

/// `ExplainedReason` is the reason, a sentence, and the rest of a cool-down.
type ExplainedReason = (BrokenReason, String, Option<Duration>);

impl Healer {
    /// Records the end of a reader's request for an image. A success costs one atomic load while no image is broken. (An
    /// info.json that was not healed proves nothing: it comes from memory long after the image expired.)
    pub fn record_image_answer(&self, exchange: &ImageExchange<'_>, outcome: Outcome, status: StatusCode) {
        let (parts, image) = (&self.parts, exchange.image);
        if status.is_success() {
            let is_proof = image.request.target != Target::Info || outcome == Outcome::Healed;
            if is_proof && !parts.broken.is_empty() {
                parts.broken.clear(&image.request.identifier.key());
            }
            return;
        }
        let key = image.request.identifier.key();
        let is_known = match outcome {
            Outcome::Healed => return,
            Outcome::Served if !status.is_server_error() => return,
            Outcome::Missing | Outcome::Cooling | Outcome::Failed | Outcome::Pending => true,
            Outcome::Unknown if parts.lookup.heals(&key) => false,
            Outcome::Unknown | Outcome::Served | Outcome::Refused => !parts.lookup.owners(image).is_empty(),
        };
        let referrer = exchange.head.headers.get(header::REFERER).and_then(|referrer| referrer.to_str().ok());
        let failure =
            ImageFailure { is_known, outcome, status, client: exchange.client, referrer, at: now_ms() };
        let mark = parts.lookup.mark(image.route);
        if !parts.broken.record((mark, &key), &failure, parts.settings.heal.max_broken) {
            parts.metrics.event(EventKind::BrokenDropped);
        }
    }

    /// Images that readers did not get lately and that were not seen well since, the last one first.
    pub fn broken_images(&self, filter: BrokenFilter) -> Result<Vec<BrokenImage>, IndexError> {
        let BrokenFilter { is_known, before, limit } = filter;
        self.parts.broken.prune(now_ms());
        let entries = self.parts.broken.list(is_known, before, limit).into_iter();
        entries.map(|entry| self.explained(entry)).collect()
    }

    /// True if this image is believed to have lost its file, or a reader's last request for it failed for that reason.
    pub fn is_file_missing(&self, image: &IndexedImage, key: &str) -> bool {
        self.parts.missing.is_known(image) || self.parts.broken.outcome(key) == Some(Outcome::Missing)
    }

    /// URL of a picture of this image for readers: through us, so that it is healed. `None`: our public host is not known.
    pub fn picture_url(&self, image: &IndexedImage) -> Option<String> {
        let origin =
            image.owners.iter().find_map(|owner| self.parts.settings.public_origin(&owner.canvas))?;
        let prefix = &self.parts.settings.routes[image.route].prefix;
        Some(format!("{origin}{prefix}{}/full/!1000,1000/0/default.jpg", image.sent))
    }

    /// URL of this document for readers, if it is one of ours.
    pub fn public_url(&self, url: &str) -> Option<String> {
        let (origin, parsed) = (self.parts.settings.public_origin(url)?, CanvasUrl::parse(url)?);
        let query = parsed.query.map(|query| format!("?{query}")).unwrap_or_default();
        Some(format!("{origin}{}{query}", parsed.path))
    }

    fn explained(&self, entry: BrokenEntry) -> Result<BrokenImage, IndexError> {
        let lookup = &self.parts.lookup;
        let owners = lookup.index().owners(&entry.key)?;
        let service = lookup.service_index(&owners);
        let route = lookup.route_with(entry.mark).unwrap_or_default();
        let image = lookup.unowned(service, route, &entry.key, &RequestTrace::generate());
        let image =
            image.map(|image| IndexedImage { owners: owners.clone(), mark: entry.mark, route, ..image });
        let (reason, why, pause) = self.broken_reason(&entry, &owners, image.as_ref());
        let end =
            |pause: Duration| now_ms().saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
        Ok(BrokenImage {
            number: entry.number,
            owner: owners.first().cloned(),
            picture: image.as_ref().and_then(|image| self.picture_url(image)),
            reason,
            why,
            until: pause.map(end),
            status: entry.status.as_u16(),
            readers: entry.readers.len(),
            requests: entry.requests,
            first: entry.first,
            last: entry.last,
            referrers: entry.referrers,
            identifier: entry.key,
        })
    }

    fn broken_reason(
        &self,
        entry: &BrokenEntry,
        owners: &[Owner],
        image: Option<&IndexedImage>,
    ) -> ExplainedReason {
        if entry.outcome == Outcome::Refused {
            return (
                BrokenReason::Error,
                format!("There was no answer of the image server: readers got {}.", entry.status),
                None,
            );
        }
        if entry.is_fault() {
            // UPSTREAM: the image server asks the canvas service's Redis, and may answer 500 while that is down.
            let is_down = self.parts.services.all().iter().any(|service| !service.breaker_is_closed());
            let hint = if is_down { " A canvas service only fails, too: mend that first." } else { "" };
            return (BrokenReason::Error, format!("The image server answered {}.{hint}", entry.status), None);
        }
        if owners.is_empty() {
            return told(
                BrokenReason::Unknown,
                "No manifest in the index names it: nothing here can bring it back.",
            );
        }
        if !self.parts.lookup.heals(&entry.key) {
            return told(
                BrokenReason::Off,
                "It is not healed: [heal] enabled is false, or [heal] identifiers leaves it out.",
            );
        }
        match image {
            Some(image) => self.expired_reason(entry, image),
            None => told(
                BrokenReason::Failed,
                "Its identifier fits no URL of the image server: it cannot be asked for.",
            ),
        }
    }

    /// Reason of an image that heals are for.
    fn expired_reason(&self, entry: &BrokenEntry, image: &IndexedImage) -> ExplainedReason {
        let canvases = self.parts.services.asked_canvases(image);
        if self.parts.heals.is_under_way(image) {
            return told(
                BrokenReason::Pending,
                "Expired, and being healed now: it takes longer than readers can wait.",
            );
        }
        if entry.outcome == Outcome::Missing || self.parts.missing.is_known(image) {
            return told(
                BrokenReason::Missing,
                "Its file is gone from the repository: nothing here can bring it back.",
            );
        }
        if canvases.is_empty() {
            return (
                BrokenReason::NoRoute,
                format!("Expired, and {NO_ROUTE}: nobody can be asked for it."),
                None,
            );
        }
        let FailureReason { text, passing, status } =
            self.parts.heals.failure_reason(image, HealOutcome::Failed);
        let pause = self.pause(&canvases);
        if text == NO_HELP
            && let Some(why) = left_alone(&canvases)
        {
            return (BrokenReason::Cooling, why, pause);
        }
        let hint = match status {
            Some(_) if !passing => ": it does not know the canvas, or cannot read it from the repository",
            _ => "",
        };
        let tail = format!("{text}{hint}.");
        match entry.outcome {
            Outcome::Pending => {
                told(BrokenReason::Pending, "Expired: its heal took longer than the reader could wait.")
            }
            Outcome::Unknown => {
                told(BrokenReason::Expired, "It has come into the index since: the next request heals it.")
            }
            outcome if outcome == Outcome::Cooling || pause.is_some() => {
                (BrokenReason::Cooling, format!("Expired, and its last heal failed: {tail}"), pause)
            }
            _ => (
                BrokenReason::Failed,
                format!("Expired, and no rung of the ladder brought it back: {tail}"),
                None,
            ),
        }
    }

    /// Rest of the shortest cool-down of these canvases, or of the pause of their services.
    fn pause(&self, canvases: &[AskedCanvas]) -> Option<Duration> {
        let now = Instant::now();
        let rests = canvases.iter().flat_map(|(service, canvas)| {
            let requests = [CanvasRequest::visit(canvas), CanvasRequest::rebuild(canvas)];
            let requests = requests.into_iter().chain(CanvasRequest::variant(canvas));
            let rests = requests.filter_map(|request| {
                self.parts.services.cooldowns.remaining(&request.flight, service.recovered(), now)
            });
            let open = (service.breaker.state(now) == BreakerState::Open)
                .then(|| service.breaker.status(now).next_try)
                .flatten();
            rests.chain(open).collect::<Vec<_>>()
        });
        rests.min()
    }
}

/// Why nobody is asked for an image whose canvas service only fails, if it does.
fn left_alone(canvases: &[AskedCanvas]) -> Option<String> {
    let now = Instant::now();
    let mut services = canvases.iter().map(|(service, _)| service.status(now));
    let service = services.find(|service| service.breaker.state == BreakerState::Open)?;
    let error = service.last_error.map(|error| format!(": {error}")).unwrap_or_default();
    Some(format!(
        "Expired, and its canvas service ({}) is not asked, because it only fails{error}.",
        service.upstream
    ))
}

fn told(reason: BrokenReason, why: &str) -> ExplainedReason {
    (reason, why.to_owned(), None)
}
