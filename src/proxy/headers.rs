//! Changes to a request's head on its way to the upstream: as few as HTTP asks for.

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, Version};

use super::ClientInfo;
use super::field_names::{HeaderNameSet, ProxyFields, ViaValue, max_forwards};
use super::forwarding::{
    FORWARDED_HOST, FORWARDED_PATH, FORWARDED_PROTO, forward, forward_client, forward_host,
};
use super::refusal::Refusal;
use super::route::{self, RoutedRequest};
use crate::config::Settings;
use crate::config::settings::{RouteKind, RouteSettings, is_among};
use crate::observe::RequestTrace;
use crate::presentation::RewriteRule;
use crate::upstream::connection_options;

/// Fields that are for one connection only (RFC 9110 section 7.6.1), besides those that `Connection` names.
pub(super) const HOP_BY_HOP: HeaderNameSet<10> = HeaderNameSet::new([
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
]);

/// Context that decides the head of the onward request, besides the request itself.
pub(super) struct OnwardRules<'a> {
    pub(super) settings: &'a Settings,
    pub(super) via: &'a ViaValue,
    pub(super) rewrite: Option<&'a RewriteRule>,
}

/// Turns the head of a request into the upstream's. `rewrite` decides which host the upstream gets.
pub(super) fn prepare_upstream_head(
    head: &mut Parts,
    asked: &RoutedRequest<'_>,
    viewer: &ClientInfo,
    rules: &OnwardRules<'_>,
) -> Result<(), Refusal> {
    let OnwardRules { settings, via, rewrite } = rules;
    let route = &settings.routes[asked.route];
    let host = host_value(head, route, settings)?;
    let headers = &mut head.headers;
    let found = asked.found;
    if found.has(ProxyFields::HOP_BY_HOP) {
        strip_hop_by_hop(headers);
    }
    if found.has(ProxyFields::COOKIE) {
        join_cookies(headers);
    }
    if head.method == Method::OPTIONS {
        decrement_max_forwards(headers);
    }
    // The body streams: hyper answers `100-continue` itself as soon as the upstream reads.
    if found.has(ProxyFields::EXPECT) {
        headers.remove(header::EXPECT);
    }
    forward_client(headers, &host, viewer, &settings.server.trusted_proxies);
    match rewrite {
        Some(rewrite) => rewrite.set_forwarded_host(headers),
        None => forward_host(headers, &host, viewer),
    }
    // UPSTREAM: Cantaloupe writes its own path into `@id` and Location, preceded by this one.
    if let Some(before) = path_before(route).and_then(|path| HeaderValue::from_str(path).ok()) {
        headers.entry(FORWARDED_PATH).or_insert(before);
    }
    if found.has(ProxyFields::VIA) {
        via.append(headers, head.version);
    } else {
        headers.insert(header::VIA, via.own(head.version).clone());
    }
    asked.trace.put(headers, found.has(ProxyFields::TRACE));
    let host = if route.preserve_host {
        host
    } else {
        HeaderValue::from_str(route.upstream.authority.as_str())
            .map_err(|_| Refusal::BadRequest("the upstream's host cannot be written"))?
    };
    headers.insert(header::HOST, host);
    head.uri = target(asked, &route.prefix, &route.upstream.path)?;
    head.version = Version::HTTP_11;
    // hyper keeps parts of the viewer's connection there.
    head.extensions.clear();
    Ok(())
}

/// Applies the rules to this head, for fuzzing; `None` where the request is refused.
#[doc(hidden)]
pub fn rules(settings: &Settings, viewer: &ClientInfo, mut head: Parts) -> Option<Parts> {
    let found = ProxyFields::of(&head.headers);
    route::check_framing(&head, found).ok()?;
    let trusted = is_among(viewer.peer.ip(), &settings.server.trusted_proxies);
    let (uri, trace) = (head.uri.clone(), RequestTrace::of(&head.headers, trusted));
    let asked = route::route(settings, &head, (&uri, found), &trace).ok()?;
    let via = ViaValue::new(&settings.server.name);
    prepare_upstream_head(&mut head, &asked, viewer, &OnwardRules { settings, via: &via, rewrite: None })
        .ok()?;
    Some(head)
}

