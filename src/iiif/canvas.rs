//! The URL of a canvas: a name whose visit re-registers an image. Its query belongs to it.

/// A canvas URL taken apart; text only, never normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CanvasUrl<'a> {
    /// `http` or `https`, lower case as sent.
    pub scheme: &'a str,
    /// Host and optional port as written (userinfo makes the URL unreadable).
    pub authority: &'a str,
    /// Path from the first `/`, without query and fragment.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
}

impl<'a> CanvasUrl<'a> {
    /// Reads an absolute http(s) URL; the fragment is dropped. `None` for anything else: other schemes,
    /// userinfo, no host, control characters, spaces, backslashes.
    pub fn parse(_url: &'a str) -> Option<Self> {
        None
    }

    /// Path and query as requested by a visit.
    pub fn visit(&self) -> String {
        String::new()
    }

    /// Path and query as requested by a rebuild: `update=true` appended to whatever query there is.
    pub fn rebuild(&self) -> String {
        String::new()
    }
}
