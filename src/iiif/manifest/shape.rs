//! Kind of an object: by its position, by its content, and last by its own `type`.

use super::node::{ObjectNode, seen};
use super::vocabulary::TypeClaim;
use super::walker::{JsonPosition, Walker};

/// Shape of an object by the content of its `items` (or `resources`, or `images`), whatever its `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Shape {
    /// Shape unknown.
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
    /// True if the object stands where an image belongs, and has the URL or the service of one, but has a `type` that is
    /// never painted.
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

    /// Shape of the object by its content.
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

    /// Kind of the object. Its position and its content outrank its `type`: generators write `sc:Sequence`,
    /// `oa:Annotation`, `canvas` or `Page` over a canvas, and one such word would lose all images below it.
    pub(super) fn kind_by_place(&self, shape: Shape, walker: &Walker<'_>) -> TypeClaim {
        let has_images = walker.has_images(self.images_from);
        let in_a_list =
            matches!(self.place, JsonPosition::TopItems | JsonPosition::Items | JsonPosition::Images);
        match (self.place, shape) {
            (JsonPosition::Sequences, _) if self.has(seen::CANVASES) => TypeClaim::Sequence,
            // A manifest or a collection has its type where documents begin; no generator writes that type over a single
            // canvas there.
            (JsonPosition::Root | JsonPosition::Elsewhere | JsonPosition::Links, Shape::Canvas)
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

    /// True if the object is a canvas whose annotations stand in it without an annotation page.
    fn is_canvas_of_annotations(&self) -> bool {
        match self.kind {
            TypeClaim::Canvas => self.place == JsonPosition::TopItems || self.has(seen::DIMENSION),
            TypeClaim::Unsaid | TypeClaim::Else => self.has(seen::DIMENSION),
            _ => false,
        }
    }

    /// Kind of an object without `type`, or with an unknown one, by its keys and its position.
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
            // A wrong guess further inside would lose images; no guess loses none.
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
