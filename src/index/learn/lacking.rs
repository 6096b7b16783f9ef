//! Images that a document lacks: compared image by image with everything that is known of its name.
//!
//! UPSTREAM: during a fault the canvas service answers 200 with images missing. A document is whole; or poorer, perhaps by
//! such a fault: then it is not learned, and its viewer's request waits for a repair; or truly shorter, which healing
//! proves and reports by [`Index::believe`]. Counts do not tell these apart: a book may have lost one page and gained
//! another.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use crate::iiif::identifier::image_of;
use crate::iiif::manifest::{Canvas, DocumentKind};
use crate::index::store::keys::KeyRules;
use crate::index::store::{keys, queries, writer};
use crate::index::{Index, IndexError, Neighbour, now};

/// The images of some canvases, by all their names.
struct CarriedImages<'c> {
    keys: HashSet<&'c str>,
    /// Files, and pages of them.
    images: HashSet<(Uuid, u32)>,
}

impl<'c> CarriedImages<'c> {
    fn of(names: &KeyRules, canvases: &'c [Canvas]) -> Self {
        let mut own = Self { keys: HashSet::new(), images: HashSet::new() };
        for key in canvases.iter().flat_map(|canvas| &canvas.images) {
            own.keys.insert(key);
            own.images.extend(image_of(key));
            own.images.extend(names.carried(key).iter().map(Self::image));
        }
        own
    }

    fn has(&self, names: &KeyRules, key: &str) -> bool {
        self.keys.contains(key)
            || image_of(key).is_some_and(|image| self.images.contains(&image))
            || names.carried(key).iter().any(|carried| self.images.contains(&Self::image(carried)))
    }

    /// The pages of a PDF are one file, and yet each an image.
    fn image(carried: &keys::EmbeddedFile) -> (Uuid, u32) {
        (carried.uuid, carried.page.unwrap_or(1))
    }
}

/// Known images that none of the canvases has, `most` at most.
pub(crate) fn among(names: &KeyRules, known: Vec<String>, canvases: &[Canvas], most: usize) -> Vec<String> {
    if known.is_empty() {
        return known;
    }
    let own = CarriedImages::of(names, canvases);
    known.into_iter().filter(|key| !own.has(names, key)).take(most).collect()
}

impl Index {
    /// Returns the first of the document's names that is known, and at most `most` of the images that the document lacks of
    /// it. `None`: it lacks none.
    ///
    /// A single canvas lacks something only if it has no image at all: images that manifests show beside its own (a
    /// thumbnail) are not the canvas's.
    pub fn lacking(
        &self,
        kind: DocumentKind,
        names: impl IntoIterator<Item = String>,
        canvases: &[Canvas],
        most: usize,
    ) -> Result<Option<(String, Vec<String>)>, IndexError> {
        let has_images = canvases.iter().any(|canvas| !canvas.images.is_empty());
        for name in names {
            let known = match kind {
                DocumentKind::Manifest | DocumentKind::Sequence => self.known_images(&name)?,
                DocumentKind::Canvas if !has_images => self.images_of_canvas(&name)?,
                _ => return Ok(None),
            };
            if !known.is_empty() {
                let missing = among(&self.names.load(), known, canvases, most);
                return Ok((!missing.is_empty()).then_some((name, missing)));
            }
        }
        Ok(None)
    }

    /// The images of all documents that call themselves so, each once.
    pub(crate) fn known_images(&self, uri: &str) -> Result<Vec<String>, IndexError> {
        let mut met = HashSet::new();
        let keys = self.known_canvases(uri)?.into_iter().flat_map(|canvas| canvas.images);
        Ok(keys.filter(|key| met.insert(key.clone())).collect())
    }

    /// Canvases of all documents with this id, one document after the other.
    pub(crate) fn known_canvases(&self, uri: &str) -> Result<Vec<Canvas>, IndexError> {
        self.check_for_changes();
        let store = self.store();
        let mut known = Vec::new();
        for document in store.read(|conn| documents_called(conn, uri))? {
            known.append(&mut store.read(|conn| canvases_of_document(conn, document))?);
        }
        Ok(known)
    }

    fn images_of_canvas(&self, url: &str) -> Result<Vec<String>, IndexError> {
        let found = self.try_aliases(url, |store, name| store.read(|conn| keys_of_canvas(conn, name)))?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// Documents known by a name: those that were learned, and those of sources since the name was last believed.
fn documents_called(conn: &Connection, uri: &str) -> rusqlite::Result<Vec<i64>> {
    let mut select = conn.prepare_cached("SELECT value FROM marks WHERE name = ?1")?;
    let believed = select.query_row([mark(uri)], |row| row.get::<_, Option<String>>(0)).optional()?.flatten();
    let believed: i64 = believed.and_then(|time| time.parse().ok()).unwrap_or(i64::MIN);
    // A file's time is that of its last write; other documents have the time at which they were read.
    let mut select = conn.prepare_cached(
        "SELECT m.id FROM manifests m JOIN sources s ON s.id = m.source
         WHERE m.uri = ?1 AND (s.kind = 'traffic' OR ifnull(m.modified / 1000000000, m.seen) > ?2) ORDER BY m.id",
    )?;
    select.query_map(params![uri, believed], |row| row.get(0))?.collect()
}

/// Notes that the documents learned by this name are proven to be complete: earlier versions of its sources count no more.
pub(crate) fn believe(conn: &Connection, uri: &str) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached("INSERT OR REPLACE INTO marks (name, value) VALUES (?1, ?2)")?;
    insert.execute(params![mark(uri), now().to_string()]).map(drop)
}

/// Row of `marks` with the time at which a document was believed.
fn mark(uri: &str) -> String {
    format!("believed {uri}")
}

/// The images of a document, in order.
pub(crate) fn keys_of_document(conn: &Connection, id: i64) -> rusqlite::Result<Vec<String>> {
    Ok(canvases_of_document(conn, id)?.into_iter().flat_map(|canvas| canvas.images).collect())
}

/// The canvases of a document, in order, without their labels.
fn canvases_of_document(conn: &Connection, id: i64) -> rusqlite::Result<Vec<Canvas>> {
    let all = queries::canvases(conn, 0, id, i64::MAX)?;
    let canvas = |known: Neighbour| Canvas { id: known.canvas, label: None, images: known.keys };
    Ok(all.into_iter().map(canvas).collect())
}

/// Images of the canvas with this name, one list for each manifest that has it; empty lists are left out.
fn keys_of_canvas(conn: &Connection, name: &str) -> rusqlite::Result<Vec<Vec<String>>> {
    let mut found = Vec::new();
    let mut select = conn.prepare_cached(
        "SELECT c.url, c.keys FROM canvas_urls u JOIN canvases c ON c.id = u.canvas
         WHERE u.hash = ?1 ORDER BY u.canvas LIMIT ?2",
    )?;
    let mut rows = select.query(params![keys::hash(name), queries::MAX_ROWS])?;
    while let Some(row) = rows.next()? {
        let images = writer::read_keys(row.get_ref(1)?.as_str()?);
        if !images.is_empty() && keys::canvas_name(row.get_ref(0)?.as_str()?) == name {
            found.push(images);
        }
    }
    Ok(found)
}
