//! Images that nobody asks for at the moment, made of their lookup keys as somebody would ask for them.

use std::sync::Arc;

use crate::config::settings::{Route, RouteKind};
use crate::heal::image_address::ImageAddress;
use crate::heal::ward::{IndexedImage, Ward};
use crate::iiif::Identifier;
use crate::iiif::image_path::{Slashes, path_of_key};
use crate::index::Owner;
use crate::observe::Trace;

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

    /// Position of the canvas service of an image with these owners.
    pub(in crate::heal) fn service_index(&self, owners: &[Owner]) -> usize {
        if self.services.len() < 2 {
            return 0;
        }
        let service_of = |owner: &Owner| {
            let allowed = self.guard.allow(&owner.canvas)?;
            self.services.iter().position(|service| service.route == allowed.route)
        };
        owners.iter().find_map(service_of).unwrap_or_default()
    }

    /// The image route of images with these owners: that on which others of the same canvas service were seen. `None`: image
    /// routes lead to several servers, and none was seen yet.
    fn route_of(&self, service: usize, key: &str, route: usize) -> Option<usize> {
        let routes = &self.settings.routes;
        let seen = self.addresses.route(service, key, routes.len());
        let is_other = |other: &Route| {
            other.kind == RouteKind::Image && other.upstream.authority != routes[route].upstream.authority
        };
        let is_unclear = self.services.len() > 1 && routes.iter().any(is_other);
        seen.or_else(|| (!is_unclear).then_some(route))
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
        let service = self.service_index(&owners);
        let route = self.route_of(service, key, route)?;
        Some(IndexedImage { owners, ..self.unowned(service, route, key, trace)? })
    }

    /// The same without asking the index, for an image of this canvas service (by its position).
    pub(in crate::heal) fn unowned(
        &self,
        service: usize,
        route: usize,
        key: &str,
        trace: &Trace,
    ) -> Option<IndexedImage> {
        if self.settings.heal.identifiers.as_ref().is_some_and(|pattern| !pattern.is_match(key)) {
            return None;
        }
        let mut addresses = self.addresses_of(service, route, key);
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
    fn addresses_of(&self, service: usize, route: usize, key: &str) -> Vec<ImageAddress> {
        let routes = &self.settings.routes;
        let seen = self.addresses.route(service, key, routes.len());
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
