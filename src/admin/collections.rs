//! Pages for browsing the index: sources, and the manifests of one source, page by page.

use askama::Template;

use super::AdminState;
use super::answer::ApiProblem;
use super::queries::{self, ApiParameters, ManifestDetail};
use crate::index::browse::SourceRow;
use crate::observe::counted;

/// The sources, or the manifests of one of them, or of all.
#[derive(Template)]
#[template(path = "collections.html")]
pub(super) struct CollectionsPage {
    here: &'static str,
    sources: Vec<SourceView>,
    /// The source whose manifests these are.
    source: Option<SourceView>,
    manifests: Vec<ManifestView>,
    total: String,
    is_first: bool,
    next: Option<String>,
}

/// A source.
struct SourceView {
    id: i64,
    name: String,
    manifests: String,
    images: String,
}

/// A manifest.
pub(super) struct ManifestView {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) images: String,
    pub(super) vanished: bool,
    pub(super) healed: u64,
    pub(super) failed: u64,
    pub(super) missing: u64,
}

/// Lists collections. With one source only, its manifests are returned at once.
pub(super) async fn collections(
    state: &AdminState,
    query: &ApiParameters<'_>,
) -> Result<CollectionsPage, ApiProblem> {
    let wanted = query.number("source")?;
    let is_first = query.text("after").is_none();
    let mut known = Vec::new();
    if wanted.is_some() || is_first {
        known.extend(queries::sources(state).await?.into_iter().map(room));
    }
    let total = u64::try_from(state.metrics.snapshot().now.index_manifests).unwrap_or(0);
    let mut page = CollectionsPage {
        here: "/collections",
        sources: Vec::new(),
        source: None,
        manifests: Vec::new(),
        total: counted(total, "manifest"),
        is_first,
        next: None,
    };
    if wanted.is_none() && known.len() > 1 {
        page.sources = known;
        return Ok(page);
    }
    page.source = known.into_iter().find(|source| Some(source.id) == wanted);
    if let Some(source) = &page.source {
        page.total.clone_from(&source.manifests);
    }
    let listing = queries::manifests(state, query)?;
    page.manifests = listing.items.into_iter().map(manifest_view).collect();
    let source = wanted.map(|source| format!("source={source}&")).unwrap_or_default();
    page.next = listing.next.map(|after| format!("/collections?{source}after={after}"));
    Ok(page)
}

fn room(source: SourceRow) -> SourceView {
    let name = match &*source.kind {
        "traffic" => "Learned from traffic".to_owned(),
        _ => source.location,
    };
    let (manifests, images) = (counted(source.manifests, "manifest"), counted(source.images, "image"));
    SourceView { id: source.id, name, manifests, images }
}

pub(super) fn manifest_view(detail: ManifestDetail) -> ManifestView {
    let ManifestDetail { row, health } = detail;
    ManifestView {
        id: row.id,
        name: row.label.unwrap_or(row.uri),
        images: counted(row.images, "image"),
        vanished: row.vanished.is_some(),
        healed: health.healed,
        failed: health.failed,
        missing: health.missing,
    }
}
