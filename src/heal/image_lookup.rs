//! Look-up of images in the index: those of requests, and those without a request, which are made of their lookup keys.

use std::sync::Arc;

use crate::config::Settings;
use crate::config::settings::{RouteKind, RouteSettings};
use crate::heal::image::{IndexedImage, RoutedImage};
use crate::heal::image_address::{ImageAddress, ImageAddresses};
use crate::iiif::Identifier;
use crate::iiif::image_path::{Slashes, path_of_key};
use crate::index::{Index, Owner};
use crate::observe::{Metrics, RequestTrace, Span};
use crate::upstream::guard::CanvasGuard;

/// `ImageLookup` finds images in the index.
#[derive(Debug)]
pub(in crate::heal) struct ImageLookup {
    settings: Arc<Settings>,
    /// Marks of the routes, in the order of `settings.routes`. Every image request needs them.
    marks: Box<[u64]>,
    /// The presentation routes, in the order of the canvas services.
    services: Box<[usize]>,
    guard: CanvasGuard,
    pub(in crate::heal) addresses: Arc<ImageAddresses>,
    index: Arc<Index>,
    metrics: Arc<Metrics>,
}

impl ImageLookup {
    pub(in crate::heal) fn new(
        settings: Arc<Settings>,
        addresses: Arc<ImageAddresses>,
        index: Arc<Index>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let marks = settings.routes.iter().map(RouteSettings::mark).collect();
        let routes = settings.routes.iter().enumerate();
        let services =
            routes.filter(|(_, route)| route.kind == RouteKind::Presentation).map(|(at, _)| at).collect();
        let guard = CanvasGuard::new(Arc::clone(&settings));
        Self { settings, marks, services, guard, addresses, index, metrics }
    }

    pub(in crate::heal) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Mark of this route.
    pub(in crate::heal) fn mark(&self, route: usize) -> u64 {
        self.marks[route]
    }

    /// The marks of all image routes.
    pub(in crate::heal) fn image_marks(&self) -> impl Iterator<Item = u64> {
        let routes = self.settings.routes.iter().zip(&self.marks);
        routes.filter(|(route, _)| route.kind == RouteKind::Image).map(|(_, mark)| *mark)
    }

    /// The image of this request with its owners, if the index knows it and it may be healed.
    pub(in crate::heal) fn admit(&self, at: &RoutedImage<'_>) -> Option<IndexedImage> {
        let identifier = at.request.identifier;
        let key = identifier.key();
        if !self.heals(&key) {
            return None;
        }
        let step = Span::step(at.trace, "index");
        let owners = self.index.owners(&key);
        drop(step);
        let owners = match owners {
            Ok(owners) => owners,
            Err(error) => {
                self.metrics.index_lookup("error");
                tracing::error!(request = %at.trace, %error, "the index cannot be read: nothing can be healed until it can");
                return None;
            }
        };
        self.metrics.index_lookup(if owners.is_empty() { "unknown" } else { "known" });
        (!owners.is_empty()).then(|| IndexedImage {
            route: at.route,
            mark: self.marks[at.route],
            key: key.into(),
            sent: identifier.as_sent().into(),
            others: Arc::default(),
            kind: identifier.kind(),
            service: self.service_index(&owners),
            owners,
            trace: at.trace.clone(),
        })
    }

    /// The canvases that own the image of this request.
    pub(in crate::heal) fn owners(&self, at: &RoutedImage<'_>) -> Arc<[Owner]> {
        self.index.owners(&at.request.identifier.key()).unwrap_or_else(|_| Arc::new([]))
    }

    /// Notes that an image of this request was found on its route, which background work uses from then on.
    pub(in crate::heal) fn note_seen(&self, at: &RoutedImage<'_>) {
        let sent = at.request.identifier.as_sent();
        // With one canvas service no look-up is needed.
        if self.services.len() < 2 && self.addresses.knows(0, at.route, sent) {
            return;
        }
        if let Some(image) = self.admit(at) {
            self.addresses.found(image.service, at.route, sent);
        }
    }

