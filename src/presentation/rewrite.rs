//! Rewriting of hosts: URLs that name us get the host that the viewer knows, in JSON as it streams by.
//!
//! In JSON a URL can stand in a string only, so no tree is needed: it is enough to look at every `:` that is followed by
//! two slashes, plain or escaped (`https:\/\/`), and at its surroundings. The bytes kept back between two pieces are a few
//! more than the longest host.

use std::sync::Arc;

use http::uri::Scheme;
use http::{HeaderName, HeaderValue};
use memchr::memchr;

use crate::config::Settings;
use crate::config::settings::UpstreamUrl;

/// The longest scheme, and the byte before it.
const MAX_SCHEME: usize = 6;

/// Rule of rewriting: hosts to replace, and the URL to put in their place.
#[derive(Debug)]
pub struct RewriteRule {
    /// Host names, lower case, with a port only where it is not the scheme's own.
    hosts: Vec<Box<[u8]>>,
    /// `https://iiif.example.edu`
    plain: Box<[u8]>,
    /// `https:\/\/iiif.example.edu`
    escaped: Box<[u8]>,
    /// Bytes behind a colon that must be seen before it can be judged.
    reach: usize,
    /// The longest document that is held to be unpacked.
    pub(super) longest: usize,
    /// Public URL, as `X-Forwarded-*` fields.
    pub(super) told: [(HeaderName, HeaderValue); 3],
}

impl RewriteRule {
    /// `None`: nothing is to be rewritten.
    pub fn of(settings: &Settings) -> Option<Arc<Self>> {
        let url = settings.rewrite.public_url.as_ref()?;
        let hosts: Vec<Box<[u8]>> =
            settings.server.public_hosts.iter().map(|host| host.as_bytes().into()).collect();
        let longest = hosts.iter().map(|host| host.len()).max()?;
        let (scheme, authority) = (&url.scheme, &url.authority);
        Some(Arc::new(Self {
            hosts,
            plain: format!("{scheme}://{authority}").into_bytes().into(),
            escaped: format!("{scheme}:\\/\\/{authority}").into_bytes().into(),
            // `:\/\/`, the host, `:443`, and two bytes to see where it ends.
            reach: 5 + longest + 4 + 2,
            longest: settings.presentation.max_body,
            told: forwarded_url(url),
        }))
    }

    /// The whole text at once.
    pub fn whole(self: &Arc<Self>, text: &[u8]) -> Vec<u8> {
        let mut rewriter = Rewriter::new(Arc::clone(self));
        let mut out = Vec::with_capacity(text.len() + text.len() / 16);
        rewriter.push(text, &mut out);
        rewriter.finish(&mut out);
        out
    }

    /// Judges the colon at `at`. `last`: nothing follows `text`.
    fn match_url(&self, text: &[u8], at: usize, last: bool) -> UrlMatch {
        let behind = &text[at + 1..];
        if behind.len() < self.reach && !last {
            // Most colons stand between a key and its value.
            return if may_begin(behind) { UrlMatch::Unclear } else { UrlMatch::Other };
        }
        let (slashes, is_escaped) = match behind {
            [b'/', b'/', ..] => (2, false),
            [b'\\', b'/', b'\\', b'/', ..] => (4, true),
            _ => return UrlMatch::Other,
        };
        let Some((scheme, default_port)) = scheme_before(&text[..at]) else { return UrlMatch::Other };
        let host_at = at + 1 + slashes;
        for host in &self.hosts {
            let Some(named) = text.get(host_at..host_at + host.len()) else { continue };
            if !named.eq_ignore_ascii_case(host) {
                continue;
            }
            let mut end = host_at + host.len();
            if let Some(rest) = text[end..].strip_prefix(default_port)
                && !rest.first().is_some_and(u8::is_ascii_digit)
            {
                end += default_port.len();
            }
            if ends_host(&text[end..]) {
                return UrlMatch::Ours { start: at - scheme, end, is_escaped };
            }
        }
        UrlMatch::Other
    }
}

enum UrlMatch {
    /// The URL names us, from `start` to `end`.
    Ours {
        start: usize,
        end: usize,
        is_escaped: bool,
    },
    Other,
    /// More must be seen.
    Unclear,
}

/// True if two slashes may begin here, as far as the text is known.
fn may_begin(behind: &[u8]) -> bool {
    let begins = |with: &[u8]| behind.iter().zip(with).all(|(one, other)| one == other);
    begins(b"//") || begins(b"\\/\\/")
}

