//! `Forwarded` (RFC 7239), read and written. Pure.
//!
//! A field is a list of elements, one for each proxy, oldest first; an element is a list of `name=value`. Reading is
//! strict: entries to the left of a mistake cannot be trusted.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

/// Elements that are read at most, over all fields; real chains are shorter.
const MOST: usize = 32;

/// Element of `Forwarded`: a proxy's description of the request that it received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardedElement {
    /// `for`: address that sent the request; `None`: hidden (`unknown`, `_name`) or absent.
    pub client: Option<IpAddr>,
    /// `proto`: `http` or `https`.
    pub proto: Option<&'static str>,
    /// `host`, as it came.
    pub host: Option<String>,
    /// The element says more than that, or names another scheme.
    pub says_more: bool,
}

/// The elements of one field, oldest first; `None` where any of it breaks RFC 7239 section 4.
pub fn parse(field: &[u8]) -> Option<Vec<ForwardedElement>> {
    let mut reader = ForwardedReader { rest: field };
    let mut elements = vec![reader.element()?];
    while reader.takes_list_comma()? {
        if elements.len() == MOST {
            return None;
        }
        elements.push(reader.element()?);
    }
    Some(elements)
}

/// Returns the field without its addresses (`for`, `by`). A field that cannot be read, or that has unknown parameters, stays as
/// it is: any of them may decide an answer.
pub(super) fn without_addresses(field: &[u8]) -> Cow<'_, [u8]> {
    match parse(field) {
        Some(elements) if elements.iter().all(|element| !element.says_more) => {
            let told: Vec<_> = elements.iter().map(|element| (&element.host, element.proto)).collect();
            // No field holds a NUL, so this is none that stayed as it is.
            format!("\0{told:?}").into_bytes().into()
        }
        _ => field.into(),
    }
}

/// Makes the element of this proxy: `for=192.0.2.7;host="iiif.example:8080";proto=https`.
pub fn element(client: IpAddr, host: &str, proto: &str) -> String {
    let mut text = String::with_capacity(64);
    // An IPv6 address has characters that a token must not hold (section 6).
    let _ = match client {
        IpAddr::V4(address) => write!(text, "for={address}"),
        IpAddr::V6(address) => write!(text, "for=\"[{address}]\""),
    };
    if !host.is_empty()
        && host.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
    {
        let _ = write!(text, ";host=\"{host}\"");
    }
    let _ = write!(text, ";proto={proto}");
    text
}

struct ForwardedReader<'a> {
    rest: &'a [u8],
}

impl ForwardedReader<'_> {
    /// Reads the pairs of an element. No name may come twice (section 4).
    fn element(&mut self) -> Option<ForwardedElement> {
        let (mut element, mut seen) = (ForwardedElement::default(), Vec::new());
        loop {
            let name = self.token()?.to_ascii_lowercase();
            self.takes(b'=').then_some(())?;
            let value = self.value()?;
            if seen.contains(&name) {
                return None;
            }
            match name.as_slice() {
                b"for" => element.client = node(&value)?,
                b"by" => drop(node(&value)?),
                b"proto" => {
                    element.proto = proto(&value);
                    element.says_more |= element.proto.is_none();
                }
                b"host" => element.host = Some(String::from_utf8(value).ok()?),
                _ => element.says_more = true,
            }
            seen.push(name);
            if !self.takes(b';') {
                return Some(element);
            }
        }
    }

    /// `Some(true)`: another element follows. `None`: neither that nor the end.
    fn takes_list_comma(&mut self) -> Option<bool> {
        self.space();
        if self.rest.is_empty() {
            return Some(false);
        }
        self.takes(b',').then_some(())?;
        self.space();
        Some(true)
    }

    fn space(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn takes(&mut self, byte: u8) -> bool {
        let Some(rest) = self.rest.strip_prefix(&[byte]) else { return false };
        self.rest = rest;
        true
    }

    fn token(&mut self) -> Option<&[u8]> {
        let end = self.rest.iter().position(|byte| !is_token(*byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    fn value(&mut self) -> Option<Vec<u8>> {
        if !self.takes(b'"') {
            return self.token().map(<[u8]>::to_vec);
        }
        let mut value = Vec::new();
        loop {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => return Some(value),
                b'\\' => {
                    let (byte, rest) = self.rest.split_first()?;
                    self.rest = rest;
                    is_text(*byte).then(|| value.push(*byte))?;
                }
                byte => is_text(*byte).then(|| value.push(*byte))?,
            }
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Node (section 6): an address with or without a port, `unknown`, or a made-up `_name`. The outer `None` is a mistake, the
/// inner one an obfuscated node.
#[expect(
    clippy::option_option,
    reason = "three things are told apart: a mistake, somebody who hides, an address"
)]
fn node(value: &[u8]) -> Option<Option<IpAddr>> {
    let text = std::str::from_utf8(value).ok()?;
    let (name, port) = match text.rsplit_once(':') {
        // Colons of an IPv6 address stand inside its brackets.
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| !is_port(port)) {
        return None;
    }
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().ok().map(|address| Some(IpAddr::V6(address).to_canonical()));
    }
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Some(None);
    }
    name.parse::<Ipv4Addr>().ok().map(|address| Some(IpAddr::V4(address)))
}

fn is_port(port: &str) -> bool {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    digits && port.parse::<u16>().is_ok() || is_obfuscated(port)
}

fn is_obfuscated(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(plain))
}

