//! The path behind an image route's prefix, read by the grammar of Image API 2 and 3.

use super::Identifier;

/// One image request: whose, and what of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRequest<'a> {
    /// Whose image.
    pub identifier: Identifier<'a>,
    /// What of it.
    pub target: Target<'a>,
}

/// What of the image is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// The bare base URI, which answers 303 to info.json.
    Base,
    /// `info.json`
    Info,
    /// `{region}/{size}/{rotation}/{quality}.{format}`, well formed.
    Image {
        /// `full`, `square`, `x,y,w,h`, `pct:…`
        region: &'a str,
        /// `full`, `max`, `w,` …
        size: &'a str,
        /// `0`, `!90` …
        rotation: &'a str,
        /// `default.jpg` …
        file: &'a str,
    },
    /// Not a request that the grammar knows; it is passed on and never healed.
    Other,
}

impl<'a> ImageRequest<'a> {
    /// Reads the path behind the route's prefix, without the query. `None`: there is no identifier.
    pub fn parse(_rest: &'a str) -> Option<Self> {
        None
    }
}
