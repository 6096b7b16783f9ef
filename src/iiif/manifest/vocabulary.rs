//! Vocabulary of the Presentation API that matters to the walk: keys and types.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::walker::JsonPosition;

/// Role of a key of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberRole {
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
    /// Value to walk into, and the position of its contents.
    Into(JsonPosition),
    /// Text, numbers, links to elsewhere, or mentions of objects that stand in full at another place.
    Skip,
}

impl MemberRole {
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
            "items" | "resources" => Self::Into(JsonPosition::Items),
            "sequences" => Self::Into(JsonPosition::Sequences),
            "canvases" => Self::Into(JsonPosition::Canvases),
            "images" => Self::Into(JsonPosition::Images),
            "manifests" | "collections" => Self::Into(JsonPosition::Links),
            "members" => Self::Into(JsonPosition::Members),
            "body" | "resource" | "default" | "item" | "full" | "source" => Self::Into(JsonPosition::Painted),
            "thumbnail" | "logo" => Self::Into(JsonPosition::Picture),
            "placeholderCanvas" | "accompanyingCanvas" => Self::Into(JsonPosition::Held),
            "service" => Self::Into(JsonPosition::Service),
            // Text, numbers and links to elsewhere; ranges mention canvases, and `services` lists by id what image
            // resources mention.
            "metadata" | "summary" | "description" | "requiredStatement" | "attribution" | "rights"
            | "license" | "motivation" | "behavior" | "viewingHint" | "viewingDirection" | "value"
            | "language" | "navDate" | "navPlace" | "sizes" | "tiles" | "selector" | "chars"
            | "stylesheet" | "seeAlso" | "homepage" | "related" | "partOf" | "within" | "structures"
            | "ranges" | "services" | "start" | "startCanvas" | "supplementary" => Self::Skip,
            // Servers put images and canvases at places that no standard has, so other keys are walked as well (`provider`,
            // `annotations`, `rendering` and the rest need no entry of their own for the same reason).
            _ => Self::Into(JsonPosition::Elsewhere),
        }
    }
}

impl<'de> Deserialize<'de> for MemberRole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MemberName;
        impl Visitor<'_> for MemberName {
            type Value = MemberRole;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<MemberRole, E> {
                Ok(MemberRole::named(name))
            }
        }
        deserializer.deserialize_str(MemberName)
    }
}

/// Type that an object claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum TypeClaim {
    /// No type.
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
    /// Type that is known to be no image: sound, text, a choice of others.
    NoImage,
    /// Unknown type.
    Else,
}

impl TypeClaim {
    /// Reads `Canvas`, `sc:Canvas` and `http://iiif.io/api/presentation/2#Canvas` alike, in any case.
    pub(super) fn named(name: &str) -> Self {
        const NAMES: [(&str, TypeClaim); 24] = [
            ("Manifest", TypeClaim::Manifest),
            ("Collection", TypeClaim::Collection),
            ("Sequence", TypeClaim::Sequence),
            ("Range", TypeClaim::Sequence),
            ("Canvas", TypeClaim::Canvas),
            ("Annotation", TypeClaim::Annotation),
            ("AnnotationPage", TypeClaim::AnnotationPage),
            ("AnnotationList", TypeClaim::AnnotationPage),
            ("AnnotationCollection", TypeClaim::AnnotationPage),
            ("Layer", TypeClaim::AnnotationPage),
            ("Image", TypeClaim::Image),
            ("Sound", TypeClaim::NoImage),
            ("Video", TypeClaim::NoImage),
            ("MovingImage", TypeClaim::NoImage),
            ("Text", TypeClaim::NoImage),
            ("TextualBody", TypeClaim::NoImage),
            ("ContentAsText", TypeClaim::NoImage),
            ("Dataset", TypeClaim::NoImage),
            ("Model", TypeClaim::NoImage),
            ("PhysicalObject", TypeClaim::NoImage),
            ("Choice", TypeClaim::NoImage),
            ("List", TypeClaim::NoImage),
            ("Composite", TypeClaim::NoImage),
            ("SpecificResource", TypeClaim::NoImage),
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

    /// True if an `id` of this kind may be the URL of an image: an annotation that borrows one is still none.
    pub(super) fn may_be_image(self) -> bool {
        matches!(self, Self::Unsaid | Self::Image | Self::NoImage | Self::Else)
    }
}

/// True if a `@context`, `profile` or `protocol` is that of the Image API, of whatever version.
pub(super) fn is_image_api(text: &str) -> bool {
    matches!(text, "level0" | "level1" | "level2")
        || text.contains("iiif.io/api/image")
        || text.contains("library.stanford.edu/iiif/image-api")
}

/// True if a type, `@context`, `profile` or `protocol` is that of an API for something else: login, search, sizes.
pub(super) fn is_other_api(text: &str) -> bool {
    /// Begins of the types of such services (IIIF Auth 1.0 and 2.0, Content Search 2.0).
    const TYPES: [&str; 4] = ["Auth", "Search", "AutoComplete", "PhysicalDimensions"];
    const APIS: [&str; 6] = ["/auth", "/search", "/autocomplete", "/annex", "/login", "/token"];
    // Most texts are types, without a slash: six searches in each took a tenth of the whole walk.
    TYPES.iter().any(|begin| text.starts_with(begin))
        || text.contains('/') && APIS.iter().any(|api| text.contains(api))
}
