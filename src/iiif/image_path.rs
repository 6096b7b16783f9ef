//! The path of an image, made of its lookup key: the other way round than [`ImageRequest::parse`] reads it.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::image_request::value_in_query;
use super::{Identifier, ImageRequest};

/// Spelling of the slashes of an identifier. A key has one form for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slashes {
    /// `volume%2Fpage`, as the Image API wants it.
    Encoded,
    /// `volume/page`, as some servers want it.
    Literal,
}

/// Characters that must not stand raw in a path segment (RFC 3986 section 3.3), besides those beyond ASCII.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// Characters that must not stand raw in the value of `IIIF=` (RFC 3986 section 3.4); `&` would end it.
const VALUE: &AsciiSet = &PATH.remove(b'?').add(b'&');

/// The identifier with this lookup key as it stands in a URL, behind the base of its image server.
///
/// A key that names a server with its path in the query (`iipsrv.fcgi?IIIF=volume/page`) has its `?` and slashes as they
/// are. `None`: it would lead out of the base, by a dot segment.
///
/// ```
/// use iiif_mender::iiif::image_path::{Slashes, path_of_key};
///
/// assert_eq!(path_of_key("a b/é", Slashes::Encoded).unwrap(), "a%20b%2F%C3%A9");
/// assert_eq!(path_of_key("a b/é", Slashes::Literal).unwrap(), "a%20b/%C3%A9");
/// assert_eq!(path_of_key("iipsrv.fcgi?IIIF=a b/c", Slashes::Encoded).unwrap(), "iipsrv.fcgi?IIIF=a%20b/c");
/// assert_eq!(path_of_key("..", Slashes::Encoded), None);
/// ```
pub fn path_of_key(key: &str, slashes: Slashes) -> Option<String> {
    // SECURITY: many servers decode before they resolve dot segments, and a manifest may hold any text.
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    let path = key.split('?').next().unwrap_or(key);
    if path.split(['/', '\\']).any(is_dots) {
        return None;
    }
    let encode = |text: &str, set: &'static AsciiSet| utf8_percent_encode(text, set).to_string();
    let in_query = || {
        let (before, value) = key.split_at_checked(value_in_query(key)?)?;
        let (path, query) = before.split_once('?')?;
        let written = format!("{}?{}{}", encode(path, PATH), encode(query, PATH), encode(value, VALUE));
        let request = format!("{written}/info.json");
        (ImageRequest::parse(&request)?.identifier.as_sent() == written).then_some((written, value))
    };
    let written = match in_query() {
        Some((_, value)) if value.split(['/', '\\']).any(is_dots) => return None,
        Some((written, _)) => written,
        None => {
            let may_be_literal = !key.starts_with('/') && !key.ends_with('/') && !key.contains("//");
            encode(key, if slashes == Slashes::Literal && may_be_literal { PATH } else { SEGMENT })
        }
    };
    // A key that is not UTF-8 when decoded is kept as it was sent, escapes and all.
    let as_sent = written.replace("%25", "%");
    let is_as_sent = percent_decode_str(key).decode_utf8().is_err() && Identifier::new(&as_sent).key() == key;
    Some(if is_as_sent { as_sent } else { written })
}

