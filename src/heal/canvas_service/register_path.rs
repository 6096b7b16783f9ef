//! Path that registers a file anew, without a build.

use crate::iiif::CanvasUrl;

/// Path that registers a file: for `…/fcrepo/rest/{path}/files/{name}` it is `fedora/image/{path}/files/{name}`.
///
/// SECURITY: a file URL may come from any manifest. A path that could lead out of `fedora/image/`, or put a query of its
/// own before ours, is not sent.
pub(in crate::heal) fn register_path(file_url: &str) -> Option<String> {
    let url = CanvasUrl::parse(file_url).filter(|url| url.query.is_none() && !url.has_dot_segments())?;
    let (_, path) = url.path.split_once("/fcrepo/rest/")?;
    let is_plain = !file_url.contains(['#', ';']) && !path.contains("//") && !path.starts_with('/');
    (is_plain && path.contains("/files/")).then(|| format!("fedora/image/{path}"))
}

#[cfg(test)]
mod tests {
    use super::register_path;

    #[test]
    fn a_file_is_registered_by_its_path_in_the_repository() {
        let path = register_path("http://localhost:9000/fcrepo/rest/a/b/pages/p_0/files/a%20b.jpg");
        assert_eq!(path.as_deref(), Some("fedora/image/a/b/pages/p_0/files/a%20b.jpg"));
    }

    #[test]
    fn a_file_url_out_of_a_bad_manifest_leads_nowhere() {
        for bad in [
            "https://x.org/fcrepo/rest/../../../admin/files/a",
            "https://x.org/fcrepo/rest/a/%2e%2E/files/a",
            "https://x.org/fcrepo/rest/a/files/a?x=1",
            "https://x.org/fcrepo/rest/a/files/a#x",
            "https://x.org/fcrepo/rest/a;x/files/a",
            "https://x.org/fcrepo/rest//a/files/a",
            "https://x.org/fcrepo/rest/a/files/a b",
            "https://x.org/other/a/files/a",
            "file:/fcrepo/rest/a/files/a",
        ] {
            assert_eq!(register_path(bad), None, "{bad}");
        }
    }
}
