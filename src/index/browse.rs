//! Browsing for people: sources, manifests and canvases page by page, and search by words.
//!
//! Ids of manifests and canvases are valid until the index is built anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Row, params};

use crate::config::settings::SourceSettings;
use crate::index::history::{HistoryEntry, HistoryFilter, HistoryPage};
use crate::index::sources::{shown, stored};
use crate::index::store::error::IndexError;
use crate::index::store::{keys, rows, schema, writer};
use crate::index::{Index, history};

/// Rows of one answer, at most.
const LONGEST: u32 = 500;

/// Canvases whose labels are read in one piece.
const PIECE: i64 = 20_000;

/// A source, and what was read from it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SourceRow {
    /// Row id in the index.
    pub id: i64,
    /// `path`, `url` or `traffic`.
    pub kind: String,
    /// Path or URL; `traffic` for all that was learned on the way.
    pub location: String,
    /// Last complete look, unix seconds.
    pub seen: Option<i64>,
    /// Manifests of the source.
    pub manifests: u64,
    /// Images in those manifests.
    pub images: u64,
}

/// Source to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceContent {
    /// Path or URL, without the query.
    pub location: String,
    /// The path, where it is none of a URL.
    pub path: Option<PathBuf>,
    /// True if an image is known from the source.
    pub has_images: bool,
}

/// A manifest as a row of a list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ManifestRow {
    /// Row id in the index.
    pub id: i64,
    /// Id of the manifest, or where it was read.
    pub uri: String,
    /// Label.
    pub label: Option<String>,
    /// Canvases of the manifest.
    pub canvases: u64,
    /// Images on its canvases.
    pub images: u64,
    /// Gone from its source since, unix seconds.
    pub vanished: Option<i64>,
}

/// A canvas of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CanvasRow {
    /// Row id in the index.
    pub id: i64,
    /// Canvas URL as the manifest writes it.
    pub canvas: String,
    /// Label.
    pub label: Option<String>,
    /// Lookup keys of its images.
    pub images: Vec<String>,
    /// Number of its manifest.
    pub manifest: i64,
}

/// Results of the last heals of the images of one manifest: images by verdict.
pub type Verdicts = BTreeMap<String, u64>;

const MANIFEST_ROW: &str = "SELECT id, uri, label, canvases, images, vanished FROM manifests";
const CANVAS_ROW: &str = "SELECT id, url, label, keys, manifest FROM canvases";

impl Index {
    /// Sources of manifests, those with most manifests first. Counts all manifests: 25 ms for 100,000.
    pub fn collected(&self) -> Result<Vec<SourceRow>, IndexError> {
        self.check_for_changes();
        let sql = "SELECT s.id, s.kind, s.location, s.seen, m.manifests, m.images FROM sources s
                   JOIN (SELECT source, count(*) AS manifests, sum(images) AS images FROM manifests
                         WHERE kind NOT IN ('collection', 'other') GROUP BY source) m ON m.source = s.id
                   ORDER BY m.manifests DESC, s.id LIMIT ?1";
        let conn = self.apart()?;
        let found = all(&conn, sql, params![LONGEST], collected);
        found.map_err(|error| self.store().wrap(error))
    }

