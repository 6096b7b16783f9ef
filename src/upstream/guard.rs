//! From the name of a canvas to a request that may be sent.
//!
//! A canvas URL comes from a manifest, and a manifest may come from anywhere. It is a *name*, never an address
//! to call: only its path and query are used, only if its host means us (or is the route's own upstream), and
//! only if its path lies under a presentation route. That route says where the request goes.

use std::sync::Arc;

use crate::config::settings::{RouteKind, Settings};
use crate::iiif::CanvasUrl;

/// Decides which canvas URLs may be asked for.
#[derive(Debug, Clone)]
pub struct Guard {
    settings: Arc<Settings>,
}

/// A canvas that may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Allowed {
    /// Position of the presentation route in `settings.routes`.
    pub route: usize,
    /// Path and query to ask for upstream.
    pub visit: String,
    /// The same with `update=true`.
    pub rebuild: String,
}

impl Guard {
    /// The guard for these routes and hosts.
    pub fn new(settings: Arc<Settings>) -> Self {
        Self { settings }
    }

    /// What to ask for, or `None`: this canvas is nobody's that we may call.
    ///
    /// SECURITY: everything that an attacker can write into a manifest ends here: other hosts, other ports,
    /// userinfo, IP literals, dot segments in any spelling, paths outside the canvas service.
    pub fn allow(&self, canvas: &str) -> Option<Allowed> {
        let url = CanvasUrl::parse(canvas)?;
        if url.has_dot_segments() {
            return None;
        }
        let (route, rest) = self.by_public_host(&url).or_else(|| self.by_upstream_host(&url))?;
        let path = format!("{}{rest}", self.settings.routes[route].upstream.path);
        let asked = CanvasUrl { path: &path, ..url };
        Some(Allowed { route, visit: asked.visit(), rebuild: asked.rebuild() })
    }

    /// The URL names us: it belongs where a viewer's request for it would go.
    fn by_public_host<'a>(&self, url: &CanvasUrl<'a>) -> Option<(usize, &'a str)> {
        // A manifest that was fetched through us and kept may name our other host.
        let own = self.settings.rewrite.public_url.as_ref().map(|own| own.authority.as_str());
        let hosts = self.settings.server.public_hosts.iter().map(String::as_str);
        let host = hosts.chain(own).find(|host| url.authority_is(host))?;
        let position = self.settings.route_of(host, url.path)?;
        let route = &self.settings.routes[position];
        (route.kind == RouteKind::Presentation).then(|| (position, &url.path[route.prefix.len()..]))
    }

    /// The URL names the upstream of a presentation route itself.
    fn by_upstream_host<'a>(&self, url: &CanvasUrl<'a>) -> Option<(usize, &'a str)> {
        self.settings.routes.iter().enumerate().find_map(|(position, route)| {
            let named =
                route.kind == RouteKind::Presentation && url.authority_is(route.upstream.authority.as_str());
            let rest = if named { url.path.strip_prefix(&route.upstream.path) } else { None };
            rest.map(|rest| (position, rest))
        })
    }
}
