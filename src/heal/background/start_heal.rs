//! Context of all background work.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::Settings;
use crate::heal::background::book::Books;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::image::IndexedImage;
use crate::heal::image_lookup::ImageLookup;
use crate::heal::knowledge::ImageKnowledge;
use crate::heal::ladder::HealOutcome;
use crate::heal::single_flight::FlightHandle;
use crate::observe::Metrics;

/// `StartHeal` begins heals.
pub(in crate::heal) trait StartHeal: Debug + Send + Sync {
    /// Joins the heal of this image, or starts it.
    fn start(self: Arc<Self>, image: &IndexedImage, priority: Priority) -> FlightHandle<HealOutcome>;

    /// True if this image is being healed now.
    fn is_under_way(&self, image: &IndexedImage) -> bool;

    /// Number of heals under way.
    fn under_way(&self) -> usize;
}

/// `BackgroundContext` finds images, and tells whether they are gone.
#[derive(Debug)]
pub(in crate::heal) struct BackgroundContext {
    pub(in crate::heal) settings: Arc<Settings>,
    pub(in crate::heal) lookup: Arc<ImageLookup>,
    pub(in crate::heal) knowledge: ImageKnowledge,
    pub(in crate::heal) books: Books,
    /// Runtime that background work is spawned on.
    pub(in crate::heal) home: Handle,
    pub(in crate::heal) metrics: Arc<Metrics>,
}
