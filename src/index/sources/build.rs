//! Builds the index anew: one thread reads, the other writes a new generation, then the two are swapped.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use rusqlite::{Connection, params};

use crate::config::settings::Source;
use crate::iiif::manifest::{Canvas, Document, DocumentKind};
use crate::index::sources::gather::{BATCHES, Message};
use crate::index::sources::problem::Problem;
use crate::index::sources::{Options, Progress, Report, bases};
use crate::index::store::error::IndexError;
use crate::index::store::keys::Names;
use crate::index::store::writer::{Facts, Writer};
use crate::index::store::{rows, schema, writer};
use crate::index::{Index, history, now, sources};

/// What was seen while reading, for deciding what to carry over from the old generation.
#[derive(Default)]
struct Seen {
    /// Source rows of the new file by location.
    sources: Vec<(String, i64)>,
    broken: HashSet<String>,
    unchanged: HashSet<String>,
    gone: HashSet<String>,
    only_changes: HashSet<i64>,
    incomplete: HashSet<i64>,
    /// Files that are no documents by their names.
    passed_over: HashMap<i64, u64>,
}

impl Index {
    /// Opens the index; a damaged one is put aside first, and its new place told.
    pub fn open_for_build(path: &Path, cache: u64) -> Result<(Self, Option<PathBuf>), IndexError> {
        match Self::open(path, cache) {
            Err(IndexError::Damaged { .. }) => {
                Self::start_over(path, cache).map(|(index, aside)| (index, Some(aside)))
            }
            other => other.map(|index| (index, None)),
        }
    }

    /// Puts the index aside, which is damaged, and begins an empty one; tells the old one's new place.
    pub fn start_over(path: &Path, cache: u64) -> Result<(Self, PathBuf), IndexError> {
        let place = crate::index::Place::new(path);
        let lock = place.lock()?;
        let aside = place.put_aside(&lock)?;
        drop(lock);
        Self::open(path, cache).map(|index| (index, aside))
    }

    /// Builds the index anew from these sources and swaps it in; lookups go on meanwhile, here and in other
    /// processes. Carried over: what was learned from traffic, what a broken file said before, and what
    /// vanished less than the grace ago. Sources that are neither named nor added are forgotten.
    pub fn build(
        &self,
        configured: &[Source],
        options: &Options,
        progress: Progress<'_>,
    ) -> Result<Report, IndexError> {
        let mut report = Report::default();
        self.anew(|conn, file| {
            let all = self.read(|conn| sources::with_added(conn, configured))?;
            self.fill(conn, file, &all, options, &mut report, progress).map(Some)
        })?;
        Ok(report)
    }

    /// Fills a new generation and swaps it in. `pour` tells the newest document of the old one that it has seen, or
    /// that it gives up: then nothing changes, and false is told.
    pub(in crate::index) fn anew(
        &self,
        pour: impl FnOnce(&Connection, &Path) -> Result<Option<i64>, IndexError>,
    ) -> Result<bool, IndexError> {
        let lock = self.place.lock()?;
        // Another process may have built since; from here on none can.
        self.catch_up()?;
        let file = self.place.next(&lock)?;
        let made = self.make(&file, pour);
        if !matches!(made, Ok(true)) {
            let _ = self.place.sweep(&lock);
            return made;
        }
        self.reopen()?;
        let _ = self.place.sweep(&lock);
        Ok(true)
    }

    fn make(
        &self,
        file: &Path,
        pour: impl FnOnce(&Connection, &Path) -> Result<Option<i64>, IndexError>,
    ) -> Result<bool, IndexError> {
        let conn = schema::open_bulk(file)?;
        let named = |error| match error {
            IndexError::Store(error) => IndexError::of(file, error),
            other => other,
        };
        conn.execute_batch("BEGIN")?;
        let Some(newest) = pour(&conn, file).map_err(named)? else { return Ok(false) };
        // From here on nobody writes to the old file any more, until the new one stands in its place.
        let mut conn = Some(conn);
        self.alone(|old| {
            let Some(conn) = conn.take() else {
                return Err(IndexError::Building { path: file.to_path_buf() });
            };
            late(old, &conn, &self.names.load(), newest)?;
            conn.execute_batch("COMMIT; PRAGMA journal_mode = WAL;")?;
            conn.close().map_err(|(_, error)| error)?;
            self.place.publish(file)
        })
        .map_err(named)?;
        Ok(true)
    }

