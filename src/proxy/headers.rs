//! What changes in a request's head on its way on: as little as HTTP asks for.

use std::fmt::Write as _;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, Version};
use ipnet::IpNet;

use super::Viewer;
use super::forwarded::{self, Element};
use super::reply::Refusal;
use super::route::Asked;
use crate::config::Settings;
use crate::config::settings::{Route, RouteKind};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");
const FORWARDED_ID: HeaderName = HeaderName::from_static("x-forwarded-id");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that are for one connection only (RFC 9110 section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

/// Is this peer one whose `X-Forwarded-*` we believe?
pub(super) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

/// The viewer's own address: the rightmost one in `X-Forwarded-For`, or in `Forwarded` where that is absent, that is
/// no trusted proxy.
///
/// SECURITY: a proxy that writes the one field passes the other on as the viewer made it up. So only one counts.
pub(super) fn client(headers: &HeaderMap, viewer: &Viewer, trusted: &[IpNet]) -> IpAddr {
    let peer = viewer.peer.ip().to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    if !headers.contains_key(FORWARDED_FOR) {
        return vouched(headers, peer, trusted).0;
    }
    let hops = headers.get_all(FORWARDED_FOR).iter().rev().filter_map(|value| value.to_str().ok());
    let mut hops = hops.flat_map(|value| value.rsplit(',')).map(|hop| forwarded::bare_address(hop.trim()));
    // The first hop that cannot be read ends the chain: what stands left of it is hearsay.
    let mut last = peer;
    while let Some(Some(hop)) = hops.next() {
        last = hop;
        if !is_trusted(last, trusted) {
            break;
        }
    }
    last
}

/// The same out of `Forwarded`, and the element that says it: the last one that a trusted proxy vouches for.
fn vouched(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> (IpAddr, Element) {
    let (mut last, mut said) = (peer, Element::default());
    let fields = headers.get_all(header::FORWARDED).iter().rev().map(HeaderValue::as_bytes);
    for elements in fields.map_while(forwarded::parse) {
        for element in elements.into_iter().rev() {
            let hop = element.client;
            said = element;
            match hop {
                Some(hop) if is_trusted(hop, trusted) => last = hop,
                Some(hop) => return (hop, said),
                // Somebody who hides: what stands left of it is hearsay.
                None => return (last, said),
            }
        }
    }
    (last, said)
}

/// The head of the request as it goes upstream.
pub(super) fn onward(
    mut head: Parts,
    asked: &Asked,
    viewer: &Viewer,
    settings: &Settings,
) -> Result<Parts, Refusal> {
    let route = &settings.routes[asked.route];
    let host = host_value(&head)?;
    let headers = &mut head.headers;
    strip_hop_by_hop(headers);
    join_cookies(headers);
    if head.method == Method::OPTIONS {
        one_step_less(headers);
    }
    // The body streams: hyper answers `100-continue` itself as soon as the upstream reads.
    headers.remove(header::EXPECT);
    forward(headers, &host, viewer, &settings.server.trusted_proxies);
    // UPSTREAM: Cantaloupe writes its own path into `@id` and Location, with this one before it.
    if let Some(before) = path_before(route).and_then(|path| HeaderValue::from_str(path).ok()) {
        headers.entry(FORWARDED_PATH).or_insert(before);
    }
    append_via(headers, head.version, &settings.server.name);
    asked.trace.send_on(headers);
    let host = if route.preserve_host {
        host
    } else {
        HeaderValue::from_str(route.upstream.authority.as_str())
            .map_err(|_| Refusal::BadRequest("the upstream's host cannot be written"))?
    };
    headers.insert(header::HOST, host);
    head.uri = target(asked, &route.prefix, &route.upstream.path)?;
    head.version = Version::HTTP_11;
    // hyper keeps things there that belong to the viewer's connection.
    head.extensions.clear();
    Ok(head)
}

/// What stands before the upstream's own path on an image route: `/library` where `/library/iiif/2/` leads to
/// `/iiif/2/`. Without it the image server would name itself in a way that leads past us.
fn path_before(route: &Route) -> Option<&str> {
    let before = route.prefix.strip_suffix(&route.upstream.path)?;
    (route.kind == RouteKind::Image && !before.is_empty()).then_some(before)
}

/// HTTP/2 may send cookies in several fields, HTTP/1.1 in one only (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Is this server the last one that the request wants to reach (RFC 9110 section 7.6.2)?
pub(super) fn is_last_stop(headers: &HeaderMap) -> bool {
    max_forwards(headers) == Some(0)
}

fn one_step_less(headers: &mut HeaderMap) {
    if let Some(steps) = max_forwards(headers) {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(steps.saturating_sub(1)));
    }
}

fn max_forwards(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::MAX_FORWARDS)?.to_str().ok()?.trim().parse().ok()
}

/// Removes what belongs to one connection, in either direction.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // SECURITY: `Connection: host` and the like would take away what the next server needs to be safe.
            .filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::VIA))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Adds us to `Via` (RFC 9110 section 7.6.3).
