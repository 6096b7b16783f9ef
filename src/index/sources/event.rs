//! Events of reading a source, and the index's facts about a document at a URL or path.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::iiif::manifest::{Canvas, Document};
use crate::index::sources::directory;
use crate::index::sources::problem::SourceProblem;
use crate::index::store::error::IndexError;
use crate::index::store::writer::DocumentMeta;

/// Event of reading a source.
#[derive(Debug)]
pub(crate) enum SourceEvent {
    /// Canvases of the document that follows.
    Canvases(Vec<Canvas>),
    /// New or changed document. The writer fills in the row of its source.
    Document(Box<(Document, DocumentMeta)>),
    /// An unchanged document, with its current metadata.
    Unchanged(Box<DocumentMeta>),
    /// Document that lost images: the index's version is kept for the grace.
    Poorer(String, SourceProblem),
    /// Document that could not be fetched: the index's version is kept.
    Failed(String, SourceProblem),
    /// Document that the source reports as removed.
    Gone(String),
    /// A file that is no document by its name.
    PassedOver,
    /// Source that lists changes only: documents that are not named are unchanged.
    OnlyChanges,
    /// Incomplete: some part of the source could not be read, so documents that were not seen are kept.
    Incomplete(Option<SourceProblem>),
    /// End of the walk, which left out only what was reported.
    End,
}

/// Callback for events; false: stop reading.
pub(crate) type EventCallback<'a> = &'a mut dyn FnMut(SourceEvent) -> Result<bool, IndexError>;

/// A document as the index knows it.
#[derive(Debug, Clone)]
pub(crate) struct KnownUrl {
    pub(crate) id: i64,
    pub(crate) kind: String,
    pub(crate) images: i64,
    /// Metadata at the time of reading.
    pub(crate) facts: DocumentMeta,
}

impl KnownUrl {
    /// Finds the facts about a file or a URL of the source at `location`.
    pub(crate) fn find(conn: &Connection, location: &str, origin: &str) -> rusqlite::Result<Option<Self>> {
        let sql = format!(
            "SELECT m.id, m.kind, m.images, {} FROM sources s JOIN manifests m ON m.source = s.id
             WHERE s.location = ?1 AND m.origin = ?2",
            DocumentMeta::COLUMNS
        );
        let known = |row: &Row<'_>| {
            let facts = DocumentMeta::read(row, 3)?;
            Ok(Self { id: row.get(0)?, kind: row.get(1)?, images: row.get(2)?, facts })
        };
        conn.prepare_cached(&sql)?.query_row(params![location, origin], known).optional()
    }

    /// Current metadata of the file, if its content is unchanged.
    pub(crate) fn unchanged(&self, file: &Path) -> Option<DocumentMeta> {
        let looks = directory::stat(file).ok()?;
        let is_same = self.facts.size == looks.size
            && (self.facts.modified == looks.modified && !self.is_fresh()
                || self.facts.hash.is_some() && directory::hash(file).ok() == self.facts.hash);
        is_same.then_some(looks)
    }

    /// True if the file was read so soon after it was written that a second change may bear the same time.
    fn is_fresh(&self) -> bool {
        self.facts.modified.is_some_and(|modified| modified / 1_000_000_000 >= self.facts.seen - 2)
    }

    /// True if there is nothing to write: the metadata is unchanged, and the document had not vanished.
    pub(crate) fn is_as(&self, facts: &DocumentMeta) -> bool {
        let looks = |facts: &DocumentMeta| {
            (facts.size, facts.modified, facts.etag.clone(), facts.last_modified.clone())
        };
        self.facts.vanished.is_none() && looks(&self.facts) == looks(facts) && !self.is_fresh()
    }
}