    /// Everything but what is written to the old file meanwhile; answers the newest document of that.
    fn fill(
        &self,
        conn: &Connection,
        file: &Path,
        all: &[(Source, bool)],
        options: &Options,
        report: &mut Report,
        progress: Progress<'_>,
    ) -> Result<i64, IndexError> {
        let names = self.names.load();
        let mut writer = Writer::bulk(conn, &names, file)?;
        let mut seen = Seen::default();
        for (source, added) in all {
            let (kind, location) = sources::stored(source);
            let row = writer::source_row(conn, kind, &location, *added)?;
            seen.sources.push((location, row));
        }
        std::thread::scope(|scope| {
            let (send, receive) = sync_channel(BATCHES);
            scope.spawn(move || self.read_all(all, options, &send));
            receive_all(conn, &mut writer, &receive, &mut seen, report, progress)
        })?;
        let old = schema::open_reader(&self.file())?;
        // One transaction: what is carried over is of one moment.
        old.execute_batch("BEGIN")?;
        let newest = schema::number(&old, "SELECT ifnull(max(id), 0) FROM manifests")?;
        carry_over(&old, conn, &mut writer, &seen, options, report)?;
        for (location, row) in &seen.sources {
            if !seen.incomplete.contains(row) && !rows::has_images(conn, *row)? {
                let passed_over = seen.passed_over.get(row).copied().unwrap_or(0);
                report.warnings.push(Problem::no_images(location, passed_over));
            }
        }
        bases::note(conn, &names.images)?;
        // Most of it here; `late` has to bring only what is healed meanwhile.
        history::carry_over(&old, conn)?;
        writer.load()?;
        Ok(newest)
    }
}

fn receive_all(
    conn: &Connection,
    writer: &mut Writer<'_>,
    receive: &Receiver<Message>,
    seen: &mut Seen,
    report: &mut Report,
    progress: Progress<'_>,
) -> Result<(), IndexError> {
    let mut row = 0;
    for message in receive {
        match message {
            Message::Source(at) => {
                row = seen.sources.get(at).map_or(0, |(_, row)| *row);
                conn.execute("UPDATE sources SET seen = ?2 WHERE id = ?1", params![row, now()])?;
            }
            Message::Canvases(canvases) => {
                for canvas in &canvases {
                    writer.canvas(canvas)?;
                }
            }
            Message::Document(read) => {
                let (document, mut facts) = *read;
                facts.source = row;
                let counts = writer.finish(&document, &facts)?;
                report.files += 1;
                report.count(document.kind, counts);
                report.warnings.extend(Problem::unclaimed(&facts.origin, &document));
                progress(report, &facts.origin);
            }
            Message::PassedOver => {
                report.passed_over += 1;
                *seen.passed_over.entry(row).or_default() += 1;
            }
            Message::Failed(origin, problem) => {
                writer.abandon()?;
                report.files += 1;
                report.problems.push(problem);
                progress(report, &origin);
                seen.broken.insert(origin);
            }
            Message::Unchanged(origin) => {
                report.files += 1;
                report.unchanged += 1;
                progress(report, &origin);
                seen.unchanged.insert(origin);
            }
            Message::Poorer(problem) => {
                report.files += 1;
                report.problems.push(problem);
            }
            Message::Gone(origin) => {
                seen.gone.insert(origin);
            }
            Message::OnlyChanges => {
                seen.only_changes.insert(row);
            }
            Message::Incomplete(problem) => {
                report.problems.extend(problem);
                seen.incomplete.insert(row);
            }
        }
    }
    Ok(())
}

impl Seen {
    /// Whether a document of the old generation is no longer told of by its source.
    fn is_gone(&self, source: i64, origin: &str, vanished: Option<i64>) -> bool {
        if self.broken.contains(origin)
            || self.unchanged.contains(origin)
            || self.incomplete.contains(&source)
        {
            return false;
        }
        !self.only_changes.contains(&source) || self.gone.contains(origin) || vanished.is_some()
    }
}

