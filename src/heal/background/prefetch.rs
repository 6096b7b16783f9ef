//! Prefetch: the next pages are healed before the reader turns to them.
//!
//! Images expire together (upstream.md "Redis"), and a viewer never retries a failed tile. So after a heal the next pages
//! of the manifest are probed, cheaply and truthfully, and those that are gone are healed in the ahead lane. Each page that
//! is then opened moves the window on, as long as the manifest is known to be frail.

use std::sync::Arc;

use tokio::time::Instant;

use crate::heal::background::book::{Books, PagesSeen};
use crate::heal::background::reading::ReadingActivity;
use crate::heal::background::start_heal::{BackgroundContext, StartHeal};
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::image::IndexedImage;
use crate::index::Neighbour;
use crate::observe::{EventKind, RequestTrace};

/// Images of one canvas that are probed: more than one means a choice, which few readers make.
const IMAGES: usize = 2;

/// `Prefetch` heals the pages after the one that is being read.
#[derive(Debug)]
pub(in crate::heal) struct Prefetch {
    context: Arc<BackgroundContext>,
    readers: Arc<ReadingActivity>,
}

/// `LookAhead` is a window of pages of one manifest, probed for one reader.
struct LookAhead {
    route: usize,
    manifest: Arc<str>,
    pages: Vec<Neighbour>,
    /// Proofs from before this time do not count.
    since: Option<Instant>,
    trace: RequestTrace,
}

impl Prefetch {
    pub(in crate::heal) fn new(context: Arc<BackgroundContext>, readers: Arc<ReadingActivity>) -> Self {
        Self { context, readers }
    }

    pub(in crate::heal) fn books(&self) -> &Books {
        &self.context.books
    }

    /// Time at which an image of this manifest was last found expired: proofs of its other images from before do not count.
    pub(in crate::heal) fn expired_at(&self, image: &IndexedImage) -> Option<Instant> {
        self.readers.expired_at(&image.owners.first()?.manifest)
    }

    /// Notes that a reader is at this page. `gone_at`: when the page was found gone, if it had to be healed.
    pub(in crate::heal) fn record_page_view(
        self: &Arc<Self>,
        image: &IndexedImage,
        gone_at: Option<Instant>,
        heals: &Arc<dyn StartHeal>,
    ) {
        let Some(owner) = image.owners.first() else { return };
        let manifest: Arc<str> = owner.manifest.as_str().into();
        self.readers.at(&manifest);
        if gone_at.is_some() {
            self.readers.found_expired(&manifest);
        }
        let pages = self.context.settings.heal.ahead;
        if pages == 0
            || !self.readers.is_frail(&manifest)
            || !self.readers.may_look_from(&owner.canvas, gone_at)
        {
            return;
        }
        let Ok(next) = self.context.lookup.index().neighbours(&owner.canvas, pages) else { return };
        let since = self.readers.expiry_began(&manifest);
        let (route, trace) = (image.route, image.trace.clone());
        self.prefetch(LookAhead { route, manifest, pages: next, since, trace }, heals);
    }

    /// Notes that a reader fetched this manifest through us: its first pages will be requested next.
    pub(in crate::heal) fn record_manifest_view(
        self: &Arc<Self>,
        path: &str,
        trace: &RequestTrace,
        heals: &Arc<dyn StartHeal>,
    ) {
        let pages = self.context.settings.heal.ahead;
        let Some(route) = self.context.lookup.image_route() else { return };
        if !self.context.settings.heal.enabled {
            return;
        }
        if path.contains("/canvas/") {
            let host = self.context.settings.server.public_hosts.first();
            return host
                .map_or((), |host| self.canvas_opened(&format!("https://{host}{path}"), trace, heals));
        }
        if pages == 0 {
            return;
        }
        for host in &self.context.settings.server.public_hosts {
            for scheme in ["https", "http"] {
                let manifest: Arc<str> = format!("{scheme}://{host}{path}").into();
                let Ok(mut canvases) = self.context.lookup.index().manifest_canvases(&manifest) else {
                    return;
                };
                if !canvases.is_empty() {
                    self.readers.at(&manifest);
                    canvases.truncate(pages);
                    if self.readers.may_look_from(&manifest, None) {
                        let since = self.readers.expiry_began(&manifest);
                        let trace = trace.clone();
                        self.prefetch(LookAhead { route, manifest, pages: canvases, since, trace }, heals);
                    }
                    return;
                }
            }
        }
    }

