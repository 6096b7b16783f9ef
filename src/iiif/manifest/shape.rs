//! What an object is: by the place where it stands, by what it holds, and last by what it says of itself.

use super::node::{ObjectNode, seen};
use super::vocabulary::TypeClaim;
use super::walker::{JsonPosition, Walker};

/// What an object must be by what stands in its `items` (or `resources`, or `images`), whatever it calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Shape {
    /// Nothing can be told.
    #[default]
    Unknown,
    /// Has a `body` or a `resource`.
    Annotation,
    /// Items are annotations.
    AnnotationPage,
    /// Items are pages of annotations, or `images` are annotations.
    Canvas,
    /// Items are canvases.
    HoldsCanvases,
}

impl ObjectNode {
    /// Whether it stands where an image belongs, and has the URL or the service of one, but calls itself something else
    /// that is never painted.
    pub(super) fn is_image_by_place(&self, walker: &Walker<'_>) -> bool {
        use TypeClaim::{Annotation, AnnotationPage, Canvas, Collection, Manifest, Sequence};
        let is_said_otherwise =
            matches!(self.kind, Annotation | AnnotationPage | Canvas | Collection | Manifest | Sequence);
        let has_url = || self.id.as_deref().is_some_and(|id| walker.is_image_url(id));
        let is_structure = self.has(seen::ITEMS | seen::IMAGES | seen::CANVASES | seen::SEQUENCES);
        matches!(self.place, JsonPosition::Painted | JsonPosition::Picture)
            && is_said_otherwise
            && !is_structure
            && (self.has(seen::SERVICE) || has_url())
    }

    /// What the object must be by what it holds.
    pub(super) fn shape(&self) -> Shape {
        match self.held {
            Shape::Annotation if self.has(seen::IMAGES) => Shape::Canvas,
            Shape::Annotation => Shape::AnnotationPage,
            Shape::AnnotationPage => Shape::Canvas,
            Shape::Canvas | Shape::HoldsCanvases => Shape::HoldsCanvases,
            Shape::Unknown if self.has(seen::BODY) => Shape::Annotation,
            Shape::Unknown => Shape::Unknown,
        }
    }

    /// What the object is. The place where it stands and the things that it holds outrank what it calls itself:
    /// generators write `sc:Sequence`, `oa:Annotation`, `canvas` or `Page` over a canvas, and one such word would lose
    /// all images below it.
    pub(super) fn kind_by_place(&self, shape: Shape, walker: &Walker<'_>) -> TypeClaim {
        let has_images = walker.has_images(self.images_from);
        let in_a_list =
            matches!(self.place, JsonPosition::TopItems | JsonPosition::Items | JsonPosition::Images);
        match (self.place, shape) {
            (JsonPosition::Sequences, _) if self.has(seen::CANVASES) => TypeClaim::Sequence,
            // A manifest or a collection says so once, at its own top; nobody writes it over a single canvas there.
            (JsonPosition::Root, Shape::Canvas)
                if matches!(self.kind, TypeClaim::Manifest | TypeClaim::Collection)
                    && !self.has(seen::IMAGES) =>
            {
                self.kind
            }
            (JsonPosition::Canvases, _) => TypeClaim::Canvas,
            (_, Shape::Canvas)
                if has_images
                    && self.place != JsonPosition::Painted
                    && (self.has(seen::IMAGES) || in_a_list || self.kind != TypeClaim::AnnotationPage) =>
            {
                TypeClaim::Canvas
            }
            (_, Shape::AnnotationPage) if in_a_list && !self.is_canvas_of_annotations() => {
                TypeClaim::AnnotationPage
            }
            (_, Shape::Annotation) if in_a_list => TypeClaim::Annotation,
            (JsonPosition::Root, _) if self.has(seen::SEQUENCES) => TypeClaim::Manifest,
            (JsonPosition::Root, Shape::HoldsCanvases)
                if !matches!(
                    self.kind,
                    TypeClaim::Manifest | TypeClaim::Collection | TypeClaim::Sequence
                ) =>
            {
                TypeClaim::Manifest
            }
            _ if matches!(self.kind, TypeClaim::Unsaid | TypeClaim::Else) => self.kind_by_shape(walker),
            _ => self.kind,
        }
    }

    /// Whether it stands for a canvas that leaves out the pages between itself and its annotations.
    fn is_canvas_of_annotations(&self) -> bool {
        match self.kind {
            TypeClaim::Canvas => self.place == JsonPosition::TopItems || self.has(seen::DIMENSION),
            TypeClaim::Unsaid | TypeClaim::Else => self.has(seen::DIMENSION),
            _ => false,
        }
    }

    /// What an object without `type`, or of an unheard-of one, must be by its keys and the company it keeps.
    fn kind_by_shape(&self, walker: &Walker<'_>) -> TypeClaim {
        let has_images = walker.has_images(self.images_from);
        let at_items =
            matches!(self.place, JsonPosition::Root | JsonPosition::TopItems | JsonPosition::Items);
        if (self.has(seen::IMAGES) && (has_images || self.has(seen::DIMENSION)))
            || (at_items && self.has(seen::ITEMS) && self.has(seen::DIMENSION))
        {
            TypeClaim::Canvas
        } else if self.place == JsonPosition::Links {
            TypeClaim::Manifest
        } else if self.place != JsonPosition::Root {
            // A wrong guess further inside would cost images; no guess costs nothing.
            self.kind
        } else if self.has(seen::SEQUENCES) {
            TypeClaim::Manifest
        } else if self.has(seen::CANVASES) {
            TypeClaim::Sequence
        } else if self.has(seen::LINKS) {
            TypeClaim::Collection
        } else if !self.has(seen::ITEMS) {
            self.kind
        } else if walker.document.canvases > 0 {
            TypeClaim::Manifest
        } else if walker.document.members.is_empty() {
            self.kind
        } else {
            TypeClaim::Collection
        }
    }
}
