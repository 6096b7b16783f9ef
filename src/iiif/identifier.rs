//! The `{id}` of `/iiif/2/{id}/…`, kept exactly as sent.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose};
use md5::{Digest as _, Md5};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use uuid::Uuid;

/// An identifier as it stands in a URL, percent-encoding untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identifier<'a>(&'a str);

/// Kind of an identifier (upstream.md "Identifiers").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentifierKind {
    /// UUID (version 3 of the file URL upstream), and the page of a PDF.
    Uuid {
        /// The UUID.
        uuid: Uuid,
        /// `;page`, counted from 1.
        page: Option<u32>,
    },
    /// base64 of a file URL, and the page of a PDF.
    FileUrl {
        /// The decoded URL: `http:`, `https:` or `file:`, without control characters.
        url: String,
        /// `;page`, counted from 1.
        page: Option<u32>,
    },
    /// Other identifier.
    Other,
}

impl<'a> Identifier<'a> {
    /// Wraps the path segment as it was sent.
    pub fn new(as_sent: &'a str) -> Self {
        Self(as_sent)
    }

    /// Segment as it was sent, and as it goes upstream.
    pub fn as_sent(&self) -> &'a str {
        self.0
    }

    /// The one lookup key: percent-decoded once, nothing else changed.
    ///
    /// Case stays, since an upper-case UUID is not the same identifier upstream. Escapes that are none (`%zz`)
    /// stay as they are; where the decoded bytes are not UTF-8 the whole identifier does.
    ///
    /// ```
    /// use iiif_mender::iiif::Identifier;
    ///
    /// assert_eq!(Identifier::new("a%2Fb%3B2").key(), "a/b;2");
    /// assert_eq!(Identifier::new("%zz").key(), "%zz");
    /// ```
    pub fn key(&self) -> Cow<'a, str> {
        // The common identifier has no `%`: one search and no copy.
        if memchr::memchr(b'%', self.0.as_bytes()).is_none() {
            return Cow::Borrowed(self.0);
        }
        percent_decode_str(self.0).decode_utf8().unwrap_or(Cow::Borrowed(self.0))
    }

    /// Kind of the identifier; read from the [key](Self::key), so `%3B` and `%3D` count as `;` and `=`.
    ///
    /// ```
    /// use iiif_mender::iiif::{Identifier, IdentifierKind};
    ///
    /// let page = Identifier::new("7f25e640-6dfd-3e3a-955d-524f259c8039;2").kind();
    /// assert!(matches!(page, IdentifierKind::Uuid { page: Some(2), .. }));
    /// let file = Identifier::new("aHR0cHM6Ly9hLnRlc3QvZmlsZS5qcGc").kind();
    /// assert!(matches!(file, IdentifierKind::FileUrl { url, page: None } if url == "https://a.test/file.jpg"));
    /// ```
    pub fn kind(&self) -> IdentifierKind {
        let key = self.key();
        let Some((name, page)) = split_page(&key) else { return IdentifierKind::Other };
        if let Some(uuid) = lower_case_uuid(name) {
            return IdentifierKind::Uuid { uuid, page };
        }
        match decode_file_url(name) {
            Some(url) => IdentifierKind::FileUrl { url, page },
            None => IdentifierKind::Other,
        }
    }
}

/// True if two lookup keys name the same file. A picture may be named by its base64 identifier or by its UUID, and a single
/// page of a PDF may be named without its page (upstream.md "Identifiers").
///
/// ```
/// use iiif_mender::iiif::identifier::{same_file, uuid_of_file_url};
///
/// let uuid = uuid_of_file_url("https://a.test/file.jpg").to_string();
/// assert!(same_file("aHR0cHM6Ly9hLnRlc3QvZmlsZS5qcGc", &uuid));
/// ```
pub fn same_file(one: &str, other: &str) -> bool {
    one == other || matches!((file_of(one), file_of(other)), (Some(one), Some(other)) if one == other)
}

/// True if two lookup keys name the same image: the same file, and the same page of it. No page is the first one.
///
/// ```
/// use iiif_mender::iiif::identifier::same_image;
///
/// let uuid = "7f25e640-6dfd-3e3a-955d-524f259c8039";
/// assert!(same_image(uuid, &format!("{uuid};1")));
/// assert!(!same_image(uuid, &format!("{uuid};2")));
/// ```
pub fn same_image(one: &str, other: &str) -> bool {
    one == other || matches!((image_of(one), image_of(other)), (Some(one), Some(other)) if one == other)
}