    /// Notes that a reader fetched this canvas through us: its image will be requested next, and is healed if it is gone.
    fn canvas_opened(self: &Arc<Self>, canvas: &str, trace: &RequestTrace, heals: &Arc<dyn StartHeal>) {
        let Ok(owners) = self.context.lookup.index().canvas(canvas) else { return };
        let (Some(owner), Some(route)) = (owners.into_iter().next(), self.context.lookup.image_route())
        else {
            return;
        };
        if !self.readers.may_look_from(&owner.canvas, None) {
            return;
        }
        let pages = self.context.lookup.index().manifest_canvases(&owner.manifest).unwrap_or_default();
        let own: Vec<_> = pages.into_iter().filter(|page| page.canvas == owner.canvas).collect();
        let (manifest, trace) = (owner.manifest.into(), trace.clone());
        self.prefetch(LookAhead { route, manifest, pages: own, since: None, trace }, heals);
    }

    /// Probes these pages one after another, and starts a heal for each that is gone. Waits for no heal.
    fn prefetch(self: &Arc<Self>, pages: LookAhead, heals: &Arc<dyn StartHeal>) {
        let (own, heals) = (Arc::clone(self), Arc::clone(heals));
        self.context.home.spawn(async move { own.heal_gone(&pages, &heals).await });
    }

    async fn heal_gone(&self, pages: &LookAhead, heals: &Arc<dyn StartHeal>) {
        let LookAhead { route, manifest, pages, since, trace } = pages;
        // The page count is read when the first page is gone: nearly all pages are well.
        let mut book = None;
        // As long as the whole manifest may turn out to be cheaper, pages that are gone wait for the probes of the others.
        let (mut gone, mut held, mut was_asked) = (0, Vec::new(), false);
        for (at, page) in pages.iter().enumerate() {
            let (before, mut now) = (held.len(), Instant::now());
            for key in page.keys.iter().take(IMAGES) {
                let Some(image) = self.context.lookup.find(*route, key, trace) else { continue };
                // A page that is already being healed needs no probe.
                if !heals.is_under_way(&image) && self.context.knowledge.is_expired_now(&image, *since).await
                {
                    self.readers.found_expired(manifest);
                    held.push((image, now));
                }
            }
            gone += usize::from(held.len() > before);
            let Some((first, _)) = held.first() else { continue };
            let book = *book.get_or_insert_with(|| self.book_ahead(manifest));
            let is_cheaper = |gone| book.is_some_and(|pages| PagesSeen { pages, gone }.are_cheaper_as_book());
            if !was_asked && is_cheaper(gone) {
                was_asked = true;
                if self.context.books.heal(manifest, first, Priority::Prefetch).await {
                    self.context.metrics.event(EventKind::Ahead);
                    return;
                }
                // The request for the manifest took long; the last page probed may be back as well.
                now = Instant::now();
            }
            if was_asked || !is_cheaper(gone + pages.len() - at - 1) {
                self.heal_ahead(held.drain(..), now, heals).await;
            }
        }
        self.heal_ahead(held.drain(..), Instant::now(), heals).await;
    }

    /// Number of pages of this manifest, if it can be requested as a whole. A build that takes longer than a reader waits
    /// would come too late.
    fn book_ahead(&self, manifest: &str) -> Option<usize> {
        let pages = self.context.books.pages(manifest);
        self.context.books.request_within(manifest, pages, self.context.settings.heal.wait).map(|_| pages)
    }

    /// Begins to heal these pages, which were found gone; waits for no heal. For pages found before `now` the probes of
    /// others took time: a reader may have had them healed.
    async fn heal_ahead(
        &self,
        pages: impl Iterator<Item = (IndexedImage, Instant)>,
        now: Instant,
        heals: &Arc<dyn StartHeal>,
    ) {
        for (image, seen_at) in pages {
            // Enough heals run. A viewer who asks for one of the other pages starts its heal anyway.
            if heals.under_way() >= self.context.settings.heal.max_waiting {
                self.context.metrics.event(EventKind::AheadRefused);
                return;
            }
            if seen_at < now && !self.context.knowledge.is_expired_now(&image, Some(seen_at)).await {
                continue;
            }
            Arc::clone(heals).start(&image, Priority::Prefetch);
            self.context.metrics.event(EventKind::Ahead);
        }
    }
}
