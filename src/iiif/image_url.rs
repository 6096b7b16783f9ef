//! Absolute URLs of the Image API, as they stand in manifests, and the identifiers in them.
//!
//! Only the text is read. Callers who know the routes decide whether the host is ours.

use super::canvas::is_same_authority;
use super::{Identifier, ImageRequest, Target};

/// Bases of image services: they tell which part of an image's URL is its identifier, slashes of its own included.
///
/// The first base that fits counts. A URL under none of them has the last segment of its path for an identifier.
///
/// ```
/// use iiif_mender::iiif::image_url::ImageBases;
///
/// let mut bases = ImageBases::default();
/// bases.push(Some("a.test"), "/iiif/2/");
/// let identifier = bases.in_image_url("https://a.test/iiif/2/volume/page/full/max/0/default.jpg");
/// assert_eq!(identifier.unwrap().as_sent(), "volume/page");
/// let identifier = bases.in_service_id("https://b.test/iiif/volume/page");
/// assert_eq!(identifier.unwrap().as_sent(), "page");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageBases(Vec<(Option<String>, String)>);

impl ImageBases {
    /// Adds a base behind the others. `host`: with its port, unless that is the scheme's own; `None`: any host. `path`: the
    /// path before the identifier, from the first slash on.
    pub fn push(&mut self, host: Option<&str>, path: &str) {
        self.0.push((host.map(str::to_owned), path.to_owned()));
    }

    /// The bases, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        self.0.iter().map(|(host, path)| (host.as_deref(), path.as_str()))
    }

    /// The identifier in the URL of one image: `…/{id}/{region}/{size}/{rotation}/{quality}.{format}`.
    ///
    /// `None` when the four last segments are not well formed (Image API 2.1 and 3.0 section 2.1) or the URL is not
    /// absolute http(s). Query and fragment do not matter, unless the query holds the path (`?IIIF=`).
    pub fn in_image_url<'u>(&self, url: &'u str) -> Option<Identifier<'u>> {
        self.in_image(&AbsoluteUrl::read(url)?)
    }

    fn in_image<'u>(&self, target: &AbsoluteUrl<'u>) -> Option<Identifier<'u>> {
        // Cheap test first: most ids in a manifest are no image URLs.
        let request = ImageRequest::parse(target.rest.get(1..)?)?;
        if !matches!(request.target, Target::Image { .. }) {
            return None;
        }
        match self.behind_base(target) {
            Some(rest) => {
                let request = ImageRequest::parse(rest)?;
                matches!(request.target, Target::Image { .. }).then_some(request.identifier)
            }
            None => last_segment(request.identifier.as_sent()),
        }
    }

    /// The identifier in the id of an image service, which is the base URI `…/{id}`; trailing slashes and a trailing
    /// `/info.json` are tolerated, and so is the URL of an image where the base URI belongs.
    ///
    /// `None`: not an absolute http(s) URL, or nothing that could be an identifier.
    pub fn in_service_id<'u>(&self, id: &'u str) -> Option<Identifier<'u>> {
        let target = AbsoluteUrl::read(id)?;
        if let Some(identifier) = self.in_image(&target) {
            return Some(identifier);
        }
        let base = self.behind_base(&target);
        let rest = base.or_else(|| target.rest.get(1..))?;
        let path = match ImageRequest::parse(rest) {
            // The identifier is in the query.
            Some(request) if request.identifier.as_sent().contains('?') => request.identifier.as_sent(),
            _ => rest.split('?').next()?,
        };
        let path = path.trim_end_matches('/');
        let path = path.strip_suffix("/info.json").unwrap_or(path).trim_end_matches('/');
        match base {
            Some(_) => (!path.is_empty() && !path.starts_with('/')).then(|| Identifier::new(path)),
            None => last_segment(path),
        }
    }

    /// True if this URL lies below one of the bases.
    pub(super) fn holds(&self, url: &str) -> bool {
        AbsoluteUrl::read(url).is_some_and(|target| self.behind_base(&target).is_some())
    }

    /// Path behind the first base that fits.
    fn behind_base<'u>(&self, target: &AbsoluteUrl<'u>) -> Option<&'u str> {
        self.0.iter().find_map(|(host, path)| {
            let is_there = host
                .as_deref()
                .is_none_or(|host| is_same_authority(target.default_port, target.authority, host));
            target.rest.strip_prefix(path.as_str()).filter(|_| is_there)
        })
    }
}

/// The identifier in the URL of one image, where no [base](ImageBases) is known.
///
/// ```
/// use iiif_mender::iiif::image_url::identifier_in_image_url;
///
/// let url = "https://a.test/iiif/2/abc/full/max/0/default.jpg";
/// assert_eq!(identifier_in_image_url(url).unwrap().as_sent(), "abc");
/// ```
pub fn identifier_in_image_url(url: &str) -> Option<Identifier<'_>> {
    ImageBases::default().in_image_url(url)
}

