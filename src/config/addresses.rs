//! Network values in the file: addresses, networks, host names, URLs and path prefixes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use http::uri::{Authority, PathAndQuery, Scheme};
use ipnet::IpNet;

use super::value::{ConfigValue, TextOrNumber, ValueError};

/// Loopback address of a port, for defaults.
pub(super) const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl ConfigValue for SocketAddr {
    type Value = Self;
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:8080\"";
    const EXAMPLES: &'static [&'static str] = &["127.0.0.1:8080", "0.0.0.0:443", "[::]:8080"];

    fn read(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| {
            let port = text.rsplit_once(':').map(|(_, port)| port);
            let help = match port {
                Some(port) if is_number(port) && port.parse::<u16>().is_err() => "ports end at 65535",
                None if is_number(text) => "write the address too: \"127.0.0.1:8080\", or \"0.0.0.0:8080\" for every interface",
                _ => "write an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"; names are not looked up here",
            };
            ValueError::new(format!("`{text}` is not an address to listen on"), help)
        })
    }

    fn write(value: &Self) -> TextOrNumber {
        TextOrNumber::Text(value.to_string())
    }
}

/// An address of `server.listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// No TLS here, although there is a certificate.
    pub plain: bool,
    /// Each connection begins with a PROXY header, version 1 or 2.
    pub proxy_protocol: bool,
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self { address, plain: false, proxy_protocol: false }
    }
}

impl ConfigValue for Listen {
    type Value = Self;
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:8080\"";
    const EXAMPLES: &'static [&'static str] =
        &["127.0.0.1:8080", "[::]:443", "0.0.0.0:80 plain", "10.0.0.1:8080 proxy_protocol"];

    fn read(text: &str) -> Result<Self, ValueError> {
        let mut words = text.split_whitespace();
        let mut listen = Self::from(SocketAddr::read(words.next().unwrap_or_default())?);
        for word in words {
            match word {
                "plain" => listen.plain = true,
                "proxy_protocol" => listen.proxy_protocol = true,
                _ => {
                    return Err(ValueError::new(
                        format!("`{word}` says nothing about an address"),
                        "behind an address may stand `plain` (no TLS there) and `proxy_protocol`",
                    ));
                }
            }
        }
        Ok(listen)
    }

    fn write(value: &Self) -> TextOrNumber {
        let word = |is: bool, word: &'static str| if is { word } else { "" };
        let (plain, proxied) = (word(value.plain, " plain"), word(value.proxy_protocol, " proxy_protocol"));
        TextOrNumber::Text(format!("{}{plain}{proxied}", value.address))
    }
}

/// An address to listen on, or `"off"`.
pub(super) struct MaybeListen;

impl ConfigValue for MaybeListen {
    type Value = Option<SocketAddr>;
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:9090\", or \"off\"";
    const EXAMPLES: &'static [&'static str] = &["127.0.0.1:9090", "off"];

    fn read(text: &str) -> Result<Option<SocketAddr>, ValueError> {
        if text == "off" {
            return Ok(None);
        }
        SocketAddr::read(text).map(Some)
    }

    fn write(value: &Option<SocketAddr>) -> TextOrNumber {
        TextOrNumber::Text(value.map_or_else(|| "off".to_owned(), |address| address.to_string()))
    }
}

impl ConfigValue for IpNet {
    type Value = Self;
    const EXPECTED: &'static str = "an address or network such as \"10.0.0.0/8\"";
    const EXAMPLES: &'static [&'static str] = &["10.1.2.3", "10.0.0.0/8", "fd00::/8"];

    fn read(text: &str) -> Result<Self, ValueError> {
        let network = text.parse::<Self>().map(|network| network.trunc()).ok();
        network.or_else(|| text.parse::<IpAddr>().map(Self::from).ok()).ok_or_else(|| {
            ValueError::new(
                format!("`{text}` is not an address or network"),
                "write an IP address or a network, such as \"10.1.2.3\" or \"10.0.0.0/8\"; names are not looked up here",
            )
        })
    }

    fn write(value: &Self) -> TextOrNumber {
        let whole = value.prefix_len() == value.max_prefix_len();
        TextOrNumber::Text(if whole { value.addr().to_string() } else { value.to_string() })
    }
}

/// A host name, lower case, with a port only where it is none of the well-known two.
pub(super) struct HostName;

impl ConfigValue for HostName {
    type Value = String;
    const EXPECTED: &'static str = "a host name such as \"api.library.tamu.edu\"";

