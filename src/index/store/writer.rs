//! Writer of documents: in place, one transaction each, or in bulk into a file of its own.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::iiif::manifest::{Canvas, Document, DocumentKind};
use crate::index::store::error::IndexError;
use crate::index::store::external_sort::{ExternalSorter, Pair};
use crate::index::store::keys;
use crate::index::store::keys::KeyRules;

/// Metadata of a document: where it was read, and its validators.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct DocumentMeta {
    /// Row of its source.
    #[serde(skip)]
    pub(crate) source: i64,
    /// File path or URL.
    pub(crate) origin: String,
    /// Size of the file, bytes.
    pub(crate) size: Option<i64>,
    /// Modification time of the file, unix nanoseconds.
    pub(crate) modified: Option<i64>,
    /// `ETag` of the URL.
    pub(crate) etag: Option<String>,
    /// `Last-Modified` of the URL; of a stream of changes, when its newest change was made.
    pub(crate) last_modified: Option<String>,
    /// BLAKE3 of its content.
    pub(crate) hash: Option<[u8; 32]>,
    /// Unix seconds.
    #[serde(skip)]
    pub(crate) seen: i64,
    /// Gone from its source since, unix seconds.
    pub(crate) vanished: Option<i64>,
}

impl DocumentMeta {
    /// The columns of `manifests m` that [`DocumentMeta::read`] reads.
    pub(crate) const COLUMNS: &str =
        "m.source, m.origin, m.size, m.modified, m.etag, m.last_modified, m.hash, m.seen, m.vanished";

    /// Reads the metadata from a row, from this column on.
    pub(crate) fn read(row: &Row<'_>, from: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            source: row.get(from)?,
            origin: row.get(from + 1)?,
            size: row.get(from + 2)?,
            modified: row.get(from + 3)?,
            etag: row.get(from + 4)?,
            last_modified: row.get(from + 5)?,
            hash: row.get(from + 6)?,
            seen: row.get(from + 7)?,
            vanished: row.get(from + 8)?,
        })
    }
}

/// Counts of rows written for one document, or for many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WriteCounts {
    pub(crate) canvases: i64,
    pub(crate) images: i64,
    pub(crate) files: i64,
}

/// Writes documents one after the other: canvases as they come, then the document itself.
pub(crate) struct Writer<'c> {
    conn: &'c Connection,
    names: &'c KeyRules,
    pairs: PairSink,
    manifest: i64,
    first: i64,
    counts: WriteCounts,
}

/// Sink of the pairs of hash and canvas.
enum PairSink {
    /// Straight into the tables.
    Direct,
    /// Into files, to be loaded sorted at the end; canvases of abandoned documents are left out then.
    Sorted(Box<SortedPairs>),
}

struct SortedPairs {
    images: ExternalSorter,
    urls: ExternalSorter,
    dead: Vec<(i64, i64)>,
}

/// The kind's name in the file.
pub(crate) fn kind_name(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Manifest => "manifest",
        DocumentKind::Sequence => "sequence",
        DocumentKind::Canvas => "canvas",
        DocumentKind::Annotations => "annotations",
        DocumentKind::Collection => "collection",
        DocumentKind::Other => "other",
    }
}

impl<'c> Writer<'c> {
    /// Writes in place; the caller holds a write transaction.
    pub(crate) fn direct(conn: &'c Connection, names: &'c KeyRules) -> rusqlite::Result<Self> {
        Self::new(conn, names, PairSink::Direct)
    }

    /// Writes in bulk; `file` names the runs of the sort.
    pub(crate) fn bulk(conn: &'c Connection, names: &'c KeyRules, file: &Path) -> rusqlite::Result<Self> {
        let (images, urls) = (ExternalSorter::new(file, "images"), ExternalSorter::new(file, "urls"));
        Self::new(conn, names, PairSink::Sorted(Box::new(SortedPairs { images, urls, dead: Vec::new() })))
    }

    fn new(conn: &'c Connection, names: &'c KeyRules, pairs: PairSink) -> rusqlite::Result<Self> {
        conn.set_prepared_statement_cache_capacity(32);
        let next = |table| conn.query_row(&format!("SELECT max(id) FROM {table}"), [], |row| row.get(0));
        let (manifest, first): (Option<i64>, Option<i64>) = (next("manifests")?, next("canvases")?);
        let (manifest, first) = (manifest.unwrap_or(0) + 1, first.unwrap_or(0) + 1);
        Ok(Self { conn, names, pairs, manifest, first, counts: WriteCounts::default() })
    }

