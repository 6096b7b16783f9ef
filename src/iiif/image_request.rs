//! Parser of the path behind an image route's prefix, by the grammar of Image API 2 and 3.

use super::Identifier;

mod grammar;
#[cfg(test)]
mod tests;

pub(super) use grammar::is_image;

/// Image request: identifier and target. Slices of the path as it was sent; nothing is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRequest<'a> {
    /// Identifier of the image.
    pub identifier: Identifier<'a>,
    /// Requested part.
    pub target: Target<'a>,
}

/// Requested part of an image.
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
    /// Other: a request outside the grammar, or the base URI of an identifier with slashes; passed on and never healed.
    Other,
}

impl<'a> ImageRequest<'a> {
    /// Parses the path behind the route's prefix: `{id}`, `{id}/`, `{id}/info.json`,
    /// `{id}/{region}/{size}/{rotation}/{quality}.{format}` (Image API 2.1 section 4, 3.0 section 4).
    ///
    /// Parsing goes from the right, as the appendix of the Image API allows: an identifier may hold unencoded slashes. A
    /// server that takes the path in its query (`?IIIF={id}/info.json`, as the Internet Imaging Protocol's servers do) has
    /// identifiers that begin with the path before the query; any other query is ignored. One more slash behind the
    /// identifier is tolerated: viewers make it from a service id that ends in `/`. `None`: there is no identifier. Never
    /// allocates.
    ///
    /// ```
    /// use iiif_mender::iiif::{ImageRequest, Target};
    ///
    /// let tile = ImageRequest::parse("abc/0,0,512,512/256,/0/default.jpg").unwrap();
    /// assert_eq!(tile.identifier.as_sent(), "abc");
    /// assert!(matches!(tile.target, Target::Image { size: "256,", .. }));
    /// let info = ImageRequest::parse("volume/page/info.json").unwrap();
    /// assert_eq!((info.identifier.as_sent(), info.target), ("volume/page", Target::Info));
    /// ```
    pub fn parse(rest: &'a str) -> Option<Self> {
        let Some((path, _)) = rest.split_once('?') else { return Self::from_right(rest, 0) };
        let by_path = Self::from_right(path, 0);
        if by_path.is_some_and(|request| request.is_healable()) {
            return by_path;
        }
        let Some(from) = value_in_query(rest) else { return by_path };
        let length = rest.get(from..)?.find('&').unwrap_or(rest.len() - from);
        Self::from_right(rest.get(..from + length)?, from).or(by_path)
    }

    /// Parses from the right. `from`: start of the Image API's path in `text`; the text before it belongs to the
    /// identifier.
    fn from_right(text: &'a str, from: usize) -> Option<Self> {
        let path = text.get(from..)?;
        let is_in_query = from > 0;
        if path.is_empty() || path.starts_with('/') && !is_in_query {
            return None;
        }
        let (length, target) = Target::parse(path);
        let identifier = text.get(..from + length)?;
        (!path.get(..length)?.bytes().all(|byte| byte == b'/'))
            .then(|| Self { identifier: Identifier::new(identifier), target })
    }

    /// True if a 404 to this request may mean that the image expired.
    ///
    /// A base URI is not healable: its 303 is made from the identifier's text alone and works when all else is gone
    /// (upstream.md "An expired image"). A malformed request is answered 400 or 404 by a healthy image too.
    ///
    /// ```
    /// use iiif_mender::iiif::ImageRequest;
    ///
    /// assert!(ImageRequest::parse("abc/info.json").unwrap().is_healable());
    /// assert!(!ImageRequest::parse("abc").unwrap().is_healable());
    /// ```
    pub fn is_healable(&self) -> bool {
        matches!(self.target, Target::Info | Target::Image { .. })
    }
}

/// Offset of the value of `IIIF=`, in a path with a query.
pub(super) fn value_in_query(target: &str) -> Option<usize> {
    let mut from = target.find('?')? + 1;
    for pair in target.get(from..)?.split('&') {
        if pair.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("IIIF=")) {
            return Some(from + 5);
        }
        from += pair.len() + 1;
    }
    None
}

/// The last four segments, behind what stands before them.
fn last_four(path: &str) -> Option<[&str; 5]> {
    let mut parts = [path; 5];
    let mut rest = path;
    for part in parts[1..].iter_mut().rev() {
        let slash = memchr::memrchr(b'/', rest.as_bytes())?;
        (rest, *part) = (&rest[..slash], &rest[slash + 1..]);
    }
    parts[0] = rest;
    Some(parts)
}

impl<'a> Target<'a> {
    /// Length of the identifier before the target, and the target.
    fn parse(path: &'a str) -> (usize, Self) {
        let behind = |identifier: &str| {
            let identifier = identifier.strip_suffix('/').unwrap_or(identifier);
            (!identifier.ends_with('/')).then_some(identifier.len())
        };
        if let Some(length) = path.strip_suffix("/info.json").and_then(behind) {
            return (length, Self::Info);
        }
        if let Some([identifier, region, size, rotation, file]) = last_four(path)
            && is_image(region, size, rotation, file)
            && let Some(length) = behind(identifier)
        {
            return (length, Self::Image { region, size, rotation, file });
        }
        let bare = path.strip_suffix('/').unwrap_or(path);
        // A base URI with unencoded slashes looks like a malformed request.
        (bare.len(), if bare.contains('/') { Self::Other } else { Self::Base })
    }
}
