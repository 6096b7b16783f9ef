//! Refresh of the index in place: each changed document is one transaction, and look-ups see it at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use crate::config::settings::{SourceKind, SourceSettings};
use crate::iiif::manifest::{Canvas, Document};
use crate::index::sources::event::{KnownUrl, SourceEvent};
use crate::index::sources::problem::SourceProblem;
use crate::index::sources::reader::DocumentReader;
use crate::index::sources::{
    AT_ONCE, ProgressCallback, RefreshOptions, RefreshReport, bases, directory, is_over, shown, stored,
};
use crate::index::store::error::IndexError;
use crate::index::store::rows;
use crate::index::store::writer::{self, DocumentMeta, Writer};
use crate::index::{Index, now};

/// Reads changed documents.
#[derive(Debug)]
pub struct Refresh<'a> {
    index: &'a Index,
    options: &'a RefreshOptions,
}

/// Progress of one refresh of a source.
struct HttpRefresh<'a, 'p> {
    refresh: &'a Refresh<'a>,
    /// The source's location and row.
    location: String,
    row: i64,
    /// Documents that were not met yet.
    unseen: BTreeSet<i64>,
    /// Documents that the source reports as removed.
    gone: BTreeSet<i64>,
    /// Canvases of the document that is being read.
    canvases: Vec<Canvas>,
    passed_over: u64,
    only_changes: bool,
    is_whole: bool,
    report: &'a mut RefreshReport,
    progress: &'a mut (dyn FnMut(&RefreshReport, &str) + 'p),
}

impl<'a> Refresh<'a> {
    /// Creates a refresh; `run` does the work.
    pub fn new(index: &'a Index, options: &'a RefreshOptions) -> Self {
        Self { index, options }
    }

    /// Reads the changes of these sources. Other sources are left as they are.
    pub fn run(
        &self,
        sources: &[SourceSettings],
        progress: ProgressCallback<'_>,
    ) -> Result<RefreshReport, IndexError> {
        bases::are_those_of(self.index)?;
        let mut report = RefreshReport::default();
        for source in sources {
            self.whole(source, &mut report, progress)?;
        }
        Ok(report)
    }

    /// Reads these paths again, as far as they belong to one of the sources. A document that is no longer there has vanished,
    /// and is kept for the grace period.
    pub fn paths(
        &self,
        sources: &[SourceSettings],
        paths: &BTreeSet<PathBuf>,
        progress: ProgressCallback<'_>,
    ) -> Result<RefreshReport, IndexError> {
        let mut report = RefreshReport::default();
        for source in sources.iter().filter(|source| matches!(source.kind(), SourceKind::Path(_))) {
            let root = PathBuf::from(stored(source).1);
            // An absent root proves nothing.
            if !root.exists() {
                continue;
            }
            // The whole source, or a directory above it.
            if paths.iter().any(|path| root.starts_with(path)) {
                self.whole(source, &mut report, progress)?;
                continue;
            }
            let mut mine = paths.iter().filter(|path| path.starts_with(&root)).peekable();
            if mine.peek().is_none() {
                continue;
            }
            let mut look = self.begin(source, &mut report, progress)?;
            mine.try_for_each(|path| look.path(path))?;
        }
        Ok(report)
    }

    fn begin<'l, 'p>(
        &'l self,
        source: &SourceSettings,
        report: &'l mut RefreshReport,
        progress: &'l mut (dyn FnMut(&RefreshReport, &str) + 'p),
    ) -> Result<HttpRefresh<'l, 'p>, IndexError> {
        let (kind, location) = stored(source);
        let row = self.index.write(|conn| Ok(writer::source_row(conn, kind, &location, false)?))?;
        Ok(HttpRefresh {
            refresh: self,
            location,
            row,
            unseen: BTreeSet::new(),
            gone: BTreeSet::new(),
            canvases: Vec::new(),
            passed_over: 0,
            only_changes: false,
            is_whole: true,
            report,
            progress,
        })
    }

    fn whole(
        &self,
        source: &SourceSettings,
        report: &mut RefreshReport,
        progress: ProgressCallback<'_>,
    ) -> Result<(), IndexError> {
        let mut look = self.begin(source, report, progress)?;
        let row = look.row;
        look.unseen = self.index.read(|conn| rows::ids_of_source(conn, row))?;
        self.reader().read(source, &mut |event| look.take(event).map(|()| true))?;
        look.end()
    }

    fn reader(&self) -> DocumentReader<'_> {
        DocumentReader { index: self.index, options: self.options, passes_known: true }
    }
}