    /// Writes one canvas of the document that `finish` or `abandon` will end.
    pub(crate) fn canvas(&mut self, canvas: &Canvas) -> Result<(), IndexError> {
        let id = self.first + self.counts.canvases;
        let keys = serde_json::to_string(&canvas.images).unwrap_or_default();
        self.conn
            .prepare_cached(
                "INSERT INTO canvases (id, manifest, url, label, keys) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![id, self.manifest, canvas.id, canvas.label, keys])?;
        self.counts.canvases += 1;
        self.add_url((keys::hash(&keys::canvas_name(&canvas.id)), id))?;
        for key in &canvas.images {
            self.counts.images += 1;
            self.add_image((keys::hash(key), id))?;
            let aliases = self.names.carried(key);
            self.counts.files += i64::from(!aliases.is_empty());
            for alias in aliases {
                self.add_image((keys::hash(&alias.key), id))?;
            }
        }
        Ok(())
    }

    /// Ends the document: a previous one with this source and origin is replaced.
    pub(crate) fn finish(
        &mut self,
        document: &Document,
        facts: &DocumentMeta,
    ) -> Result<WriteCounts, IndexError> {
        let WriteCounts { canvases, images, files } = self.counts;
        let old = self
            .conn
            .prepare_cached("SELECT id FROM manifests WHERE source = ?1 AND origin = ?2")?
            .query_row(params![facts.source, facts.origin], |row| row.get(0))
            .optional()?;
        if let Some(old) = old {
            remove(self.conn, self.names, old)?;
        }
        self.conn
            .prepare_cached(
                "INSERT INTO manifests (id, source, origin, kind, uri, label, first, canvases, images, files,
                   size, modified, etag, last_modified, hash, seen, vanished)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            )?
            .execute(params![
                self.manifest,
                facts.source,
                facts.origin,
                kind_name(document.kind),
                document.id.as_deref().unwrap_or(&facts.origin),
                document.label,
                self.first,
                canvases,
                images,
                files,
                facts.size,
                facts.modified,
                facts.etag,
                facts.last_modified,
                facts.hash,
                facts.seen,
                facts.vanished,
            ])?;
        Ok(self.turn())
    }

    /// Takes back the canvases written since the last `finish`. In place, the caller rolls back as well.
    pub(crate) fn abandon(&mut self) -> Result<(), IndexError> {
        let (from, to) = (self.first, self.first + self.counts.canvases - 1);
        if to >= from {
            self.conn.execute("DELETE FROM canvases WHERE id BETWEEN ?1 AND ?2", params![from, to])?;
            if let PairSink::Sorted(sorted) = &mut self.pairs {
                sorted.dead.push((from, to));
            }
        }
        self.turn();
        Ok(())
    }