    /// Manifests (of one source, or of all) behind the one with the number `after`, in the order of their numbers.
    pub fn manifest_rows(
        &self,
        source: Option<i64>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<ManifestRow>, IndexError> {
        self.check_for_changes();
        let sql = format!(
            "{MANIFEST_ROW} WHERE id > ?1 AND (?2 IS NULL OR source = ?2) AND kind NOT IN ('collection', 'other')
             ORDER BY id LIMIT ?3"
        );
        self.read(|conn| all(conn, &sql, params![after, source, limit.min(LONGEST)], read_manifest))
    }

    /// The manifest with this number.
    pub fn manifest_row(&self, id: i64) -> Result<Option<ManifestRow>, IndexError> {
        self.check_for_changes();
        let sql = format!("{MANIFEST_ROW} WHERE id = ?1");
        self.read(|conn| Ok(all(conn, &sql, params![id], read_manifest)?.pop()))
    }

    /// Manifests with these words in their label, or with this id. Reads all labels: a millisecond per thousand.
    pub fn manifests_named(&self, words: &str, limit: u32) -> Result<Vec<ManifestRow>, IndexError> {
        let conn = self.apart()?;
        let sql = format!(
            "{MANIFEST_ROW} WHERE kind NOT IN ('collection', 'other') AND (uri = ?1 OR label LIKE ?2 ESCAPE '\\')
             ORDER BY id LIMIT ?3"
        );
        let found = all(&conn, &sql, params![words, pattern(words), limit.min(LONGEST)], read_manifest);
        found.map_err(|error| self.store().wrap(error))
    }

    /// The manifest with this id, the newest where several have it.
    pub fn manifest_row_by_uri(&self, uri: &str) -> Result<Option<ManifestRow>, IndexError> {
        self.check_for_changes();
        let sql = format!("{MANIFEST_ROW} WHERE uri = ?1 ORDER BY id DESC LIMIT 1");
        self.read(|conn| Ok(all(conn, &sql, params![uri], read_manifest)?.pop()))
    }

    /// The number of this canvas in the manifest with this number.
    pub fn canvas_id(&self, manifest: i64, canvas: &str) -> Result<Option<i64>, IndexError> {
        let sql = "SELECT c.id FROM canvas_urls u JOIN canvases c ON c.id = u.canvas
                   WHERE u.hash = ?1 AND c.manifest = ?2 AND c.url = ?3 LIMIT 1";
        let hash = keys::hash(&keys::canvas_name(canvas));
        self.read(|conn| Ok(all(conn, sql, params![hash, manifest, canvas], |row| row.get(0))?.pop()))
    }

    /// Canvases with these words in their label. True: all canvases were read, or enough were found. Labels are not
    /// indexed, so they are read one after the other, about a million in a second, for `patience` at most.
    pub fn canvases_named(
        &self,
        words: &str,
        limit: u32,
        patience: Duration,
    ) -> Result<(Vec<CanvasRow>, bool), IndexError> {
        let (until, conn) = (Instant::now() + patience, self.apart()?);
        let wrap = |error| self.store().wrap(error);
        let last = schema::number(&conn, "SELECT ifnull(max(id), 0) FROM canvases").map_err(wrap)?;
        let sql = format!(
            "{CANVAS_ROW} WHERE id > ?1 AND id <= ?2 AND label LIKE ?3 ESCAPE '\\' ORDER BY id LIMIT ?4"
        );
        let (mut found, mut from, pattern) = (Vec::new(), 0, pattern(words));
        while from < last {
            let missing = limit.min(LONGEST).saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            if missing == 0 {
                break;
            }
            if Instant::now() >= until {
                return Ok((found, false));
            }
            let piece = all(&conn, &sql, params![from, from + PIECE, pattern, missing], read_canvas);
            found.append(&mut piece.map_err(wrap)?);
            from += PIECE;
        }
        Ok((found, true))
    }

    /// The number of the manifest with this id.
    pub fn manifest_id(&self, uri: &str) -> Result<Option<i64>, IndexError> {
        let sql = "SELECT id FROM manifests WHERE uri = ?1 ORDER BY id DESC LIMIT 1";
        self.read(|conn| Ok(all(conn, sql, params![uri], |row| row.get(0))?.pop()))
    }

    /// Label of the manifest with this id, where the index knows one.
    pub fn manifest_label(&self, uri: &str) -> Option<String> {
        let sql = "SELECT label FROM manifests WHERE uri = ?1 AND label IS NOT NULL ORDER BY id DESC LIMIT 1";
        self.read(|conn| Ok(all(conn, sql, params![uri], |row| row.get(0))?.pop())).ok()?
    }

    /// Canvases of the manifest with this number, from the one after the canvas with the number `after`.
    pub fn canvas_rows(&self, manifest: i64, after: i64, limit: u32) -> Result<Vec<CanvasRow>, IndexError> {
        self.check_for_changes();
        // A manifest's canvases have consecutive ids: no index on `manifest` is needed.
        let sql = "SELECT c.id, c.url, c.label, c.keys, c.manifest FROM manifests m
                   JOIN canvases c ON c.id BETWEEN max(m.first, ?2 + 1) AND m.first + m.canvases - 1
                   WHERE m.id = ?1 ORDER BY c.id LIMIT ?3";
        self.read(|conn| all(conn, sql, params![manifest, after, limit.min(LONGEST)], read_canvas))
    }

    /// The canvas with this number.
    pub fn canvas_row(&self, id: i64) -> Result<Option<CanvasRow>, IndexError> {
        self.check_for_changes();
        let sql = format!("{CANVAS_ROW} WHERE id = ?1");
        self.read(|conn| Ok(all(conn, &sql, params![id], read_canvas)?.pop()))
    }

    /// Canvases from all over the index, or all where there are no more than `size`. One look-up for each, whatever the
    /// size of the index.
    pub fn sample_canvases(&self, size: u32) -> Result<Vec<CanvasRow>, IndexError> {
        self.check_for_changes();
        let conn = self.apart()?;
        let sample = || {
            let last = schema::number(&conn, "SELECT ifnull(max(id), 0) FROM canvases")?;
            let size = i64::from(size.clamp(1, LONGEST));
            if last <= size {
                return all(&conn, &format!("{CANVAS_ROW} ORDER BY id LIMIT ?1"), params![size], read_canvas);
            }
            let sql = format!("{CANVAS_ROW} WHERE id >= ?1 ORDER BY id LIMIT 1");
            let mut found: Vec<CanvasRow> = Vec::new();
            for part in 0..size {
                // Ids have gaps where documents were forgotten: two parts may come to the same canvas.
                let next = all(&conn, &sql, params![1 + last * part / size], read_canvas)?;
                let before = found.last().map(|canvas| canvas.id);
                found.extend(next.into_iter().filter(|next| Some(next.id) != before));
            }
            Ok(found)
        };
        sample().map_err(|error| self.store().wrap(error))
    }

    /// Sources to read, those of the configuration and added ones, each with whether an image is known from it.
    pub fn source_contents(&self, configured: &[SourceSettings]) -> Result<Vec<SourceContent>, IndexError> {
        let sources = self.sources(configured)?;
        let conn = self.apart()?;
        let content = |source: &SourceSettings| {
            let location = stored(source).1;
            let has_images = match rows::source_at(&conn, &location)? {
                Some(row) => rows::has_images(&conn, row)?,
                None => false,
            };
            Ok(SourceContent { location: shown(&location), path: source.path.clone(), has_images })
        };
        let contents: rusqlite::Result<_> = sources.iter().take(LONGEST as usize).map(content).collect();
        contents.map_err(|error| self.store().wrap(error))
    }

    /// Results of the last heal of each image of these manifests, as far as the history goes back.
    pub fn verdicts(&self, manifests: &[&str]) -> Result<BTreeMap<String, Verdicts>, IndexError> {
        self.check_for_changes();
        self.read(|conn| {
            let mut found = BTreeMap::new();
            if !history::has_history(conn)? {
                return Ok(found);
            }
            let sql = "SELECT verdict, count(*) FROM
                         (SELECT verdict, max(id) FROM heals WHERE manifest = ?1 GROUP BY identifier)
                       GROUP BY verdict";
            let mut select = conn.prepare_cached(sql)?;
            for manifest in manifests {
                let counted = select.query_map([manifest], |row| {
                    Ok((row.get(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
                })?;
                found.insert((*manifest).to_owned(), counted.collect::<rusqlite::Result<Verdicts>>()?);
            }
            Ok(found)
        })
    }

    /// Heal of the history with this id.
    pub fn heal(&self, id: i64) -> Result<Option<HistoryEntry>, IndexError> {
        let page = HistoryPage { before: Some(id.saturating_add(1)), limit: 1 };
        Ok(self.history(&HistoryFilter::default(), page)?.pop().filter(|entry| entry.id == id))
    }

    /// The last heal of one image.
    pub fn last_heal(&self, key: &str) -> Result<Option<HistoryEntry>, IndexError> {
        let filter = HistoryFilter { identifier: Some(key.to_owned()), ..HistoryFilter::default() };
        Ok(self.history(&filter, HistoryPage { before: None, limit: 1 })?.pop())
    }
}

fn all<T>(
    conn: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    conn.prepare_cached(sql)?.query_map(values, read)?.collect()
}

/// Pattern of `LIKE` for texts that hold these words.
fn pattern(words: &str) -> String {
    let escaped = words.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0))
}

fn collected(row: &Row<'_>) -> rusqlite::Result<SourceRow> {
    Ok(SourceRow {
        id: row.get(0)?,
        kind: row.get(1)?,
        location: row.get(2)?,
        seen: row.get(3)?,
        manifests: number(row, 4)?,
        images: number(row, 5)?,
    })
}

fn read_manifest(row: &Row<'_>) -> rusqlite::Result<ManifestRow> {
    Ok(ManifestRow {
        id: row.get(0)?,
        uri: row.get(1)?,
        label: row.get(2)?,
        canvases: number(row, 3)?,
        images: number(row, 4)?,
        vanished: row.get(5)?,
    })
}

fn read_canvas(row: &Row<'_>) -> rusqlite::Result<CanvasRow> {
    Ok(CanvasRow {
        id: row.get(0)?,
        canvas: row.get(1)?,
        label: row.get(2)?,
        images: writer::read_keys(row.get_ref(3)?.as_str()?),
        manifest: row.get(4)?,
    })
}
