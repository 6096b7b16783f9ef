//! What the walk carries along: the pile of images that wait for their canvas.

use std::collections::HashSet;

use super::{Canvas, Document};
use crate::iiif::image_url::{identifier_in_image_url, identifier_in_service_id};

/// What stands where a value stands, by the key that it is under; elements of a list stand where the list does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
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
    /// What an annotation paints: an image resource, a choice of them, or a part of one; strings are URLs.
    Painted,
    /// `thumbnail`, `logo`: the same for what stands for something.
    Picture,
    /// `placeholderCanvas`, `accompanyingCanvas`: belong to the canvas that holds them.
    Held,
    Service,
    Elsewhere,
}

/// What the walk knows so far.
pub(super) struct Walker<'f> {
    each: &'f mut dyn FnMut(Canvas),
    /// Keys of the images that no finished canvas has claimed yet.
    pile: Vec<String>,
    /// Ids of services that say nothing of themselves, until the object that holds them is known for an image.
    pub(super) mentions: Vec<String>,
    pub(super) document: Document,
}

impl<'f> Walker<'f> {
    pub(super) fn new(each: &'f mut dyn FnMut(Canvas)) -> Self {
        Self { each, pile: Vec::new(), mentions: Vec::new(), document: Document::default() }
    }

    pub(super) fn finish(mut self) -> Document {
        self.drop_images(0);
        self.document
    }

    /// How many images lie on the pile.
    pub(super) fn height(&self) -> usize {
        self.pile.len()
    }

    pub(super) fn has_images(&self, from: usize) -> bool {
        self.pile.len() > from
    }

    /// A value that is a mere string.
    pub(super) fn string(&mut self, place: Place, text: &str) {
        match place {
            Place::Painted | Place::Picture => self.push_image_url(text, self.pile.len()),
            Place::Service => self.mentions.push(text.to_owned()),
            Place::Links => self.document.members.push(text.to_owned()),
            _ => {}
        }
    }

    /// `from`: where the pile of the object that holds the image begins.
    pub(super) fn push_image_url(&mut self, url: &str, from: usize) {
        if let Some(identifier) = identifier_in_image_url(url) {
            self.push(identifier.key().into_owned(), from);
        }
    }

    pub(super) fn push_service(&mut self, id: &str, from: usize) {
        if let Some(identifier) = identifier_in_service_id(id) {
            self.push(identifier.key().into_owned(), from);
        }
    }

    fn push(&mut self, key: String, from: usize) {
        // An image resource and its service name the same image, one after the other.
        if self.pile.get(from..).and_then(<[String]>::last) != Some(&key) {
            self.pile.push(key);
        }
    }

    /// A canvas is complete: what lies on the pile from `from` on is its own.
    pub(super) fn hand_out(&mut self, id: &str, label: Option<String>, from: usize) {
        let images = distinct(self.pile.drain(from..).collect());
        self.document.canvases += 1;
        self.document.images += images.len();
        (self.each)(Canvas { id: without_fragment(id).to_owned(), label, images });
    }

    /// No canvas can claim what lies on the pile from `from` on.
    pub(super) fn drop_images(&mut self, from: usize) {
        let images = distinct(self.pile.drain(from..).collect());
        self.document.unowned += images.len();
    }
}

pub(super) fn without_fragment(id: &str) -> &str {
    id.split('#').next().unwrap_or_default()
}

/// Each key once, in the order found.
fn distinct(mut keys: Vec<String>) -> Vec<String> {
    /// Up to here looking along the list is faster than hashing.
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
