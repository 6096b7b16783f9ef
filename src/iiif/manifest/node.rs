//! Walk over the document: one [`ValueSeed`] per value, one [`ObjectNode`] per object.
//!
//! Images are found inside out. Each goes on the walker's stack; an object remembers the height of the stack at its start,
//! so when it turns out to be a canvas, the images above that mark are its own.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::shape::Shape;
use super::strings::{EachString, FirstString};
use super::vocabulary::{MemberRole, TypeClaim, is_image_api, is_other_api};
use super::walker::{JsonPosition, Walker, without_fragment};
use super::{Document, DocumentKind};

/// Seed and visitor for any value at a place.
pub(super) struct ValueSeed<'w, 'f> {
    walker: &'w mut Walker<'f>,
    place: JsonPosition,
}

impl<'w, 'f> ValueSeed<'w, 'f> {
    pub(super) fn new(walker: &'w mut Walker<'f>, place: JsonPosition) -> Self {
        Self { walker, place }
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.walker.string(self.place, text);
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        // A list is no document; its elements may still be canvases.
        let place = if self.place == JsonPosition::Root { JsonPosition::Elsewhere } else { self.place };
        while list.next_element_seed(ValueSeed::new(self.walker, place))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut node = ObjectNode::new(self.place, self.walker);
        while let Some(key) = map.next_key::<MemberRole>()? {
            node.read(key, &mut map, self.walker)?;
        }
        node.close(self.walker);
        Ok(())
    }
}

/// Keys of an object, as bits.
pub(super) mod seen {
    pub(in crate::iiif::manifest) const IMAGES: u16 = 1;
    pub(in crate::iiif::manifest) const CANVASES: u16 = 1 << 1;
    pub(in crate::iiif::manifest) const SEQUENCES: u16 = 1 << 2;
    pub(in crate::iiif::manifest) const LINKS: u16 = 1 << 3;
    pub(in crate::iiif::manifest) const ITEMS: u16 = 1 << 4;
    pub(in crate::iiif::manifest) const DIMENSION: u16 = 1 << 5;
    /// True if the object has a type or the like, so it is no bare mention.
    pub(in crate::iiif::manifest) const DESCRIBED: u16 = 1 << 6;
    /// A profile, context or protocol of the Image API, or `format: image/…`.
    pub(in crate::iiif::manifest) const IMAGE: u16 = 1 << 7;
    /// `body`, `resource` and their content.
    pub(in crate::iiif::manifest) const BODY: u16 = 1 << 8;
    /// A `service` that is an image service, or may be one.
    pub(in crate::iiif::manifest) const SERVICE: u16 = 1 << 9;
    /// A profile, context or type of an API for something else than images.
    pub(in crate::iiif::manifest) const OTHER_API: u16 = 1 << 10;
    /// A value that holds an image, and is no thumbnail or logo.
    pub(in crate::iiif::manifest) const HOLDS_IMAGE: u16 = 1 << 11;
}

/// An object while it is read.
pub(super) struct ObjectNode {
    pub(super) place: JsonPosition,
    pub(super) kind: TypeClaim,
    seen: u16,
    pub(super) id: Option<String>,
    label: Option<String>,
    target: Option<String>,
    /// Strongest shape of the elements in its `items`.
    pub(super) held: Shape,
    /// Height of the walker's stack of images when the object began.
    pub(super) images_from: usize,
    /// Height of the walker's stack of mentioned services when the object began.
    mentions_from: usize,
}

impl ObjectNode {
    fn new(place: JsonPosition, walker: &Walker<'_>) -> Self {
        Self {
            place,
            kind: TypeClaim::Unsaid,
            seen: 0,
            id: None,
            label: None,
            target: None,
            held: Shape::Unknown,
            images_from: walker.height(),
            mentions_from: walker.mentions.len(),
        }
    }

    pub(super) fn has(&self, keys: u16) -> bool {
        self.seen & keys != 0
    }

