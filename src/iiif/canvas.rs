//! The URL of a canvas: a name whose visit re-registers an image. The query is part of the name.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A canvas URL taken apart; text only, never normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CanvasUrl<'a> {
    /// `http` or `https`, in the case in which it was written.
    pub scheme: &'a str,
    /// Host and optional port as written (userinfo makes the URL unreadable).
    pub authority: &'a str,
    /// Path from the first `/`, without query and fragment; `/` where there is none.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
}

impl<'a> CanvasUrl<'a> {
    /// Reads an absolute http(s) URL; the fragment is dropped.
    ///
    /// `None` for anything else: other schemes, userinfo, no host, a host or port of odd characters, and anywhere
    /// control characters, spaces, backslashes, `"<>` or backticks, or anything beyond ASCII (RFC 3986 wants those
    /// escaped, and two readers would not agree on them).
    ///
    /// ```
    /// use iiif_mender::iiif::CanvasUrl;
    ///
    /// let canvas = CanvasUrl::parse("https://Example.org/canvas/obj?page=2#xywh=1").unwrap();
    /// assert_eq!((canvas.path, canvas.query), ("/canvas/obj", Some("page=2")));
    /// assert_eq!((&*canvas.host(), canvas.port()), ("example.org", 443));
    /// assert_eq!(CanvasUrl::parse("https://user@example.org/canvas"), None);
    /// ```
    pub fn parse(url: &'a str) -> Option<Self> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\\"<>`".contains(&byte)) {
            return None;
        }
        let (scheme, rest) = url.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return None;
        }
        let rest = rest.split('#').next()?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        split_port(authority)?;
        Some(Self { scheme, authority, path, query })
    }

    /// The host in lower case; an IPv6 address keeps its brackets.
    pub fn host(&self) -> Cow<'a, str> {
        let host = split_port(self.authority).map_or(self.authority, |(host, _)| host);
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        }
    }

    /// The port, or the one that the scheme stands for.
    pub fn port(&self) -> u16 {
        split_port(self.authority).and_then(|(_, port)| port).unwrap_or_else(|| self.default_port())
    }

    /// True if the canvas is on `host` (`example.org`, `example.org:8080`, `[::1]`), in any case; the port that the scheme
    /// stands for may be written or not on either side.
    ///
    /// ```
    /// use iiif_mender::iiif::CanvasUrl;
    ///
    /// let canvas = CanvasUrl::parse("https://example.org/canvas").unwrap();
    /// assert!(canvas.authority_is("EXAMPLE.org:443") && !canvas.authority_is("example.org:80"));
    /// ```
    pub fn authority_is(&self, host: &str) -> bool {
        is_same_authority(self.default_port(), self.authority, host)
    }

    /// True if some parser of the path may take a part of it for `.` or `..`.
    ///
    /// SECURITY: a path that lies under a prefix as text must also lie there once the server has resolved it.
    /// Servlet containers cut `;…` off a segment first, and some decode `%2f` and `%5c`, so those count as well.
    ///
    /// ```
    /// use iiif_mender::iiif::CanvasUrl;
    ///
    /// assert!(CanvasUrl::parse("https://example.org/canvas/%2e%2e;x/admin").unwrap().has_dot_segments());
    /// assert!(!CanvasUrl::parse("https://example.org/canvas/a..b").unwrap().has_dot_segments());
    /// ```
    pub fn has_dot_segments(&self) -> bool {
        // Nearly every path has neither `%` nor `;`, so its segments can be compared as they are.
        if !self.path.contains(['%', ';']) {
            return self.path.split('/').any(|segment| matches!(segment, "." | ".."));
        }
        let path = self.path.to_ascii_lowercase().replace("%2e", ".").replace("%3b", ";");
        path.replace("%2f", "/")
            .replace("%5c", "/")
            .split('/')
            .map(|segment| segment.split(';').next().unwrap_or_default())
            .any(|segment| segment == "." || segment == "..")
    }

    /// Path and query as requested by a visit: whatever a manifest says, a visit never has anything built anew.
    ///
    /// SECURITY: an `update` in the name of a canvas would make every visit of it a rebuild, so it is dropped, also
    /// where it is written with escapes.
    pub fn visit_target(&self) -> String {
        let Some(query) = self.query else { return self.path.to_owned() };
        let own: Vec<&str> = query.split('&').filter(|pair| !is_named(pair, "update")).collect();
        match own.join("&") {
            own if own.is_empty() && !query.is_empty() => self.path.to_owned(),
            own => format!("{}?{own}", self.path),
        }
    }

    /// Path and query as requested by a rebuild: `update=true` appended to whatever query there is.
    ///
    /// UPSTREAM: the service takes `update`, `update=` and `update=true` for yes, and no other spelling.
    ///
    /// ```
    /// use iiif_mender::iiif::CanvasUrl;
    ///
    /// let canvas = CanvasUrl::parse("https://example.org/canvas/obj?page=2").unwrap();
    /// assert_eq!(canvas.visit_target(), "/canvas/obj?page=2");
    /// assert_eq!(canvas.rebuild_target(), "/canvas/obj?page=2&update=true");
    /// ```
    pub fn rebuild_target(&self) -> String {
        rebuild_target(&self.visit_target())
    }

    /// Path and query of the canvas built *beside* the stored one. `None`: the name itself leaves images out, and has a
    /// cache entry of its own already.
    ///
    /// UPSTREAM: the service's cache key is path, `allow` and `disallow` together; a `disallow` that fits no media type
    /// leaves nothing out, and has an entry of its own (upstream.md "Ways back to life").
    ///
    /// ```
    /// use iiif_mender::iiif::CanvasUrl;
    ///
    /// let canvas = CanvasUrl::parse("https://example.org/canvas/obj?page=2").unwrap();
    /// assert_eq!(canvas.variant().as_deref(), Some("/canvas/obj?page=2&disallow=x-iiif-mender/none"));
    /// let chosen = CanvasUrl::parse("https://example.org/canvas/obj?allow=image/png").unwrap();
    /// assert_eq!(chosen.variant(), None);
    /// ```
    pub fn variant(&self) -> Option<String> {
        let mut pairs = self.query.unwrap_or_default().split('&');
        let chooses = pairs.any(|pair| is_named(pair, "allow") || is_named(pair, "disallow"));
        (!chooses).then(|| with_query(&self.visit_target(), &format!("disallow={NOTHING}")))
    }

    fn default_port(&self) -> u16 {
        if self.scheme.eq_ignore_ascii_case("https") { 443 } else { 80 }
    }
}