/// The identifier in the id of an image service, where no [base](ImageBases) is known.
///
/// ```
/// use iiif_mender::iiif::image_url::identifier_in_service_id;
///
/// assert_eq!(identifier_in_service_id("https://a.test/iiif/2/a%2Fb/").unwrap().key(), "a/b");
/// ```
pub fn identifier_in_service_id(id: &str) -> Option<Identifier<'_>> {
    ImageBases::default().in_service_id(id)
}

/// An absolute http(s) URL without its fragment.
struct AbsoluteUrl<'u> {
    default_port: u16,
    authority: &'u str,
    /// Path and query, from the first slash on.
    rest: &'u str,
}

impl<'u> AbsoluteUrl<'u> {
    fn read(url: &'u str) -> Option<Self> {
        let begins = |with: &str| url.get(..with.len()).is_some_and(|own| own.eq_ignore_ascii_case(with));
        let (default_port, scheme) = match () {
            () if begins("https://") => (443, "https://".len()),
            () if begins("http://") => (80, "http://".len()),
            () => return None,
        };
        let behind = url.get(scheme..)?;
        let behind = &behind[..memchr::memchr(b'#', behind.as_bytes()).unwrap_or(behind.len())];
        let end = behind.bytes().position(|byte| matches!(byte, b'/' | b'?'))?;
        let (authority, rest) = behind.split_at(end);
        rest.starts_with('/').then_some(Self { default_port, authority, rest })
    }
}