/// Path before the upstream's own path on an image route: `/library` where `/library/iiif/2/` leads to `/iiif/2/`. Without
/// it the image server would name itself by URLs that lead past us.
fn path_before(route: &RouteSettings) -> Option<&str> {
    let before = route.prefix.strip_suffix(&route.upstream.path)?;
    (route.kind == RouteKind::Image && !before.is_empty()).then_some(before)
}

/// HTTP/2 may send cookies in several fields, HTTP/1.1 in one only (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if !headers.contains_key(header::COOKIE) || headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

fn decrement_max_forwards(headers: &mut HeaderMap) {
    if let Some(steps) = max_forwards(headers) {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(steps.saturating_sub(1)));
    }
}

/// Removes hop-by-hop fields, in either direction.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = connection_options(headers)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            // SECURITY: `Connection: host` and the like would remove fields that the next server needs to be safe.
            .filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::VIA))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    HOP_BY_HOP.remove_from(headers);
}

/// Scheme and host of the viewer's request; a trusted proxy knows them better.
pub(super) fn own_base(head: &Parts, viewer: &ClientInfo, settings: &Settings) -> String {
    let mut fields = head.headers.clone();
    let host = super::route::host(head).ok().filter(|host| !host.is_empty());
    let host = host.or(settings.server.public_hosts.first().map(String::as_str));
    let host = host.and_then(|host| host.parse().ok()).unwrap_or(HeaderValue::from_static("localhost"));
    forward(&mut fields, &host, viewer, &settings.server.trusted_proxies);
    let told =
        |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    format!("{}://{}", told(FORWARDED_PROTO), told(FORWARDED_HOST))
}

/// Host of the viewer's request; where HTTP/1.0 names none, our public one.
fn host_value(head: &Parts, route: &RouteSettings, settings: &Settings) -> Result<HeaderValue, Refusal> {
    if let (None, Some(host)) = (head.uri.authority(), head.headers.get(header::HOST)) {
        return Ok(host.clone());
    }
    let host = match super::route::host(head)? {
        "" => settings.server.public_hosts.first().map_or(route.upstream.authority.as_str(), String::as_str),
        host => host,
    };
    HeaderValue::from_str(host).map_err(|_| Refusal::BadRequest("Host is not a host"))
}

/// The route's prefix replaced by the upstream's path; everything behind it byte for byte.
fn target(asked: &RoutedRequest<'_>, prefix: &str, path: &str) -> Result<Uri, Refusal> {
    let refused = |_| Refusal::BadRequest("the target cannot be forwarded");
    let same = (prefix == path).then(|| asked.uri().path_and_query().cloned()).flatten();
    // A full target may have a query and no path, or nothing at all: `http://a.example?x`, `http://a.example#x`.
    let same = same.filter(|same| same.as_str().starts_with('/'));
    let same = same.map(|same| if same == "/" { PathAndQuery::from_static("/") } else { same });
    let target = match (same, asked.uri().query()) {
        (Some(same), _) => same,
        (None, Some(query)) => {
            PathAndQuery::try_from(format!("{path}{}?{query}", asked.path_in_route())).map_err(refused)?
        }
        (None, None) => {
            PathAndQuery::try_from(format!("{path}{}", asked.path_in_route())).map_err(refused)?
        }
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).map_err(|_| Refusal::BadRequest("the target cannot be forwarded"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::proxy) fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn connection_and_all_that_it_names_stay_on_their_hop() {
        let mut map = headers(&[
            ("connection", "close, x-secret"),
            ("connection", "x-other, host"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("host", "a.example"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("host", "a.example"), ("accept", "*/*")]));
    }

    #[test]
    fn a_member_of_connection_that_is_no_name_takes_no_other_one_along() {
        let mut map = headers(&[("x-secret", "1"), ("x-other", "1"), ("x-stays", "1")]);
        for value in [&b"\xff, x-secret"[..], b"a b,, \t,x-other\t,\"x-stays\""] {
            map.append("connection", HeaderValue::from_bytes(value).expect("a value"));
        }
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("x-stays", "1")]));
    }

    #[test]
    fn cookies_in_several_fields_become_one() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
        join_cookies(&mut map);
        assert_eq!(map, headers(&[("cookie", "a=1; b=2; c=3")]));
    }
}
