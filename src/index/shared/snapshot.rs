//! Editions of the index, which all nodes share: written in chunks of lines, and read into a new generation.
//!
//! A chunk is JSON Lines, compressed with gzip. Nodes of other versions may read an edition, so unknown lines are
//! skipped.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::cluster::Edition;
use crate::iiif::identifier::uuid_of_file_url;
use crate::iiif::manifest::{Canvas, Document};
use crate::index::store::error::IndexError;
use crate::index::store::writer::{DocumentMeta, Writer};
use crate::index::store::{next_generation, schema, writer};
use crate::index::{Index, history, now};

/// Lines are gathered up to this before they are packed: some 100 KiB then, which go in one command.
const PLAIN: usize = 1 << 20;

/// SECURITY: limit of unpacked bytes of a chunk, whichever node wrote it.
const LONGEST: u64 = 64 << 20;

/// A line of an edition.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EditionLine {
    /// Source of the lines that follow: kind, location, added by hand.
    Source(String, String, bool),
    /// A canvas of the next document: URL, label, lookup keys.
    Canvas(String, Option<String>, Vec<String>),
    /// A document, of the canvases before it.
    Document(Box<EditionDocument>),
    /// A file URL that was learned; its UUID is made from it.
    File(String),
}

/// Document, with its metadata.
#[derive(Debug, Serialize, Deserialize)]
struct EditionDocument {
    kind: String,
    uri: String,
    label: Option<String>,
    #[serde(flatten)]
    facts: DocumentMeta,
}

/// Gathers lines into chunks.
struct ChunkWriter<'a> {
    plain: Vec<u8>,
    send: &'a mut dyn FnMut(Vec<u8>) -> bool,
    goes_on: bool,
}

impl ChunkWriter<'_> {
    fn line(&mut self, line: &EditionLine) {
        // Text and numbers can always be written as JSON.
        if serde_json::to_writer(&mut self.plain, line).is_ok() {
            self.plain.push(b'\n');
        }
        if self.plain.len() >= PLAIN {
            self.pack();
        }
    }

    fn pack(&mut self) {
        if self.plain.is_empty() || !self.goes_on {
            self.plain.clear();
            return;
        }
        let mut packing = GzEncoder::new(Vec::new(), Compression::default());
        let packed = packing.write_all(&self.plain).and_then(|()| packing.finish());
        self.plain.clear();
        self.goes_on = packed.is_ok_and(&mut self.send);
    }
}

/// Edition of the index: the part that all nodes share.
pub(crate) struct IndexEdition<'a> {
    pub(crate) index: &'a Index,
}