/// The last segment of a path; of one that goes on in the query, the last one before that and the query.
fn last_segment(path: &str) -> Option<Identifier<'_>> {
    let before_query = path.find('?').unwrap_or(path.len());
    let path = if before_query == path.len() { path.trim_end_matches('/') } else { path };
    let from = path.get(..before_query.min(path.len()))?.rfind('/').map_or(0, |slash| slash + 1);
    let segment = path.get(from..)?;
    (!segment.is_empty()).then(|| Identifier::new(segment))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::base("https://example.org/iiif/2/abc", Some("abc"))]
    #[case::http("http://example.org/iiif/2/abc", Some("abc"))]
    #[case::scheme_in_capitals("HTTPS://example.org/iiif/2/abc", Some("abc"))]
    #[case::trailing_slash("https://example.org/iiif/2/abc/", Some("abc"))]
    #[case::trailing_slashes("https://example.org/iiif/2/abc//", Some("abc"))]
    #[case::info("https://example.org/iiif/2/abc/info.json", Some("abc"))]
    #[case::slash_and_info("https://example.org/iiif/2/abc//info.json", Some("abc"))]
    #[case::info_and_slash("https://example.org/iiif/2/abc/info.json/", Some("abc"))]
    #[case::escaped_slash("https://example.org/iiif/2/a%2Fb", Some("a%2Fb"))]
    #[case::page("https://example.org/iiif/2/abc;2", Some("abc;2"))]
    #[case::query("https://example.org/iiif/2/abc?t=1", Some("abc"))]
    #[case::image_where_a_base_belongs("https://example.org/iiif/2/abc/full/full/0/default.jpg", Some("abc"))]
    #[case::no_path("https://example.org", None)]
    #[case::empty_path("https://example.org/", None)]
    #[case::only_info("https://example.org/info.json", Some("info.json"))]
    #[case::relative("/iiif/2/abc", None)]
    #[case::urn("urn:uuid:abc", None)]
    #[case::other_scheme("ftp://example.org/iiif/2/abc", None)]
    #[case::empty("", None)]
    fn the_identifier_of_a_service_is_its_last_segment(#[case] id: &str, #[case] expected: Option<&str>) {
        assert_eq!(identifier_in_service_id(id).map(|found| found.as_sent()), expected);
    }

    #[rstest]
    #[case::image_2("https://example.org/iiif/2/abc/full/full/0/default.jpg", Some("abc"))]
    #[case::image_3("https://example.org/iiif/3/abc/square/^!90,90/!0/color.webp", Some("abc"))]
    #[case::image_1("https://example.org/abc/full/90,/0/native.jpg", Some("abc"))]
    #[case::double_slash("https://example.org/iiif/2/abc//full/max/0/default.jpg", Some("abc"))]
    #[case::query("https://example.org/iiif/2/abc/full/max/0/default.jpg?t=a/b", Some("abc"))]
    #[case::picture("https://example.org/assets/images/logos/2020/mark.png", None)]
    #[case::base("https://example.org/iiif/2/abc", None)]
    #[case::no_identifier("https://example.org/full/max/0/default.jpg", None)]
    #[case::host_is_no_identifier("https://full/max/0/default.jpg", None)]
    fn the_identifier_of_an_image_url_is_found_by_grammar(#[case] url: &str, #[case] expected: Option<&str>) {
        assert_eq!(identifier_in_image_url(url).map(|found| found.as_sent()), expected);
    }

    fn bases() -> ImageBases {
        let mut bases = ImageBases::default();
        bases.push(Some("us.example"), "/iiif/2/");
        bases.push(Some("us.example"), "/fcgi-bin/");
        bases.push(Some("images.internal:8182"), "/cantaloupe/");
        bases.push(None, "/iiif/2/");
        bases
    }

    #[rstest]
    #[case::slash("https://us.example/iiif/2/vol1/f1", "vol1/f1")]
    #[case::encoded_slash("https://us.example/iiif/2/vol1%2Ff1", "vol1/f1")]
    #[case::mixed("https://us.example/iiif/2/a%2Fb/c", "a/b/c")]
    #[case::encoded_twice("https://us.example/iiif/2/vol1%252Ff1", "vol1%2Ff1")]
    #[case::info("https://us.example/iiif/2/vol1/f1/info.json", "vol1/f1")]
    #[case::image("https://us.example:443/iiif/2/vol1/f1/full/max/0/default.jpg", "vol1/f1")]
    #[case::trailing_slash("http://US.example/iiif/2/vol1/f1/", "vol1/f1")]
    #[case::by_its_upstream("http://images.internal:8182/cantaloupe/vol1/f1", "vol1/f1")]
    #[case::any_host("https://old.example/iiif/2/vol1/f1", "vol1/f1")]
    #[case::under_no_base("https://old.example/iiif/vol1/f1", "f1")]
    #[case::other_port("http://images.internal/cantaloupe/vol1/f1", "f1")]
    #[case::in_the_query(
        "https://us.example/fcgi-bin/iipsrv.fcgi?IIIF=vol1/f1.tif",
        "iipsrv.fcgi?IIIF=vol1/f1.tif"
    )]
    #[case::image_in_the_query(
        "https://us.example/fcgi-bin/iipsrv.fcgi?IIIF=/vol1/f1.tif/full/max/0/default.jpg&x=1",
        "iipsrv.fcgi?IIIF=/vol1/f1.tif"
    )]
    #[case::query_under_no_base("https://h/cgi/iipsrv.fcgi?IIIF=vol1/f1", "iipsrv.fcgi?IIIF=vol1/f1")]
    #[case::info_in_the_query("https://h/iipsrv.fcgi?IIIF=vol1/f1/info.json", "iipsrv.fcgi?IIIF=vol1/f1")]
    #[case::any_other_query("https://us.example/iiif/2/vol1/f1?token=a/b", "vol1/f1")]
    #[case::space("https://us.example/iiif/2/ir i/é", "ir i/é")]
    fn an_identifier_is_what_stands_behind_its_base(#[case] id: &str, #[case] key: &str) {
        assert_eq!(bases().in_service_id(id).unwrap().key(), key);
    }

    #[rstest]
    #[case("https://us.example/iiif/2/")]
    #[case("https://us.example/iiif/2//info.json")]
    fn a_base_alone_has_no_identifier(#[case] id: &str) {
        assert_eq!(bases().in_service_id(id), None);
    }

    proptest! {
        /// The index and the proxy read the same URL to the same key.
        #[test]
        fn a_request_and_a_manifest_agree(
            id in "[a-z0-9%;.~-]{1,6}(/[a-z0-9]{1,5}){0,3}",
            tail in "|/|/info\\.json|//info\\.json|/full/max/0/default\\.jpg|/0,0,5,5/!9,9/0/gray\\.png"
        ) {
            let asked = format!("{id}{tail}");
            let request = ImageRequest::parse(&asked).unwrap();
            let url = format!("https://us.example/iiif/2/{asked}");
            prop_assert_eq!(bases().in_service_id(&url).unwrap().key(), request.identifier.key());
            let queried = format!("iipsrv.fcgi?IIIF={asked}");
            let request = ImageRequest::parse(&queried).unwrap();
            let url = format!("https://us.example/fcgi-bin/{queried}");
            let found = bases().in_service_id(&url).unwrap();
            prop_assert_eq!(found.key(), request.identifier.key());
        }

        #[test]
        fn any_text_is_read_without_panic(url in "(https?://)?\\PC*") {
            let _ = bases().in_image_url(&url);
            let _ = bases().in_service_id(&url);
            let _ = identifier_in_image_url(&url);
            let _ = identifier_in_service_id(&url);
        }
    }
}
