//! Where an image stands that nobody asks for at the moment: made of its lookup key, and of what readers show.
//!
//! A key tells neither on which of several image routes its image is, nor whether its server wants slashes encoded. Both are
//! learned from the first request that finds an image; until then each possibility is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::iiif::Identifier;
use crate::iiif::image_path::{Slashes, slashes_of};

const ENCODED: u8 = 1;
const LITERAL: u8 = 2;

/// `ImageAddresses` is what is known of the image routes.
#[derive(Debug)]
pub(in crate::heal) struct ImageAddresses {
    /// The routes on which an indexed image was last seen: with its identifier in the path, and in the query. None yet:
    /// `usize::MAX`.
    seen_on: [AtomicUsize; 2],
    /// How the slashes of identifiers are written, on each route.
    slashes: Box<[AtomicU8]>,
}

/// `ImageAddress` is the identifier as it stands in a URL of this route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::heal) struct ImageAddress {
    pub(in crate::heal) route: usize,
    pub(in crate::heal) sent: Arc<str>,
}

impl ImageAddresses {
    pub(in crate::heal) fn new(routes: usize) -> Self {
        let seen_on = [AtomicUsize::new(usize::MAX), AtomicUsize::new(usize::MAX)];
        Self { seen_on, slashes: (0..routes).map(|_| AtomicU8::new(0)).collect() }
    }

    /// An image was found on this route, by this identifier.
    pub(in crate::heal) fn found(&self, route: usize, sent: &str) {
        self.of(sent).store(route, Ordering::Relaxed);
        let slashes = match slashes_of(Identifier::new(sent)) {
            Some(Slashes::Encoded) => ENCODED,
            Some(Slashes::Literal) => LITERAL,
            None => return,
        };
        if let Some(known) = self.slashes.get(route) {
            known.store(slashes, Ordering::Relaxed);
        }
    }

    /// Whether images by identifiers like this one were last seen on this route.
    pub(in crate::heal) fn knows(&self, route: usize, sent: &str) -> bool {
        let slashes = slashes_of(Identifier::new(sent));
        self.of(sent).load(Ordering::Relaxed) == route
            && (slashes.is_none() || slashes == self.slashes(route))
    }

    /// The route on which images with such keys were seen.
    pub(in crate::heal) fn route(&self, key: &str, routes: usize) -> Option<usize> {
        Some(self.of(key).load(Ordering::Relaxed)).filter(|route| *route < routes)
    }

    /// The route on which any images were seen.
    pub(in crate::heal) fn any_route(&self, routes: usize) -> Option<usize> {
        self.route("", routes).or_else(|| self.route("?", routes))
    }

    pub(in crate::heal) fn slashes(&self, route: usize) -> Option<Slashes> {
        match self.slashes.get(route).map(|known| known.load(Ordering::Relaxed)) {
            Some(ENCODED) => Some(Slashes::Encoded),
            Some(LITERAL) => Some(Slashes::Literal),
            _ => None,
        }
    }

    fn of(&self, text: &str) -> &AtomicUsize {
        &self.seen_on[usize::from(text.contains('?'))]
    }
}
