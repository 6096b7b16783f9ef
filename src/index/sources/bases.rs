//! Service bases that documents are read with, and those that an index was read with. Other bases may give other lookup
//! keys, which only the documents show: so all of them are read once more.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::iiif::image_url::ImageBases;
use crate::iiif::manifest::{self, Canvas, Document, WalkError};
use crate::index::store::keys::KeyRules;
use crate::index::{Index, IndexError};

/// Row of `marks` with the bases.
const NAME: &str = "image bases";

/// Longest document that is kept after parsing, in bytes.
const LONGEST_KEPT: usize = 1 << 20;

/// A document that was read.
#[derive(Debug)]
pub struct DocumentContent {
    /// Parsed document.
    pub document: Document,
    /// Canvases of the document.
    pub canvases: Vec<Canvas>,
    /// Bytes of the document; empty: too long to be kept.
    bytes: Box<[u8]>,
    /// Rules that the keys were made with.
    names: Arc<KeyRules>,
}

impl DocumentContent {
    /// Lookup keys of the images, canvas by canvas.
    pub fn images(&self) -> impl Iterator<Item = &String> {
        self.canvases.iter().flat_map(|canvas| &canvas.images)
    }
}

impl Index {
    /// Reads a document, with the images' lookup keys as the routes tell them.
    ///
    /// The last document is kept, if it is not long: a passing document is read twice, once to be compared with the index
    /// and once to be learned, and the same manifest is requested again and again.
    pub fn read_document(&self, bytes: &[u8]) -> Result<Arc<DocumentContent>, WalkError> {
        let names = self.names.load_full();
        let last = self.last_read.load_full();
        if let Some(last) = last.filter(|last| *last.bytes == *bytes && Arc::ptr_eq(&last.names, &names)) {
            return Ok(last);
        }
        let (document, canvases) = manifest::read_under(bytes, &names.images)?;
        let is_kept = bytes.len() <= LONGEST_KEPT;
        let bytes = if is_kept { bytes.into() } else { Box::default() };
        let read = Arc::new(DocumentContent { document, canvases, bytes, names });
        if is_kept {
            self.last_read.store(Some(Arc::clone(&read)));
        }
        Ok(read)
    }

    /// Bases of image URLs, by the routes.
    pub(crate) fn image_bases(&self) -> ImageBases {
        self.names.load().images.clone()
    }

    /// The lookup key of the image with this URL, or of the image service with this id.
    pub fn key_in_url(&self, url: &str) -> Option<String> {
        let names = self.names.load();
        names.images.in_service_id(url).map(|identifier| identifier.key().into_owned())
    }
}

/// Makes the next refresh read every document, if the index was read with other bases: those of an older version, whose
/// keys were the last segments alone, or of another configuration.
pub(crate) fn are_those_of(index: &Index) -> Result<(), IndexError> {
    let own = text(&index.names.load().images);
    if index.read(known)?.as_deref() == Some(&own) {
        return Ok(());
    }
    index.write(|conn| {
        // Documents that cannot be read again stay as they are: learned ones, and those that vanished.
        conn.execute(
            "UPDATE manifests SET size = NULL, modified = NULL, etag = NULL, last_modified = NULL, hash = NULL",
            [],
        )?;
        conn.execute("INSERT OR REPLACE INTO marks (name, value) VALUES (?1, ?2)", params![NAME, own])?;
        Ok(())
    })
}

/// Notes that an index was read by these bases.
pub(crate) fn note(conn: &Connection, bases: &ImageBases) -> rusqlite::Result<()> {
    conn.execute("INSERT OR REPLACE INTO marks (name, value) VALUES (?1, ?2)", params![NAME, text(bases)])
        .map(drop)
}

fn known(conn: &Connection) -> rusqlite::Result<Option<String>> {
    conn.query_row("SELECT value FROM marks WHERE name = ?1", [NAME], |row| row.get(0)).optional()
}

fn text(bases: &ImageBases) -> String {
    let lines = bases.iter().map(|(host, path)| format!("{}{path}\n", host.unwrap_or("*")));
    // Begins with the version of the rule that makes keys of URLs.
    std::iter::once("2\n".to_owned()).chain(lines).collect()
}
