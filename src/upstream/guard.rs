//! Guard: turns the name of a canvas into a request that may be sent.
//!
//! A canvas URL comes from a manifest, and a manifest may come from anywhere. It is a *name*, never an address
//! to call: only its path and query are used, only if its host means us (or is the route's own upstream), and
//! only if its path lies under a presentation route. That route says where the request goes.

use std::sync::Arc;

use crate::config::settings::{RouteKind, RouteSettings, Settings};
use crate::iiif::CanvasUrl;
use crate::iiif::canvas::uri;

/// Decides which canvas URLs may be asked for.
#[derive(Debug, Clone)]
pub struct CanvasGuard {
    settings: Arc<Settings>,
    /// Marks of the routes.
    marks: Arc<[u64]>,
}

/// A canvas that may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CanvasTarget {
    /// Position of the presentation route in `settings.routes`.
    pub route: usize,
    /// The [mark](crate::config::settings::RouteSettings::mark) of that route.
    pub mark: u64,
    /// Request target of the canvas.
    pub visit: String,
    /// Request target of the canvas with `update=true`.
    pub rebuild: String,
    /// Request target of a canvas that is built beside the stored one; `None`: the canvas URL has a `disallow` of its own.
    pub variant: Option<String>,
}

impl CanvasGuard {
    /// The guard for these routes and hosts.
    pub fn new(settings: Arc<Settings>) -> Self {
        let marks = settings.routes.iter().map(RouteSettings::mark).collect();
        Self { settings, marks }
    }

    /// Request target for a canvas; `None`: its URL leads to no upstream that we may call.
    ///
    /// SECURITY: everything that an attacker can write into a manifest ends here: other hosts, other ports,
    /// userinfo, IP literals, dot segments in any spelling, paths outside the canvas service.
    pub fn allow(&self, canvas: &str) -> Option<CanvasTarget> {
        // A name is encoded first and judged afterwards.
        let canvas = uri(canvas)?;
        let url = CanvasUrl::parse(&canvas)?;
        if url.has_dot_segments() {
            return None;
        }
        let (route, rest) = self.by_public_host(&url).or_else(|| self.by_upstream_host(&url))?;
        let path = format!("{}{rest}", self.settings.routes[route].upstream.path);
        let asked = CanvasUrl { path: &path, ..url };
        Some(CanvasTarget {
            route,
            mark: self.marks[route],
            visit: asked.visit_target(),
            rebuild: asked.rebuild_target(),
            variant: asked.variant(),
        })
    }

