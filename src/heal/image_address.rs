//! Where an image stands that nobody asks for at the moment: made of its lookup key, and of what readers show.
//!
//! A key tells neither on which of several image routes its image is, nor whether its server wants slashes encoded. Both are
//! learned from the first request that finds an image; until then each possibility is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::config::settings::RouteKind;
use crate::heal::ward::{IndexedImage, Ward};
use crate::iiif::Identifier;
use crate::iiif::image_path::{Slashes, path_of_key, slashes_of};
use crate::observe::Trace;

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
    fn route(&self, key: &str, routes: usize) -> Option<usize> {
        Some(self.of(key).load(Ordering::Relaxed)).filter(|route| *route < routes)
    }

    /// The route on which any images were seen.
    fn any_route(&self, routes: usize) -> Option<usize> {
        self.route("", routes).or_else(|| self.route("?", routes))
    }

    fn slashes(&self, route: usize) -> Option<Slashes> {
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

impl Ward {
    /// The image route that background heals ask. `None`: image routes lead to several servers, and it is not known yet
    /// which of them has what is indexed. (Readers show it, and the canvas service, which asks for what it builds.)
    pub(in crate::heal) fn image_route(&self) -> Option<usize> {
        let routes = &self.settings.routes;
        if let Some(seen) = self.addresses.any_route(routes.len()) {
            return Some(seen);
        }
        let first = self.any_image_route()?;
        let server = &routes[first].upstream;
        let mut images = routes.iter().filter(|route| route.kind == RouteKind::Image);
        images.all(|route| route.upstream.authority == server.authority).then_some(first)
    }

    /// The same; where it is not known, the first one.
    pub(in crate::heal) fn any_image_route(&self) -> Option<usize> {
        let seen = self.addresses.any_route(self.settings.routes.len());
        seen.or_else(|| self.settings.routes.iter().position(|route| route.kind == RouteKind::Image))
    }

    /// The image with this lookup key, as somebody would ask for it. `None`: the index does not know it, it is none that
    /// may be healed, or its key stands in no URL.
    pub(in crate::heal) fn patient(&self, route: usize, key: &str, trace: &Trace) -> Option<IndexedImage> {
        let owners = self.index.owners(key).ok().filter(|owners| !owners.is_empty())?;
        Some(IndexedImage { owners, ..self.unowned(route, key, trace)? })
    }

    /// The same without asking the index.
    pub(in crate::heal) fn unowned(&self, route: usize, key: &str, trace: &Trace) -> Option<IndexedImage> {
        if self.settings.heal.identifiers.as_ref().is_some_and(|pattern| !pattern.is_match(key)) {
            return None;
        }
        let mut addresses = self.addresses_of(route, key);
        let first = (!addresses.is_empty()).then(|| addresses.remove(0))?;
        Some(IndexedImage {
            route: first.route,
            key: key.into(),
            kind: Identifier::new(&first.sent).kind(),
            sent: first.sent,
            others: addresses.into(),
            owners: Arc::new([]),
            trace: trace.clone(),
        })
    }

    /// Where this image may stand, the likeliest first.
    fn addresses_of(&self, route: usize, key: &str) -> Vec<ImageAddress> {
        let routes = &self.settings.routes;
        let seen = self.addresses.route(key, routes.len());
        let first = seen.unwrap_or(route);
        // Another server is a guess, but for identifiers in the query, which few servers have.
        let may_be_on = |at: usize| {
            let is_same = routes[at].upstream.authority == routes[first].upstream.authority;
            routes[at].kind == RouteKind::Image && (is_same || key.contains('?'))
        };
        let is_other = |at: &usize| seen.is_none() && *at != first && may_be_on(*at);
        let others = (0..routes.len()).filter(is_other);
        let mut addresses: Vec<ImageAddress> = Vec::new();
        for route in std::iter::once(first).chain(others) {
            let both = [Slashes::Encoded, Slashes::Literal];
            let known = self.addresses.slashes(route);
            for slashes in both.into_iter().filter(|slashes| known.is_none_or(|known| known == *slashes)) {
                let Some(sent) = path_of_key(key, slashes) else { continue };
                let is_known = addresses.iter().any(|address| {
                    let (own, other) = (&routes[route].upstream, &routes[address.route].upstream);
                    *address.sent == *sent && (&own.authority, &own.path) == (&other.authority, &other.path)
                });
                if !is_known {
                    addresses.push(ImageAddress { route, sent: sent.into() });
                }
            }
        }
        addresses
    }
}