pub(super) fn append_via(headers: &mut HeaderMap, version: Version, name: &str) {
    let protocol = match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2.0",
        Version::HTTP_3 => "3.0",
        _ => "1.1",
    };
    let mut via = String::with_capacity(64);
    for hop in headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok()) {
        via.push_str(hop);
        via.push_str(", ");
    }
    let _ = write!(via, "{protocol} {name}");
    if let Ok(via) = HeaderValue::from_maybe_shared(Bytes::from(via)) {
        headers.insert(header::VIA, via);
    }
}

/// Who asked whom for what: added to what a trusted proxy says, put in place of what anybody else says.
///
/// SECURITY: Cantaloupe writes `X-Forwarded-Host`, `-Path` and `-ID` into its answers (upstream.md "Headers").
fn forward(headers: &mut HeaderMap, host: &HeaderValue, viewer: &Viewer, trusted: &[IpNet]) {
    let peer = viewer.peer.ip().to_canonical();
    let own = if viewer.tls { "https" } else { "http" };
    // Nearly nobody sends it; then nobody is sent it.
    let standard = headers.contains_key(header::FORWARDED);
    if is_trusted(peer, trusted) {
        believe_standard(headers, peer, trusted);
    } else {
        for name in [
            FORWARDED_FOR,
            FORWARDED_PROTO,
            FORWARDED_HOST,
            FORWARDED_PORT,
            FORWARDED_PATH,
            FORWARDED_ID,
            REAL_IP,
            header::FORWARDED,
        ] {
            headers.remove(name);
        }
    }
    let mut chain = String::with_capacity(48);
    for hop in headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
        chain.push_str(hop);
        chain.push_str(", ");
    }
    let _ = write!(chain, "{peer}");
    if let Ok(chain) = HeaderValue::from_maybe_shared(Bytes::from(chain)) {
        headers.insert(FORWARDED_FOR, chain);
    }
    if standard {
        append_element(headers, &forwarded::element(peer, host.to_str().unwrap_or_default(), own));
    }
    let proto = headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static(own));
    let default_port = if proto == "https" { "443" } else { "80" };
    let host = headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
    // UPSTREAM: without the port Cantaloupe appends its own to the forwarded host.
    let port = host.to_str().ok().and_then(port_of).unwrap_or(default_port);
    if let Ok(port) = HeaderValue::from_str(port) {
        headers.entry(FORWARDED_PORT).or_insert(port);
    }
}

/// What a trusted proxy says in `Forwarded` alone stands in the older fields from here on.
fn believe_standard(headers: &mut HeaderMap, peer: IpAddr, trusted: &[IpNet]) {
    if headers.contains_key(FORWARDED_FOR) || !headers.contains_key(header::FORWARDED) {
        return;
    }
    let (client, said) = vouched(headers, peer, trusted);
    if client != peer
        && let Ok(client) = HeaderValue::from_str(&client.to_string())
    {
        headers.insert(FORWARDED_FOR, client);
    }
    if let Some(proto) = said.proto {
        headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static(proto));
    }
    if let Some(host) = said.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok()) {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}

/// Adds our element to `Forwarded`, in one field.
fn append_element(headers: &mut HeaderMap, own: &str) {
    let mut chain = String::with_capacity(128);
    for said in headers.get_all(header::FORWARDED).iter().filter_map(|value| value.to_str().ok()) {
        chain.push_str(said);
        chain.push_str(", ");
    }
    chain.push_str(own);
    if let Ok(chain) = HeaderValue::from_maybe_shared(Bytes::from(chain)) {
        headers.insert(header::FORWARDED, chain);
    }
}