impl IndexEdition<'_> {
    /// Hands out the index in chunks, until `send` returns false; true: all of it.
    pub(crate) fn write(&self, send: &mut dyn FnMut(Vec<u8>) -> bool) -> Result<bool, IndexError> {
        let conn = self.index.apart()?;
        let mut packer = ChunkWriter { plain: Vec::new(), send, goes_on: true };
        let mut run = || -> rusqlite::Result<()> {
            // A single transaction, so that all rows are of one moment.
            conn.execute_batch("BEGIN")?;
            documents(&conn, &mut packer)?;
            let mut files = conn.prepare("SELECT uuid, url FROM files ORDER BY uuid")?;
            let mut rows = files.query([])?;
            while let Some(row) = rows.next()?.filter(|_| packer.goes_on) {
                let url: String = row.get(1)?;
                // A URL that was checked against another base (`index.file_url_bases`) each node learns by itself.
                if uuid_of_file_url(&url).as_bytes() == row.get_ref(0)?.as_blob()? {
                    packer.line(&EditionLine::File(url));
                }
            }
            packer.pack();
            Ok(())
        };
        run().map_err(|error| self.index.store().wrap(error))?;
        Ok(packer.goes_on)
    }

    /// Reads an edition into a new generation and swaps it in; look-ups go on in the meantime. Facts learned here and the
    /// history stay. False: a chunk is missing, and nothing was changed.
    pub(crate) fn read(
        &self,
        edition: &Edition,
        chunk: &mut dyn FnMut(&str) -> Option<Vec<u8>>,
    ) -> Result<bool, IndexError> {
        let mut is_whole = true;
        let done = next_generation::make(self.index, |conn, file| {
            let (newest, whole) = self.fill_from(conn, file, edition, chunk)?;
            is_whole = whole;
            // An edition without one of its chunks is not used.
            Ok(whole.then_some(newest))
        });
        done.map(|swapped| swapped && is_whole)
    }

    fn fill_from(
        &self,
        conn: &Connection,
        file: &Path,
        edition: &Edition,
        chunk: &mut dyn FnMut(&str) -> Option<Vec<u8>>,
    ) -> Result<(i64, bool), IndexError> {
        let names = self.index.names.load();
        let mut writer = Writer::bulk(conn, &names, file)?;
        let mut source = 0;
        for name in &edition.chunks {
            let Some(packed) = chunk(name) else { return Ok((0, false)) };
            let lines = BufReader::new(GzDecoder::new(packed.as_slice()).take(LONGEST)).lines();
            for line in lines {
                let Ok(line) = line else { return Ok((0, false)) };
                if let Ok(line) = serde_json::from_str(&line) {
                    read_line(conn, &mut writer, &mut source, line)?;
                }
            }
        }
        let old = schema::open_reader(&self.index.file())?;
        old.execute_batch("BEGIN")?;
        let newest = schema::number(&old, "SELECT ifnull(max(id), 0) FROM manifests")?;
        next_generation::carry_traffic(&old, conn, &mut writer)?;
        history::carry_over(&old, conn)?;
        writer.load()?;
        for (mark, value) in [("edition", Some(&edition.name)), ("fleet", edition.position.as_ref())] {
            conn.execute("INSERT OR REPLACE INTO marks (name, value) VALUES (?1, ?2)", params![mark, value])?;
        }
        Ok((newest, true))
    }

    /// The edition that was read here last, or published from here.
    pub(crate) fn name(&self) -> Result<Option<String>, IndexError> {
        self.index.read(|conn| {
            let mut mark = conn.prepare_cached("SELECT value FROM marks WHERE name = 'edition'")?;
            mark.query_row([], |row| row.get(0)).optional().map(Option::flatten)
        })
    }

    /// Records the name of the edition that the index holds; `None`: the next one is read, whatever its name.
    pub(crate) fn record_name(&self, name: Option<&str>) -> Result<(), IndexError> {
        self.index.write(|conn| {
            conn.execute("INSERT OR REPLACE INTO marks (name, value) VALUES ('edition', ?1)", [name])?;
            Ok(())
        })
    }

    /// Cheap fingerprint that changes when any document changes; it may also change without one.
    pub(crate) fn fingerprint(&self) -> Result<(i64, i64, i64), IndexError> {
        self.index.read(|conn| {
            let sql = "SELECT count(*), ifnull(max(id), 0), count(vanished) FROM manifests";
            conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        })
    }
}

fn documents(conn: &Connection, packer: &mut ChunkWriter<'_>) -> rusqlite::Result<()> {
    let mut select = conn.prepare(&format!(
        "SELECT m.kind, m.uri, m.label, m.first, m.canvases, s.kind, s.location, s.added, {}
         FROM manifests m JOIN sources s ON s.id = m.source ORDER BY m.id",
        DocumentMeta::COLUMNS
    ))?;
    let mut canvases = conn
        .prepare("SELECT url, label, keys FROM canvases WHERE id BETWEEN ?1 AND ?1 + ?2 - 1 ORDER BY id")?;
    let mut here = None;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()?.filter(|_| packer.goes_on) {
        let location: String = row.get(6)?;
        if here.as_ref() != Some(&location) {
            packer.line(&EditionLine::Source(row.get(5)?, location.clone(), row.get(7)?));
            here = Some(location);
        }
        let mut of = canvases.query(params![row.get::<_, i64>(3)?, row.get::<_, i64>(4)?])?;
        while let Some(canvas) = of.next()? {
            let keys = writer::read_keys(canvas.get_ref(2)?.as_str()?);
            packer.line(&EditionLine::Canvas(canvas.get(0)?, canvas.get(1)?, keys));
        }
        packer.line(&EditionLine::Document(Box::new(EditionDocument {
            kind: row.get(0)?,
            uri: row.get(1)?,
            label: row.get(2)?,
            facts: DocumentMeta::read(row, 8)?,
        })));
    }
    Ok(())
}

fn read_line(
    conn: &Connection,
    writer: &mut Writer<'_>,
    source: &mut i64,
    line: EditionLine,
) -> Result<(), IndexError> {
    match line {
        EditionLine::Source(kind, location, added) => {
            *source = writer::source_row(conn, &kind, &location, added)?;
        }
        EditionLine::Canvas(id, label, images) => writer.canvas(&Canvas { id, label, images })?,
        EditionLine::Document(told) => {
            let kind = writer::kind_of(&told.kind);
            let document = Document { kind, id: Some(told.uri), label: told.label, ..Document::default() };
            writer.finish(&document, &DocumentMeta { source: *source, seen: now(), ..told.facts })?;
        }
        EditionLine::File(url) => {
            conn.prepare_cached("INSERT OR REPLACE INTO files (uuid, url) VALUES (?1, ?2)")?
                .execute(params![uuid_of_file_url(&url).as_bytes(), url])?;
        }
    }
    Ok(())
}
