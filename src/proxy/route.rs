//! Routing: from a request's target to its route, or to a refusal. Pure; the path is never changed.

use http::request::Parts;
use http::uri::Uri;
use http::{Method, Version, header};

use super::field_names::{ProxyFields, max_forwards_reached};
use super::refusal::{MalformedHead, Refusal};
use crate::config::Settings;
use crate::config::settings::RouteKind;
use crate::iiif::ImageRequest;
use crate::observe::RequestTrace;

/// A request that belongs to a route.
#[derive(Debug)]
pub(super) struct RoutedRequest<'a> {
    /// Position in `settings.routes`.
    pub(super) route: usize,
    pub(super) route_kind: RouteKind,
    /// Fields of the request.
    pub(super) found: ProxyFields,
    /// Id of the request.
    pub(super) trace: &'a RequestTrace,
    uri: &'a Uri,
    /// Offset at which the path goes on behind the route's prefix.
    rest_at: usize,
}

/// Route of a request, without the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoutePlace {
    route: usize,
    route_kind: RouteKind,
    found: ProxyFields,
    rest_at: usize,
}

impl RoutePlace {
    /// Request of this place with the target `uri`.
    pub(super) fn of<'a>(self, uri: &'a Uri, trace: &'a RequestTrace) -> RoutedRequest<'a> {
        let Self { route, route_kind, found, rest_at } = self;
        RoutedRequest { route, route_kind, found, trace, uri, rest_at }
    }
}

impl<'a> RoutedRequest<'a> {
    /// Route of the request, without the request.
    pub(super) fn place(&self) -> RoutePlace {
        let Self { route, route_kind, found, rest_at, .. } = *self;
        RoutePlace { route, route_kind, found, rest_at }
    }

    /// The path behind the route's prefix, byte for byte as it came, without the query.
    pub(super) fn path_in_route(&self) -> &'a str {
        &self.uri.path()[self.rest_at..]
    }

    /// Path within the route with the query, which may hold the identifier.
    fn rest_and_query(&self) -> &'a str {
        let target = self.uri.path_and_query().map_or("", |target| target.as_str());
        target.get(self.rest_at..).unwrap_or_default()
    }

    /// Path and query as they came.
    pub(super) fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// Requested image, on an image route. Reads the path: once for each request.
    pub(super) fn image(&self) -> Option<ImageRequest<'a>> {
        match self.route_kind {
            RouteKind::Image => ImageRequest::parse(self.rest_and_query()),
            RouteKind::Presentation | RouteKind::Plain => None,
        }
    }

    /// Name in labels and logs.
    pub(super) fn kind(&self) -> &'static str {
        match self.route_kind {
            RouteKind::Image => "image",
            RouteKind::Presentation => "presentation",
            RouteKind::Plain => "plain",
        }
    }
}

/// Finds the route of a request with the target `uri`.
pub(super) fn route<'a>(
    settings: &Settings,
    head: &Parts,
    (uri, found): (&'a Uri, ProxyFields),
    trace: &'a RequestTrace,
) -> Result<RoutedRequest<'a>, Refusal> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    let host = host(head)?;
    let path = head.uri.path();
    if head.uri.path_and_query().map_or(0, |target| target.as_str().len()) > settings.server.max_uri_bytes {
        return Err(Refusal::UriTooLong);
    }
    if head.method == Method::OPTIONS && (path == "*" || max_forwards_reached(&head.headers)) {
        return Err(Refusal::Options);
    }
    if !path.starts_with('/') {
        return Err(Refusal::BadRequest("the target must be a path"));
    }
    if has_dot_segment(path) {
        return Err(Refusal::BadRequest("the path must not hold dot segments"));
    }
    if found.has(ProxyFields::EXPECT) && !is_expected(head) {
        return Err(Refusal::Expectation);
    }
    let position = settings.route_of(host, path).ok_or(Refusal::NoRoute)?;
    let route = &settings.routes[position];
    Ok(RoutedRequest {
        route: position,
        route_kind: route.kind,
        found,
        trace,
        rest_at: route.prefix.len(),
        uri,
    })
}

