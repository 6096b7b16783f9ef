//! Build of a new index: one thread reads, the other writes a new generation, then the two are swapped.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

use rusqlite::{Connection, params};

use crate::config::settings::SourceSettings;
use crate::index::sources::event::SourceEvent;
use crate::index::sources::problem::SourceProblem;
use crate::index::sources::reader::DocumentReader;
use crate::index::sources::{
    ProgressCallback, RefreshOptions, RefreshReport, bases, is_over, shown, stored, with_added,
};
use crate::index::store::error::IndexError;
use crate::index::store::writer::{self, Writer};
use crate::index::store::{next_generation, rows, schema};
use crate::index::{Index, history, now};

/// Events on their way from the thread that reads to the one that writes; each holds 256 canvases at most.
const QUEUE: usize = 32;

/// Builds the index anew.
#[derive(Debug)]
pub struct Build<'a> {
    index: &'a Index,
    options: &'a RefreshOptions,
}

impl<'a> Build<'a> {
    /// Creates a build; `run` does the work.
    pub fn new(index: &'a Index, options: &'a RefreshOptions) -> Self {
        Self { index, options }
    }

    /// Builds the index from these sources and the added ones, and swaps it in; look-ups go on in this and other processes.
    /// Carried over: documents learned from traffic, the last good content of broken files, and documents that vanished
    /// less than the grace ago. Sources that are neither named nor added are forgotten.
    pub fn run(
        &self,
        configured: &[SourceSettings],
        progress: ProgressCallback<'_>,
    ) -> Result<RefreshReport, IndexError> {
        let mut report = RefreshReport::default();
        next_generation::make(self.index, |conn, file| {
            let all = self.index.read(|conn| with_added(conn, configured))?;
            self.fill_generation(conn, file, &all, &mut report, progress).map(Some)
        })?;
        Ok(report)
    }

    /// Fills the new generation, except with writes to the old file in the meantime; returns the newest document that was
    /// carried over.
    fn fill_generation(
        &self,
        conn: &Connection,
        file: &Path,
        all: &[(SourceSettings, bool)],
        report: &mut RefreshReport,
        progress: ProgressCallback<'_>,
    ) -> Result<i64, IndexError> {
        let names = self.index.names.load();
        let writer = Writer::bulk(conn, &names, file)?;
        let mut new =
            NewGeneration { conn, writer, seen: BuildState::default(), options: self.options, report };
        new.open(all)?;
        std::thread::scope(|scope| {
            let (send, receive) = sync_channel(QUEUE);
            scope.spawn(move || self.read(all, &|at, event| send.send((at, event)).is_ok()));
            new.fill(&receive, progress)
        })?;
        let old = schema::open_reader(&self.index.file())?;
        // One transaction: all carried rows are of one moment.
        old.execute_batch("BEGIN")?;
        let newest = schema::number(&old, "SELECT ifnull(max(id), 0) FROM manifests")?;
        new.carry_over(&old)?;
        new.warn_of_empty_sources()?;
        bases::note(conn, &names.images)?;
        // Most of the history is copied here; heals that end until the swap are copied with it.
        history::carry_over(&old, conn)?;
        new.writer.load()?;
        Ok(newest)
    }

    /// Reads all sources, on a thread of its own, until the receiver is gone.
    fn read(&self, all: &[(SourceSettings, bool)], emit: &dyn Fn(usize, SourceEvent) -> bool) {
        let reader = DocumentReader { index: self.index, options: self.options, passes_known: false };
        for (at, (source, _)) in all.iter().enumerate() {
            let mut is_heard = true;
            let mut each = |event| {
                is_heard = emit(at, event);
                Ok(is_heard)
            };
            let read = if source.enabled {
                reader.read(source, &mut each)
            } else {
                each(SourceEvent::Incomplete(None)).map(drop)
            };
            if let Err(error) = read {
                tracing::error!(%error, "a source cannot be read");
            }
            if !is_heard {
                return;
            }
        }
    }
}

/// Observations made while reading, which decide what to carry over from the old generation.
#[derive(Default)]
struct BuildState {
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

/// A generation that is being filled.
struct NewGeneration<'c, 'r> {
    conn: &'c Connection,
    writer: Writer<'c>,
    seen: BuildState,
    options: &'r RefreshOptions,
    report: &'r mut RefreshReport,
}

impl NewGeneration<'_, '_> {
    fn open(&mut self, all: &[(SourceSettings, bool)]) -> Result<(), IndexError> {
        for (source, added) in all {
            let (kind, location) = stored(source);
            let row = writer::source_row(self.conn, kind, &location, *added)?;
            self.conn.execute("UPDATE sources SET seen = ?2 WHERE id = ?1", params![row, now()])?;
            self.seen.sources.push((location, row));
        }
        Ok(())
    }