impl HttpRefresh<'_, '_> {
    /// Reads one path of the source again.
    fn path(&mut self, path: &Path) -> Result<(), IndexError> {
        let (index, row) = (self.refresh.index, self.row);
        if !path.exists() {
            let name = directory::origin(path);
            let gone = index.read(|conn| rows::ids_below(conn, row, &name))?;
            return if gone.is_empty() { Ok(()) } else { self.vanish(&gone) };
        }
        if path.is_file() && !directory::is_document(path) {
            return Ok(());
        }
        let (reader, location) = (self.refresh.reader(), self.location.clone());
        reader.read_path(&location, path, &mut |event| match event {
            // A file that was removed in the meantime comes with the next event.
            SourceEvent::PassedOver | SourceEvent::Incomplete(_) => Ok(true),
            event => self.take(event).map(|()| true),
        })
    }

    fn take(&mut self, event: SourceEvent) -> Result<(), IndexError> {
        let origin = match event {
            SourceEvent::Canvases(mut canvases) => {
                self.canvases.append(&mut canvases);
                return Ok(());
            }
            SourceEvent::PassedOver => {
                self.passed_over += 1;
                return Ok(());
            }
            SourceEvent::OnlyChanges => {
                self.only_changes = true;
                return Ok(());
            }
            SourceEvent::Incomplete(problem) => {
                self.is_whole = false;
                self.report.problems.extend(problem);
                return Ok(());
            }
            SourceEvent::Gone(origin) => {
                self.gone.extend(self.known(&origin)?.map(|known| known.id));
                return Ok(());
            }
            SourceEvent::End => return Ok(()),
            SourceEvent::Document(read) => {
                let (document, facts) = *read;
                // A replaced document has another row from then on.
                self.met(&facts.origin)?;
                self.write_document(&document, DocumentMeta { source: self.row, ..facts })?
            }
            SourceEvent::Unchanged(facts) => {
                self.report.unchanged += 1;
                let known = self.met(&facts.origin)?;
                if let Some(known) = known.filter(|known| !known.is_as(&facts)) {
                    self.touch(known.id, &facts)?;
                }
                facts.origin
            }
            SourceEvent::Poorer(origin, problem) => {
                self.canvases.clear();
                self.report.problems.push(problem);
                self.report.vanished += 1;
                if let Some(known) = self.met(&origin)? {
                    self.mark_vanished(&known)?;
                }
                origin
            }
            SourceEvent::Failed(origin, problem) => {
                self.canvases.clear();
                self.report.problems.push(problem);
                self.met(&origin)?;
                origin
            }
        };
        self.report.files += 1;
        (self.progress)(self.report, &origin);
        Ok(())
    }

    fn known(&self, origin: &str) -> Result<Option<KnownUrl>, IndexError> {
        self.refresh.index.read(|conn| KnownUrl::find(conn, &self.location, origin))
    }

    /// Notes that the document is there.
    fn met(&mut self, origin: &str) -> Result<Option<KnownUrl>, IndexError> {
        let known = self.known(origin)?;
        if let Some(known) = &known {
            self.unseen.remove(&known.id);
        }
        Ok(known)
    }

    /// Writes a document that was read before: the write lock is never held during slow reads. Returns its origin.
    fn write_document(&mut self, document: &Document, facts: DocumentMeta) -> Result<String, IndexError> {
        let (index, canvases) = (self.refresh.index, std::mem::take(&mut self.canvases));
        let counts = index.write(|conn| {
            let names = index.names.load();
            let mut writer = Writer::direct(conn, &names)?;
            for canvas in &canvases {
                writer.canvas(canvas)?;
            }
            writer.finish(document, &facts)
        })?;
        self.report.count(document.kind, counts);
        self.report.warnings.extend(SourceProblem::unclaimed(&shown(&facts.origin), document));
        Ok(facts.origin)
    }