    fn read(text: &str) -> Result<String, ValueError> {
        let wrong = |help: String| ValueError::new(format!("`{text}` is not a host name"), help);
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            return Err(wrong(format!("leave out the scheme and the path: \"{host}\"")));
        }
        if text.contains('*') {
            return Err(wrong("write every name in full: patterns are not understood here".to_owned()));
        }
        let authority = authority(text)
            .ok_or_else(|| wrong("write the name alone, such as \"api.library.tamu.edu\"".to_owned()))?;
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        Ok(match authority.port_u16() {
            None | Some(80 | 443) => host,
            Some(port) => format!("{host}:{port}"),
        })
    }

    fn write(value: &String) -> TextOrNumber {
        TextOrNumber::Text(value.clone())
    }
}

impl ConfigValue for Authority {
    type Value = Self;
    const EXPECTED: &'static str = "a host and port such as \"10.1.2.3:443\"";
    const EXAMPLES: &'static [&'static str] = &["10.1.2.3:443", "images.internal:8182"];

    fn read(text: &str) -> Result<Self, ValueError> {
        authority(text).filter(|found| found.port_u16().is_some()).ok_or_else(|| {
            ValueError::new(
                format!("`{text}` is not a host and port"),
                "write both and nothing else, such as \"10.1.2.3:443\": the scheme stays that of `upstream`",
            )
        })
    }

    fn write(value: &Self) -> TextOrNumber {
        TextOrNumber::Text(value.to_string())
    }
}

/// URL of an upstream, in parts. Kept as text, never normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and optional port as configured.
    pub authority: Authority,
    /// Path that replaces the route's prefix, starting with `/`.
    pub path: String,
}

impl ConfigValue for UpstreamUrl {
    type Value = Self;
    const EXPECTED: &'static str = "a URL such as \"https://api.library.tamu.edu/iiif/2/\"";

    fn read(text: &str) -> Result<Self, ValueError> {
        let (scheme, authority, path) = web_url(text)?;
        if path.contains(['?', '#']) {
            return Err(ValueError::new(
                format!("`{text}` has a query or a fragment"),
                "leave out everything from `?` or `#` on: the viewer's own query is sent on",
            ));
        }
        plain_path(path)
            .map_err(|help| ValueError::new(format!("`{text}` has a path that cannot be used"), help))?;
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { scheme, authority, path: path.to_owned() })
    }

    fn write(value: &Self) -> TextOrNumber {
        TextOrNumber::Text(format!("{}://{}{}", value.scheme, value.authority, value.path))
    }
}

/// An http(s) URL to fetch or to compare with, kept as it is written.
pub(super) struct HttpUrl;

impl ConfigValue for HttpUrl {
    type Value = String;
    const EXPECTED: &'static str = "an http or https URL";

    fn read(text: &str) -> Result<String, ValueError> {
        web_url(text).map(|_| text.to_owned())
    }

    fn write(value: &String) -> TextOrNumber {
        TextOrNumber::Text(value.clone())
    }
}

/// Base of http(s) URLs: ends in a slash.
pub(super) struct BaseUrl;

impl ConfigValue for BaseUrl {
    type Value = String;
    const EXPECTED: &'static str = HttpUrl::EXPECTED;

    fn read(text: &str) -> Result<String, ValueError> {
        HttpUrl::read(text).map(|base| if base.ends_with('/') { base } else { base + "/" })
    }

    fn write(value: &String) -> TextOrNumber {
        TextOrNumber::Text(value.clone())
    }
}

/// Scheme and host alone, as a URL whose path is `/`.
pub(super) struct Origin;

impl ConfigValue for Origin {
    type Value = UpstreamUrl;
    const EXPECTED: &'static str = HttpUrl::EXPECTED;

    fn read(text: &str) -> Result<UpstreamUrl, ValueError> {
        web_url(text)?;
        UpstreamUrl::read(text).ok().filter(|url| url.path == "/").ok_or_else(|| {
            ValueError::new(
                format!("`{text}` is more than a scheme and a host"),
                "write only where viewers reach this proxy, such as \"https://iiif.example.edu\"; paths stay as they are",
            )
        })
    }

    fn write(value: &UpstreamUrl) -> TextOrNumber {
        TextOrNumber::Text(format!("{}://{}", value.scheme, value.authority))
    }
}

/// URL of Redis, a Sentinel or a node of a Redis Cluster: `redis://host:port/database`, `rediss://` for TLS.
pub(super) struct RedisUrl;

