//! Walks a Presentation 2 or 3 document and tells which canvas owns which images.
//!
//! The document is read once, front to back, without building it: an object is understood when it *ends*, because its type
//! may stand behind its content. Images found inside wait on a stack until the canvas that holds them is complete (module
//! `node`).

use std::borrow::Cow;
use std::io::{BufReader, Read};

use serde::de::DeserializeSeed as _;

use super::image_url::ImageBases;
use super::json_repair;
pub(crate) use decode::utf8;

use decode::Utf8;
use node::ValueSeed;
use walker::{JsonPosition, Walker};

mod decode;
mod node;
mod shape;
mod strings;
mod vocabulary;
mod walker;

#[cfg(test)]
mod tests;

/// A canvas and the images painted on it (or standing for it).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Canvas {
    /// `@id` / `id` as written, without fragment. Never empty; not necessarily a URL.
    pub id: String,
    /// The first label, plain text.
    pub label: Option<String>,
    /// Lookup keys (see [`super::Identifier::key`]) of its images, each once, in the order found. Empty where the
    /// canvas is poisoned (upstream.md "Poison").
    pub images: Vec<String>,
}

/// Kind of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DocumentKind {
    /// A manifest.
    Manifest,
    /// A collection: no canvases of its own, links to others.
    Collection,
    /// A single canvas.
    Canvas,
    /// A Presentation 2 sequence or range.
    Sequence,
    /// An annotation, a page of them, or a Presentation 2 annotation list: its canvases are those that the
    /// annotations name as their targets.
    Annotations,
    /// JSON, but nothing of IIIF's.
    #[default]
    Other,
}

/// Facts about a whole document, known once it was walked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// Kind.
    pub kind: DocumentKind,
    /// `@id` / `id`, where it has one.
    pub id: Option<String>,
    /// The first label, plain text.
    pub label: Option<String>,
    /// Canvases handed out.
    pub canvases: usize,
    /// Images handed out, counted once per canvas.
    pub images: usize,
    /// Images that stand on no canvas and were not handed out: thumbnails and logos of manifests, sequences,
    /// ranges. Most of them occur on a canvas as well.
    pub unowned: usize,
    /// Unclaimed images that an annotation paints: they belong on a canvas, and none was found for them.
    pub unclaimed: usize,
    /// Manifests and collections that a collection links to, as written, in the order found.
    pub members: Vec<String>,
}

/// Reasons why a document could not be walked. Canvases handed out before the error were good.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// Not JSON, cut short, or nested deeper than 127 levels; with line and column. Also a reader that failed
    /// ([`serde_json::Error::is_io`]). Two things that JSON's grammar allows are errors here in a document that streams, at
    /// a place that is read: half a surrogate pair (`"\ud800"`), and a number like `1e999`.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// Walks one document, handing out each canvas as soon as it is complete; memory is bounded by the largest
/// canvas, not by the document (but for the [members](Document::members) of a collection).
///
/// A value of a wrong type is skipped; only broken JSON is an error. UTF-16, with or without a mark, is read, and bytes
/// that are no text become U+FFFD: a label keeps that, a name with it is ignored. An image's identifier is the last segment
/// of its URL's path.
pub fn walk(reader: impl Read, each: &mut dyn FnMut(Canvas)) -> Result<Document, WalkError> {
    walk_under(reader, &ImageBases::default(), each)
}

/// [`walk`], with the identifiers of images as `bases` tell them.
pub fn walk_under(
    reader: impl Read,
    bases: &ImageBases,
    each: &mut dyn FnMut(Canvas),
) -> Result<Document, WalkError> {
    // serde_json asks for one byte at a time.
    let buffered = BufReader::with_capacity(64 * 1024, Utf8::new(reader));
    run(serde_json::Deserializer::from_reader(buffered), bases, each)
}

/// Walks a document in memory, as [`walk`], in two thirds of the time.
///
/// ```
/// use iiif_mender::iiif::manifest::{DocumentKind, walk_slice};
///
/// let canvas = br#"{"@type": "sc:Canvas", "@id": "https://a.test/c", "images": [{"@type": "oa:Annotation",
///     "resource": {"service": {"@id": "https://a.test/iiif/2/abc"}}}]}"#;
/// let mut images = Vec::new();
/// let document = walk_slice(canvas, &mut |canvas| images.extend(canvas.images))?;
/// assert_eq!(document.kind, DocumentKind::Canvas);
/// assert_eq!(images, ["abc"]);
/// # Ok::<(), iiif_mender::iiif::manifest::WalkError>(())
/// ```
pub fn walk_slice(bytes: &[u8], each: &mut dyn FnMut(Canvas)) -> Result<Document, WalkError> {
    run(serde_json::Deserializer::from_slice(&decode::utf8(bytes)), &ImageBases::default(), each)
}

/// Reads a document held in memory: all its canvases, and where the JSON is broken in the way in which the canvas service
/// breaks it ([`json_repair::repair_json`]), those of the repaired document. The error is that of the document as it came.
/// An image's identifier is the last segment of its URL's path.
pub fn read(bytes: &[u8]) -> Result<(Document, Vec<Canvas>), WalkError> {
    read_under(bytes, &ImageBases::default())
}

/// [`read`], with the identifiers of images as `bases` tell them.
pub fn read_under(bytes: &[u8], bases: &ImageBases) -> Result<(Document, Vec<Canvas>), WalkError> {
    let text = decode::utf8(bytes);
    let collect = |text: &[u8]| {
        let mut canvases = Vec::new();
        let json = serde_json::Deserializer::from_slice(text);
        run(json, bases, &mut |canvas| canvases.push(canvas)).map(|document| (document, canvases))
    };
    collect(&text).or_else(|error| {
        let mended = json_repair::repair_json(&text).unwrap_or(Cow::Borrowed(&text));
        // JSON's grammar allows half a surrogate pair, and numbers beyond all bounds; both are replaced.
        let text = decode::without_half_surrogates(&mended);
        collect(&decode::without_huge_numbers(&text)).map_err(|_| error)
    })
}

fn run<'de, R: serde_json::de::Read<'de>>(
    mut json: serde_json::Deserializer<R>,
    bases: &ImageBases,
    each: &mut dyn FnMut(Canvas),
) -> Result<Document, WalkError> {
    let mut walker = Walker::new(bases, each);
    ValueSeed::new(&mut walker, JsonPosition::Root).deserialize(&mut json)?;
    json.end()?;
    Ok(walker.finish())
}
