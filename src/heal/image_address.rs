//! Addresses of images without a request for them: made of the lookup key, and of the addresses seen in other requests.
//!
//! A key does not tell on which of several image routes its image is, nor whether its server wants slashes encoded. Both
//! are learned from the first request that finds an image; until then each possibility is tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::iiif::Identifier;
use crate::iiif::image_path::{Slashes, slashes_of};

const ENCODED: u8 = 1;
const LITERAL: u8 = 2;

/// `ImageAddresses` is the knowledge about image routes.
#[derive(Debug)]
pub(in crate::heal) struct ImageAddresses {
    /// Routes on which an indexed image was last seen, for each canvas service: by identifiers in the path, and in the
    /// query. `usize::MAX`: no route yet.
    seen_on: Box<[[AtomicUsize; 2]]>,
    /// Spelling of slashes in identifiers, on each route.
    slashes: Box<[AtomicU8]>,
}

/// `ImageAddress` is an identifier as it stands in a URL of this route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::heal) struct ImageAddress {
    pub(in crate::heal) route: usize,
    pub(in crate::heal) sent: Arc<str>,
}

impl ImageAddresses {
    pub(in crate::heal) fn new(routes: usize, services: usize) -> Self {
        let unseen = |_| [AtomicUsize::new(usize::MAX), AtomicUsize::new(usize::MAX)];
        Self {
            seen_on: (0..services.max(1)).map(unseen).collect(),
            slashes: (0..routes).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    /// Notes that an image of this canvas service (by its position) was found on this route, by this identifier.
    pub(in crate::heal) fn found(&self, service: usize, route: usize, sent: &str) {
        if let Some(seen) = self.of(service, sent) {
            seen.store(route, Ordering::Relaxed);
        }
        let slashes = match slashes_of(Identifier::new(sent)) {
            Some(Slashes::Encoded) => ENCODED,
            Some(Slashes::Literal) => LITERAL,
            None => return,
        };
        if let Some(known) = self.slashes.get(route) {
            known.store(slashes, Ordering::Relaxed);
        }
    }

    /// True if images of this service, by identifiers like this one, were last seen on this route.
    pub(in crate::heal) fn knows(&self, service: usize, route: usize, sent: &str) -> bool {
        let slashes = slashes_of(Identifier::new(sent));
        self.of(service, sent).is_some_and(|seen| seen.load(Ordering::Relaxed) == route)
            && (slashes.is_none() || slashes == self.slashes(route))
    }

    /// The route on which images of this service with such keys were seen.
    pub(in crate::heal) fn route(&self, service: usize, key: &str, routes: usize) -> Option<usize> {
        self.of(service, key).map(|seen| seen.load(Ordering::Relaxed)).filter(|route| *route < routes)
    }

    /// The route on which any images were seen.
    pub(in crate::heal) fn any_route(&self, routes: usize) -> Option<usize> {
        let mut services = 0..self.seen_on.len();
        services
            .find_map(|service| self.route(service, "", routes).or_else(|| self.route(service, "?", routes)))
    }

    pub(in crate::heal) fn slashes(&self, route: usize) -> Option<Slashes> {
        match self.slashes.get(route).map(|known| known.load(Ordering::Relaxed)) {
            Some(ENCODED) => Some(Slashes::Encoded),
            Some(LITERAL) => Some(Slashes::Literal),
            _ => None,
        }
    }

    fn of(&self, service: usize, text: &str) -> Option<&AtomicUsize> {
        self.seen_on.get(service).map(|seen| &seen[usize::from(text.contains('?'))])
    }
}