/// The UUID of the file that a lookup key names, whichever way it does, and the page of it.
pub(crate) fn image_of(key: &str) -> Option<(Uuid, u32)> {
    match Identifier::new(key).kind() {
        IdentifierKind::Uuid { page, .. } | IdentifierKind::FileUrl { page, .. } => {
            Some((file_of(key)?, page.unwrap_or(1)))
        }
        IdentifierKind::Other => None,
    }
}

/// The UUID of the file that a lookup key names, whichever way it does.
pub(crate) fn file_of(key: &str) -> Option<Uuid> {
    match Identifier::new(key).kind() {
        IdentifierKind::Uuid { uuid, .. } => Some(uuid),
        IdentifierKind::FileUrl { url, .. } => Some(uuid_of_file_url(&url)),
        IdentifierKind::Other => None,
    }
}

/// The identifier that the canvas service gives to a file URL: Java's `UUID.nameUUIDFromBytes`, which is
/// UUID version 3 without a namespace (upstream.md "Identifiers").
///
/// ```
/// use iiif_mender::iiif::identifier::uuid_of_file_url;
///
/// let uuid = uuid_of_file_url("https://a.test/file.jpg");
/// assert_eq!(uuid.get_version_num(), 3);
/// ```
pub fn uuid_of_file_url(url: &str) -> Uuid {
    uuid::Builder::from_md5_bytes(Md5::digest(url.as_bytes()).into()).into_uuid()
}

/// The identifier that needs no Redis: base64 of the file URL, ready to stand in a path as one segment.
///
/// ```
/// use iiif_mender::iiif::identifier::base64_of_file_url;
///
/// assert_eq!(base64_of_file_url("https://a.test/f.jpg"), "aHR0cHM6Ly9hLnRlc3QvZi5qcGc%3D");
/// ```
pub fn base64_of_file_url(url: &str) -> String {
    /// Characters of base64 that a path segment must not hold, or that a server may read as something else.
    const IN_A_SEGMENT: &AsciiSet = &CONTROLS.add(b'/').add(b'+').add(b'=');
    let encoded = general_purpose::STANDARD.encode(url);
    utf8_percent_encode(&encoded, IN_A_SEGMENT).to_string()
}

/// Cuts `;page` off; `None` when something stands behind the `;` that is no page.
fn split_page(key: &str) -> Option<(&str, Option<u32>)> {
    let Some((name, page)) = key.split_once(';') else { return Some((key, None)) };
    let plain = page.bytes().all(|byte| byte.is_ascii_digit()) && !page.starts_with('0');
    // `+7` and `007` parse in Rust, but they are not what the service writes.
    let page = if plain { page.parse().ok() } else { None };
    page.map(|page| (name, Some(page)))
}

/// UPSTREAM: an upper-case UUID is answered 500, so only the lower-case hyphenated form is one.
fn lower_case_uuid(name: &str) -> Option<Uuid> {
    if name.len() != uuid::fmt::Hyphenated::LENGTH || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    // `try_parse` takes four forms; only one of them is 36 characters long.
    Uuid::try_parse(name).ok()
}

