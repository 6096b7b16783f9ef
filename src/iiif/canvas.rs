//! The URL of a canvas: a name whose visit re-registers an image. Its query belongs to it.

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

    /// Whether the canvas is on `host` (`example.org`, `example.org:8080`, `[::1]`), in any case; the port that the
    /// scheme stands for may be written or not on either side.
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

    /// Whether some reader of the path may take a part of it for `.` or `..`.
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
        // Nearly every path has nothing that could be read in two ways.
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
    pub fn visit(&self) -> String {
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
    /// assert_eq!(canvas.visit(), "/canvas/obj?page=2");
    /// assert_eq!(canvas.rebuild(), "/canvas/obj?page=2&update=true");
    /// ```
    pub fn rebuild(&self) -> String {
        with_query(&self.visit(), "update=true")
    }

    /// Path and query of the canvas built *beside* the stored one. `None`: the name itself chooses what is left out,
    /// and has a place of its own already.
    ///
    /// UPSTREAM: what is stored belongs to path, `allow` and `disallow` together; a `disallow` that fits no media type
    /// leaves nothing out, and has a place of its own (upstream.md "Ways back to life").
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
        (!chooses).then(|| with_query(&self.visit(), &format!("disallow={NOTHING}")))
    }

    fn default_port(&self) -> u16 {
        if self.scheme.eq_ignore_ascii_case("https") { 443 } else { 80 }
    }
}

/// A media type that no file has: it leaves nothing out.
pub const NOTHING: &str = "x-iiif-mender/none";

