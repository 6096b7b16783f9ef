//! A whole manifest built beside the stored one: where several of its pages are gone, one request brings back all of them.
//!
//! UPSTREAM: a presentation asked for with a `disallow` that fits nothing is built beside the stored one, and writes the
//! keys of all its pages: 200 of them in 4.4 s, one nested call at a time (upstream.md "Ways back to life"). The request
//! keeps its permit until its end, so one manifest at a time is requested, and only where another permit is left for
//! readers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Settings;
use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_request::{CanvasRequests, DONE};
use crate::heal::evidence::Evidence;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::heal::image_lookup::ImageLookup;
use crate::heal::knowledge::ImageKnowledge;
use crate::iiif::{Identifier, IdentifierKind};
use crate::observe::{EventKind, Metrics};

/// `PagesSeen` counts the pages of one manifest that were probed, and those that are gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct PagesSeen {
    /// Pages probed, or all pages of the manifest.
    pub pages: usize,
    /// Pages that are gone.
    pub gone: usize,
}

/// Cost of one canvas at the service, counted in pages of a manifest.
///
/// UPSTREAM: a page of a book takes 22 ms, a single canvas 20 to 106 ms.
const CANVAS_IN_PAGES: usize = 4;

impl PagesSeen {
    /// True if one request for the whole manifest is cheaper than one for each page that is gone.
    pub fn are_cheaper_as_book(self) -> bool {
        self.gone >= 2 && self.gone * CANVAS_IN_PAGES >= self.pages
    }
}

/// `Books` has whole manifests built beside the stored ones.
#[derive(Debug)]
pub(in crate::heal) struct Books {
    settings: Arc<Settings>,
    requests: Arc<CanvasRequests>,
    lookup: Arc<ImageLookup>,
    knowledge: ImageKnowledge,
    metrics: Arc<Metrics>,
}

impl Books {
    pub(in crate::heal) fn new(
        settings: Arc<Settings>,
        requests: Arc<CanvasRequests>,
        lookup: Arc<ImageLookup>,
        knowledge: ImageKnowledge,
    ) -> Self {
        let metrics = Arc::clone(requests.services.metrics());
        Self { settings, requests, lookup, knowledge, metrics }
    }

    /// Number of pages of this manifest.
    pub(in crate::heal) fn pages(&self, manifest: &str) -> usize {
        self.lookup.index().manifest_canvases(manifest).map_or(0, |pages| pages.len())
    }

    /// Has the whole manifest built beside the stored one. False: not possible here, or no help.
    pub(in crate::heal) async fn heal(
        &self,
        manifest: &str,
        image: &IndexedImage,
        priority: Priority,
    ) -> bool {
        let Some((service, request)) = self.request(manifest) else { return false };
        let service = &service;
        let mut permit = service.books.try_acquire().ok();
        if permit.is_none() {
            permit = service.books.acquire().await.ok();
            // The request before this one may have been for the same manifest.
            if !self.knowledge.is_expired_now(image, Some(Instant::now())).await {
                return true;
            }
        }
        let name = format!("book {}", service.cluster_name());
        // One node at a time asks for a manifest. Another node may have had it built in the meantime, or its lease was
        // shorter than our wait.
        let own = loop {
            match self.requests.services.try_lead(&name).await {
                Ok(own) => break own,
                Err(_) if !self.knowledge.is_expired_now(image, Some(Instant::now())).await => return true,
                Err(_) => {}
            }
        };
        let urgency = FlightPriority::new(priority);
        let answer = self.requests.answer(service, &request.flight, image, &urgency).await;
        let helped = self.book_helped(answer, image).await;
        if helped {
            self.metrics.event(EventKind::BookHealed);
            self.pages_were_healed(manifest, image);
        } else if answer != CanvasResponse::Withheld {
            self.no_page_is_proven(service, manifest);
            // The service may still be building, although we stopped waiting.
            self.requests.services.cooldowns.set_remaining(
                &request.flight,
                self.settings.heal.backoff_max,
                Instant::now(),
            );
        }
        own.finish(DONE);
        drop(permit);
        helped
    }

    /// True if this page of the manifest is back. The answer may come from a cache before the service, or belong to another
    /// manifest: then no key was written, whatever the answer holds. A manifest may also come without its pages where only
    /// the service's own check of the images failed: then the keys were written nevertheless.
    async fn book_helped(&self, answer: CanvasResponse, image: &IndexedImage) -> bool {
        let is_book =
            matches!(answer, CanvasResponse::Built | CanvasResponse::Carries | CanvasResponse::Unclear);
        is_book
            && match self.requests.evidence(image).await {
                Evidence::Alive => true,
                // The page may be missing because its own file is gone.
                Evidence::Expired => answer == CanvasResponse::Unclear,
                Evidence::Nothing => answer == CanvasResponse::Built,
            }
    }

    /// Forgets that pages were alive: the images in the answer are no proof.
    fn no_page_is_proven(&self, service: &CanvasService, manifest: &str) {
        let pages = self.lookup.index().manifest_canvases(manifest).unwrap_or_default();
        for key in pages.iter().flat_map(|page| &page.keys) {
            if let IdentifierKind::Uuid { uuid, .. } = Identifier::new(key).kind() {
                service.registrations.invalidate(uuid);
            }
        }
    }

    /// The request for the whole manifest. `None`: its service is not known to build beside, the request failed a moment
    /// ago, or it would take longer than anything is waited for.
    pub(in crate::heal) fn request(&self, manifest: &str) -> Option<(Arc<CanvasService>, CanvasRequest)> {
        self.request_within(manifest, self.pages(manifest), self.settings.heal.timeout / 2)
    }

    /// The request for the whole manifest with this many pages, if it probably ends within this time.
    pub(in crate::heal) fn request_within(
        &self,
        manifest: &str,
        pages: usize,
        time: Duration,
    ) -> Option<(Arc<CanvasService>, CanvasRequest)> {
        let services = &self.requests.services;
        let (service, allowed) = services.asked_canvas(manifest)?;
        let request = CanvasRequest::variant(&allowed)?;
        let (now, pages) = (Instant::now(), u32::try_from(pages).unwrap_or(u32::MAX));
        let is_possible = service.variants.known(now) == Some(true)
            && self.settings.heal.concurrency > 1
            && service.build_time().is_some_and(|page| page.saturating_mul(pages) <= time)
            && self.settings.heal.ladder.contains(&Rung::Variant)
            && !services.cools(&service, &request.flight);
        is_possible.then_some((service, request))
    }

    /// Forgets that pages were found expired, which is no longer true.
    fn pages_were_healed(&self, manifest: &str, image: &IndexedImage) {
        self.requests.services.note_back(image);
        let pages = self.lookup.index().manifest_canvases(manifest).unwrap_or_default();
        for key in pages.iter().flat_map(|page| &page.keys) {
            if let Some(page) = self.lookup.find(image.route, key, &image.trace) {
                self.requests.services.note_back(&page);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_asked_for_where_that_costs_less_than_its_pages_that_are_gone() {
        for (pages, gone, cheaper) in
            [(1, 1, false), (2, 2, true), (8, 2, true), (9, 2, false), (500, 2, false), (32, 8, true)]
        {
            assert_eq!(PagesSeen { pages, gone }.are_cheaper_as_book(), cheaper, "{gone} of {pages}");
        }
    }
}
