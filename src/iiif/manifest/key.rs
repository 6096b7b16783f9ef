//! The words of the Presentation API that matter to the walk: keys and types.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::walker::Place;

/// What a key of an object means to the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Id,
    Type,
    /// `@context`, `profile`, `protocol`: tell an image service from others.
    Describes,
    Format,
    Label,
    /// `target`, `on`: the canvas of an annotation.
    Target,
    /// `height`, `width`, `duration`: tell a canvas from a mention of one.
    Dimension,
    /// Something to walk into, and what it makes of its values.
    Into(Place),
    /// Text, numbers, links to elsewhere, or mentions of what stands in full at another place.
    Skip,
}

impl Key {
    fn named(name: &str) -> Self {
        match name {
            "@id" | "id" => Self::Id,
            "@type" | "type" => Self::Type,
            "@context" | "profile" | "protocol" => Self::Describes,
            "format" => Self::Format,
            "label" => Self::Label,
            "target" | "on" => Self::Target,
            "height" | "width" | "duration" => Self::Dimension,
            // Presentation 3, and `resources` of a Presentation 2 annotation list.
            "items" | "resources" => Self::Into(Place::Items),
            "sequences" => Self::Into(Place::Sequences),
            "canvases" => Self::Into(Place::Canvases),
            "images" => Self::Into(Place::Images),
            "manifests" | "collections" => Self::Into(Place::Links),
            "members" => Self::Into(Place::Members),
            "body" | "resource" | "default" | "item" | "full" | "source" => Self::Into(Place::Painted),
            "thumbnail" | "logo" => Self::Into(Place::Picture),
            "placeholderCanvas" | "accompanyingCanvas" => Self::Into(Place::Held),
            "service" => Self::Into(Place::Service),
            // Text, numbers and links to elsewhere; ranges mention canvases, and `services` lists what image
            // resources mention by id.
            "metadata" | "summary" | "description" | "requiredStatement" | "attribution" | "rights"
            | "license" | "motivation" | "behavior" | "viewingHint" | "viewingDirection" | "value"
            | "language" | "navDate" | "navPlace" | "sizes" | "tiles" | "selector" | "chars"
            | "stylesheet" | "seeAlso" | "homepage" | "related" | "partOf" | "within" | "structures"
            | "ranges" | "services" | "start" | "startCanvas" | "supplementary" => Self::Skip,
            // Servers put things where no standard has them (`provider`, `annotations`, `rendering` and the rest
            // need no word of their own for the same reason).
            _ => Self::Into(Place::Elsewhere),
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                Ok(Key::named(name))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// What an object says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// Nothing said.
    #[default]
    Unsaid,
    Manifest,
    Collection,
    /// `sc:Sequence`, `sc:Range`
    Sequence,
    Canvas,
    Annotation,
    /// `AnnotationPage`, `sc:AnnotationList`
    AnnotationPage,
    Image,
    ImageService,
    /// Something of which it is known that it is no image: sound, text, a choice of others.
    NoImage,
    /// A word that no standard has.
    Else,
}

impl Kind {
    /// Reads `Canvas`, `sc:Canvas` and `http://iiif.io/api/presentation/2#Canvas` alike, in any case.
    pub(super) fn named(name: &str) -> Self {
        const NAMES: [(&str, Kind); 24] = [
            ("Manifest", Kind::Manifest),
            ("Collection", Kind::Collection),
            ("Sequence", Kind::Sequence),
            ("Range", Kind::Sequence),
            ("Canvas", Kind::Canvas),
            ("Annotation", Kind::Annotation),
            ("AnnotationPage", Kind::AnnotationPage),
            ("AnnotationList", Kind::AnnotationPage),
            ("AnnotationCollection", Kind::AnnotationPage),
            ("Layer", Kind::AnnotationPage),
            ("Image", Kind::Image),
            ("Sound", Kind::NoImage),
            ("Video", Kind::NoImage),
            ("MovingImage", Kind::NoImage),
            ("Text", Kind::NoImage),
            ("TextualBody", Kind::NoImage),
            ("ContentAsText", Kind::NoImage),
            ("Dataset", Kind::NoImage),
            ("Model", Kind::NoImage),
            ("PhysicalObject", Kind::NoImage),
            ("Choice", Kind::NoImage),
            ("List", Kind::NoImage),
            ("Composite", Kind::NoImage),
            ("SpecificResource", Kind::NoImage),
        ];
        let name = name.rsplit([':', '#', '/']).next().unwrap_or_default();
        let is_service = name.get(..12).is_some_and(|head| head.eq_ignore_ascii_case("ImageService"));
        let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        match known {
            Some((_, kind)) => *kind,
            None if is_service => Self::ImageService,
            None => Self::Else,
        }
    }

    /// Whether an `id` of this kind may be the URL of an image: an annotation that borrows one is still none.
    pub(super) fn may_be_image(self) -> bool {
        matches!(self, Self::Unsaid | Self::Image | Self::NoImage | Self::Else)
    }
}

/// Whether a `@context`, `profile` or `protocol` is that of the Image API, of whatever version.
pub(super) fn is_image_api(text: &str) -> bool {
    matches!(text, "level0" | "level1" | "level2")
        || text.contains("iiif.io/api/image")
        || text.contains("library.stanford.edu/iiif/image-api")
}