    /// Loads the sorted pairs; nothing more can be written after that.
    pub(crate) fn load(self) -> Result<(), IndexError> {
        let PairSink::Sorted(sorted) = self.pairs else { return Ok(()) };
        let SortedPairs { images, urls, dead } = *sorted;
        for (sorter, table) in [(images, "images"), (urls, "canvas_urls")] {
            let sql = format!("INSERT OR IGNORE INTO {table} (hash, canvas) VALUES (?1, ?2)");
            let mut insert = self.conn.prepare(&sql)?;
            sorter.drain(|(hash, canvas)| -> Result<(), LoadError> {
                if !dead.iter().any(|(from, to)| (*from..=*to).contains(&canvas)) {
                    insert.execute(params![hash, canvas])?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn turn(&mut self) -> WriteCounts {
        let counts = std::mem::take(&mut self.counts);
        self.first += counts.canvases;
        self.manifest += 1;
        counts
    }

    fn add_image(&mut self, pair: Pair) -> Result<(), IndexError> {
        match &mut self.pairs {
            PairSink::Sorted(sorted) => Ok(sorted.images.push(pair).map_err(LoadError::Io)?),
            PairSink::Direct => self.add("INSERT OR IGNORE INTO images (hash, canvas) VALUES (?1, ?2)", pair),
        }
    }

    fn add_url(&mut self, pair: Pair) -> Result<(), IndexError> {
        match &mut self.pairs {
            PairSink::Sorted(sorted) => Ok(sorted.urls.push(pair).map_err(LoadError::Io)?),
            PairSink::Direct => {
                self.add("INSERT OR IGNORE INTO canvas_urls (hash, canvas) VALUES (?1, ?2)", pair)
            }
        }
    }

    fn add(&self, sql: &str, (hash, canvas): Pair) -> Result<(), IndexError> {
        self.conn.prepare_cached(sql)?.execute(params![hash, canvas])?;
        Ok(())
    }
}

/// Takes one document out, with all that leads to its canvases.
pub(crate) fn remove(conn: &Connection, names: &KeyRules, manifest: i64) -> Result<(), IndexError> {
    let (first, canvases): (i64, i64) = conn
        .prepare_cached("SELECT first, canvases FROM manifests WHERE id = ?1")?
        .query_row([manifest], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let range = params![first, first + canvases - 1];
    {
        let mut select =
            conn.prepare_cached("SELECT id, url, keys FROM canvases WHERE id BETWEEN ?1 AND ?2")?;
        let mut rows = select.query(range)?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let forget = |table, text: &str| {
                conn.prepare_cached(&format!("DELETE FROM {table} WHERE hash = ?1 AND canvas = ?2"))?
                    .execute(params![keys::hash(text), id])
            };
            let name = keys::canvas_name(row.get_ref(1)?.as_str().unwrap_or_default());
            forget("canvas_urls", &name)?;
            for key in read_keys(row.get_ref(2)?.as_str().unwrap_or_default()) {
                forget("images", &key)?;
                for alias in names.carried(&key) {
                    forget("images", &alias.key)?;
                }
            }
        }
    }
    conn.prepare_cached("DELETE FROM canvases WHERE id BETWEEN ?1 AND ?2")?.execute(range)?;
    conn.prepare_cached("DELETE FROM manifests WHERE id = ?1")?.execute([manifest])?;
    Ok(())
}

/// Copies one document and its canvases.
pub(crate) fn copy(
    old: &Connection,
    writer: &mut Writer<'_>,
    id: i64,
    source: i64,
    vanished: Option<i64>,
) -> Result<(), IndexError> {
    let mut select = old.prepare_cached(
        "SELECT c.url, c.label, c.keys FROM manifests m
         JOIN canvases c ON c.id BETWEEN m.first AND m.first + m.canvases - 1
         WHERE m.id = ?1 ORDER BY c.id",
    )?;
    let mut rows = select.query([id])?;
    while let Some(row) = rows.next()? {
        let images = read_keys(row.get_ref(2)?.as_str().unwrap_or_default());
        writer.canvas(&Canvas { id: row.get(0)?, label: row.get(1)?, images })?;
    }
    let sql =
        format!("SELECT m.kind, m.uri, m.label, {} FROM manifests m WHERE m.id = ?1", DocumentMeta::COLUMNS);
    let (document, facts) = old.prepare_cached(&sql)?.query_row([id], |row| {
        let kind = kind_of(row.get_ref(0)?.as_str().unwrap_or_default());
        let document = Document { kind, id: row.get(1)?, label: row.get(2)?, ..Document::default() };
        Ok((document, DocumentMeta { source, vanished, ..DocumentMeta::read(row, 3)? }))
    })?;
    writer.finish(&document, &facts)?;
    Ok(())
}

pub(crate) fn kind_of(name: &str) -> DocumentKind {
    use DocumentKind::{Annotations, Canvas, Collection, Manifest, Other, Sequence};
    [Manifest, Sequence, Canvas, Annotations, Collection]
        .into_iter()
        .find(|kind| kind_name(*kind) == name)
        .unwrap_or(Other)
}

/// The keys of a canvas as its row holds them.
pub(crate) fn read_keys(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_default()
}

/// Finds or creates the row of a source. `added`: by `index add`, and added for good.
pub(crate) fn source_row(
    conn: &Connection,
    kind: &str,
    location: &str,
    added: bool,
) -> rusqlite::Result<i64> {
    conn.prepare_cached(
        "INSERT INTO sources (kind, location, added) VALUES (?1, ?2, ?3)
         ON CONFLICT (location) DO UPDATE SET added = max(added, excluded.added) RETURNING id",
    )?
    .query_row(params![kind, location, added], |row| row.get(0))
}

/// Errors between the sort and the table.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] rusqlite::Error),
}

impl From<LoadError> for IndexError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Io(error) => Self::io(Path::new("sorting"), error),
            LoadError::Store(error) => Self::Store(error),
        }
    }
}
