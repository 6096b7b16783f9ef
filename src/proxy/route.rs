//! From a request's target to its route, or to a refusal. Pure; the path is never changed.

use http::request::Parts;
use http::uri::Uri;
use http::{HeaderMap, Method, header};

use super::reply::Refusal;
use crate::config::Settings;
use crate::config::settings::RouteKind;
use crate::heal::{Lobby, echo};
use crate::iiif::{ImageRequest, Target};

/// A request that belongs to a route.
#[derive(Debug)]
pub(super) struct Asked {
    /// Position in `settings.routes`.
    pub(super) route: usize,
    pub(super) route_kind: RouteKind,
    uri: Uri,
    /// Where the path goes on behind the route's prefix.
    rest_at: usize,
}

impl Asked {
    /// The path behind the route's prefix, byte for byte as it came, without the query.
    pub(super) fn rest(&self) -> &str {
        &self.uri.path()[self.rest_at..]
    }

    /// Path and query as they came.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whose image is asked for, on an image route.
    pub(super) fn image(&self) -> Option<Lobby<'_>> {
        let request = match self.route_kind {
            RouteKind::Image => ImageRequest::parse(self.rest())?,
            RouteKind::Presentation | RouteKind::Plain => return None,
        };
        Some(Lobby { route: self.route, request })
    }

    /// Is it JSON for viewers: a manifest, a canvas, an info.json?
    pub(super) fn is_document(&self) -> bool {
        self.route_kind == RouteKind::Presentation
            || self.image().is_some_and(|image| image.request.target == Target::Info)
    }

    /// The word used in labels and logs.
    pub(super) fn kind(&self) -> &'static str {
        match self.route_kind {
            RouteKind::Image => "image",
            RouteKind::Presentation => "presentation",
            RouteKind::Plain => "plain",
        }
    }
}

/// Finds the route of a request.
pub(super) fn route(settings: &Settings, head: &Parts) -> Result<Asked, Refusal> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    let host = host(&head.uri, &head.headers)?;
    let path = head.uri.path();
    if head.uri.path_and_query().map_or(0, |target| target.as_str().len()) > settings.server.max_uri_bytes {
        return Err(Refusal::UriTooLong);
    }
    if !path.starts_with('/') {
        return Err(Refusal::BadRequest("the target must be a path"));
    }
    if has_dot_segment(path) {
        return Err(Refusal::BadRequest("the path must not hold dot segments"));
    }
    // Our own name once is an echo; twice is a circle.
    if echo::own_vias(&head.headers, &settings.server.name) > 1 {
        return Err(Refusal::Loop);
    }
    let position = settings.route_of(host, path).ok_or(Refusal::NoRoute)?;
    let route = &settings.routes[position];
    Ok(Asked { route: position, route_kind: route.kind, rest_at: route.prefix.len(), uri: head.uri.clone() })
}

/// The host that the viewer means: the target's own where it has one, else the one `Host` (RFC 9112 section 3.2).
///
/// SECURITY: a request with two hosts, or none, is read differently by different servers.
pub(super) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::BadRequest("more than one Host"));
    }
    let host =
        host.map(|host| host.to_str().map_err(|_| Refusal::BadRequest("Host is not a host"))).transpose()?;
    let host = match (uri.authority(), host) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host,
        (None, None) => return Err(Refusal::BadRequest("no Host")),
    };
    let plausible =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || !host.bytes().all(plausible) {
        return Err(Refusal::BadRequest("Host is not a host"));
    }
    Ok(host)
}

/// Does any segment read as `.` or `..`, with `%2e` for a dot and `%2f`, `%5c` or a backslash for a slash?
///
/// SECURITY: `/iiif/2/../../admin` must not leave its route, whatever the upstream makes of it.
fn has_dot_segment(path: &str) -> bool {
    // Nearly every path has neither; then nothing else is looked at.
    if !path.contains("/.") && !path.contains('%') && !path.contains('\\') {
        return false;
    }
    let mut segment = Segment::default();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => match (bytes.next(), bytes.next()) {
                (Some(b'2'), Some(b'e' | b'E')) => b'.',
                (Some(b'2'), Some(b'f' | b'F')) | (Some(b'5'), Some(b'c' | b'C')) => b'/',
                _ => b'x',
            },
            b'\\' => b'/',
            byte => byte,
        };
        if byte == b'/' {
            if segment.is_dots() {
                return true;
            }
            segment = Segment::default();
        } else {
            segment.take(byte);
        }
    }
    segment.is_dots()
}

/// The bytes of one path segment, as far as they matter.
#[derive(Default)]
struct Segment {
    dots: usize,
    others: bool,
}

impl Segment {
    fn take(&mut self, byte: u8) {
        if byte == b'.' {
            self.dots += 1;
        } else {
            self.others = true;
        }
    }

    fn is_dots(&self) -> bool {
        !self.others && matches!(self.dots, 1 | 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_seen_in_every_spelling() {
        for path in
            ["/a/../b", "/a/./b", "/..", "/a/%2e%2E/b", "/a/.%2e", "/a%2f..%2fb", "/a/..\\b", "/a%5c..%5Cb"]
        {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in ["/", "/a.b/c..d", "/...", "/a/%2e%2e%2e", "/a%2Fb", "/.well-known/x", "/a/%25%32e"] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }

    #[test]
    fn exactly_one_plausible_host_is_needed() {
        let uri: Uri = "/iiif/2/a".parse().expect("a target");
        let mut headers = HeaderMap::new();
        assert!(host(&uri, &headers).is_err());
        headers.append(header::HOST, http::HeaderValue::from_static("a.example:8080"));
        assert_eq!(host(&uri, &headers).ok(), Some("a.example:8080"));
        headers.append(header::HOST, http::HeaderValue::from_static("b.example"));
        assert!(host(&uri, &headers).is_err());
        for bad in ["a b", "a/b", "a@b", ""] {
            let headers = HeaderMap::from_iter([(header::HOST, http::HeaderValue::from_static(bad))]);
            assert!(host(&uri, &headers).is_err(), "{bad:?}");
        }
    }
}
