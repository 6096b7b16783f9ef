//! The path behind an image route's prefix, read by the grammar of Image API 2 and 3.

use super::Identifier;

mod grammar;
#[cfg(test)]
mod tests;

pub(super) use grammar::is_image;

/// One image request: whose, and what of it. Slices of the path as it was sent; nothing is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRequest<'a> {
    /// Whose image.
    pub identifier: Identifier<'a>,
    /// What of it.
    pub target: Target<'a>,
}

/// What of the image is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Reads the path behind the route's prefix, without the query: `{id}`, `{id}/`, `{id}/info.json`,
    /// `{id}/{region}/{size}/{rotation}/{quality}.{format}` (Image API 2.1 section 4, 3.0 section 4).
    ///
    /// One more slash behind the identifier is tolerated: viewers make it from a service id that ends in `/`.
    /// `None`: there is no identifier. Never allocates.
    ///
    /// ```
    /// use iiif_mender::iiif::{ImageRequest, Target};
    ///
    /// let tile = ImageRequest::parse("abc/0,0,512,512/256,/0/default.jpg").unwrap();
    /// assert_eq!(tile.identifier.as_sent(), "abc");
    /// assert!(matches!(tile.target, Target::Image { size: "256,", .. }));
    /// assert_eq!(ImageRequest::parse("abc/info.json").unwrap().target, Target::Info);
    /// ```
    pub fn parse(rest: &'a str) -> Option<Self> {
        let (identifier, tail) = rest.split_once('/').unwrap_or((rest, ""));
        if identifier.is_empty() {
            return None;
        }
        let tail = tail.strip_prefix('/').unwrap_or(tail);
        Some(Self { identifier: Identifier::new(identifier), target: Target::parse(tail) })
    }

    /// Whether a 404 to this request may mean that the image expired.
    ///
    /// The base URI may not: its 303 is made from the identifier's text alone and works when all else is gone
    /// (upstream.md "An expired image"). A malformed request is answered 400 or 404 by a healthy image too.
    ///
    /// ```
    /// use iiif_mender::iiif::ImageRequest;
    ///
    /// assert!(ImageRequest::parse("abc/info.json").unwrap().may_heal());
    /// assert!(!ImageRequest::parse("abc").unwrap().may_heal());
    /// ```
    pub fn may_heal(&self) -> bool {
        matches!(self.target, Target::Info | Target::Image { .. })
    }
}

impl<'a> Target<'a> {
    fn parse(tail: &'a str) -> Self {
        match tail {
            "" => return Self::Base,
            "info.json" => return Self::Info,
            _ => {}
        }
        let mut segments = tail.split('/');
        let (Some(region), Some(size), Some(rotation), Some(file), None) =
            (segments.next(), segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Self::Other;
        };
        if is_image(region, size, rotation, file) {
            Self::Image { region, size, rotation, file }
        } else {
            Self::Other
        }
    }
}