    /// Finds the route of a URL that names us: the one that a viewer's request for it would take.
    fn by_public_host<'a>(&self, url: &CanvasUrl<'a>) -> Option<(usize, &'a str)> {
        // A manifest that was fetched through us and stored may name our other host.
        let own = self.settings.rewrite.public_url.as_ref().map(|own| own.authority.as_str());
        let hosts = self.settings.server.public_hosts.iter().map(String::as_str);
        let host = hosts.chain(own).find(|host| url.authority_is(host))?;
        let position = self.settings.route_of(host, url.path)?;
        let route = &self.settings.routes[position];
        (route.kind == RouteKind::Presentation).then(|| (position, &url.path[route.prefix.len()..]))
    }

    /// Finds the presentation route whose upstream the URL names.
    fn by_upstream_host<'a>(&self, url: &CanvasUrl<'a>) -> Option<(usize, &'a str)> {
        self.settings.routes.iter().enumerate().find_map(|(position, route)| {
            let named =
                route.kind == RouteKind::Presentation && url.authority_is(route.upstream.authority.as_str());
            let rest = if named { url.path.strip_prefix(&route.upstream.path) } else { None };
            rest.map(|rest| (position, rest))
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::tests::settings_of;

    fn guard() -> CanvasGuard {
        let text = r#"
            [server]
            public_hosts = ["us.example", "us.example:8443"]
            [[routes]]
            prefix = "/iiif/2/"
            upstream = "http://images.internal/iiif/2/"
            kind = "image"
            [[routes]]
            prefix = "/iiif-service/"
            upstream = "http://service.internal:9000/inner/"
            kind = "presentation"
            [[routes]]
            prefix = "/iiif-service/private/"
            upstream = "http://private.internal/"
            [[routes]]
            prefix = "/other/"
            upstream = "http://other.internal/"
            kind = "presentation"
            hosts = ["other.example"]
        "#;
        CanvasGuard::new(Arc::new(settings_of(text)))
    }

    #[rstest]
    #[case::as_it_should("https://us.example/iiif-service/canvas/a", "/inner/canvas/a")]
    #[case::port_of_the_scheme("https://us.example:443/iiif-service/canvas/a", "/inner/canvas/a")]
    #[case::a_named_port("https://US.EXAMPLE:8443/iiif-service/canvas/a", "/inner/canvas/a")]
    #[case::query_is_its_own("http://us.example/iiif-service/a?page=2&x=%2f", "/inner/a?page=2&x=%2f")]
    #[case::dots_in_the_query("http://us.example/iiif-service/a?x=/../", "/inner/a?x=/../")]
    #[case::the_upstream_itself("http://service.internal:9000/inner/canvas/a", "/inner/canvas/a")]
    #[case::space("https://us.example/iiif-service/ir i-1?a=b c", "/inner/ir%20i-1?a=b%20c")]
    #[case::letters_beyond_ascii("https://us.example/iiif-service/irié-2", "/inner/iri%C3%A9-2")]
    #[case::no_escape("https://us.example/iiif-service/100%/a", "/inner/100%25/a")]
    #[case::double_slashes("https://us.example/iiif-service//evil.example/a", "/inner//evil.example/a")]
    fn a_canvas_of_ours_goes_to_its_route(#[case] canvas: &str, #[case] visit: &str) {
        let guard = guard();
        let allowed = guard.allow(canvas).expect("it is ours");
        let route = &guard.settings.routes[allowed.route];
        assert_eq!((route.upstream.authority.as_str(), &*allowed.visit), ("service.internal:9000", visit));
        assert!(allowed.rebuild.starts_with(visit) && allowed.rebuild.ends_with("update=true"));
    }

    #[rstest]
    #[case::nothing("")]
    #[case::other_host("https://evil.example/iiif-service/canvas/a")]
    #[case::longer_host("https://us.example.evil.example/iiif-service/a")]
    #[case::trailing_dot("https://us.example./iiif-service/a")]
    #[case::other_port("https://us.example:22/iiif-service/a")]
    #[case::port_of_the_other_scheme("http://us.example:443/iiif-service/a")]
    #[case::userinfo("https://us.example@evil.example/iiif-service/a")]
    #[case::userinfo_of_ours("https://root@us.example/iiif-service/a")]
    #[case::backslash("https://us.example\\@evil.example/iiif-service/a")]
    #[case::scheme("file://us.example/iiif-service/a")]
    #[case::no_scheme("//us.example/iiif-service/a")]
    #[case::path_only("/iiif-service/a")]
    #[case::image_route("https://us.example/iiif/2/a")]
    #[case::longer_plain_route("https://us.example/iiif-service/private/a")]
    #[case::no_route("https://us.example/")]
    #[case::route_of_another_host("https://us.example/other/a")]
    #[case::upstream_with_the_public_path("http://service.internal:9000/iiif-service/a")]
    #[case::upstream_without_its_port("http://service.internal/inner/a")]
    #[case::image_upstream("http://images.internal/iiif/2/a")]
    #[case::dots("https://us.example/iiif-service/../private/a")]
    #[case::escaped_dots("https://us.example/iiif-service/%2E%2e/private/a")]
    #[case::escaped_slash("https://us.example/iiif-service/..%2Fa")]
    #[case::parameters("https://us.example/iiif-service/..;a=b/a")]
    #[case::newline("https://us.example/iiif-service/a\r\nHost: x")]
    #[case::control_beyond_ascii("https://us.example/iiif-service/\u{85}/a")]
    #[case::host_beyond_ascii("https://us.examplé/iiif-service/a")]
    #[case::space_in_userinfo("https://a b@us.example/iiif-service/a")]
    #[case::space_and_dots("https://us.example/iiif-service/a b/../c")]
    #[case::prefix_with_a_space("https://us.example/iiif-service /a")]
    fn anything_else_is_nobodys(#[case] canvas: &str) {
        assert_eq!(guard().allow(canvas), None);
    }
}