/// Copies from the old generation what the sources do not tell (now).
fn carry_over(
    old: &Connection,
    conn: &Connection,
    writer: &mut Writer<'_>,
    seen: &Seen,
    options: &Options,
    report: &mut Report,
) -> Result<(), IndexError> {
    let mut select = old.prepare(
        "SELECT m.id, s.kind, s.location, m.origin, m.vanished FROM manifests m JOIN sources s ON s.id = m.source
         ORDER BY m.id",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (id, kind, location): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (origin, vanished): (String, Option<i64>) = (row.get(3)?, row.get(4)?);
        let source = seen.sources.iter().find(|(other, _)| *other == location).map(|(_, row)| *row);
        let source = match source {
            Some(source) => source,
            None if kind == "traffic" => writer::source_row(conn, &kind, &location, false)?,
            None => continue,
        };
        let is_new: bool = conn
            .prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM manifests WHERE source = ?1 AND origin = ?2)")?
            .query_row(params![source, origin], |row| row.get(0))?;
        if !is_new {
            continue;
        }
        if kind == "traffic" || !seen.is_gone(source, &origin, vanished) {
            let vanished = vanished.filter(|_| !seen.unchanged.contains(&origin));
            copy(old, writer, id, source, vanished)?;
        } else if sources::is_over(vanished, options) {
            report.dropped += 1;
        } else {
            report.vanished += 1;
            copy(old, writer, id, source, Some(vanished.unwrap_or_else(now)))?;
        }
    }
    Ok(())
}

/// Copies what was learned from traffic, and nothing else.
pub(in crate::index) fn carry_traffic(
    old: &Connection,
    conn: &Connection,
    writer: &mut Writer<'_>,
) -> Result<(), IndexError> {
    carry_over(old, conn, writer, &Seen::default(), &Options::default(), &mut Report::default())
}

/// Copies what other threads and processes wrote to the old generation while the new one was built. The
/// caller holds the old one's write lock.
fn late(old: &Connection, conn: &Connection, names: &Names, newest: i64) -> Result<(), IndexError> {
    let mut writer = Writer::direct(conn, names)?;
    let mut select = old.prepare(
        "SELECT m.id, s.kind, s.location, s.added, m.vanished FROM manifests m JOIN sources s ON s.id = m.source
         WHERE m.id > ?1 ORDER BY m.id",
    )?;
    let mut rows = select.query([newest])?;
    while let Some(row) = rows.next()? {
        let (kind, location): (String, String) = (row.get(1)?, row.get(2)?);
        let source = writer::source_row(conn, &kind, &location, row.get(3)?)?;
        copy(old, &mut writer, row.get(0)?, source, row.get(4)?)?;
    }
    let mut sources = old.prepare("SELECT kind, location FROM sources WHERE added = 1")?;
    let mut rows = sources.query([])?;
    while let Some(row) = rows.next()? {
        writer::source_row(
            conn,
            row.get_ref(0)?.as_str().unwrap_or_default(),
            &row.get::<_, String>(1)?,
            true,
        )?;
    }
    history::carry_over(old, conn)?;
    let mut marks = old.prepare("SELECT name, value FROM marks")?;
    let mut rows = marks.query([])?;
    while let Some(row) = rows.next()? {
        let (name, value): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        conn.execute("INSERT OR IGNORE INTO marks (name, value) VALUES (?1, ?2)", params![name, value])?;
    }
    let mut files = old.prepare("SELECT uuid, url FROM files ORDER BY uuid")?;
    let mut insert = conn.prepare("INSERT OR REPLACE INTO files (uuid, url) VALUES (?1, ?2)")?;
    let mut rows = files.query([])?;
    while let Some(row) = rows.next()? {
        insert.execute(params![row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?])?;
    }
    Ok(())
}

/// Copies one document and its canvases.
fn copy(
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
        let images = writer::read_keys(row.get_ref(2)?.as_str().unwrap_or_default());
        writer.canvas(&Canvas { id: row.get(0)?, label: row.get(1)?, images })?;
    }
    let (document, facts) = old
        .prepare_cached(
            "SELECT kind, uri, label, origin, size, modified, hash, seen, etag, last_modified
             FROM manifests WHERE id = ?1",
        )?
        .query_row([id], |row| {
            let kind = kind_of(row.get_ref(0)?.as_str().unwrap_or_default());
            let document = Document { kind, id: row.get(1)?, label: row.get(2)?, ..Document::default() };
            let facts = Facts {
                source,
                origin: row.get(3)?,
                size: row.get(4)?,
                modified: row.get(5)?,
                hash: row.get(6)?,
                seen: row.get(7)?,
                etag: row.get(8)?,
                last_modified: row.get(9)?,
                vanished,
            };
            Ok((document, facts))
        })?;
    writer.finish(&document, &facts)?;
    Ok(())
}

pub(in crate::index) fn kind_of(name: &str) -> DocumentKind {
    use DocumentKind::{Annotations, Canvas, Collection, Manifest, Other, Sequence};
    [Manifest, Sequence, Canvas, Annotations, Collection]
        .into_iter()
        .find(|kind| writer::kind_name(*kind) == name)
        .unwrap_or(Other)
}