/// Spelling of the slashes of an identifier, if it has any.
pub fn slashes_of(identifier: Identifier<'_>) -> Option<Slashes> {
    let sent = identifier.as_sent();
    let path = sent.split('?').next().unwrap_or(sent);
    if path.contains('/') {
        return Some(Slashes::Literal);
    }
    let is_encoded = path.as_bytes().windows(3).any(|escape| escape.eq_ignore_ascii_case(b"%2f"));
    is_encoded.then_some(Slashes::Encoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("abc", "abc", "abc")]
    #[case::page(
        "7f25e640-6dfd-3e3a-955d-524f259c8039;2",
        "7f25e640-6dfd-3e3a-955d-524f259c8039;2",
        "7f25e640-6dfd-3e3a-955d-524f259c8039;2"
    )]
    #[case::slash("vol1/f1", "vol1%2Ff1", "vol1/f1")]
    #[case::encoded_twice("vol1%2Ff1", "vol1%252Ff1", "vol1%252Ff1")]
    #[case::space("ir i-1", "ir%20i-1", "ir%20i-1")]
    #[case::beyond_ascii("irié", "iri%C3%A9", "iri%C3%A9")]
    #[case::question_mark("a?b", "a%3Fb", "a%3Fb")]
    #[case::hash("a#b", "a%23b", "a%23b")]
    #[case::what_a_url_never_has("a{b}|\\^`", "a%7Bb%7D%7C%5C%5E%60", "a%7Bb%7D%7C%5C%5E%60")]
    #[case::not_text("%41%ff", "%41%ff", "%41%ff")]
    #[case::slashes_that_nothing_else_can_write("/a//b/", "%2Fa%2F%2Fb%2F", "%2Fa%2F%2Fb%2F")]
    #[case::in_the_query(
        "iipsrv.fcgi?IIIF=vol1/f1.tif",
        "iipsrv.fcgi?IIIF=vol1/f1.tif",
        "iipsrv.fcgi?IIIF=vol1/f1.tif"
    )]
    #[case::nothing_in_the_query("a?IIIF=", "a%3FIIIF=", "a%3FIIIF=")]
    #[case::in_the_query_of_a_request("a/info.json?IIIF=b", "a%2Finfo.json%3FIIIF=b", "a/info.json%3FIIIF=b")]
    #[case::in_the_query_with_others(
        "x/i?a=b&iiif=/v&1/f 1#é",
        "x/i?a=b&iiif=/v%261/f%201%23%C3%A9",
        "x/i?a=b&iiif=/v%261/f%201%23%C3%A9"
    )]
    fn a_key_is_written_as_it_is_read(#[case] key: &str, #[case] encoded: &str, #[case] literal: &str) {
        for (slashes, path) in [(Slashes::Encoded, encoded), (Slashes::Literal, literal)] {
            let written = path_of_key(key, slashes).unwrap();
            assert_eq!(written, path);
            for tail in ["info.json", "full/max/0/default.jpg"] {
                let request = format!("{written}/{tail}");
                assert_eq!(ImageRequest::parse(&request).unwrap().identifier.key(), key, "{request}");
            }
        }
    }

    #[rstest]
    #[case("..")]
    #[case("a/../b")]
    #[case("a\\..\\b")]
    #[case("./a")]
    #[case("a/..;x/b")]
    #[case("i?IIIF=../../etc/passwd")]
    fn what_leads_out_of_the_base_has_no_path(#[case] key: &str) {
        for slashes in [Slashes::Encoded, Slashes::Literal] {
            assert_eq!(path_of_key(key, slashes), None);
        }
    }

    #[test]
    fn slashes_are_told() {
        let of = |sent| slashes_of(Identifier::new(sent));
        assert_eq!(
            [of("a/b"), of("a%2fb"), of("a"), of("i?IIIF=a/b")],
            [Some(Slashes::Literal), Some(Slashes::Encoded), None, None]
        );
    }

    proptest! {
        #[test]
        fn any_key_is_written_as_it_is_read(key in "([a-zé \\.;:@&=+$,#%?{}/-]|%2F|%ff|IIIF=|info.json){1,12}") {
            for slashes in [Slashes::Encoded, Slashes::Literal] {
                let Some(path) = path_of_key(&key, slashes) else { continue };
                let target = format!("/{path}/info.json");
                prop_assert!(target.parse::<http::Uri>().is_ok(), "{}", target);
                if let Some(request) = ImageRequest::parse(&format!("{path}/info.json")) {
                    prop_assert_eq!(request.identifier.key(), &*key, "{}", path);
                }
            }
        }
    }
}
