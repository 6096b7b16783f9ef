//! A scan probes images one after another, and heals those that are gone, page by page or by the whole manifest. Mass
//! expiry, sweep and keep-warm are scans of different images.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::heal::background::book::PagesSeen;
use crate::heal::background::start_heal::{BackgroundContext, StartHeal};
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::image::IndexedImage;
use crate::heal::ladder::HealOutcome;
use crate::heal::single_flight::FlightHandle;
use crate::observe::{EventKind, RequestTrace};

/// Heals of one scan at once: enough to keep every lane busy, not enough to fill memory.
const AT_ONCE: usize = 16;

/// `BackgroundScan` is one pass over images that no viewer waits for.
#[derive(Debug)]
pub(in crate::heal) struct BackgroundScan {
    context: Arc<BackgroundContext>,
    heals_by: Arc<dyn StartHeal>,
    route: usize,
    priority: Priority,
    /// Trace of the request that caused the scan. `None`: each image gets a trace of its own.
    trace: Option<RequestTrace>,
    pace: Option<Interval>,
    /// Proofs from before this time do not count.
    since: Instant,
    book: BookPosition,
    heals: VecDeque<FlightHandle<HealOutcome>>,
    looked_at: u64,
    gone: u64,
}

/// The manifest whose pages are being probed.
#[derive(Debug, Default)]
struct BookPosition {
    manifest: String,
    seen: PagesSeen,
    was_asked: bool,
    /// The first page that is gone, and when it was probed: its heal waits for the next page's probe.
    held: Option<(IndexedImage, Instant)>,
}

impl BackgroundScan {
    /// Creates a scan. `None`: the image server is not known yet.
    pub(in crate::heal) fn new(
        context: &Arc<BackgroundContext>,
        heals_by: &Arc<dyn StartHeal>,
        priority: Priority,
    ) -> Option<Self> {
        Some(Self {
            context: Arc::clone(context),
            heals_by: Arc::clone(heals_by),
            route: context.lookup.image_route()?,
            priority,
            trace: None,
            pace: None,
            since: Instant::now(),
            book: BookPosition::default(),
            heals: VecDeque::new(),
            looked_at: 0,
            gone: 0,
        })
    }

    /// Sets the trace of the request that caused the scan.
    pub(in crate::heal) fn in_the_name_of(self, trace: &RequestTrace) -> Self {
        Self { trace: Some(trace.clone()), ..self }
    }

    /// Limits the scan to `heal.sweep_rate`.
    pub(in crate::heal) fn at_sweep_rate(self) -> Self {
        let rate = self.context.settings.heal.sweep_rate.max(1);
        let mut pace = tokio::time::interval(Duration::from_secs(1) / rate);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { pace: Some(pace), ..self }
    }

    /// Images probed, and images that were gone.
    pub(in crate::heal) fn counts(&self) -> (u64, u64) {
        (self.looked_at, self.gone)
    }

    /// Probes every image of this manifest.
    pub(in crate::heal) async fn look_at_manifest(&mut self, manifest: &str) {
        let Ok(pages) = self.context.lookup.index().manifest_canvases(manifest) else { return };
        for key in pages.iter().flat_map(|page| &page.keys) {
            self.probe(manifest, key).await;
        }
    }

    /// Probes one image of this manifest. At the second missing page the whole manifest is requested if that costs less.
    pub(in crate::heal) async fn probe(&mut self, manifest: &str, key: &str) {
        if self.book.manifest != manifest {
            self.heal_held().await;
            self.book = BookPosition { manifest: manifest.to_owned(), ..BookPosition::default() };
        }
        if let Some(pace) = &mut self.pace {
            pace.tick().await;
        }
        self.looked_at += 1;
        self.book.seen.pages += 1;
        let trace = self.trace.clone().unwrap_or_else(RequestTrace::generate);
        let Some(image) = self.context.lookup.find(self.route, key, &trace) else { return };
        let seen_at = Instant::now();
        if !self.context.knowledge.is_expired_now(&image, Some(self.since)).await {
            return;
        }
        self.gone += 1;
        self.book.seen.gone += 1;
        if self.priority == Priority::Background {
            self.context.metrics.event(EventKind::Swept);
        }
        if self.book.seen.gone == 1 {
            self.book.held = Some((image, seen_at));
            return;
        }
        let was_asked = self.asks_for_book(&image).await;
        self.heal_held().await;
        if !(was_asked && self.is_back(&image).await) {
            self.heal(&image).await;
        }
    }

    /// Requests the whole manifest beside the stored one, where that is cheaper. True: the request was sent now.
    async fn asks_for_book(&mut self, image: &IndexedImage) -> bool {
        let BookPosition { manifest, seen, was_asked, .. } = &mut self.book;
        if *was_asked || !seen.are_cheaper_as_book() {
            return false;
        }
        *was_asked = true;
        // Proofs count from here on, those of the manifest's build included.
        self.since = Instant::now();
        self.context.books.heal(manifest, image, self.priority).await;
        true
    }

    /// True if this page is back. A reader may have had the page healed, whether the manifest helped or not.
    async fn is_back(&self, image: &IndexedImage) -> bool {
        !self.context.knowledge.is_expired_now(image, Some(self.since)).await
    }

    /// Heals the page that was held back, unless a reader had it healed while other pages were probed.
    async fn heal_held(&mut self) {
        let Some((image, seen_at)) = self.book.held.take() else { return };
        if self.context.knowledge.is_expired_now(&image, Some(seen_at.max(self.since))).await {
            self.heal(&image).await;
        }
    }

    /// Starts one more heal; waits for the oldest first when there are too many.
    async fn heal(&mut self, image: &IndexedImage) {
        self.heals.push_back(Arc::clone(&self.heals_by).start(image, self.priority));
        if self.heals.len() > AT_ONCE
            && let Some(mut oldest) = self.heals.pop_front()
        {
            oldest.wait().await;
        }
    }

    /// Waits for all heals. Returns images probed, and images that were gone.
    pub(in crate::heal) async fn end(mut self) -> (u64, u64) {
        self.heal_held().await;
        for mut heal in self.heals.drain(..) {
            heal.wait().await;
        }
        (self.looked_at, self.gone)
    }
}