    /// Updates the metadata of a document with unchanged content: touched, back again, or with other validators.
    fn touch(&self, id: i64, facts: &DocumentMeta) -> Result<(), IndexError> {
        let DocumentMeta { size, modified, etag, last_modified, .. } = facts;
        self.refresh.index.write(|conn| {
            conn.prepare_cached(
                "UPDATE manifests SET size = ?2, modified = ?3, etag = ?4, last_modified = ?5, seen = ?6,
                   vanished = NULL WHERE id = ?1",
            )?
            .execute(params![id, size, modified, etag, last_modified, now()])?;
            Ok(())
        })
    }

    /// Marks the document as poorer: it lost images, and is believed if that lasts for the grace.
    fn mark_vanished(&self, known: &KnownUrl) -> Result<(), IndexError> {
        if known.facts.vanished.is_some() {
            return Ok(());
        }
        self.refresh.index.write(|conn| {
            conn.prepare_cached("UPDATE manifests SET vanished = ?2 WHERE id = ?1")?
                .execute(params![known.id, now()])?;
            Ok(())
        })
    }

    /// Ends the refresh: documents that were not met have vanished, unless the source could not be read whole (a disk that is
    /// not mounted).
    fn end(mut self) -> Result<(), IndexError> {
        let (index, row) = (self.refresh.index, self.row);
        self.report.passed_over += self.passed_over;
        tracing::debug!(source = shown(&self.location), unseen = self.unseen.len(), "source looked at");
        if !self.is_whole {
            return Ok(());
        }
        if !index.read(|conn| rows::has_images(conn, row))? {
            self.report.warnings.push(SourceProblem::no_images(&shown(&self.location), self.passed_over));
        }
        let (mut gone, unseen) = (std::mem::take(&mut self.gone), std::mem::take(&mut self.unseen));
        if self.only_changes {
            // Documents that vanished earlier are checked again, so that the grace can end.
            gone.extend(index.read(|conn| rows::vanished_of_source(conn, row))?.intersection(&unseen));
        } else {
            gone = unseen;
        }
        self.vanish(&gone)
    }

    /// Marks documents as gone: kept for the grace, and forgotten after it.
    fn vanish(&mut self, gone: &BTreeSet<i64>) -> Result<(), IndexError> {
        let (index, row) = (self.refresh.index, self.row);
        let all: Vec<i64> = gone.iter().copied().collect();
        for some in all.chunks(AT_ONCE as usize) {
            let (kept, dropped) = index.write(|conn| {
                let (mut kept, mut dropped) = (0, 0);
                for id in some {
                    match self.vanishes(conn, *id)? {
                        None => {}
                        Some(true) => dropped += 1,
                        Some(false) => kept += 1,
                    }
                }
                Ok((kept, dropped))
            })?;
            self.report.vanished += kept;
            self.report.dropped += dropped;
        }
        index.write(|conn| {
            conn.prepare_cached("UPDATE sources SET seen = ?2 WHERE id = ?1")?.execute([row, now()])?;
            Ok(())
        })
    }

    /// Marks a document as gone, or forgets it after the grace; true: forgotten. `None`: another process has refreshed the
    /// same source in the meantime.
    fn vanishes(&self, conn: &Connection, id: i64) -> Result<Option<bool>, IndexError> {
        let since: Option<Option<i64>> = conn
            .prepare_cached("SELECT vanished FROM manifests WHERE id = ?1 AND source = ?2")?
            .query_row(params![id, self.row], |row| row.get(0))
            .optional()?;
        let Some(since) = since else { return Ok(None) };
        if is_over(since, self.refresh.options) {
            writer::remove(conn, &self.refresh.index.names.load(), id)?;
            return Ok(Some(true));
        }
        if since.is_none() {
            conn.prepare_cached("UPDATE manifests SET vanished = ?2 WHERE id = ?1")?
                .execute(params![id, now()])?;
        }
        Ok(Some(false))
    }
}