fn port_of(host: &str) -> Option<&str> {
    let (_, port) = host.rsplit_once(':')?;
    (!port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(port)
}

/// Scheme and host that the viewer asked by; a trusted proxy knows them better.
pub(super) fn own_base(head: &Parts, viewer: &Viewer, settings: &Settings) -> String {
    let mut fields = head.headers.clone();
    let host = super::route::host(head).ok().and_then(|host| host.parse().ok());
    let host = host.unwrap_or(HeaderValue::from_static("localhost"));
    forward(&mut fields, &host, viewer, &settings.server.trusted_proxies);
    let told =
        |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    format!("{}://{}", told(FORWARDED_PROTO), told(FORWARDED_HOST))
}

fn host_value(head: &Parts) -> Result<HeaderValue, Refusal> {
    if let (None, Some(host)) = (head.uri.authority(), head.headers.get(header::HOST)) {
        return Ok(host.clone());
    }
    let host = super::route::host(head)?;
    HeaderValue::from_str(host).map_err(|_| Refusal::BadRequest("Host is not a host"))
}

/// The route's prefix replaced by the upstream's path; everything behind it byte for byte.
fn target(asked: &Asked, prefix: &str, path: &str) -> Result<Uri, Refusal> {
    let refused = |_| Refusal::BadRequest("the target cannot be forwarded");
    let same = (prefix == path).then(|| asked.uri().path_and_query().cloned()).flatten();
    let target = match (same, asked.uri().query()) {
        (Some(same), _) => same,
        (None, Some(query)) => {
            PathAndQuery::try_from(format!("{path}{}?{query}", asked.rest())).map_err(refused)?
        }
        (None, None) => PathAndQuery::try_from(format!("{path}{}", asked.rest())).map_err(refused)?,
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).map_err(|_| Refusal::BadRequest("the target cannot be forwarded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn viewer(peer: &str) -> Viewer {
        Viewer { peer: format!("{peer}:4711").parse().expect("an address"), tls: false }
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
    fn an_untrusted_viewer_cannot_say_who_it_is() {
        let mut map = headers(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-id", "somebody-elses-id"),
            ("x-forwarded-host", "evil.example"),
            ("forwarded", "for=10.0.0.1"),
        ]);
        forward(&mut map, &HeaderValue::from_static("iiif.example:8080"), &viewer("192.0.2.7"), &[]);
        let expected = headers(&[
            ("forwarded", "for=192.0.2.7;host=\"iiif.example:8080\";proto=http"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "iiif.example:8080"),
            ("x-forwarded-port", "8080"),
        ]);
        assert_eq!(map, expected);
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added_to() {
        let mut map = headers(&[
            ("x-forwarded-for", "198.51.100.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "iiif.example"),
        ]);
        let trusted = ["192.0.2.0/24".parse().expect("a net")];
        forward(&mut map, &HeaderValue::from_static("inner:8080"), &viewer("192.0.2.7"), &trusted);
        let expected = headers(&[
            ("x-forwarded-for", "198.51.100.9, 192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "iiif.example"),
            ("x-forwarded-port", "443"),
        ]);
        assert_eq!(map, expected);
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_no_proxy_of_ours() {
        let trusted = ["10.0.0.0/8".parse().expect("a net")];
        let chain = headers(&[("x-forwarded-for", "1.1.1.1, 203.0.113.5, 10.0.0.3")]);
        assert_eq!(client(&chain, &viewer("10.0.0.2"), &trusted).to_string(), "203.0.113.5");
        assert_eq!(client(&chain, &viewer("192.0.2.7"), &trusted).to_string(), "192.0.2.7");
        let garbage = headers(&[("x-forwarded-for", "1.1.1.1, unknown")]);
        assert_eq!(client(&garbage, &viewer("10.0.0.2"), &trusted).to_string(), "10.0.0.2");
    }

    #[test]
    fn forwarded_counts_where_a_trusted_proxy_says_nothing_older() {
        let trusted = ["10.0.0.0/8".parse().expect("a net")];
        let chain = "for=1.1.1.1, for=\"[2001:db8::9]\";proto=https;host=iiif.example, for=10.0.0.3";
        let said = headers(&[("forwarded", chain)]);
        assert_eq!(client(&said, &viewer("10.0.0.2"), &trusted).to_string(), "2001:db8::9");
        assert_eq!(client(&said, &viewer("192.0.2.7"), &trusted).to_string(), "192.0.2.7");
        let both = headers(&[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]);
        assert_eq!(client(&both, &viewer("10.0.0.2"), &trusted).to_string(), "2.2.2.2");
        for hidden in ["for=1.1.1.1, for=_hidden", "for=1.1.1.1, for=", "for=1.1.1.1,, for=10.0.0.9"] {
            let said = headers(&[("forwarded", hidden)]);
            assert_eq!(client(&said, &viewer("10.0.0.2"), &trusted).to_string(), "10.0.0.2", "{hidden}");
        }
        let mut onward = said;
        forward(&mut onward, &HeaderValue::from_static("inner"), &viewer("10.0.0.2"), &trusted);
        for (name, value) in [
            ("x-forwarded-for", "2001:db8::9, 10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "iiif.example"),
            ("forwarded", &*format!("{chain}, for=10.0.0.2;host=\"inner\";proto=http")),
        ] {
            assert_eq!(onward.get(name).and_then(|value| value.to_str().ok()), Some(value), "{name}");
        }
    }

    #[test]
    fn cookies_in_several_fields_become_one() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
        join_cookies(&mut map);
        assert_eq!(map, headers(&[("cookie", "a=1; b=2; c=3")]));
    }

    #[test]
    fn via_grows_by_our_name() {
        let mut map = headers(&[("via", "1.0 fred"), ("via", "1.1 campus")]);
        append_via(&mut map, Version::HTTP_2, "iiif-mender");
        assert_eq!(
            map.get("via").map(HeaderValue::as_bytes),
            Some(&b"1.0 fred, 1.1 campus, 2.0 iiif-mender"[..])
        );
        assert_eq!(map.get_all("via").iter().count(), 1);
    }
}
