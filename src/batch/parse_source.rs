//! Parser of the SOURCE argument. The kinds differ in their form and in what the index knows; nothing is fetched here.

use std::path::{Path, PathBuf};

use super::content_state::{self, ContentTarget};
use crate::config::Settings;
use crate::config::settings::RouteKind;
use crate::iiif::canvas::uri;
use crate::iiif::{CanvasUrl, Identifier, IdentifierKind};
use crate::index::Index;

/// Source named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BatchSource {
    /// All images of the index.
    Index,
    /// A directory or a file.
    Path(PathBuf),
    /// A manifest, a collection, or something else that must be fetched to be known.
    Document(String),
    /// A canvas, and the manifest it is known to be part of.
    Canvas { url: String, manifest: Option<String> },
    /// An image, by its lookup key.
    Image(String),
    /// Unreadable source, with the reason.
    Unreadable(String),
}

/// Parses `text` into the source that it names.
pub(crate) fn parse(text: &str, settings: &Settings, index: &Index) -> BatchSource {
    let text = text.trim();
    if Path::new(text).exists() {
        return BatchSource::Path(PathBuf::from(text));
    }
    if let Some(pointed) = content_state::read(text) {
        return match pointed {
            ContentTarget::Canvas { url, manifest } => BatchSource::Canvas { url, manifest },
            ContentTarget::Document(url) => url_source(&url, settings, index),
        };
    }
    if let Some(url) = uri(text).filter(|url| CanvasUrl::parse(url).is_some()) {
        return url_source(&url, settings, index);
    }
    let identifier = Identifier::new(text);
    let is_known = |key: &str| index.owners(key).is_ok_and(|owners| !owners.is_empty());
    if identifier.kind() != IdentifierKind::Other || is_known(&identifier.key()) {
        return BatchSource::Image(identifier.key().into_owned());
    }
    if is_known(text) {
        return BatchSource::Image(text.to_owned());
    }
    let is_path = text.contains('/') || Path::new(text).extension().is_some();
    BatchSource::Unreadable(if is_path {
        "no such file or directory".to_owned()
    } else {
        "not a file or directory, a URL, or an identifier that the index knows".to_owned()
    })
}

fn url_source(url: &str, settings: &Settings, index: &Index) -> BatchSource {
    let bare = url.split('#').next().unwrap_or(url);
    if index.canvas(bare).is_ok_and(|owners| !owners.is_empty()) {
        return BatchSource::Canvas { url: bare.to_owned(), manifest: None };
    }
    let bases = settings.image_bases();
    if let Some(identifier) = bases.in_image_url(bare) {
        return BatchSource::Image(identifier.key().into_owned());
    }
    let is_image = CanvasUrl::parse(bare).is_some_and(|parsed| {
        let host = parsed.host();
        let on_image_route = |of: &crate::config::settings::RouteSettings| of.kind == RouteKind::Image;
        settings.route_of(&host, parsed.path).is_some_and(|at| on_image_route(&settings.routes[at]))
    });
    match bases.in_service_id(bare) {
        Some(identifier) if is_image => BatchSource::Image(identifier.key().into_owned()),
        _ => BatchSource::Document(bare.to_owned()),
    }
}
