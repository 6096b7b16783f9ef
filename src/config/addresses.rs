//! How the file writes places on the network: addresses, networks, host names, URLs and path prefixes.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::uri::{Authority, PathAndQuery, Scheme};
use ipnet::IpNet;

use super::leaf::{Leaf, Mistake, Written};
use super::settings::{Listen, UpstreamUrl};

impl Leaf for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:8080\"";
    const EXAMPLES: &'static [&'static str] = &["127.0.0.1:8080", "0.0.0.0:443", "[::]:8080"];

    fn read(text: &str) -> Result<Self, Mistake> {
        text.parse().map_err(|_| {
            let port = text.rsplit_once(':').map(|(_, port)| port);
            let help = match port {
                Some(port) if is_number(port) && port.parse::<u16>().is_err() => "ports end at 65535",
                None if is_number(text) => "write the address too: \"127.0.0.1:8080\", or \"0.0.0.0:8080\" for every interface",
                _ => "write an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"; names are not looked up here",
            };
            Mistake::new(format!("`{text}` is not an address to listen on"), help)
        })
    }

    fn write(&self) -> Written {
        Written::Text(self.to_string())
    }
}

impl Leaf for Listen {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:8080\"";
    const EXAMPLES: &'static [&'static str] =
        &["127.0.0.1:8080", "[::]:443", "0.0.0.0:80 plain", "10.0.0.1:8080 proxy_protocol"];

    fn read(text: &str) -> Result<Self, Mistake> {
        let mut words = text.split_whitespace();
        let mut listen = Self::from(SocketAddr::read(words.next().unwrap_or_default())?);
        for word in words {
            match word {
                "plain" => listen.plain = true,
                "proxy_protocol" => listen.proxy_protocol = true,
                _ => {
                    return Err(Mistake::new(
                        format!("`{word}` says nothing about an address"),
                        "behind an address may stand `plain` (no TLS there) and `proxy_protocol`",
                    ));
                }
            }
        }
        Ok(listen)
    }

    fn write(&self) -> Written {
        let word = |is: bool, word: &'static str| if is { word } else { "" };
        let (plain, proxied) = (word(self.plain, " plain"), word(self.proxy_protocol, " proxy_protocol"));
        Written::Text(format!("{}{plain}{proxied}", self.address))
    }
}

/// An address to listen on, or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaybeListen(pub Option<SocketAddr>);

impl Leaf for MaybeListen {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:9090\", or \"off\"";
    const EXAMPLES: &'static [&'static str] = &["127.0.0.1:9090", "off"];

    fn read(text: &str) -> Result<Self, Mistake> {
        if text == "off" {
            return Ok(Self(None));
        }
        SocketAddr::read(text).map(|address| Self(Some(address)))
    }

    fn write(&self) -> Written {
        Written::Text(self.0.map_or_else(|| "off".to_owned(), |address| address.to_string()))
    }
}

impl Leaf for IpNet {
    const EXPECTED: &'static str = "an address or network such as \"10.0.0.0/8\"";
    const EXAMPLES: &'static [&'static str] = &["10.1.2.3", "10.0.0.0/8", "fd00::/8"];

    fn read(text: &str) -> Result<Self, Mistake> {
        let network = text.parse::<Self>().map(|network| network.trunc()).ok();
        network.or_else(|| text.parse::<IpAddr>().map(Self::from).ok()).ok_or_else(|| {
            Mistake::new(
                format!("`{text}` is not an address or network"),
                "write an IP address or a network, such as \"10.1.2.3\" or \"10.0.0.0/8\"; names are not looked up here",
            )
        })
    }

    fn write(&self) -> Written {
        let whole = self.prefix_len() == self.max_prefix_len();
        Written::Text(if whole { self.addr().to_string() } else { self.to_string() })
    }
}

/// A host name, lower case, with a port only where it is none of the well-known two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(pub String);

impl Leaf for HostName {
    const EXPECTED: &'static str = "a host name such as \"api.library.tamu.edu\"";

    fn read(text: &str) -> Result<Self, Mistake> {
        let wrong = |help: String| Mistake::new(format!("`{text}` is not a host name"), help);
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
        Ok(Self(match authority.port_u16() {
            None | Some(80 | 443) => host,
            Some(port) => format!("{host}:{port}"),
        }))
    }

    fn write(&self) -> Written {
        Written::Text(self.0.clone())
    }
}

impl Leaf for Authority {
    const EXPECTED: &'static str = "a host and port such as \"10.1.2.3:443\"";
    const EXAMPLES: &'static [&'static str] = &["10.1.2.3:443", "images.internal:8182"];

    fn read(text: &str) -> Result<Self, Mistake> {
        authority(text).filter(|found| found.port_u16().is_some()).ok_or_else(|| {
            Mistake::new(
                format!("`{text}` is not a host and port"),
                "write both and nothing else, such as \"10.1.2.3:443\": the scheme stays that of `upstream`",
            )
        })
    }

    fn write(&self) -> Written {
        Written::Text(self.to_string())
    }
}

impl Leaf for UpstreamUrl {
    const EXPECTED: &'static str = "a URL such as \"https://api.library.tamu.edu/iiif/2/\"";

    fn read(text: &str) -> Result<Self, Mistake> {
        let (scheme, authority, path) = web_url(text)?;
        if path.contains(['?', '#']) {
            return Err(Mistake::new(
                format!("`{text}` has a query or a fragment"),
                "leave out everything from `?` or `#` on: the viewer's own query is sent on",
            ));
        }
        plain_path(path)
            .map_err(|help| Mistake::new(format!("`{text}` has a path that cannot be used"), help))?;
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { scheme, authority, path: path.to_owned() })
    }

    fn write(&self) -> Written {
        Written::Text(format!("{}://{}{}", self.scheme, self.authority, self.path))
    }
}

/// An http(s) URL to fetch or to compare with, kept as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl(pub String);

impl Leaf for HttpUrl {
    const EXPECTED: &'static str = "an http or https URL";

    fn read(text: &str) -> Result<Self, Mistake> {
        web_url(text).map(|_| Self(text.to_owned()))
    }

    fn write(&self) -> Written {
        Written::Text(self.0.clone())
    }
}

/// The path with which a route's requests begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(pub String);

impl Leaf for Prefix {
    const EXPECTED: &'static str = "a path such as \"/iiif/2/\"";
    const EXAMPLES: &'static [&'static str] = &["/iiif/2/", "/iiif-service/", "/"];

    fn read(text: &str) -> Result<Self, Mistake> {
        let wrong = |help: String| Mistake::new(format!("`{text}` is not a path prefix"), help);
        if !text.starts_with('/') {
            let path =
                text.split_once("://").map_or(text, |(_, rest)| rest.split_once('/').map_or("", |p| p.1));
            return Err(wrong(format!("begin it with a slash: \"/{path}\"")));
        }
        plain_path(text).map_err(wrong)?;
        Ok(Self(text.to_owned()))
    }

    fn write(&self) -> Written {
        Written::Text(self.0.clone())
    }
}

/// Scheme, host and port, and all that follows. Not `url::Url`: that would normalise IIIF paths.
fn web_url(text: &str) -> Result<(Scheme, Authority, &str), Mistake> {
    let wrong = |help: &str| Mistake::new(format!("`{text}` is not an http or https URL"), help);
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
        return Err(Mistake::new(
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

/// Only paths that mean the same to us and to every upstream.
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
