//! Documents that lack images which the index knows, and the findings about them.

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

/// Time for which a document is believed to have really become shorter.
pub(in crate::heal) const BELIEVED: Duration = Duration::from_hours(24);

/// Maximum of documents about which a finding is kept.
const MAX_FINDINGS: u64 = 10_000;

/// `PoisonedDocument` is a document that lacks images which the index knows.
#[derive(Debug, Clone)]
pub struct PoisonedDocument {
    /// Position of the document's presentation route in `settings.routes`.
    pub route: usize,
    /// The [mark](crate::config::settings::RouteSettings::mark) of that route.
    pub mark: u64,
    /// Path and query as they go upstream.
    pub target: String,
    /// Public URL of the document, as the index knows it.
    pub name: String,
    /// Lookup keys of the images that the document lacks.
    pub missing: Vec<String>,
    /// True if the document lacks more than these.
    pub is_cut_short: bool,
    /// [`fingerprint`](super::fingerprint) of the document's images.
    pub carries: u64,
    /// Trace of the request.
    pub trace: RequestTrace,
}

/// `DocumentRepairs` are the repairs under way, and their findings.
#[derive(Debug)]
pub(in crate::heal) struct DocumentRepairs {
    /// Repairs under way.
    pub(in crate::heal) running: SingleFlight<CanvasRequestKey, RepairResult>,
    /// Repairs that are retried in the background until the service is well.
    pub(in crate::heal) retried: SingleFlight<CanvasRequestKey, ()>,
    /// Repairs of canvases that came without their image.
    pub(in crate::heal) canvas_repairs: SingleFlight<CanvasRequestKey, ()>,
    /// Documents that are believed to have become shorter: fingerprint of each.
    pub(in crate::heal) shortened: TimedCache<CanvasRequestKey, u64>,
    /// Rebuilds that brought a document with unchanged images, not all of them proven: fingerprint and count.
    pub(in crate::heal) futile_rebuilds: TimedCache<CanvasRequestKey, (u64, u32)>,
    /// Images that a document was seen without.
    pub(in crate::heal) poisoned_images: PoisonedImages,
}

impl DocumentRepairs {
    /// An empty state. Repairs run on the caller's runtime.
    pub(in crate::heal) fn here() -> Self {
        Self {
            running: SingleFlight::here(),
            retried: SingleFlight::here(),
            canvas_repairs: SingleFlight::here(),
            shortened: TimedCache::new(MAX_FINDINGS),
            futile_rebuilds: TimedCache::new(MAX_FINDINGS),
            poisoned_images: PoisonedImages::default(),
        }
    }
}

/// The first pause before a repair is tried again.
pub(in crate::heal) const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// `NextRepair` is the time of the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum NextRepair {
    AtOnce,
    /// Retry when the service may be well.
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

/// `NestedCheck` tells whether the service's nested request for this image would be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum NestedCheck {
    /// Proven: the service itself has just shown it.
    Proven,
    /// Likely: nothing speaks against it.
    Likely,
    /// The file of this image is gone.
    Gone,
    /// Seems gone: the canvas was built without the image, and no key was written; or it names other images.
    SeemsGone,
    /// Refused, and so seems gone: the image is expired, and its canvas cannot be built.
    Refused,
    Unwell,
}

impl NestedCheck {
    /// True if the document rightly lacks the image, as far as this check goes.
    pub(in crate::heal) fn is_gone(self) -> bool {
        matches!(self, Self::Gone | Self::SeemsGone | Self::Refused)
    }
}

/// `LackingImages` are the findings about the images that a document lacks.
#[derive(Debug)]
pub(in crate::heal) enum LackingImages {
    /// An image that is there, and how surely the service can request it.
    There(Box<IndexedImage>, NestedCheck),
    /// All are gone. Believed for this long.
    Gone(Duration),
}

/// `RebuildEffect` compares a rebuilt document with the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum RebuildEffect {
    Better,
    /// No image more than the stored one.
    NoBetter,
    /// Worse: without an image whose file is there, or of which nothing is known now.
    Worse,
    /// The service cannot build beside.
    Unknown,
}

/// `RepairResult` is the result of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum RepairResult {
    Whole,
    /// Shorter: the document with this fingerprint is complete. Believed for this long.
    Shorter(u64, Duration),
    Unwell,
    Failed,
}

impl RepairResult {
    /// The result as text, for other nodes.
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

/// True if a document has the image with this lookup key, by any of its names.
pub(in crate::heal) fn carries(canvases: &[Canvas], key: &str) -> bool {
    canvases.iter().flat_map(|canvas| &canvas.images).any(|own| identifier::same_image(own, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_rightly_lacks_images_that_are_gone() {
        use NestedCheck::{Gone, Likely, Proven, Refused, SeemsGone, Unwell};
        assert!([Gone, SeemsGone, Refused].into_iter().all(NestedCheck::is_gone));
        assert!(![Proven, Likely, Unwell].into_iter().any(NestedCheck::is_gone));
    }

    #[test]
    fn another_node_reads_the_result_that_this_one_writes() {
        let shorter = RepairResult::Shorter(u64::MAX, Duration::from_secs(10));
        for result in [RepairResult::Whole, shorter, RepairResult::Unwell, RepairResult::Failed] {
            assert_eq!(RepairResult::from_words(&result.words()), result);
        }
        let for_ever = RepairResult::Shorter(1, BELIEVED * 2).words();
        assert_eq!(RepairResult::from_words(&for_ever), RepairResult::Shorter(1, BELIEVED));
        assert_eq!(RepairResult::from_words("shorter 1"), RepairResult::Failed);
    }
}