    fn fill(
        &mut self,
        events: &Receiver<(usize, SourceEvent)>,
        progress: ProgressCallback<'_>,
    ) -> Result<(), IndexError> {
        for (at, event) in events {
            let row = self.seen.sources.get(at).map_or(0, |(_, row)| *row);
            if let Some(origin) = self.take(row, event)? {
                progress(self.report, &origin);
            }
        }
        Ok(())
    }

    /// Takes an event of a source; returns the file or URL of a document that is done.
    fn take(&mut self, row: i64, event: SourceEvent) -> Result<Option<String>, IndexError> {
        let report = &mut *self.report;
        let origin = match event {
            SourceEvent::Canvases(canvases) => {
                canvases.iter().try_for_each(|canvas| self.writer.canvas(canvas))?;
                return Ok(None);
            }
            SourceEvent::Document(read) => {
                let (document, mut facts) = *read;
                facts.source = row;
                let counts = self.writer.finish(&document, &facts)?;
                report.count(document.kind, counts);
                report.warnings.extend(SourceProblem::unclaimed(&shown(&facts.origin), &document));
                facts.origin
            }
            SourceEvent::Failed(origin, problem) => {
                self.writer.abandon()?;
                report.problems.push(problem);
                self.seen.broken.insert(origin.clone());
                origin
            }
            SourceEvent::Unchanged(facts) => {
                report.unchanged += 1;
                self.seen.unchanged.insert(facts.origin.clone());
                facts.origin
            }
            // Images known from this origin are removed after the grace.
            SourceEvent::Poorer(origin, problem) => {
                self.writer.abandon()?;
                report.problems.push(problem);
                origin
            }
            SourceEvent::PassedOver => {
                report.passed_over += 1;
                *self.seen.passed_over.entry(row).or_default() += 1;
                return Ok(None);
            }
            SourceEvent::Gone(origin) => {
                self.seen.gone.insert(origin);
                return Ok(None);
            }
            SourceEvent::OnlyChanges => {
                self.seen.only_changes.insert(row);
                return Ok(None);
            }
            SourceEvent::Incomplete(problem) => {
                report.problems.extend(problem);
                self.seen.incomplete.insert(row);
                return Ok(None);
            }
            SourceEvent::End => return Ok(None),
        };
        report.files += 1;
        Ok(Some(origin))
    }

    /// Copies documents of the old generation that the sources do not contain (now).
    fn carry_over(&mut self, old: &Connection) -> Result<(), IndexError> {
        let mut select = old.prepare(
            "SELECT m.id, s.kind, s.location, m.origin, m.vanished FROM manifests m JOIN sources s ON s.id = m.source
             ORDER BY m.id",
        )?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (id, kind, location): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (origin, vanished): (String, Option<i64>) = (row.get(3)?, row.get(4)?);
            let source = self.seen.sources.iter().find(|(other, _)| *other == location);
            let source = match source {
                Some((_, row)) => *row,
                None if kind == "traffic" => writer::source_row(self.conn, &kind, &location, false)?,
                None => continue,
            };
            if rows::is_document_at(self.conn, source, &origin)? {
                continue;
            }
            if kind == "traffic" || !self.seen.is_gone(source, &origin, vanished) {
                let vanished = vanished.filter(|_| !self.seen.unchanged.contains(&origin));
                writer::copy(old, &mut self.writer, id, source, vanished)?;
            } else if is_over(vanished, self.options) {
                self.report.dropped += 1;
            } else {
                self.report.vanished += 1;
                writer::copy(old, &mut self.writer, id, source, Some(vanished.unwrap_or_else(now)))?;
            }
        }
        Ok(())
    }

    fn warn_of_empty_sources(&mut self) -> Result<(), IndexError> {
        for (location, row) in &self.seen.sources {
            if !self.seen.incomplete.contains(row) && !rows::has_images(self.conn, *row)? {
                let passed_over = self.seen.passed_over.get(row).copied().unwrap_or(0);
                self.report.warnings.push(SourceProblem::no_images(&shown(location), passed_over));
            }
        }
        Ok(())
    }
}

impl BuildState {
    /// True if the source of a document in the old generation no longer has it.
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
