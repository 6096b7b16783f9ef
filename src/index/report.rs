//! Reports on the index: counts, documents, all pairs of image and canvas.

use std::ops::ControlFlow;
use std::path::PathBuf;

use rusqlite::{Connection, Row, params};

use crate::config::settings::SourceSettings;
use crate::index::Index;
use crate::index::sources::stored;
use crate::index::store::error::IndexError;
use crate::index::store::{schema, writer};

/// Counts of the index, and its path.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct IndexStats {
    /// Documents with images: manifests, and single canvases, sequences and annotations that were read alone.
    pub manifests: u64,
    /// Canvases.
    pub canvases: u64,
    /// Images: pairs of canvas and identifier.
    pub images: u64,
    /// File URLs known: carried by identifiers, and learned.
    pub files: u64,
    /// Sources of documents.
    pub sources: u64,
    /// Documents gone from their source that are kept for the grace.
    pub vanished: u64,
    /// Last complete look at a source, unix seconds.
    pub read: Option<i64>,
    /// The index.
    pub path: PathBuf,
    /// The file behind it now.
    pub file: PathBuf,
    /// Size of the file and its log, bytes.
    pub bytes: u64,
    /// Version of its schema.
    pub schema: u64,
}

/// A document of the index.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DocumentRow {
    /// Id of the document, or where it was read.
    pub uri: String,
    /// Label.
    pub label: Option<String>,
    /// `manifest`, `sequence`, `canvas`, `annotations`.
    pub kind: String,
    /// Canvases of the document.
    pub canvases: u64,
    /// Images on its canvases.
    pub images: u64,
    /// File path or URL it was read from.
    pub origin: String,
    /// Source that the origin belongs to.
    pub source: String,
    /// Time of the last read, unix seconds.
    pub seen: i64,
    /// Gone from its source since, unix seconds.
    pub vanished: Option<i64>,
}

/// A pair of image and canvas.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ExportRow {
    /// Lookup key of the image.
    pub image: String,
    /// Canvas URL.
    pub canvas: String,
    /// Manifest of the canvas.
    pub manifest: String,
    /// Label of the canvas.
    pub label: Option<String>,
    /// Label of the manifest.
    pub manifest_label: Option<String>,
}