impl ConfigValue for RedisUrl {
    type Value = String;
    const EXPECTED: &'static str = "a URL such as \"redis://127.0.0.1:6379\"";
    const EXAMPLES: &'static [&'static str] = &["redis://127.0.0.1:6379", "rediss://redis.internal:6380/1"];

    fn read(text: &str) -> Result<String, ValueError> {
        let help = "write redis://host:port, or rediss://host:port for TLS";
        let rest = text.strip_prefix("redis://").or_else(|| text.strip_prefix("rediss://"));
        let Some(rest) = rest else {
            // SECURITY: the text itself stays out of the message, because a password may stand in it.
            return Err(ValueError::new("this is no URL of Redis", help));
        };
        if rest.contains('@') {
            return Err(ValueError::new(
                "this URL carries a user name or password",
                "write them as [cluster] username and password, or IIIF_MENDER__CLUSTER__PASSWORD",
            ));
        }
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        let is_address = host.parse::<Authority>().is_ok();
        if !is_address || !database.is_empty() && database.parse::<u32>().is_err() {
            return Err(ValueError::new("this is no URL of Redis", help));
        }
        Ok(text.to_owned())
    }

    fn write(value: &String) -> TextOrNumber {
        TextOrNumber::Text(value.clone())
    }
}

/// The path with which a route's requests begin.
pub(super) struct Prefix;

impl ConfigValue for Prefix {
    type Value = String;
    const EXPECTED: &'static str = "a path such as \"/iiif/2/\"";
    const EXAMPLES: &'static [&'static str] = &["/iiif/2/", "/iiif-service/", "/"];

    fn read(text: &str) -> Result<String, ValueError> {
        let wrong = |help: String| ValueError::new(format!("`{text}` is not a path prefix"), help);
        if !text.starts_with('/') {
            let path =
                text.split_once("://").map_or(text, |(_, rest)| rest.split_once('/').map_or("", |p| p.1));
            return Err(wrong(format!("begin it with a slash: \"/{path}\"")));
        }
        plain_path(text).map_err(wrong)?;
        Ok(text.to_owned())
    }

    fn write(value: &String) -> TextOrNumber {
        TextOrNumber::Text(value.clone())
    }
}

/// Scheme, host and port, and the rest of the URL. Not `url::Url`: that would normalise IIIF paths.
fn web_url(text: &str) -> Result<(Scheme, Authority, &str), ValueError> {
    let wrong = |help: &str| ValueError::new(format!("`{text}` is not an http or https URL"), help);
    let example = "write the whole URL, such as \"https://api.library.tamu.edu/iiif/2/\"";
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong(example))?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::HTTP,
        "https" => Scheme::HTTPS,
        _ => return Err(wrong("begin it with http:// or https://")),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if host.contains('@') {
        // SECURITY: the text itself stays out of the message, because a password stands in it.
        return Err(ValueError::new(
            "this URL carries a user name or password",
            "take out everything up to the `@`: credentials are not sent to upstreams",
        ));
    }
    let authority = authority(&host.to_ascii_lowercase()).ok_or_else(|| wrong(example))?;
    let target = path.split('#').next().unwrap_or_default();
    if !target.is_empty() && PathAndQuery::from_str(target).is_err() {
        return Err(wrong("percent-encode spaces and other special characters in the path"));
    }
    Ok((scheme, authority, path))
}

/// Host and optional port; `http` alone would let an empty host, a user name and a port beyond 65535 pass.
fn authority(text: &str) -> Option<Authority> {
    let authority = text.parse::<Authority>().ok()?;
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host)?;
    let port_is_fine = match rest.strip_prefix(':') {
        None => rest.is_empty(),
        Some(port) => is_number(port) && port.parse::<u16>().is_ok_and(|port| port > 0),
    };
    let named = host.starts_with('[') || host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    (port_is_fine && named && host.chars().any(|c| c.is_ascii_alphanumeric())).then_some(authority)
}

/// Accepts only paths that mean the same to us and to every upstream.
fn plain_path(path: &str) -> Result<(), String> {
    if path.contains(['?', '#']) {
        return Err("leave out the query and the fragment".to_owned());
    }
    // SECURITY: dot segments would let a request leave the prefix that it was matched by.
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("write the path without `.` and `..`".to_owned());
    }
    if path.contains("//") {
        return Err("write single slashes".to_owned());
    }
    if !path.is_empty() && PathAndQuery::from_str(path).is_err()
        || path.contains(|c: char| !c.is_ascii_graphic())
    {
        return Err("percent-encode spaces and other special characters".to_owned());
    }
    Ok(())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
