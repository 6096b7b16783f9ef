//! Reading of the index's sources: all of them anew (`build`), or changes (`refresh`).

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use crate::config::settings::{SourceKind, SourceSettings};
use crate::iiif::manifest::DocumentKind;
pub use crate::index::sources::problem::SourceProblem;
use crate::index::store::error::IndexError;
use crate::index::store::writer;
use crate::index::{Index, now};
use crate::upstream::fetch::without_query;

pub(in crate::index) mod bases;
pub mod build;
pub(in crate::index) mod change_discovery;
pub(in crate::index) mod crawler;
pub(crate) mod directory;
pub(in crate::index) mod event;
pub(in crate::index) mod http_client;
pub(crate) mod problem;
pub(in crate::index) mod reader;
pub mod refresh;
pub mod remove;
pub mod scheduler;
pub(in crate::index) mod watcher;

/// Report of a refresh: counts, and problems on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct RefreshReport {
    /// Documents read: files and URLs.
    pub files: u64,
    /// Manifests read from them (sequences, single canvases and other documents with images among them).
    pub manifests: u64,
    /// Canvases read.
    pub canvases: u64,
    /// Images read: pairs of canvas and identifier.
    pub images: u64,
    /// Documents that are as they were.
    pub unchanged: u64,
    /// Documents that are JSON but name no images of their own: collections and other things.
    pub skipped: u64,
    /// Documents gone from their source that are kept for the grace.
    pub vanished: u64,
    /// Documents gone for longer than the grace, now forgotten.
    pub dropped: u64,
    /// Files of the directories whose names are none of documents.
    pub passed_over: u64,
    /// Problems; facts known from there are kept.
    pub problems: Vec<SourceProblem>,
    /// Warnings about documents that were read, and are hardly what was meant: a source without images, images without a
    /// canvas.
    pub warnings: Vec<SourceProblem>,
}

/// Documents removed in one transaction: other writers get their turn in between, and the log stays short.
pub(in crate::index) const AT_ONCE: u32 = 100;

/// Options of a refresh.
#[derive(Debug, Clone, Copy)]
pub struct RefreshOptions {
    /// Time for which a document that vanished from its directory is kept.
    pub grace: Duration,
}

impl Default for RefreshOptions {
    fn default() -> Self {
        Self { grace: Duration::from_hours(24) }
    }
}

/// Callback after each document, with the report so far and its file or URL.
pub type ProgressCallback<'a> = &'a mut dyn FnMut(&RefreshReport, &str);

/// The kind and the location of a source as the index stores them.
pub(in crate::index) fn stored(source: &SourceSettings) -> (&'static str, String) {
    match source.kind() {
        SourceKind::Path(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            // `manifests/` and `manifests` are one source.
            let path: PathBuf = path.components().collect();
            ("path", path.to_string_lossy().into_owned())
        }
        SourceKind::Url(url) => ("url", url.to_owned()),
    }
}

/// True if two sources have the same location.
pub(in crate::index) fn is_same(one: &SourceSettings, other: &SourceSettings) -> bool {
    stored(one).1 == stored(other).1
}

/// Sources as configured, then those that `index add` brought, each once.
pub(in crate::index) fn with_added(
    conn: &Connection,
    sources: &[SourceSettings],
) -> rusqlite::Result<Vec<(SourceSettings, bool)>> {
    let mut all: Vec<(SourceSettings, bool)> = Vec::new();
    let mut select = conn.prepare("SELECT kind, location FROM sources WHERE added = 1 ORDER BY id")?;
    let added: Vec<(SourceSettings, bool)> = select
        .query_map([], |row| {
            let (kind, location): (String, String) = (row.get(0)?, row.get(1)?);
            Ok((
                if kind == "url" { SourceSettings::url(location) } else { SourceSettings::path(location) },
                true,
            ))
        })?
        .collect::<Result<_, _>>()?;
    for (source, is_added) in sources.iter().map(|source| (source.clone(), false)).chain(added) {
        if !all.iter().any(|(other, _)| is_same(other, &source)) {
            all.push((source, is_added));
        }
    }
    Ok(all)
}

/// Adds sources beside the configured ones; a [`Refresh`](refresh::Refresh) reads them.
pub fn add(index: &Index, sources: &[SourceSettings]) -> Result<(), IndexError> {
    index.write(|conn| {
        for source in sources {
            let (kind, location) = stored(source);
            writer::source_row(conn, kind, &location, true)?;
        }
        Ok(())
    })
}

/// SECURITY: the URL of a source may carry a key in its query.
pub(in crate::index) fn shown(origin: &str) -> String {
    if origin.contains("://") { without_query(origin) } else { origin.to_owned() }
}

impl RefreshReport {
    pub(in crate::index) fn count(&mut self, kind: DocumentKind, counts: writer::WriteCounts) {
        match kind {
            DocumentKind::Collection | DocumentKind::Other if counts.images == 0 => self.skipped += 1,
            _ => self.manifests += 1,
        }
        self.canvases += u64::try_from(counts.canvases).unwrap_or(0);
        self.images += u64::try_from(counts.images).unwrap_or(0);
    }
}

/// True if a document that has been gone since then is to be forgotten; one that was there last time never is.
pub(in crate::index) fn is_over(since: Option<i64>, options: &RefreshOptions) -> bool {
    let grace = i64::try_from(options.grace.as_secs()).unwrap_or(i64::MAX);
    since.is_some_and(|since| now().saturating_sub(since) >= grace)
}
