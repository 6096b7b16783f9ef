//! Absolute URLs of the Image API, as they stand in manifests: whose image is it?
//!
//! Only the text is read. Whether the host is ours is a question for those who know the routes.

use super::Identifier;
use super::image_request::is_image;

/// The identifier in the URL of one image: `…/{id}/{region}/{size}/{rotation}/{quality}.{format}`.
///
/// `None` when the four last segments are not well formed (Image API 2.1 and 3.0 section 2.1) or the URL is not
/// absolute http(s). Query and fragment do not matter.
///
/// ```
/// use iiif_mender::iiif::image_url::identifier_in_image_url;
///
/// let url = "https://a.test/iiif/2/abc/full/max/0/default.jpg";
/// assert_eq!(identifier_in_image_url(url).unwrap().as_sent(), "abc");
/// ```
pub fn identifier_in_image_url(url: &str) -> Option<Identifier<'_>> {
    let mut segments = path(url)?.rsplitn(5, '/');
    let (file, rotation, size, region) =
        (segments.next()?, segments.next()?, segments.next()?, segments.next()?);
    // The cheap look first: most ids in a manifest are no image URLs.
    if !is_image(region, size, rotation, file) {
        return None;
    }
    last_segment(segments.next()?)
}

/// The identifier in the id of an image service, which is the base URI `…/{id}`; a trailing slash and a trailing
/// `/info.json` are tolerated, and so is the URL of an image where the base URI belongs.
///
/// `None`: not an absolute http(s) URL, or no path.
///
/// ```
/// use iiif_mender::iiif::image_url::identifier_in_service_id;
///
/// assert_eq!(identifier_in_service_id("https://a.test/iiif/2/a%2Fb/").unwrap().key(), "a/b");
/// ```
pub fn identifier_in_service_id(id: &str) -> Option<Identifier<'_>> {
    if let Some(identifier) = identifier_in_image_url(id) {
        return Some(identifier);
    }
    let path = path(id)?.trim_end_matches('/');
    last_segment(path.strip_suffix("/info.json").unwrap_or(path))
}

/// What stands behind the first slash of an absolute http(s) URL, without query and fragment.
fn path(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (_authority, path) = rest.get(..end)?.split_once('/')?;
    Some(path)
}

fn last_segment(path: &str) -> Option<Identifier<'_>> {
    let segment = path.trim_end_matches('/').rsplit('/').next()?;
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

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(url in "(https?://)?\\PC*") {
            let _ = identifier_in_image_url(&url);
            let _ = identifier_in_service_id(&url);
        }
    }
}
