//! Client address, scheme and host as the proxies before us report them: `X-Forwarded-*` and `Forwarded`.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::forwarded::{self, ForwardedElement};
use crate::cache::ADDRESS_FIELDS;
use crate::config::settings::is_among;
use crate::upstream::Client;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");

/// The client at the other end of a connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The connection is encrypted.
    pub tls: bool,
    /// True if the client showed a valid certificate that was requested.
    pub certified: bool,
    /// Share of the client in the capacity of all.
    pub client: Arc<Client>,
    /// Address of the client, as it stands in `X-Forwarded-For`: written once for all requests of the connection.
    address: HeaderValue,
}

impl ClientInfo {
    /// Creates the client of a connection without TLS.
    pub fn new(peer: SocketAddr, client: Arc<Client>) -> Self {
        let address = HeaderValue::from_maybe_shared(Bytes::from(peer.ip().to_canonical().to_string()));
        let address = address.unwrap_or(HeaderValue::from_static("unknown"));
        Self { peer, tls: false, certified: false, client, address }
    }
}

/// Fields that only a trusted proxy may send, besides those that begin with one of [`HEARSAY_FAMILIES`].
///
/// Cantaloupe takes the identifier from `X-IIIF-ID` as well, and Jetty, in which it runs, reads `X-Proxied-Https` and the
/// two of `Proxy-`. In the others content networks and gateways send the viewer's address, host and scheme.
const HEARSAY: [&str; 19] = [
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-visitor",
    "fastly-client-ip",
    "forwarded",
    "front-end-https",
    "proxy-auth-cert",
    "proxy-ssl-id",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-host",
    "x-http-host-override",
    "x-iiif-id",
    "x-proxied-https",
    "x-scheme",
    "x-url-scheme",
];

/// Spring reads `X-Forwarded-Prefix` and `-Ssl`, Cantaloupe `-Path` and `-ID`; `X-Original-URL` and `X-Rewrite-URL` name
/// another path than the one that was routed.
const HEARSAY_FAMILIES: [&str; 4] = ["x-forwarded-", "x-original-", "x-rewrite-", "x-real-"];

/// True for a field that only a trusted proxy may send. `name` is in small letters.
///
/// SECURITY: an underscore counts as a dash: servers with variables for fields cannot tell the two apart.
fn is_hearsay(name: &str) -> bool {
    // One test of the first letter rules out nearly all other fields.
    if !matches!(name.as_bytes().first(), Some(b'c' | b'f' | b'p' | b't' | b'x')) {
        return false;
    }
    let same = |own: &u8, other: &u8| own == other || (*own == b'-' && *other == b'_');
    let begins = |own: &str| {
        own.len() <= name.len() && own.bytes().zip(name.bytes()).all(|(own, other)| same(&own, &other))
    };
    HEARSAY_FAMILIES.iter().any(|family| begins(family))
        || HEARSAY.iter().any(|own| own.len() == name.len() && begins(own))
}

/// Fields by which a trusted proxy describes the original request: name, scheme, path, image. Addresses are left out: each
/// viewer has another one.
pub(super) fn told_how(fields: &HeaderMap) -> impl Iterator<Item = (&HeaderName, Cow<'_, [u8]>)> {
    let is_told = |name: &str| is_hearsay(name) && !ADDRESS_FIELDS.contains(&name);
    fields.iter().filter(move |(name, _)| is_told(name.as_str())).map(|(name, value)| {
        let value = value.as_bytes();
        (name, if *name == header::FORWARDED { forwarded::without_addresses(value) } else { value.into() })
    })
}