/// Length of `http` or `https` at the end, and its default port. A URL in the path of another one
/// (`https://web.archive.org/web/2020/https://…`) is left alone.
fn scheme_before(text: &[u8]) -> Option<(usize, &'static [u8])> {
    let ends =
        |with: &[u8]| text.len() >= with.len() && text[text.len() - with.len()..].eq_ignore_ascii_case(with);
    let (scheme, port): (usize, &[u8]) = match () {
        () if ends(b"https") => (5, b":443"),
        () if ends(b"http") => (4, b":80"),
        () => return None,
    };
    (text.len() == scheme || text[text.len() - scheme - 1] != b'/').then_some((scheme, port))
}

/// True if the host ends here. `api.library.tamu.edu.evil`, `….edu:8080`, `….edu@evil` go on.
fn ends_host(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        // An escaped character may be any character.
        [b'\\', b'u', ..] => false,
        [byte, ..] => !byte.is_ascii_alphanumeric() && byte.is_ascii() && !b"-._~%@:".contains(byte),
    }
}

/// X-Forwarded fields with scheme, host and port of a URL. A value that cannot be written in a field is left out.
fn forwarded_url(url: &UpstreamUrl) -> [(HeaderName, HeaderValue); 3] {
    let default = if url.scheme == Scheme::HTTPS { 443 } else { 80 };
    let port = url.authority.port_u16().unwrap_or(default).to_string();
    [
        ("x-forwarded-proto", url.scheme.as_str()),
        ("x-forwarded-host", url.authority.as_str()),
        ("x-forwarded-port", &*port),
    ]
    .map(|(name, value)| {
        let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
        (HeaderName::from_static(name), value)
    })
}

/// Rewrites a text that comes in pieces, wherever they are cut.
#[derive(Debug)]
pub struct Rewriter {
    rewrite: Arc<RewriteRule>,
    /// Bytes that are not judged yet, and the bytes before them that matter.
    kept: Vec<u8>,
}

impl Rewriter {
    /// A rewriter at the beginning of a text.
    pub fn new(rewrite: Arc<RewriteRule>) -> Self {
        Self { rewrite, kept: Vec::new() }
    }

