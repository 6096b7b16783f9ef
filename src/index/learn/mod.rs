//! Learning from documents that pass through the proxy and that no source names.

use std::borrow::Cow;
use std::collections::HashSet;

use rusqlite::Connection;

use crate::iiif::manifest::{Canvas, Document};
use crate::index::store::writer;
use crate::index::store::writer::{DocumentMeta, Writer};
use crate::index::{Index, IndexError, now};

pub mod file_urls;
pub(in crate::index) mod lacking;
pub mod traffic;

/// Result of learning a document that passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LearnResult {
    /// The document was written to the index.
    New,
    /// The index has learned the document already, with equal canvases.
    Known,
    /// Not learned: the document lacks images that the index has under its name, as poisoned JSON does, and adds none.
    Poorer,
    /// The document names no images.
    Nothing,
}

/// Learns documents.
#[derive(Debug, Clone, Copy)]
pub struct DocumentLearner<'a> {
    index: &'a Index,
}

impl<'a> DocumentLearner<'a> {
    /// Learns into this index.
    pub fn new(index: &'a Index) -> Self {
        Self { index }
    }

    /// Learns a document that passed through, and replaces in one transaction the one learned from that URL before. A
    /// document that lost images is not believed: see [`LearnResult::Poorer`].
    pub fn document(
        self,
        document: &Document,
        canvases: &[Canvas],
        url: &str,
    ) -> Result<LearnResult, IndexError> {
        self.learn_from(document, canvases, url, false)
    }

    /// Learns a document that is known to be all there is, although it lost images.
    pub fn believe(
        self,
        document: &Document,
        canvases: &[Canvas],
        url: &str,
    ) -> Result<LearnResult, IndexError> {
        self.learn_from(document, canvases, url, true)
    }

    fn learn_from(
        self,
        document: &Document,
        canvases: &[Canvas],
        url: &str,
        though_poorer: bool,
    ) -> Result<LearnResult, IndexError> {
        let index = self.index;
        let images: usize = canvases.iter().map(|canvas| canvas.images.len()).sum();
        if images == 0 {
            return Ok(LearnResult::Nothing);
        }
        let uri = document.id.as_deref().unwrap_or(url);
        let known = index.read(|conn| learned_from(conn, url))?;
        if !though_poorer && known == Some(Some(content_hash(canvases))) {
            return Ok(LearnResult::Known);
        }
        let mut all = Cow::Borrowed(canvases);
        if !though_poorer {
            let known_images = index.known_images(uri)?;
            let lacking = lacking::among(&index.names.load(), known_images.clone(), canvases, usize::MAX);
            if !lacking.is_empty() {
                let known_images: HashSet<String> = known_images.into_iter().collect();
                if canvases.iter().flat_map(|canvas| &canvas.images).all(|key| known_images.contains(key)) {
                    return Ok(LearnResult::Poorer);
                }
                // New canvases of a poorer document are learned nevertheless, and the images that it lacks are kept.
                let mut lacking: HashSet<String> = lacking.into_iter().collect();
                for canvas in index.known_canvases(uri)? {
                    let is_missing = canvas.images.iter().any(|key| lacking.contains(key));
                    if is_missing {
                        lacking.retain(|key| !canvas.images.contains(key));
                        all.to_mut().push(canvas);
                    }
                }
            }
        }
        let hash = content_hash(&all);
        index.write(|conn| {
            let source = writer::source_row(conn, "traffic", "traffic", false)?;
            let names = index.names.load();
            let mut writer = Writer::direct(conn, &names)?;
            for canvas in &*all {
                writer.canvas(canvas)?;
            }
            let origin = url.to_owned();
            let facts =
                DocumentMeta { source, origin, hash: Some(hash), seen: now(), ..DocumentMeta::default() };
            writer.finish(document, &facts)?;
            if though_poorer { Ok(lacking::believe(conn, uri)?) } else { Ok(()) }
        })?;
        index.learned.send_replace(());
        Ok(LearnResult::New)
    }
}

/// Hash of the document learned from a URL.
#[expect(clippy::option_option, reason = "learned or not, and with a hash or without")]
fn learned_from(conn: &Connection, url: &str) -> rusqlite::Result<Option<Option<[u8; 32]>>> {
    let mut select = conn.prepare_cached(
        "SELECT m.hash FROM sources s JOIN manifests m ON m.source = s.id
         WHERE s.location = 'traffic' AND m.origin = ?1",
    )?;
    let mut rows = select.query([url])?;
    rows.next()?.map(|row| row.get(0)).transpose()
}

/// BLAKE3 of the parts of some canvases that the index stores; the JSON around them does not matter.
fn content_hash(canvases: &[Canvas]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for canvas in canvases {
        // A length before each text, so that no two lists of canvases hash alike.
        for text in std::iter::once(&canvas.id).chain(&canvas.label).chain(&canvas.images) {
            hasher.update(&text.len().to_be_bytes()).update(text.as_bytes());
        }
        hasher.update(&[u8::from(canvas.label.is_some())]).update(&canvas.images.len().to_be_bytes());
    }
    hasher.finalize().into()
}