/// Is this the pair of a query with this name? Escapes are read, as the service reads them.
fn is_named(pair: &str, name: &str) -> bool {
    let own = pair.split('=').next().unwrap_or_default();
    own == name || own.contains('%') && percent_decode_str(own).eq(name.bytes())
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
/// Manifests name canvases with spaces and letters beyond ASCII in them; that is a name like any other. `None`: it holds
/// control characters or a backslash, on which two readers do not agree. Everything else is judged by
/// [`CanvasUrl::parse`], of the URI and never of the name.
///
/// ```
/// use iiif_mender::iiif::canvas::uri;
///
/// assert_eq!(uri("https://a.test/canvas/ir i-1").as_deref(), Some("https://a.test/canvas/ir%20i-1"));
/// assert_eq!(uri("https://a.test/canvas/irié").as_deref(), Some("https://a.test/canvas/iri%C3%A9"));
/// assert_eq!(uri("https://a.test/canvas\\..\\a"), None);
/// ```
pub fn uri(name: &str) -> Option<Cow<'_, str>> {
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

/// Whether two authorities are the same host and port; `default`: the port of one that names none.
pub(super) fn is_same_authority(default: u16, one: &str, other: &str) -> bool {
    let (Some((one, one_port)), Some((other, other_port))) = (split_port(one), split_port(other)) else {
        return false;
    };
    one.eq_ignore_ascii_case(other) && one_port.unwrap_or(default) == other_port.unwrap_or(default)
}

/// Host and port of an authority. `None`: no host, userinfo, or characters that have no place in either.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand inside its brackets.
        Some((host, port)) if !port.contains(']') => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            (host, Some(port.parse().ok().filter(|_| digits)?))
        }
        _ => (authority, None),
    };
    let valid = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    valid.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const CANVAS: &str = "https://api.example.org/iiif-service/fedora/canvas/3b/6f/pages/page_0";

    #[rstest]
    #[case::plain(CANVAS, "/iiif-service/fedora/canvas/3b/6f/pages/page_0")]
    #[case::query_belongs_to_it("http://h/canvas/a?page=2", "/canvas/a?page=2")]
    #[case::fragment_is_dropped("http://h/canvas/a?page=2#xywh=0,0,1,1", "/canvas/a?page=2")]
    #[case::question_mark_in_fragment("http://h/canvas/a#b?c", "/canvas/a")]
    #[case::escapes_stay("http://h/canvas/a%20b/%C3%A9;x", "/canvas/a%20b/%C3%A9;x")]
    #[case::double_slashes_stay("http://h//canvas//a", "//canvas//a")]
    #[case::empty_query("http://h/a?", "/a?")]
    #[case::no_path("http://h", "/")]
    #[case::no_path_but_query("http://h?a", "/?a")]
    #[case::scheme_in_capitals("HTTP://h/a", "/a")]
    #[case::ipv6("http://[::1]:8080/a", "/a")]
    fn a_visit_asks_for_path_and_query_as_written(#[case] url: &str, #[case] visit: &str) {
        assert_eq!(CanvasUrl::parse(url).unwrap().visit(), visit);
    }

    #[rstest]
    #[case("http://h/a", "/a?update=true")]
    #[case("http://h/a?", "/a?update=true")]
    #[case("http://h/a?page=2", "/a?page=2&update=true")]
    #[case("http://h/a?allow=image/jpeg", "/a?allow=image/jpeg&update=true")]
    #[case("http://h/a?update=true", "/a?update=true")]
    #[case("http://h/a?page=1&update", "/a?page=1&update=true")]
    #[case("http://h/a?update=&page=1", "/a?page=1&update=true")]
    #[case("http://h/a?update=1", "/a?update=true")]
    #[case("http://h/a?%75pdate=true&page=1", "/a?page=1&update=true")]
    #[case("http://h/a?noupdate=true", "/a?noupdate=true&update=true")]
    fn a_rebuild_says_update_once(#[case] url: &str, #[case] rebuild: &str) {
        assert_eq!(CanvasUrl::parse(url).unwrap().rebuild(), rebuild);
    }

    #[rstest]
    #[case::other_scheme("ftp://h/a")]
    #[case::file("file:///etc/passwd")]
    #[case::relative("/canvas/a")]
    #[case::scheme_relative("//h/a")]
    #[case::urn("urn:canvas:1")]
    #[case::userinfo("http://user@h/a")]
    #[case::userinfo_and_password("http://api.example.org:80@evil.example/a")]
    #[case::userinfo_before_query("http://h@evil.example?a")]
    #[case::backslash_in_host("http://evil.example\\@h/a")]
    #[case::backslash_in_path("http://h/a\\..\\b")]
    #[case::space("http://h/a b")]
    #[case::newline("http://h/a\r\nHost: x")]
    #[case::nul("http://h/a\0")]
    #[case::not_ascii("http://h/café")]
    #[case::host_not_ascii("http://ｈ/a")]
    #[case::no_host("http:///a")]
    #[case::only_a_port("http://:80/a")]
    #[case::empty_port("http://h:/a")]
    #[case::port_too_large("http://h:65536/a")]
    #[case::port_with_sign("http://h:+80/a")]
    #[case::host_with_escape("http://h%2e/a")]
    #[case::broken_ipv6("http://[::1/a")]
    #[case::bare_ipv6("http://::1/a")]
    #[case::no_ipv6("http://[evil]/a")]
    #[case::leading_space(" http://h/a")]
    #[case::empty("")]
    fn everything_else_is_refused(#[case] url: &str) {
        assert_eq!(CanvasUrl::parse(url), None);
    }

    #[rstest]
    #[case("http://h/a/../b", true)]
    #[case("http://h/a/.", true)]
    #[case("http://h/..", true)]
    #[case("http://h/a/%2e%2E/b", true)]
    #[case("http://h/a/.%2e/b", true)]
    #[case("http://h/a/..;x=1/b", true)]
    #[case("http://h/a/..%3Bx/b", true)]
    #[case("http://h/a%2F..%2fb", true)]
    #[case("http://h/a%5c..%5Cb", true)]
    #[case("http://h/a/...", false)]
    #[case("http://h/a..b/.well-known/c.", false)]
    #[case("http://h/a?b=/../c", false)]
    fn dot_segments_are_seen_in_every_disguise(#[case] url: &str, #[case] has: bool) {
        assert_eq!(CanvasUrl::parse(url).unwrap().has_dot_segments(), has);
    }

    #[rstest]
    #[case("https://API.Example.org/a", "api.example.org", true)]
    #[case("https://api.example.org:443/a", "api.example.org", true)]
    #[case("https://api.example.org/a", "API.example.org:443", true)]
    #[case("http://api.example.org:443/a", "api.example.org", false)]
    #[case("http://api.example.org:8080/a", "api.example.org:8080", true)]
    #[case("http://api.example.org:8080/a", "api.example.org", false)]
    #[case("http://[::1]/a", "[::1]:80", true)]
    #[case("http://api.example.org.evil.example/a", "api.example.org", false)]
    #[case("http://h/a", "", false)]
    #[case("http://h/a", "user@h", false)]
    fn hosts_are_compared_without_case_and_default_port(
        #[case] url: &str,
        #[case] host: &str,
        #[case] same: bool,
    ) {
        assert_eq!(CanvasUrl::parse(url).unwrap().authority_is(host), same);
    }

    #[test]
    fn host_and_port_are_told_apart() {
        let canvas = CanvasUrl::parse("https://Api.Example.org:8443/a").unwrap();
        assert_eq!((canvas.host().as_ref(), canvas.port()), ("api.example.org", 8443));
        let canvas = CanvasUrl::parse("http://[::1]/a").unwrap();
        assert_eq!((canvas.host().as_ref(), canvas.port()), ("[::1]", 80));
    }

    #[rstest]
    #[case::space("http://h/ir i-1", "http://h/ir%20i-1")]
    #[case::beyond_ascii("http://h/irié-2?q=ü", "http://h/iri%C3%A9-2?q=%C3%BC")]
    #[case::escapes_stay("http://h/a%20b%C3%A9", "http://h/a%20b%C3%A9")]
    #[case::mixed("http://h/a%20b c", "http://h/a%20b%20c")]
    #[case::no_escape("http://h/100% x%zz", "http://h/100%25%20x%25zz")]
    #[case::quotes("http://h/\"a\"<b>`{c|d}^", "http://h/%22a%22%3Cb%3E%60%7Bc%7Cd%7D%5E")]
    #[case::fragment("http://h/a b#x y", "http://h/a%20b#x%20y")]
    fn a_name_becomes_the_uri_that_a_client_asks_for(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(uri(name).as_deref(), Some(expected));
        assert_eq!(uri(expected).as_deref(), Some(expected), "once");
        assert!(CanvasUrl::parse(expected).is_some());
    }

    #[rstest]
    #[case::control("http://h/a\u{1}b")]
    #[case::newline("http://h/a\r\nHost: x")]
    #[case::control_beyond_ascii("http://h/a\u{85}b")]
    #[case::backslash("http://h/a\\b c")]
    fn some_characters_are_in_no_name(#[case] name: &str) {
        assert_eq!(uri(name), None);
    }

    #[rstest]
    #[case::space_in_host("http://h h/a")]
    #[case::host_beyond_ascii("http://ｈ/a")]
    #[case::userinfo("http://u ser@h/a")]
    #[case::leading_space(" http://h/a")]
    fn what_is_no_url_is_none_encoded_either(#[case] name: &str) {
        assert_eq!(CanvasUrl::parse(&uri(name).unwrap()), None);
    }

    proptest! {
        #[test]
        fn any_name_is_encoded_once(name in "(https?://h/)?\\PC*") {
            if let Some(encoded) = uri(&name) {
                let again = uri(&encoded);
                prop_assert_eq!(again.as_deref(), Some(&*encoded));
                prop_assert!(encoded.is_ascii());
            }
        }

        #[test]
        fn any_text_is_read_without_panic(url in "(https?://)?\\PC*") {
            let _ = CanvasUrl::parse(&url);
        }

        #[test]
        fn what_was_read_is_what_was_written(
            url in "https?://[a-z.]{1,9}(:[1-9][0-9]{0,3})?(/[a-z%0-9.;]*)+(\\?[a-z=&]*)?"
        ) {
            let canvas = CanvasUrl::parse(&url).unwrap();
            // A visit says nothing of `update`, whatever the name says.
            let own = format!("{}://{}{}", canvas.scheme, canvas.authority, canvas.visit());
            prop_assert!(own == url || url.contains("update"));
            prop_assert!(canvas.rebuild().starts_with(canvas.path));
            let base = format!("http://h{}", canvas.rebuild());
            let again = CanvasUrl::parse(&base).unwrap();
            prop_assert_eq!(again.rebuild(), canvas.rebuild());
        }
    }
}