fn proto(value: &[u8]) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|proto| proto.as_bytes().eq_ignore_ascii_case(value))
}

/// Address out of `X-Forwarded-For`, where it stands bare and some proxies add its port.
pub(super) fn bare_address(hop: &str) -> Option<IpAddr> {
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || {
        let v4 = hop.parse::<SocketAddrV4>().ok().map(|address| IpAddr::V4(*address.ip()));
        v4.or_else(|| hop.parse::<SocketAddrV6>().ok().map(|address| IpAddr::V6(*address.ip())))
    };
    hop.parse().ok().or_else(bracketed).or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(field: &str) -> Option<Vec<Option<String>>> {
        let elements = parse(field.as_bytes())?;
        Some(elements.into_iter().map(|element| element.client.map(|client| client.to_string())).collect())
    }

    #[test]
    fn the_examples_of_rfc_7239_are_read() {
        assert_eq!(clients("for=\"_gazonk\""), Some(vec![None]));
        assert_eq!(
            clients("For=\"[2001:db8:cafe::17]:4711\""),
            Some(vec![Some("2001:db8:cafe::17".to_owned())])
        );
        assert_eq!(
            clients("for=192.0.2.60;proto=http;by=203.0.113.43"),
            Some(vec![Some("192.0.2.60".to_owned())])
        );
        assert_eq!(
            clients("for=192.0.2.43, for=198.51.100.17"),
            Some(vec![Some("192.0.2.43".to_owned()), Some("198.51.100.17".to_owned())])
        );
        assert_eq!(clients("for=_hidden, for=_SEVKISEK"), Some(vec![None, None]));
        assert_eq!(
            clients("for=unknown;by=\"_x:_y\"\t,\tfor=\"192.0.2.1:80\"").map(|all| all.len()),
            Some(2)
        );
    }

    #[test]
    fn what_is_said_besides_the_client_is_read_too() {
        let field = b"for=192.0.2.1;HOST=\"a.\\example:8080\";Proto=HTTPS;more=\"x;y,z\"";
        let element = parse(field).expect("a field").remove(0);
        assert_eq!((element.host.as_deref(), element.proto), (Some("a.example:8080"), Some("https")));
        assert_eq!(parse(b"proto=gopher").expect("a field")[0].proto, None);
    }

    #[test]
    fn mistakes_are_no_fields() {
        for field in [
            "",
            ",",
            "for",
            "for=",
            "=x",
            "for=1.2.3.4;",
            "for=1.2.3.4,",
            "for=1.2.3.4 ;proto=http",
            "for=1.2.3.4;for=5.6.7.8",
            "for=2001:db8::1",
            "for=\"2001:db8::1\"",
            "for=\"[::1\"",
            "for=\"1.2.3.4",
            "for=\"1.2.3.4:99999\"",
            "for=\"1.2.3.4:+1\"",
            "for=name",
            "for=1.2.3.4 for=5.6.7.8",
            "for=\"_\"",
            "for=\"1.2.3.4\\",
            "for=1.2.3.4\0",
            "for=1.2.3.4,,for=5.6.7.8",
        ] {
            assert_eq!(clients(field), None, "{field:?}");
        }
        let long = vec!["for=1.2.3.4"; MOST + 1].join(",");
        assert_eq!(clients(&long), None);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (client, host) in [("192.0.2.7", "iiif.example:8080"), ("2001:db8::1", "[::1]:80")] {
            let client: IpAddr = client.parse().expect("an address");
            let text = element(client, host, "https");
            let read = parse(text.as_bytes()).expect("a field");
            let expected = ForwardedElement {
                client: Some(client),
                proto: Some("https"),
                host: Some(host.to_owned()),
                says_more: false,
            };
            assert_eq!(read, [expected], "{text}");
        }
        assert_eq!(element(IpAddr::from([1, 2, 3, 4]), "a\"b", "http"), "for=1.2.3.4;proto=http");
    }

    #[test]
    fn bare_addresses_may_have_brackets_and_ports() {
        for (hop, address) in [
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4:80", "1.2.3.4"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[::1]:8", "::1"),
        ] {
            assert_eq!(bare_address(hop), address.parse().ok(), "{hop}");
        }
        for hop in ["", "unknown", "1.2.3", "[1.2.3.4]", "1.2.3.4:x", "[::1"] {
            assert_eq!(bare_address(hop), None, "{hop}");
        }
    }

    #[test]
    fn addresses_alone_make_no_difference() {
        let of = |field: &str| without_addresses(field.as_bytes()).into_owned();
        assert_eq!(of("for=1.1.1.1;host=a;proto=http"), of("by=_x;proto=HTTP;for=\"[::1]:5\";host=\"a\""));
        assert_ne!(of("for=1.1.1.1;host=a"), of("for=1.1.1.1;host=b"));
        assert_ne!(of("for=1.1.1.1;proto=http"), of("for=1.1.1.1"));
        assert_ne!(of("for=1.1.1.1, host=a"), of("for=1.1.1.1;host=a"));
        for whole in ["for=1.1.1.1;proto=wss", "for=1.1.1.1;path=x", "for=1.1.1.1;host", "[(None, None)]"] {
            assert_eq!(of(whole), whole.as_bytes());
        }
    }
}
