//! Problems of a file or a source, with advice.

use std::path::Path;

use crate::iiif::manifest::{Document, WalkError};
use crate::observe::counted;

/// Names of documents, for people.
pub(crate) const DOCUMENT_NAMES: &str = "*.json, *.jsonld, *.json.gz, *.jsonld.gz, manifest and collection";

/// A file or source that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SourceProblem {
    /// File or URL.
    pub path: String,
    /// Line, counted from 1.
    pub line: Option<usize>,
    /// Column, counted from 1.
    pub column: Option<usize>,
    /// Description.
    pub message: String,
    /// Advice.
    pub hint: &'static str,
    /// True where it is about a source as a whole, which the check of the setup tells as well.
    #[serde(skip)]
    pub(crate) is_in_setup: bool,
}

impl SourceProblem {
    pub(in crate::index) fn unreadable(path: &Path, message: &str) -> Self {
        let hint =
            "check that it exists and that this user may read it; what the index knows from there is kept";
        Self::answer(&path.display().to_string(), format!("cannot be read: {message}"), hint)
    }

    /// The folder or file that a source names, where it cannot be read.
    pub(in crate::index) fn unreadable_source(path: &Path, message: &str) -> Self {
        Self { is_in_setup: true, ..Self::unreadable(path, message) }
    }

    pub(in crate::index) fn broken(path: &str, error: &WalkError) -> Self {
        let WalkError::Json(json) = error;
        let (line, column) = (json.line(), json.column());
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text).to_owned();
        let hint = match json.classify() {
            serde_json::error::Category::Eof => {
                "it is cut short: copy the file again, or ask again; what the index knows from it is kept"
            }
            serde_json::error::Category::Io => "the disk or the network failed while reading: try again",
            _ => "correct the JSON at this place; what the index knows from it is kept",
        };
        let place = |at: usize| (line > 0).then_some(at);
        Self { line: place(line), column: place(column), ..Self::answer(path, message, hint) }
    }

    /// A file that names no images any more.
    pub(in crate::index) fn emptied(path: &str, known: i64) -> Self {
        let message = format!("it names no images; the index knows {known} from there");
        let hint =
            "if that is meant, it is believed after [index] grace; until then what the index knows is kept";
        Self::answer(path, message, hint)
    }

    pub(in crate::index) fn not_fetched(url: &str) -> Self {
        let message = "nothing can be fetched here".to_owned();
        Self::answer(url, message, "download it into a directory and let a `path` source name that")
    }

    /// Images of a document that no canvas claims.
    pub(in crate::index) fn unclaimed(origin: &str, document: &Document) -> Option<Self> {
        let hint = "a canvas needs an `id`, and the annotations that paint it must stand in it";
        let message = format!("{} on no canvas, not indexed", counted(document.unclaimed, "image"));
        (document.unclaimed > 0).then(|| Self::answer(origin, message, hint))
    }

    /// A source that the index knows no image from.
    pub(in crate::index) fn no_images(location: &str, passed_over: u64) -> Self {
        let others = match passed_over {
            0 => String::new(),
            some => format!("; {some} files were passed over, read are {DOCUMENT_NAMES}"),
        };
        let hint = "check that it is the right place, and that manifests with images lie there";
        let message = format!("no image is known from this source{others}");
        Self { is_in_setup: true, ..Self::answer(location, message, hint) }
    }

    pub(in crate::index) fn answer(url: &str, message: String, hint: &'static str) -> Self {
        Self { path: url.to_owned(), line: None, column: None, message, hint, is_in_setup: false }
    }
}