/// base64 in either alphabet, padded or not, of something that reads as the URL of a file.
fn decode_file_url(name: &str) -> Option<String> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

    // Nearly no name is base64: test its first characters before decoding.
    if !["aHR0", "Zmls"].iter().any(|begin| name.starts_with(begin)) {
        return None;
    }
    let engine = if name.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let url = String::from_utf8(engine.decode(name).ok()?).ok()?;
    let rest = ["http://", "https://", "file:/"].iter().find_map(|scheme| url.strip_prefix(scheme))?;
    // SECURITY: the URL ends up in request lines and logs.
    (!rest.is_empty() && !url.chars().any(char::is_control)).then_some(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const UUID: &str = "13c09e7b-ddb5-30f5-a4ce-eecebd330564";
    const URL: &str = "https://example.org/fcrepo/rest/a/pages/page_0/files/Lab%201.tif";

    #[rstest]
    #[case::plain("abc", "abc")]
    #[case::escaped_slash("a%2Fb", "a/b")]
    #[case::decoded_only_once("a%252Fb", "a%2Fb")]
    #[case::semicolon("x%3b2", "x;2")]
    #[case::broken_escapes_stay("50%zz%", "50%zz%")]
    #[case::broken_beside_good("%zz%41", "%zzA")]
    #[case::not_utf8_stays_as_sent("%41%ff", "%41%ff")]
    #[case::case_stays("ABC-Def", "ABC-Def")]
    #[case::plus_is_no_space("a+b", "a+b")]
    #[case::empty("", "")]
    fn the_key_is_the_segment_decoded_once(#[case] sent: &str, #[case] key: &str) {
        assert_eq!(Identifier::new(sent).key(), key);
    }

    #[rstest]
    #[case::bare("", None)]
    #[case::page(";12", Some(12))]
    #[case::escaped_page("%3B2", Some(2))]
    fn a_lower_case_uuid_is_one_with_or_without_a_page(#[case] tail: &str, #[case] page: Option<u32>) {
        let sent = format!("{UUID}{tail}");
        let uuid = Uuid::try_parse(UUID).unwrap();
        assert_eq!(Identifier::new(&sent).kind(), IdentifierKind::Uuid { uuid, page });
    }

    #[rstest]
    #[case::upper_case("13C09E7B-DDB5-30F5-A4CE-EECEBD330564")]
    #[case::no_hyphens("13c09e7bddb530f5a4ceeecebd330564")]
    #[case::braces("{13c09e7b-ddb5-30f5-a4ce-eecebd330564}")]
    #[case::page_zero("13c09e7b-ddb5-30f5-a4ce-eecebd330564;0")]
    #[case::page_with_sign("13c09e7b-ddb5-30f5-a4ce-eecebd330564;+1")]
    #[case::page_missing("13c09e7b-ddb5-30f5-a4ce-eecebd330564;")]
    #[case::page_too_large("13c09e7b-ddb5-30f5-a4ce-eecebd330564;4294967296")]
    #[case::page_twice("13c09e7b-ddb5-30f5-a4ce-eecebd330564;1;2")]
    #[case::extension("13c09e7b-ddb5-30f5-a4ce-eecebd330564.jpg")]
    #[case::escaped_twice("13c09e7b-ddb5-30f5-a4ce-eecebd330564%253B1")]
    #[case::base64_of_no_url("aGVsbG8gd29ybGQ=")]
    #[case::base64_of_ftp("ZnRwOi8vZXhhbXBsZS5vcmcvYQ==")]
    #[case::base64_of_scheme_only("aHR0cDovLw==")]
    #[case::base64_with_newline("aHR0cDovL2V4YW1wbGUub3JnL2EKYg==")]
    #[case::empty("")]
    fn everything_else_is_other(#[case] sent: &str) {
        assert_eq!(Identifier::new(sent).kind(), IdentifierKind::Other);
    }

    #[rstest]
    #[case::standard(&general_purpose::STANDARD)]
    #[case::standard_without_padding(&general_purpose::STANDARD_NO_PAD)]
    #[case::url_safe(&general_purpose::URL_SAFE)]
    #[case::url_safe_without_padding(&general_purpose::URL_SAFE_NO_PAD)]
    fn base64_is_read_in_both_alphabets(#[case] engine: &GeneralPurpose) {
        for url in [URL, "https://h/??>>~~é", "http://h/a", "file:///x"] {
            for (tail, page) in [("", None), (";3", Some(3)), ("%3B3", Some(3))] {
                let sent = format!("{}{tail}", engine.encode(url).replace('/', "%2F"));
                let expected = IdentifierKind::FileUrl { url: url.to_owned(), page };
                assert_eq!(Identifier::new(&sent).kind(), expected);
            }
        }
    }

    #[test]
    fn the_uuid_of_a_file_url_is_javas_name_uuid_from_bytes() {
        // UUID.nameUUIDFromBytes("hello".getBytes()) in Java.
        assert_eq!(uuid_of_file_url("hello").to_string(), "5d41402a-bc4b-3a76-b971-9d911017c592");
    }

    proptest! {
        #[test]
        fn any_text_is_kept_as_sent_and_read_without_panic(sent in "\\PC*") {
            let identifier = Identifier::new(&sent);
            prop_assert_eq!(identifier.as_sent(), &sent);
            let _ = identifier.kind();
        }

        #[test]
        fn a_key_without_percent_sign_is_its_own_key(sent in "([a-z;=/:]|%2[0-46-9A-F]|%3B)*") {
            let key = Identifier::new(&sent).key().into_owned();
            prop_assert!(!key.contains('%'));
            prop_assert_eq!(Identifier::new(&key).key(), key.as_str());
        }

        #[test]
        fn a_file_url_survives_the_way_through_a_path_segment(tail in "[^\\pC]+") {
            let url = format!("https://{tail}");
            let sent = base64_of_file_url(&url);
            prop_assert!(!sent.contains(['/', '+', '=', '?', '#']));
            prop_assert_eq!(
                Identifier::new(&sent).kind(),
                IdentifierKind::FileUrl { url: url.clone(), page: None }
            );
            prop_assert_eq!(uuid_of_file_url(&url).get_version_num(), 3);
        }
    }
}
