//! What passed through: documents that no source names, learned as they went by.

use rusqlite::Connection;

use super::write::{self, Facts, Writer};
use super::{Index, IndexError, Learned, now};
use crate::iiif::manifest::{Canvas, Document};

impl Index {
    /// Learns a document that passed through, replacing in one transaction what was learned from that URL
    /// before. A document that lost images is not believed: see [`Learned::Poorer`].
    pub fn learn(&self, document: &Document, canvases: &[Canvas], url: &str) -> Result<Learned, IndexError> {
        self.learn_from(document, canvases, url, false)
    }

    /// Learns a document that is known to be all there is, although it lost images.
    pub fn believe(
        &self,
        document: &Document,
        canvases: &[Canvas],
        url: &str,
    ) -> Result<Learned, IndexError> {
        self.learn_from(document, canvases, url, true)
    }

    fn learn_from(
        &self,
        document: &Document,
        canvases: &[Canvas],
        url: &str,
        though_poorer: bool,
    ) -> Result<Learned, IndexError> {
        let images: usize = canvases.iter().map(|canvas| canvas.images.len()).sum();
        if images == 0 {
            return Ok(Learned::Nothing);
        }
        let hash = content_hash(canvases);
        let known = self.read(|conn| learned_from(conn, url))?;
        match known {
            Some((_, known)) if known == Some(hash) => return Ok(Learned::Known),
            Some((count, _)) if !though_poorer && i64::try_from(images).unwrap_or(i64::MAX) < count => {
                return Ok(Learned::Poorer);
            }
            _ => {}
        }
        self.write(|conn| {
            let source = write::source_row(conn, "traffic", "traffic", false)?;
            let names = self.names.load();
            let mut writer = Writer::direct(conn, &names)?;
            for canvas in canvases {
                writer.canvas(canvas)?;
            }
            let origin = url.to_owned();
            writer.finish(
                document,
                &Facts { source, origin, hash: Some(hash), seen: now(), ..Facts::default() },
            )
        })?;
        Ok(Learned::New)
    }
}

type KnownContent = (i64, Option<[u8; 32]>);

fn learned_from(conn: &Connection, url: &str) -> rusqlite::Result<Option<KnownContent>> {
    let mut select = conn.prepare_cached(
        "SELECT m.images, m.hash FROM sources s JOIN manifests m ON m.source = s.id
         WHERE s.location = 'traffic' AND m.origin = ?1",
    )?;
    let mut rows = select.query([url])?;
    rows.next()?.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// BLAKE3 of what the index keeps of some canvases; the JSON around them does not matter.
fn content_hash(canvases: &[Canvas]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for canvas in canvases {
        // A length before each text: no two lists of canvases read the same.
        for text in std::iter::once(&canvas.id).chain(&canvas.label).chain(&canvas.images) {
            hasher.update(&text.len().to_be_bytes()).update(text.as_bytes());
        }
        hasher.update(&[u8::from(canvas.label.is_some())]).update(&canvas.images.len().to_be_bytes());
    }
    hasher.finalize().into()
}
