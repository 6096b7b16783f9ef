//! Documents that lack images which the index knows: which they are, and what was found out.

use std::sync::Arc;
use std::time::Duration;

use crate::heal::canvas_service::CanvasService;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::heal::repair::poisoned_images::PoisonedImages;
use crate::heal::single_flight::SingleFlight;
use crate::heal::timed_cache::TimedCache;
use crate::iiif::identifier;
use crate::iiif::manifest::Canvas;
use crate::observe::RequestTrace;

/// How long it is believed that a document has really become shorter.
pub(in crate::heal) const BELIEVED: Duration = Duration::from_hours(24);

/// Documents of which that is remembered at most.
const TRUTHS: u64 = 10_000;

/// A document that lacks images which the index knows.
#[derive(Debug, Clone)]
pub struct PoisonedDocument {
    /// Position of its presentation route in `settings.routes`.
    pub route: usize,
    /// The [mark](crate::config::settings::RouteSettings::mark) of that route.
    pub mark: u64,
    /// Path and query as they go upstream.
    pub target: String,
    /// Its public URL, as the index knows it.
    pub name: String,
    /// Lookup keys of the images that it lacks.
    pub missing: Vec<String>,
    /// It lacks more than these.
    pub is_cut_short: bool,
    /// Tells what it carries, see [`fingerprint`](super::fingerprint).
    pub carries: u64,
    /// Who asks.
    pub trace: RequestTrace,
}

/// What is being repaired, and what was found out.
#[derive(Debug)]
pub(in crate::heal) struct DocumentRepairs {
    pub(in crate::heal) flights: SingleFlight<CanvasRequestKey, RepairResult>,
    pub(in crate::heal) chased: SingleFlight<CanvasRequestKey, ()>,
    /// Canvases that came without their image.
    pub(in crate::heal) canvases: SingleFlight<CanvasRequestKey, ()>,
    pub(in crate::heal) truths: TimedCache<CanvasRequestKey, u64>,
    /// How often a document was built anew and came with the same images, of which not all were proven.
    pub(in crate::heal) in_vain: TimedCache<CanvasRequestKey, (u64, u32)>,
    pub(in crate::heal) lacking: PoisonedImages,
}

impl DocumentRepairs {
    /// None yet. Repairs run on the runtime that calls this.
    pub(in crate::heal) fn here() -> Self {
        let truths = TimedCache::new(TRUTHS);
        Self {
            flights: SingleFlight::here(),
            chased: SingleFlight::here(),
            canvases: SingleFlight::here(),
            truths,
            in_vain: TimedCache::new(TRUTHS),
            lacking: PoisonedImages::default(),
        }
    }
}

/// The first pause before a repair is tried again.
pub(in crate::heal) const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum NextRepair {
    AtOnce,
    /// When the service may be well.
    Later,
}

/// `DocumentOrder` is one document that is to be rebuilt, and how urgent that is.
#[derive(Debug, Clone, Copy)]
pub(in crate::heal) struct DocumentOrder<'a> {
    pub(in crate::heal) service: &'a Arc<CanvasService>,
    pub(in crate::heal) key: &'a CanvasRequestKey,
    pub(in crate::heal) poisoned: &'a PoisonedDocument,
    pub(in crate::heal) urgency: &'a Arc<FlightPriority>,
}

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
    pub(in crate::heal) fn is_gone(self) -> bool {
        matches!(self, Self::Gone | Self::SeemsGone | Self::Refused)
    }
}

/// What was found out about the images that a document lacks.
#[derive(Debug)]
pub(in crate::heal) enum LackingImages {
    /// This one is there, and so surely can the service ask for it.
    There(Box<IndexedImage>, NestedCheck),
    /// All are gone. Believed for so long.
    Gone(Duration),
}

/// How a document would come, were it built anew, beside what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum RebuildEffect {
    Better,
    /// With no image that what is stored lacks.
    NoBetter,
    /// Without an image whose file is there; or nobody can tell now.
    Worse,
    /// It cannot be built beside.
    Unknown,
}

/// How one try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum RepairResult {
    Whole,
    /// It carries what its fingerprint says, and that is all there is; so it is believed for so long.
    Shorter(u64, Duration),
    Unwell,
    Failed,
}

impl RepairResult {
    /// For other nodes.
    pub(in crate::heal) fn words(self) -> String {
        match self {
            Self::Whole => "whole".to_owned(),
            Self::Shorter(carries, life) => format!("shorter {carries} {}", life.as_secs()),
            Self::Unwell => "unwell".to_owned(),
            Self::Failed => "failed".to_owned(),
        }
    }

    pub(in crate::heal) fn from_words(words: &str) -> Self {
        let shorter = words.strip_prefix("shorter ").and_then(|rest| {
            let (carries, life) = rest.split_once(' ')?;
            Some((carries.parse().ok()?, Duration::from_secs(life.parse().ok()?)))
        });
        match (words, shorter) {
            (_, Some((carries, life))) => Self::Shorter(carries, life.min(BELIEVED)),
            ("whole", _) => Self::Whole,
            ("unwell", _) => Self::Unwell,
            _ => Self::Failed,
        }
    }
}

/// Whether a document has the image with this lookup key, by whichever of its names.
pub(in crate::heal) fn carries(canvases: &[Canvas], key: &str) -> bool {
    canvases.iter().flat_map(|canvas| &canvas.images).any(|own| identifier::same_image(own, key))
}