/// Removes fields that no trusted proxy vouches for.
fn remove_hearsay(headers: &mut HeaderMap) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| is_hearsay(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// The viewer's own address: the rightmost one in `X-Forwarded-For`, or in `Forwarded` where that is absent, that is
/// no trusted proxy.
///
/// SECURITY: a proxy that writes one of the fields passes the other on as the viewer made it up. So only one counts.
pub fn client(headers: &HeaderMap, viewer: &ClientInfo, trusted: &[IpNet]) -> IpAddr {
    let peer = viewer.peer.ip().to_canonical();
    if !is_among(peer, trusted) {
        return peer;
    }
    if !headers.contains_key(FORWARDED_FOR) {
        return trusted_forwarded(headers, peer, trusted).0;
    }
    let hops = headers.get_all(FORWARDED_FOR).iter().rev().filter_map(|value| value.to_str().ok());
    let mut hops = hops.flat_map(|value| value.rsplit(',')).map(|hop| forwarded::bare_address(hop.trim()));
    // The first hop that cannot be parsed ends the chain: entries to its left are not to be believed.
    let mut last = peer;
    while let Some(Some(hop)) = hops.next() {
        last = hop;
        if !is_among(last, trusted) {
            break;
        }
    }
    last
}

/// Reads the client out of `Forwarded`, and the element that names it: the last one that a trusted proxy vouches for.
fn trusted_forwarded(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> (IpAddr, ForwardedElement) {
    let (mut last, mut said) = (peer, ForwardedElement::default());
    let fields = headers.get_all(header::FORWARDED).iter().rev().map(HeaderValue::as_bytes);
    for elements in fields.map_while(forwarded::parse) {
        for element in elements.into_iter().rev() {
            let hop = element.client;
            said = element;
            match hop {
                Some(hop) if is_among(hop, trusted) => last = hop,
                Some(hop) => return (hop, said),
                // An obfuscated identifier: entries to its left are not to be believed.
                None => return (last, said),
            }
        }
    }
    (last, said)
}

/// Writes `X-Forwarded-*` and `Forwarded`: appended to the values of a trusted proxy, in place of any others.
///
/// SECURITY: Cantaloupe writes `X-Forwarded-Host`, `-Path` and `-ID` into its answers (upstream.md "Headers").
pub(super) fn forward(headers: &mut HeaderMap, host: &HeaderValue, viewer: &ClientInfo, trusted: &[IpNet]) {
    forward_client(headers, host, viewer, trusted);
    forward_host(headers, host, viewer);
}

/// The part of [`forward`] that names the client.
pub(super) fn forward_client(
    headers: &mut HeaderMap,
    host: &HeaderValue,
    viewer: &ClientInfo,
    trusted: &[IpNet],
) {
    let peer = viewer.peer.ip().to_canonical();
    // `Forwarded` is rarely sent: a request without it goes on without it.
    let standard = headers.contains_key(header::FORWARDED);
    if is_among(peer, trusted) {
        apply_forwarded(headers, peer, trusted);
        append_address(headers, &viewer.address);
    } else {
        remove_hearsay(headers);
        headers.insert(FORWARDED_FOR, viewer.address.clone());
    }
    if standard {
        let element = forwarded::element(peer, host.to_str().unwrap_or_default(), scheme(viewer));
        append_element(headers, &element);
    }
}

fn scheme(viewer: &ClientInfo) -> &'static str {
    if viewer.tls { "https" } else { "http" }
}

/// Writes scheme, host and port, where no trusted proxy did: a part of [`forward`].
pub(super) fn forward_host(headers: &mut HeaderMap, host: &HeaderValue, viewer: &ClientInfo) {
    let own = scheme(viewer);
    let proto = headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static(own));
    let default_port = if proto == "https" { "443" } else { "80" };
    let host = headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
    // UPSTREAM: without the port Cantaloupe appends its own to the forwarded host.
    let port = host.to_str().ok().and_then(port_of).and_then(|port| HeaderValue::from_str(port).ok());
    headers.entry(FORWARDED_PORT).or_insert(port.unwrap_or(HeaderValue::from_static(default_port)));
}

/// Adds an address to those in `X-Forwarded-For`, in one field.
fn append_address(headers: &mut HeaderMap, own: &HeaderValue) {
    let hops = headers.get_all(FORWARDED_FOR).iter().filter(|hop| hop.to_str().is_ok());
    let chain: Vec<&[u8]> = hops.chain([own]).map(HeaderValue::as_bytes).collect();
    let chain = HeaderValue::from_bytes(&chain.join(&b", "[..])).unwrap_or_else(|_| own.clone());
    headers.insert(FORWARDED_FOR, chain);
}

/// Copies the values that a trusted proxy sent in `Forwarded` alone into the older fields.
fn apply_forwarded(headers: &mut HeaderMap, peer: IpAddr, trusted: &[IpNet]) {
    if headers.contains_key(FORWARDED_FOR) || !headers.contains_key(header::FORWARDED) {
        return;
    }
    let (client, said) = trusted_forwarded(headers, peer, trusted);
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
    let port = &host[memchr::memrchr(b':', host.as_bytes())? + 1..];
    (!port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::tests::headers;

    fn viewer(peer: &str) -> ClientInfo {
        let peer: SocketAddr = format!("{peer}:4711").parse().expect("an address");
        ClientInfo::new(peer, crate::upstream::Clients::default().get(peer.ip()))
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
    fn what_only_a_proxy_says_is_known_in_every_spelling() {
        for name in [
            "x-iiif-id",
            "x_iiif_id",
            "x-forwarded",
            "x-forwarded-prefix",
            "x-forwarded-server",
            "x-forwarded-of-any-name",
            "x_forwarded_host",
            "x-forwarded_for",
            "x-original-url",
            "x_original_uri",
            "x-rewrite-url",
            "x-real-ip",
            "forwarded",
            "true_client_ip",
            "cf-connecting-ip",
            "x-host",
            "x-scheme",
        ] {
            assert!(is_hearsay(name), "{name}");
        }
        for name in [
            "x-forward",
            "x-iiif-ids",
            "x-originals",
            "from",
            "te",
            "x",
            "x-requested-with",
            "prefer",
            "cookie",
        ] {
            assert!(!is_hearsay(name), "{name}");
        }
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
}