    /// Position of the canvas service of an image with these owners.
    pub(in crate::heal) fn service_index(&self, owners: &[Owner]) -> usize {
        if self.services.len() < 2 {
            return 0;
        }
        let service_of = |owner: &Owner| {
            let allowed = self.guard.allow(&owner.canvas)?;
            self.services.iter().position(|route| *route == allowed.route)
        };
        owners.iter().find_map(service_of).unwrap_or_default()
    }

    /// Image route of images with this key of this canvas service: the route on which others were seen. `None`: image
    /// routes lead to several servers, and no image was seen yet.
    fn route_of(&self, service: usize, key: &str, route: usize) -> Option<usize> {
        let routes = &self.settings.routes;
        let seen = self.addresses.route(service, key, routes.len());
        let is_other = |other: &RouteSettings| {
            other.kind == RouteKind::Image && other.upstream.authority != routes[route].upstream.authority
        };
        let is_unclear = self.services.len() > 1 && routes.iter().any(is_other);
        seen.or_else(|| (!is_unclear).then_some(route))
    }

    /// Position of the image route with this mark.
    pub(in crate::heal) fn route_with(&self, mark: u64) -> Option<usize> {
        self.marks.iter().position(|of| *of == mark)
    }

    /// True if images with this key are healed at all.
    pub(in crate::heal) fn heals(&self, key: &str) -> bool {
        self.settings.heal.enabled && self.may_be_healed(key)
    }

    /// True if `[heal] identifiers` includes the key.
    fn may_be_healed(&self, key: &str) -> bool {
        self.settings.heal.identifiers.as_ref().is_none_or(|pattern| pattern.is_match(key))
    }

    /// Image route for background heals. `None`: image routes lead to several servers, and the one with the indexed images
    /// is not known yet. (Requests of readers and of the canvas service show it.)
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

    /// Image route for background heals; the first one where that is not known.
    pub(in crate::heal) fn any_image_route(&self) -> Option<usize> {
        let seen = self.addresses.any_route(self.settings.routes.len());
        seen.or_else(|| self.settings.routes.iter().position(|route| route.kind == RouteKind::Image))
    }

    /// The image with this lookup key, as in a request. `None`: the index does not know it, or it may not be healed, or its
    /// key fits no URL.
    pub(in crate::heal) fn find(
        &self,
        route: usize,
        key: &str,
        trace: &RequestTrace,
    ) -> Option<IndexedImage> {
        let owners = self.index.owners(key).ok().filter(|owners| !owners.is_empty())?;
        let service = self.service_index(&owners);
        let route = self.route_of(service, key, route)?;
        Some(IndexedImage { owners, ..self.unowned(service, route, key, trace)? })
    }

    /// An image of this canvas service (by its position), made without a look-up in the index.
    pub(in crate::heal) fn unowned(
        &self,
        service: usize,
        route: usize,
        key: &str,
        trace: &RequestTrace,
    ) -> Option<IndexedImage> {
        if !self.may_be_healed(key) {
            return None;
        }
        let mut addresses = self.addresses_of(service, route, key);
        let first = (!addresses.is_empty()).then(|| addresses.remove(0))?;
        Some(IndexedImage {
            route: first.route,
            mark: self.marks[first.route],
            key: key.into(),
            kind: Identifier::new(&first.sent).kind(),
            sent: first.sent,
            others: addresses.into(),
            service,
            owners: Arc::new([]),
            trace: trace.clone(),
        })
    }

    /// Addresses that this image may have, the likeliest first.
    fn addresses_of(&self, service: usize, route: usize, key: &str) -> Vec<ImageAddress> {
        let routes = &self.settings.routes;
        let seen = self.addresses.route(service, key, routes.len());
        let first = seen.unwrap_or(route);
        // Another server is only a guess, except for identifiers in the query, which few servers have.
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