/// True if the request expects nothing, or only `100-continue`. One expectation is defined (RFC 9110 section 10.1.1); hyper
/// heeds the last line of several.
fn is_expected(head: &Parts) -> bool {
    let Some(expected) = head.headers.get(header::EXPECT) else { return true };
    let is_only = head.headers.get_all(header::EXPECT).iter().nth(1).is_none();
    is_only && expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// Refuses the substitute for a malformed head.
pub(super) fn readable(head: &Parts) -> Result<(), Refusal> {
    head.extensions.get().map_or(Ok(()), |MalformedHead(status)| Err(Refusal::Malformed(*status)))
}

/// Refuses a request whose end is in doubt; checked before everything else, because only this refusal ends the connection.
pub(super) fn check_framing(head: &Parts, found: ProxyFields) -> Result<(), Refusal> {
    if !found.has(ProxyFields::TRANSFER_ENCODING | ProxyFields::CONTENT_LENGTH) {
        return Ok(());
    }
    if !is_framed_plainly(head) {
        return Err(Refusal::BadRequest("of transfer codings only chunked is understood"));
    }
    if !has_one_length(head) {
        return Err(Refusal::BadRequest("the length of the body is in doubt"));
    }
    Ok(())
}

/// True for no `Content-Length`, or one of digits.
///
/// SECURITY: HTTP/2 has its own end of a body, so these fields were not checked; upstream, in HTTP/1.1, they end it.
fn has_one_length(head: &Parts) -> bool {
    let Some(length) = head.headers.get(header::CONTENT_LENGTH) else { return true };
    let is_only = head.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_none();
    is_only && !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit)
}

/// True if there is no transfer coding but one `chunked`.
///
/// SECURITY: hyper takes the chunks off and leaves a coding below them in place; the field stays on this hop, so the
/// upstream would take coded bytes for plain ones.
fn is_framed_plainly(head: &Parts) -> bool {
    let Some(coding) = head.headers.get(header::TRANSFER_ENCODING) else { return true };
    let is_only = head.headers.get_all(header::TRANSFER_ENCODING).iter().nth(1).is_none();
    is_only && coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Host that the viewer means: the target's own if it has one, else the one `Host` (RFC 9112 section 3.2). Empty where
/// HTTP/1.0 names none: then the routes for every host are left.
///
/// SECURITY: a request with two hosts, or none, is read differently by different servers.
pub(super) fn host(head: &Parts) -> Result<&str, Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::BadRequest("more than one Host"));
    }
    let host =
        host.map(|host| host.to_str().map_err(|_| Refusal::BadRequest("Host is not a host"))).transpose()?;
    let host = match (head.uri.authority(), host) {
        // In HTTP/1.1 the target's authority counts and `Host` is ignored; HTTP/2 wants them equal (RFC 9113 section
        // 8.3.1).
        (Some(authority), Some(host))
            if head.version == Version::HTTP_2 && !host.eq_ignore_ascii_case(authority.as_str()) =>
        {
            return Err(Refusal::BadRequest("Host is not the target's host"));
        }
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host,
        // Health checks send neither.
        (None, None) if head.version == Version::HTTP_10 => return Ok(""),
        (None, None) => return Err(Refusal::BadRequest("no Host")),
    };
    if is_host(host) { Ok(host) } else { Err(Refusal::BadRequest("Host is not a host")) }
}

