//! Is a document poisoned? Compared with what the index knows of it (upstream.md "Poison").

use std::collections::HashSet;

use crate::heal::{PoisonedDocument, fingerprint};
use crate::iiif::identifier;
use crate::iiif::manifest::{self, Canvas, DocumentKind};
use crate::index::Index;
use crate::observe::Trace;

/// Missing images that are told at most.
const TOLD: usize = 8;

/// May a document that was asked for with this query be compared? `allow` and `disallow` leave images out on purpose.
pub(super) fn is_comparable(query: Option<&str>) -> bool {
    query.is_none_or(|query| query.is_empty() || query.starts_with("page=") && !query.contains('&'))
}

/// What this document lacks, if it is a canvas without images, or a manifest with fewer canvases or images than the
/// index knows. `names`: public URLs that it may be known by. Blocks for as long as a few index lookups take.
pub(super) fn suspect(
    index: &Index,
    names: Vec<String>,
    (route, mark, target): (usize, u64, String),
    plain: &[u8],
) -> Option<PoisonedDocument> {
    let (document, canvases) = manifest::read(plain).ok()?;
    // What it calls itself comes last: the canvases of a PDF's pages all call themselves the same.
    let names = names.into_iter().chain(document.id);
    let (name, known) = match document.kind {
        DocumentKind::Canvas if document.images == 0 => {
            names.into_iter().find_map(|name| canvas(index, name))
        }
        DocumentKind::Manifest | DocumentKind::Sequence => {
            names.into_iter().find_map(|name| whole(index, name))
        }
        _ => None,
    }?;
    let images: usize = known.iter().map(Vec::len).sum();
    // A canvas of the index without images is one that was poisoned when it was indexed.
    let carrying = known.iter().filter(|keys| !keys.is_empty()).count();
    if document.images >= images && document.canvases >= carrying {
        return None;
    }
    let missing = lacking(&canvases, known);
    (!missing.is_empty()).then(|| PoisonedDocument {
        route,
        mark,
        target,
        name,
        missing,
        carries: fingerprint(&canvases),
        trace: Trace::fresh(),
    })
}

type Known = (String, Vec<Vec<String>>);

fn whole(index: &Index, name: String) -> Option<Known> {
    let canvases = index.manifest_canvases(&name).ok().filter(|canvases| !canvases.is_empty())?;
    Some((name, canvases.into_iter().map(|canvas| canvas.keys).collect()))
}

fn canvas(index: &Index, name: String) -> Option<Known> {
    let owners = index.canvas(&name).ok()?;
    let keys = owners.iter().find_map(|owner| {
        let canvases = index.manifest_canvases(&owner.manifest).ok()?;
        canvases.into_iter().find(|canvas| canvas.canvas == owner.canvas && !canvas.keys.is_empty())
    })?;
    Some((name, vec![keys.keys]))
}

fn lacking(canvases: &[Canvas], known: Vec<Vec<String>>) -> Vec<String> {
    let own: HashSet<&str> = canvases.iter().flat_map(|canvas| &canvas.images).map(String::as_str).collect();
    let unnamed = known.into_iter().flatten().filter(|key| !own.contains(key.as_str()));
    // The same picture may be named otherwise; that costs a comparison with each, so only as often as needed.
    unnamed.filter(|key| !own.iter().any(|own| identifier::same_file(own, key))).take(TOLD).collect()
}