/// Media type that no file has, so it leaves nothing out.
pub const NOTHING: &str = "x-iiif-mender/none";

/// True if this is the pair of a query with this name. Escapes are decoded, as the service does.
fn is_named(pair: &str, name: &str) -> bool {
    let own = pair.split('=').next().unwrap_or_default();
    own == name || own.contains('%') && percent_decode_str(own).eq(name.bytes())
}

/// Adds `update=true` to a target that says nothing of `update`.
pub fn rebuild_target(visit: &str) -> String {
    with_query(visit, "update=true")
}

/// The target with one more pair in its query.
fn with_query(target: &str, pair: &str) -> String {
    match target.split_once('?') {
        None => format!("{target}?{pair}"),
        Some((path, "")) => format!("{path}?{pair}"),
        Some(_) => format!("{target}&{pair}"),
    }
}

/// The URI of a name: what RFC 3986 does not allow is percent-encoded, as every client does before it asks (RFC 3987
/// section 3.1). Borrowed where the name is a URI already.
///
/// Manifests name canvases with spaces and letters beyond ASCII in them; such names are accepted. `None`: the name holds
/// control characters or a backslash, on which two parsers do not agree. All other checks are those of
/// [`CanvasUrl::parse`], on the URI and never on the name.
///
/// ```
/// use iiif_mender::iiif::canvas::uri;
///
/// assert_eq!(uri("https://a.test/canvas/ir i-1").as_deref(), Some("https://a.test/canvas/ir%20i-1"));
/// assert_eq!(uri("https://a.test/canvas/irié").as_deref(), Some("https://a.test/canvas/iri%C3%A9"));
/// assert_eq!(uri("https://a.test/canvas\\..\\a"), None);
/// ```
pub fn uri(name: &str) -> Option<Cow<'_, str>> {
    if name.bytes().all(is_plain) {
        return Some(Cow::Borrowed(name));
    }
    if name.chars().any(|character| character.is_control() || character == '\\') {
        return None;
    }
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"<>`{|}^".contains(&byte);
    let is_escape =
        |rest: &[u8]| matches!(rest, [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    let stays = |at: usize, byte: u8| is_allowed(byte) && (byte != b'%' || is_escape(&name.as_bytes()[at..]));
    if name.bytes().enumerate().all(|(at, byte)| stays(at, byte)) {
        return Some(Cow::Borrowed(name));
    }
    let mut encoded = String::with_capacity(name.len() + 16);
    for (at, byte) in name.bytes().enumerate() {
        if stays(at, byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(percent_encoding::percent_encode_byte(byte));
        }
    }
    Some(Cow::Owned(encoded))
}

/// True for a byte that stands in a URI as it is, whatever stands beside it: nearly every byte of nearly every name.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!' | b'#' | b'$' | b'&'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~')
}

/// True if two authorities are the same host and port; `default`: the port of one that names none.
pub(super) fn is_same_authority(default: u16, one: &str, other: &str) -> bool {
    if one.eq_ignore_ascii_case(other) {
        return split_port(one).is_some();
    }
    let (Some((one, one_port)), Some((other, other_port))) = (split_port(one), split_port(other)) else {
        return false;
    };
    one.eq_ignore_ascii_case(other) && one_port.unwrap_or(default) == other_port.unwrap_or(default)
}

/// Host and port of an authority. `None`: no host, userinfo, or characters that have no place in either.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    // Nearly all are a name alone.
    if authority.bytes().all(is_of_name) {
        return (!authority.is_empty()).then_some((authority, None));
    }
    let (host, port) = match authority.rsplit_once(':') {
        // Colons of an IPv6 address stand inside its brackets.
        Some((host, port)) if !port.contains(']') => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            (host, Some(port.parse().ok().filter(|_| digits)?))
        }
        _ => (authority, None),
    };
    let valid = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_of_name),
    };
    valid.then_some((host, port))
}

#[cfg(test)]
mod tests;