impl Index {
    /// Counts the content. Takes milliseconds per thousand manifests.
    pub fn stats(&self) -> Result<IndexStats, IndexError> {
        self.check_for_changes();
        let conn = self.apart()?;
        let file = self.file();
        let size = |suffix: &str| {
            let mut name = file.clone().into_os_string();
            name.push(suffix);
            std::fs::metadata(name).map_or(0, |found| found.len())
        };
        let bytes = size("") + size("-wal");
        let count = |sql: &str| schema::number(&conn, sql).map(|n| u64::try_from(n).unwrap_or(0));
        let counted = || -> rusqlite::Result<IndexStats> {
            let (canvases, images, files) = conn.query_row(
                "SELECT ifnull(sum(canvases), 0), ifnull(sum(images), 0), ifnull(sum(files), 0) FROM manifests",
                [],
                |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?, unsigned(row, 2)?)),
            )?;
            Ok(IndexStats {
                manifests: count("SELECT count(*) FROM manifests WHERE kind NOT IN ('collection', 'other')")?,
                canvases,
                images,
                files: files + count("SELECT count(*) FROM files")?,
                sources: count("SELECT count(*) FROM sources WHERE kind <> 'traffic'")?,
                vanished: count("SELECT count(*) FROM manifests WHERE vanished IS NOT NULL")?,
                read: conn.query_row("SELECT max(seen) FROM sources", [], |row| row.get(0))?,
                path: self.path().to_path_buf(),
                file: file.clone(),
                bytes,
                schema: count("PRAGMA user_version")?,
            })
        };
        counted().map_err(|error| self.store().wrap(error))
    }

    /// All documents with images, in the order of their ids.
    pub fn list(&self) -> Result<Vec<DocumentRow>, IndexError> {
        let mut all = Vec::new();
        self.each_row(
            "SELECT m.uri, m.label, m.kind, m.canvases, m.images, m.origin, s.location, m.seen, m.vanished
             FROM manifests m JOIN sources s ON s.id = m.source
             WHERE m.kind NOT IN ('collection', 'other') ORDER BY m.uri, m.id",
            &mut |row| {
                all.push(DocumentRow {
                    uri: row.get(0)?,
                    label: row.get(1)?,
                    kind: row.get(2)?,
                    canvases: unsigned(row, 3)?,
                    images: unsigned(row, 4)?,
                    origin: row.get(5)?,
                    source: row.get(6)?,
                    seen: row.get(7)?,
                    vanished: row.get(8)?,
                });
                Ok(ControlFlow::Continue(()))
            },
        )?;
        Ok(all)
    }

    /// The manifests that were read from this source, by their ids.
    pub fn manifests_of(&self, source: &SourceSettings) -> Result<Vec<String>, IndexError> {
        let (_, location) = stored(source);
        let mut all = Vec::new();
        self.each_row(
            "SELECT m.uri, s.location FROM manifests m JOIN sources s ON s.id = m.source
             WHERE m.kind NOT IN ('collection', 'other') ORDER BY m.id",
            &mut |row| {
                if row.get_ref(1)?.as_str()? == location {
                    all.push(row.get(0)?);
                }
                Ok(ControlFlow::Continue(()))
            },
        )?;
        Ok(all)
    }

    /// Hands out every image of every canvas, in the order in which they were read, until the caller has enough. Memory does
    /// not grow with the index.
    ///
    /// The caller may take hours, so the index may change in between: a document that is read anew may come twice.
    pub fn export(&self, each: &mut dyn FnMut(ExportRow) -> ControlFlow<()>) -> Result<(), IndexError> {
        self.check_for_changes();
        let conn = self.apart()?;
        let (mut next, mut page) = (Some(0), Vec::new());
        while let Some(after) = next {
            next = export_page(&conn, after, &mut page).map_err(|error| self.store().wrap(error))?;
            for exported in page.drain(..) {
                if each(exported).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn each_row(
        &self,
        sql: &str,
        each: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<()>>,
    ) -> Result<(), IndexError> {
        self.check_for_changes();
        let conn = self.apart()?;
        let mut run = || -> rusqlite::Result<()> {
            let mut select = conn.prepare(sql)?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                if each(row)?.is_break() {
                    break;
                }
            }
            Ok(())
        };
        run().map_err(|error| self.store().wrap(error))
    }

    /// Opens a separate connection, so that a long answer keeps no look-up waiting. The connection reads the same
    /// generation as look-ups do from now on: what was counted can be found.
    pub(super) fn apart(&self) -> Result<Connection, IndexError> {
        loop {
            // The path of the first generation leads to the second once that is swapped in: look before and after.
            self.reopen_if_replaced()?;
            let store = self.store();
            if store.is_absent() {
                return schema::open_memory();
            }
            store.check()?;
            let opened = schema::open_reader(store.file());
            if self.path.identity()?.is_none_or(|now| now == store.identity()) {
                return opened;
            }
        }
    }
}

/// Canvases that are read at once to be exported.
const PAGE: u32 = 1000;

/// Reads the images of the canvases behind this one; answers the last of these canvases.
fn export_page(conn: &Connection, after: i64, page: &mut Vec<ExportRow>) -> rusqlite::Result<Option<i64>> {
    let mut select = conn.prepare_cached(
        "SELECT c.id, c.url, m.uri, c.label, c.keys, m.label FROM canvases c JOIN manifests m ON m.id = c.manifest
         WHERE c.id > ?1 ORDER BY c.id LIMIT ?2",
    )?;
    let mut rows = select.query(params![after, PAGE])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        last = Some(row.get(0)?);
        for image in writer::read_keys(row.get_ref(4)?.as_str()?) {
            page.push(ExportRow {
                image,
                canvas: row.get(1)?,
                manifest: row.get(2)?,
                label: row.get(3)?,
                manifest_label: row.get(5)?,
            });
        }
    }
    Ok(last)
}

fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or(0))
}
