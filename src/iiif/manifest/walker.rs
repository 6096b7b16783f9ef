//! Walker: the state of a walk, with the stack of images that wait for their canvas.

use std::collections::HashSet;

use super::shape::Shape;
use super::{Canvas, Document};
use crate::iiif::Identifier;
use crate::iiif::image_url::ImageBases;

/// Position of a value, by the key that it is under; elements of a list have the position of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonPosition {
    /// The document.
    Root,
    /// `items` of the document: canvases, members or annotations.
    TopItems,
    /// `items` further inside: annotation pages, annotations, images of a choice, canvases of a nested manifest.
    Items,
    Sequences,
    Canvases,
    /// Presentation 2 `images`: annotations.
    Images,
    /// `manifests`, `collections`: links even if they are mere strings.
    Links,
    /// Presentation 2 `members`: of a collection or of a range.
    Members,
    /// Body of an annotation: an image resource, a choice of them, or a part of one; strings are URLs.
    Painted,
    /// `thumbnail`, `logo`: an image in the place of something else.
    Picture,
    /// `placeholderCanvas`, `accompanyingCanvas`: belong to the canvas that holds them.
    Held,
    Service,
    Elsewhere,
}

/// An image that waits for its canvas.
struct PendingImage {
    key: String,
    /// True if an annotation paints the image; false for a thumbnail or logo.
    is_painted: bool,
}

/// State of a walk.
pub(super) struct Walker<'f> {
    each: &'f mut dyn FnMut(Canvas),
    bases: &'f ImageBases,
    /// The images that no finished canvas has claimed yet.
    pile: Vec<PendingImage>,
    /// Depth in `body` and `resource` values.
    pub(super) paintings: usize,
    /// Strongest shape that an object gives the list it stands in.
    pub(super) shape: Shape,
    /// Ids of services without a type, until the object that holds them is known for an image.
    pub(super) mentions: Vec<String>,
    /// Ids of objects without a type or content among the document's own items: links, if the document is a collection.
    pub(super) untyped: Vec<String>,
    pub(super) document: Document,
}

impl<'f> Walker<'f> {
    pub(super) fn new(bases: &'f ImageBases, each: &'f mut dyn FnMut(Canvas)) -> Self {
        let (pile, mentions, untyped) = (Vec::new(), Vec::new(), Vec::new());
        let document = Document::default();
        Self { each, bases, pile, paintings: 0, shape: Shape::Unknown, mentions, untyped, document }
    }

    pub(super) fn finish(mut self) -> Document {
        self.drop_images(0);
        self.document
    }

    /// Number of images on the stack.
    pub(super) fn height(&self) -> usize {
        self.pile.len()
    }

    pub(super) fn has_images(&self, from: usize) -> bool {
        self.pile.len() > from
    }

    /// A value that is a mere string.
    pub(super) fn string(&mut self, place: JsonPosition, text: &str) {
        let text = text.trim();
        match place {
            JsonPosition::Painted if !self.is_image_url(text) => self.push_base_uri(text, self.pile.len()),
            JsonPosition::Painted | JsonPosition::Picture => self.push_image_url(text, self.pile.len()),
            JsonPosition::Service => self.mentions.push(text.to_owned()),
            JsonPosition::Links => self.document.members.push(text.to_owned()),
            _ => {}
        }
    }

    /// True if an image with this base URI would be one of ours.
    pub(super) fn is_below_base(&self, id: &str) -> bool {
        self.bases.holds(id)
    }

    pub(super) fn is_image_url(&self, url: &str) -> bool {
        self.bases.in_image_url(url).is_some()
    }

    /// `from`: start of the images of the object that holds this one, on the stack.
    pub(super) fn push_image_url(&mut self, url: &str, from: usize) {
        if let Some(identifier) = self.bases.in_image_url(url) {
            self.push(identifier, from);
        }
    }

    pub(super) fn push_service(&mut self, id: &str, from: usize) {
        if let Some(identifier) = self.bases.in_service_id(id) {
            self.push(identifier, from);
        }
    }

    /// Pushes the image whose base URI, or info.json, is painted in the place of its URL.
    pub(super) fn push_base_uri(&mut self, uri: &str, from: usize) {
        let identifier = self.bases.in_service_id(uri).filter(|_| self.bases.holds(uri));
        if let Some(identifier) = identifier.filter(|identifier| !identifier.as_sent().contains('/')) {
            self.push(identifier, from);
        }
    }

    fn push(&mut self, identifier: Identifier<'_>, from: usize) {
        let key = identifier.key();
        // A key that was no valid text names no image.
        if key.contains(char::REPLACEMENT_CHARACTER) {
            return;
        }
        // An image resource and its service name the same image, one after the other.
        if self.pile.get(from..).and_then(<[PendingImage]>::last).is_none_or(|last| last.key != key) {
            self.pile.push(PendingImage { key: key.into_owned(), is_painted: self.paintings > 0 });
        }
    }

    /// Hands out a complete canvas with its images: those on the stack from `from` on.
    pub(super) fn hand_out(&mut self, id: &str, label: Option<String>, from: usize) {
        let images = distinct(self.pile.drain(from..).map(|waiting| waiting.key).collect());
        self.document.canvases += 1;
        self.document.images += images.len();
        (self.each)(Canvas { id: without_fragment(id).to_owned(), label, images });
    }

    /// Drops the images on the stack from `from` on, which no canvas can claim.
    pub(super) fn drop_images(&mut self, from: usize) {
        let painted = self.pile.iter().skip(from).filter(|waiting| waiting.is_painted);
        self.document.unclaimed += distinct(painted.map(|waiting| waiting.key.clone()).collect()).len();
        let images = distinct(self.pile.drain(from..).map(|waiting| waiting.key).collect());
        self.document.unowned += images.len();
    }
}

/// The id of a canvas without its fragment; empty where it is none.
pub(super) fn without_fragment(id: &str) -> &str {
    // U+FFFD stands where bytes were no text, and no name has it (RFC 3987 section 2.2).
    if id.contains(char::REPLACEMENT_CHARACTER) {
        return "";
    }
    id.split('#').next().unwrap_or_default()
}

/// Each key once, in the order found.
fn distinct(mut keys: Vec<String>) -> Vec<String> {
    /// Length of a list up to which a linear search is faster than hashing.
    const FEW: usize = 16;
    if keys.len() <= FEW {
        let mut at = 1;
        while at < keys.len() {
            if keys[..at].contains(&keys[at]) {
                keys.remove(at);
            } else {
                at += 1;
            }
        }
        return keys;
    }
    let mut met = HashSet::with_capacity(keys.len());
    keys.retain(|key| met.insert(key.clone()));
    keys
}