/// True for a name, an IPv4 address or a bracketed IPv6 address, with or without a port. No userinfo.
fn is_host(host: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    // Nearly all are a name alone.
    if host.bytes().all(plain) {
        return !host.is_empty();
    }
    let (name, port) = match host.rsplit_once(':') {
        // Colons of an IPv6 address stand inside its brackets.
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_name = bracketed.map_or_else(
        || !name.is_empty() && name.bytes().all(plain),
        |address| address.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    // An empty port is allowed by RFC 3986 and means the scheme's own.
    is_name && port.is_none_or(|port| port.is_empty() || port.parse::<u16>().is_ok_and(|_| is_digits(port)))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// True if any segment reads as `.` or `..`, with `%2e` for a dot, `%2f`, `%5c` or a backslash for a slash, and with or
/// without parameters behind a `;`?
///
/// SECURITY: `/iiif/2/../../admin` must not leave its route, however the upstream resolves it. (Servlet containers cut `;x`
/// off a segment before they resolve it, so `/..;x/` climbs there.)
fn has_dot_segment(path: &str) -> bool {
    // Nearly every path has none of these bytes but the dot of a file's name: then the checks below are skipped.
    let bytes = path.as_bytes();
    let is_suspect = |at: usize| bytes[at] != b'.' || at == 0 || bytes[at - 1] == b'/';
    if !memchr::memchr3_iter(b'.', b'%', b'\\', bytes).any(is_suspect) {
        return false;
    }
    let mut segment = Segment::default();
    let mut rest = path.as_bytes();
    while let Some((byte, behind)) = first_byte(rest) {
        rest = behind;
        match byte {
            b'/' | b'\\' if segment.is_dots() => return true,
            b'/' | b'\\' => segment = Segment::default(),
            byte => segment.take(byte),
        }
    }
    segment.is_dots()
}

/// The first byte, decoded if it is escaped, and what stands behind it.
fn first_byte(path: &[u8]) -> Option<(u8, &[u8])> {
    match path {
        [b'%', high, low, rest @ ..] => match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) => Some((high << 4 | low, rest)),
            _ => Some((b'%', &path[1..])),
        },
        [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The bytes of one path segment, as far as they matter.
#[derive(Default)]
struct Segment {
    dots: usize,
    others: bool,
    /// Set by `;`: parameters follow, which count for nothing.
    ended: bool,
}

impl Segment {
    fn take(&mut self, byte: u8) {
        match byte {
            _ if self.ended => {}
            b';' => self.ended = true,
            b'.' => self.dots += 1,
            _ => self.others = true,
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
        for path in [
            "/a/../b",
            "/a/./b",
            "/..",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a%2f..%2fb",
            "/a/..\\b",
            "/a%5c..%5Cb",
            "/a/..;/b",
            "/a/.;x=y/b",
            "/a/%2e.%3bx/b",
            "/a/%/../b",
            "/a%/../b",
            "/a/%2/../b",
            "/a/%zz/..",
            "/a/..%2f",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in [
            "/",
            "/a.b/c..d",
            "/...",
            "/a/%2e%2e%2e",
            "/a%2Fb",
            "/.well-known/x",
            "/a/%25%32e",
            "/a;..",
            "/a/x;/..x",
            "/a/%2",
            "/9f1b;2/full",
            "/%2e%2e.jpg",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }

    fn asking(version: Version, target: &str, hosts: &[&str]) -> Parts {
        let mut request = http::Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn host_of(target: &str, hosts: &[&str]) -> Option<String> {
        host(&asking(Version::HTTP_11, target, hosts)).ok().map(str::to_owned)
    }

    #[test]
    fn exactly_one_plausible_host_is_needed() {
        for good in ["a.example", "A.example:8080", "a_b.example:", "127.0.0.1:1", "[::1]", "[::1]:80", "x"] {
            assert_eq!(host_of("/x", &[good]).as_deref(), Some(good));
        }
        for bad in [
            "", ":", ":80", "a b", "a/b", "a@b", "a:b", "a:b:1", "a:99999", "a:+1", "::1", "[::1", "[x]",
            "a,b", "a?b",
        ] {
            assert_eq!(host_of("/x", &[bad]), None, "{bad:?}");
        }
        assert_eq!(host_of("/x", &[]), None);
        assert_eq!(host_of("/x", &["a", "a"]), None);
        assert_eq!(host(&asking(Version::HTTP_10, "/x", &[])).ok(), Some(""));
        assert!(host(&asking(Version::HTTP_10, "/x", &[""])).is_err());
    }

    #[test]
    fn one_length_of_digits_and_one_expectation_are_taken() {
        let with = |name: &'static str, values: &[&'static str]| {
            let mut head = asking(Version::HTTP_2, "http://a/x", &[]);
            for value in values {
                head.headers.append(name, http::HeaderValue::from_static(value));
            }
            (check_framing(&head, ProxyFields::of(&head.headers)).is_ok(), is_expected(&head))
        };
        assert_eq!(with("content-length", &["5"]), (true, true));
        for bad in
            [&["5", "5"][..], &["5", "05"], &["5, 5"], &["5,5"], &["+5"], &["-0"], &[""], &["5 5"], &["0x5"]]
        {
            assert_eq!(with("content-length", bad), (false, true), "{bad:?}");
        }
        assert_eq!(with("expect", &["100-Continue"]), (true, true));
        for bad in
            [&["100-continue", "100-continue"][..], &["100-continue", "x"], &["100-continue, x"], &[""]]
        {
            assert_eq!(with("expect", bad), (true, false), "{bad:?}");
        }
    }

    #[test]
    fn the_targets_own_host_counts_and_http_2_allows_no_other_beside_it() {
        assert_eq!(host_of("http://a/x", &["b"]).as_deref(), Some("a"));
        assert_eq!(host_of("http://u@a/x", &["a"]), None);
        assert!(host(&asking(Version::HTTP_2, "http://a/x", &["b"])).is_err());
        assert!(host(&asking(Version::HTTP_2, "http://a/x", &["A"])).is_ok());
        assert!(host(&asking(Version::HTTP_2, "http://a/x", &[])).is_ok());
    }
}