    /// Reads the value of one key. Where a key is doubled, the last value that makes sense counts.
    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: MemberRole,
        map: &mut A,
        walker: &mut Walker<'_>,
    ) -> Result<(), A::Error> {
        match key {
            MemberRole::Id => replace(&mut self.id, map.next_value_seed(FirstString::Plain)?),
            MemberRole::Label => replace(&mut self.label, map.next_value_seed(FirstString::Label)?),
            // Inside a canvas its own id counts, not the target: upstream.md "Identifiers", pages of a PDF.
            MemberRole::Target if matches!(self.place, JsonPosition::Root | JsonPosition::TopItems) => {
                replace(&mut self.target, map.next_value_seed(FirstString::Target)?);
            }
            MemberRole::Type => map.next_value_seed(EachString(|name: &str| {
                self.seen |= seen::DESCRIBED;
                if is_other_api(name) {
                    self.seen |= seen::OTHER_API;
                }
                if matches!(self.kind, TypeClaim::Unsaid | TypeClaim::Else) {
                    self.kind = TypeClaim::named(name);
                }
            }))?,
            MemberRole::Describes => map.next_value_seed(EachString(|text: &str| {
                self.seen |= seen::DESCRIBED;
                if is_image_api(text) {
                    self.seen |= seen::IMAGE;
                } else if is_other_api(text) {
                    self.seen |= seen::OTHER_API;
                }
            }))?,
            MemberRole::Format => map.next_value_seed(EachString(|format: &str| {
                if format.starts_with("image/") {
                    self.seen |= seen::IMAGE;
                }
            }))?,
            MemberRole::Into(place) => {
                let place = self.inside(place);
                let around = std::mem::take(&mut walker.shape);
                let paints = usize::from(place == JsonPosition::Painted);
                let (images, before) = (walker.height(), walker.height() + walker.mentions.len());
                walker.paintings += paints;
                map.next_value_seed(ValueSeed::new(walker, place))?;
                walker.paintings -= paints;
                if place != JsonPosition::Picture && walker.height() > images {
                    self.seen |= seen::HOLDS_IMAGE;
                }
                if place == JsonPosition::Service && walker.height() + walker.mentions.len() > before {
                    self.seen |= seen::SERVICE;
                }
                let inside = std::mem::replace(&mut walker.shape, around);
                if matches!(place, JsonPosition::Items | JsonPosition::TopItems | JsonPosition::Images) {
                    self.held = self.held.max(inside);
                }
            }
            MemberRole::Dimension => {
                self.seen |= seen::DIMENSION;
                map.next_value::<IgnoredAny>()?;
            }
            MemberRole::Target | MemberRole::Skip => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    /// Notes the key, and tells the document's own items from those further inside.
    fn inside(&mut self, place: JsonPosition) -> JsonPosition {
        self.seen |= match place {
            JsonPosition::Images => seen::IMAGES,
            JsonPosition::Canvases => seen::CANVASES,
            JsonPosition::Sequences => seen::SEQUENCES,
            JsonPosition::Links => seen::LINKS,
            JsonPosition::Items => seen::ITEMS,
            JsonPosition::Painted => seen::BODY,
            _ => 0,
        };
        if self.place == JsonPosition::Root && place == JsonPosition::Items {
            JsonPosition::TopItems
        } else {
            place
        }
    }

    /// Closes the complete object: its kind is known, and the images inside find their owner.
    fn close(mut self, walker: &mut Walker<'_>) {
        if self.place == JsonPosition::Service {
            return self.close_service(walker);
        }
        if self.is_image_by_place(walker) {
            self.kind = TypeClaim::Image;
        }
        self.claim_own_image(walker);
        let shape = self.shape();
        self.kind = self.kind_by_place(shape, walker);
        match self.kind {
            TypeClaim::Canvas => self.close_canvas(walker),
            TypeClaim::Manifest | TypeClaim::Collection => {
                walker.drop_images(self.images_from);
                let linked = matches!(
                    self.place,
                    JsonPosition::TopItems
                        | JsonPosition::Items
                        | JsonPosition::Members
                        | JsonPosition::Links
                );
                if let (true, Some(id)) = (linked, self.id.as_ref()) {
                    walker.document.members.push(id.clone());
                }
            }
            TypeClaim::Sequence => walker.drop_images(self.images_from),
            TypeClaim::Annotation => self.close_annotation(walker),
            TypeClaim::Unsaid if self.is_bare_item(walker) => walker.untyped.extend(self.id.take()),
            _ => {}
        }
        walker.shape = walker.shape.max(shape);
        if self.place == JsonPosition::Root {
            if self.kind == TypeClaim::Collection {
                walker.document.members.append(&mut walker.untyped);
            }
            self.describe(&mut walker.document);
        }
    }

    /// True for an item of the document, or a member of it, that has neither a type nor any content.
    fn is_bare_item(&self, walker: &Walker<'_>) -> bool {
        let content =
            seen::IMAGES | seen::ITEMS | seen::CANVASES | seen::SEQUENCES | seen::BODY | seen::DIMENSION;
        matches!(self.place, JsonPosition::TopItems | JsonPosition::Members)
            && !self.has(content)
            && !walker.has_images(self.images_from)
    }

    /// Tells image services from search, auth and the like, and leaves those without a known type to their holder.
    fn close_service(self, walker: &mut Walker<'_>) {
        walker.mentions.truncate(self.mentions_from);
        let Some(id) = self.id.as_ref() else { return };
        if matches!(self.kind, TypeClaim::ImageService | TypeClaim::Image) || self.has(seen::IMAGE) {
            walker.push_service(id, self.images_from);
        } else if !self.has(seen::DESCRIBED) || !self.has(seen::OTHER_API) && walker.is_below_base(id) {
            // A profile of the server's own says nothing; the place of its id does.
            walker.mentions.push(id.clone());
        }
    }

    /// Claims the image that the object itself is: by its URL, and by its services.
    ///
    /// A service without a type is the image's only where nothing else identifies the image: beside an image service it is
    /// one for login or search. An image that nothing identifies may be named by the base URI of its service.
    fn claim_own_image(&self, walker: &mut Walker<'_>) {
        let is_image = match self.kind {
            TypeClaim::Image => true,
            // An unknown type, where an image belongs, is no reason against one.
            TypeClaim::Unsaid | TypeClaim::Else => {
                matches!(self.place, JsonPosition::Painted | JsonPosition::Picture) || self.has(seen::IMAGE)
            }
            TypeClaim::NoImage => self.has(seen::IMAGE),
            _ => false,
        };
        let mentions: Vec<String> = walker.mentions.drain(self.mentions_from..).collect();
        let own = self.id.as_ref().filter(|_| self.kind.may_be_image());
        if let Some(id) = own {
            walker.push_image_url(id, self.images_from);
        }
        if !is_image || self.has(seen::HOLDS_IMAGE) {
            return;
        }
        // What lies below a base of ours is an image for certain; any other mention is a guess.
        let is_certain = mentions.iter().chain(own).any(|url| walker.is_below_base(url));
        for service in &mentions {
            if !is_certain || walker.is_below_base(service) {
                walker.push_service(service, self.images_from);
            }
        }
        if let Some(id) = own.filter(|_| self.place == JsonPosition::Painted)
            && !walker.has_images(self.images_from)
        {
            walker.push_base_uri(id, self.images_from);
        }
    }

    /// Hands the canvas out, unless its images belong to the canvas around it or it is only mentioned here: a
    /// mention without images must not look like a poisoned canvas.
    fn close_canvas(&mut self, walker: &mut Walker<'_>) {
        let stands_here =
            self.has(seen::IMAGES | seen::ITEMS | seen::DIMENSION) || walker.has_images(self.images_from);
        if !stands_here || matches!(self.place, JsonPosition::Held | JsonPosition::Painted) {
            return;
        }
        if let Some(id) = self.id.as_deref().filter(|id| !without_fragment(id).is_empty()) {
            let label = match self.place {
                // The document needs its label as well.
                JsonPosition::Root => self.label.clone(),
                _ => self.label.take(),
            };
            walker.hand_out(id, label, self.images_from);
        }
    }

    /// An annotation in a document of its own belongs to the canvas that it names.
    fn close_annotation(&self, walker: &mut Walker<'_>) {
        let canvas = self.target.as_deref().filter(|target| !without_fragment(target).is_empty());
        if let (Some(canvas), true) = (canvas, walker.has_images(self.images_from)) {
            walker.hand_out(canvas, None, self.images_from);
        }
    }

    fn describe(self, document: &mut Document) {
        document.kind = match self.kind {
            TypeClaim::Manifest => DocumentKind::Manifest,
            TypeClaim::Collection => DocumentKind::Collection,
            TypeClaim::Canvas => DocumentKind::Canvas,
            TypeClaim::Sequence => DocumentKind::Sequence,
            TypeClaim::Annotation | TypeClaim::AnnotationPage => DocumentKind::Annotations,
            _ => DocumentKind::Other,
        };
        document.id = self.id;
        document.label = self.label;
    }
}

fn replace(slot: &mut Option<String>, value: Option<String>) {
    if value.is_some() {
        *slot = value;
    }
}
