//! Poisoned documents, found by comparison with the index (upstream.md "Poison").

use crate::heal::{PoisonedDocument, fingerprint};
use crate::index::Index;
use crate::observe::RequestTrace;

/// Missing images that are reported at most: each is probed before a shorter document is believed.
const MAX_REPORTED: usize = 500;

/// True if a document with this query may be compared. `allow` and `disallow` leave images out on purpose.
pub(super) fn is_comparable(query: Option<&str>) -> bool {
    query.is_none_or(|query| query.is_empty() || query.starts_with("page=") && !query.contains('&'))
}

/// Returns the images that the index knows for one of this document's names and the document lacks. `names`: public URLs
/// that the document may be known by. Blocks for as long as a few index look-ups take.
pub(super) fn find_missing_images(
    index: &Index,
    names: Vec<String>,
    (route, mark, target): (usize, u64, String),
    plain: &[u8],
) -> Option<PoisonedDocument> {
    let read = index.read_document(plain).ok()?;
    // The document's own id comes last: the canvases of a PDF's pages all have the same.
    let names = names.into_iter().chain(read.document.id.clone());
    let (name, mut missing) =
        index.lacking(read.document.kind, names, &read.canvases, MAX_REPORTED + 1).ok()??;
    let is_cut_short = missing.len() > MAX_REPORTED;
    missing.truncate(MAX_REPORTED);
    let carries = fingerprint(&read.canvases);
    Some(PoisonedDocument {
        route,
        mark,
        target,
        name,
        missing,
        is_cut_short,
        carries,
        trace: RequestTrace::generate(),
    })
}