    /// Takes a piece, and writes the bytes that are certain.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let (mut piece, reach) = (piece, self.rewrite.reach);
        // Only the seam between two pieces is copied together; the rest is read in place.
        if !self.kept.is_empty() {
            let (seam, rest) = piece.split_at(piece.len().min(2 * (MAX_SCHEME + reach)));
            self.kept.extend_from_slice(seam);
            if rest.is_empty() {
                let kept = std::mem::take(&mut self.kept);
                self.kept = kept[self.run(&kept, false, out)..].to_vec();
                return;
            }
            // The unread rest of the seam lies within the piece: it is never longer than `MAX_SCHEME + reach`.
            let kept = std::mem::take(&mut self.kept);
            let left = kept.len() - self.run(&kept, false, out);
            piece = &piece[seam.len().saturating_sub(left)..];
        }
        self.kept = piece[self.run(piece, false, out)..].to_vec();
    }

    /// Ends the text: the bytes kept back are judged without more.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let kept = std::mem::take(&mut self.kept);
        self.run(&kept, true, out);
    }

    /// Writes the bytes that are certain; returns where the rest begins.
    fn run(&self, text: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let (mut done, mut next) = (0, 0);
        let mut until = if last { text.len() } else { text.len().saturating_sub(MAX_SCHEME) };
        while let Some(found) = memchr(b':', &text[next..]) {
            let at = next + found;
            match self.rewrite.match_url(text, at, last) {
                UrlMatch::Other => next = at + 1,
                UrlMatch::Unclear => {
                    until = until.min(at.saturating_sub(MAX_SCHEME));
                    break;
                }
                UrlMatch::Ours { start, end, is_escaped } => {
                    out.extend_from_slice(&text[done..start]);
                    let ours = if is_escaped { &self.rewrite.escaped } else { &self.rewrite.plain };
                    out.extend_from_slice(ours);
                    (done, next) = (end, end);
                }
            }
        }
        let until = until.max(done);
        out.extend_from_slice(&text[done..until]);
        until
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::config::tests::settings_of;

    pub(in crate::presentation) fn rewrite() -> Arc<RewriteRule> {
        let text = "[server]\npublic_hosts = [\"api.library.tamu.edu\", \"localhost:8182\"]\n[rewrite]\npublic_url = \"https://iiif.example.edu\"\n[[routes]]\nprefix = \"/\"\nupstream = \"http://a.example/\"";
        RewriteRule::of(&settings_of(text)).expect("a host to rewrite")
    }

    fn rewritten(text: &str) -> String {
        String::from_utf8(rewrite().whole(text.as_bytes())).expect("UTF-8")
    }

    #[rstest]
    #[case::plain(
        r#"{"@id":"https://api.library.tamu.edu/iiif/2/a"}"#,
        r#"{"@id":"https://iiif.example.edu/iiif/2/a"}"#
    )]
    #[case::http("\"http://api.library.tamu.edu/a\"", "\"https://iiif.example.edu/a\"")]
    #[case::capitals("\"HTTPS://API.Library.TAMU.edu/a\"", "\"https://iiif.example.edu/a\"")]
    #[case::escaped(r#""https:\/\/api.library.tamu.edu\/a""#, r#""https:\/\/iiif.example.edu\/a""#)]
    #[case::bare("\"https://api.library.tamu.edu\"", "\"https://iiif.example.edu\"")]
    #[case::own_port("\"https://api.library.tamu.edu:443/a\"", "\"https://iiif.example.edu/a\"")]
    #[case::http_port("\"http://api.library.tamu.edu:80/a\"", "\"https://iiif.example.edu/a\"")]
    #[case::named_port("\"http://localhost:8182/a\"", "\"https://iiif.example.edu/a\"")]
    #[case::in_html(
        r#""<a href=\"https://api.library.tamu.edu/a\">""#,
        r#""<a href=\"https://iiif.example.edu/a\">""#
    )]
    #[case::behind_a_line(
        r#""see:\nhttps://api.library.tamu.edu/a""#,
        r#""see:\nhttps://iiif.example.edu/a""#
    )]
    #[case::in_a_query(
        "\"https://v.org/?m=http://api.library.tamu.edu/a\"",
        "\"https://v.org/?m=https://iiif.example.edu/a\""
    )]
    #[case::alone("https://api.library.tamu.edu", "https://iiif.example.edu")]
    #[case::link(
        "<https://api.library.tamu.edu/a>;rel=canonical",
        "<https://iiif.example.edu/a>;rel=canonical"
    )]
    fn what_names_us_is_rewritten(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(rewritten(text), expected);
    }

    #[rstest]
    #[case("\"https://api.library.tamu.edu.evil/a\"")]
    #[case("\"https://api.library.tamu.edu:8443/a\"")]
    #[case("\"https://api.library.tamu.edu:4430/a\"")]
    #[case("\"https://api.library.tamu.edu@evil/a\"")]
    #[case("\"https://api.library.tamu.edu-x/a\"")]
    #[case("\"https://xapi.library.tamu.edu/a\"")]
    #[case("\"https://user@api.library.tamu.edu/a\"")]
    #[case("\"https://evil/api.library.tamu.edu/a\"")]
    #[case(r#""https://api.library.tamu.edu\u002eevil/a""#)]
    #[case("\"https://localhost/a\"")]
    #[case("\"ftp://api.library.tamu.edu/a\"")]
    #[case("\"https:/api.library.tamu.edu/a\"")]
    #[case("\"https://web.archive.org/web/2020/https://api.library.tamu.edu/a\"")]
    #[case("{\"a\":1,\"b\" : [ :: ] }")]
    fn what_does_not_stays_as_it_is(#[case] text: &str) {
        assert_eq!(rewritten(text), text);
    }

    fn texts() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("https://api.library.tamu.edu"),
            Just(r"http:\/\/api.library.tamu.edu"),
            Just("http://localhost:8182"),
            Just("https"),
            Just(":"),
            Just("//"),
            Just(r"\/"),
            Just("api.library.tamu.edu"),
            Just(":443"),
            Just(".evil"),
            Just("\""),
            Just("a long label that stands between two links, as they do in manifests of books"),
            Just("/iiif/2/x"),
            Just("é"),
        ];
        prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn wherever_it_is_cut_the_same_comes_out(text in texts(), cuts in prop::collection::vec(0..90_usize, 0..20)) {
            let whole = rewritten(&text);
            let (mut rewriter, mut out) = (Rewriter::new(rewrite()), Vec::new());
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                rewriter.push(piece, &mut out);
                assert!(rewriter.kept.len() <= MAX_SCHEME + rewriter.rewrite.reach);
                rest = left;
            }
            rewriter.push(rest, &mut out);
            rewriter.finish(&mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), whole);
        }

        #[test]
        fn what_was_rewritten_is_not_rewritten_again(text in texts()) {
            let once = rewritten(&text);
            prop_assert_eq!(rewritten(&once), once);
        }
    }
}
