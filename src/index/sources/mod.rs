//! Looks at the sources of the index: all of them anew (`build`), or what changed (`refresh`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::config::settings::{Source, SourceKind};
use crate::iiif::manifest::DocumentKind;
use crate::index::sources::directory::{Found, Looks};
pub use crate::index::sources::problem::Problem;
use crate::index::store::error::IndexError;
use crate::index::store::writer::{Facts, Writer};
use crate::index::store::{rows, writer};
use crate::index::{Index, now};

pub(in crate::index) mod bases;
pub(in crate::index) mod build;
pub(in crate::index) mod change_discovery;
pub(in crate::index) mod crawler;
pub(crate) mod directory;
pub(in crate::index) mod gather;
pub(in crate::index) mod http_client;
pub(in crate::index) mod http_refresh;
pub(crate) mod problem;
pub(in crate::index) mod remove;
pub mod scheduler;
pub(in crate::index) mod watcher;

/// What was done, and what went wrong on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Documents looked at: files and URLs.
    pub files: u64,
    /// Manifests read from them (sequences and single canvases among them).
    pub manifests: u64,
    /// Canvases read.
    pub canvases: u64,
    /// Images read: pairs of canvas and identifier.
    pub images: u64,
    /// Documents that are as they were.
    pub unchanged: u64,
    /// Documents that are JSON but name no images of their own: collections and other things.
    pub skipped: u64,
    /// Documents gone from their source that are kept for the grace.
    pub vanished: u64,
    /// Documents gone for longer than the grace, now forgotten.
    pub dropped: u64,
    /// Files of the directories whose names are none of documents.
    pub passed_over: u64,
    /// What went wrong; what the index knew from there is kept.
    pub problems: Vec<Problem>,
    /// What was read, and is hardly what was meant: a source without images, images without a canvas.
    pub warnings: Vec<Problem>,
}

/// Documents that vanish in one transaction, or are forgotten: others may write in between, and the log stays short.
pub(in crate::index) const AT_ONCE: usize = 100;

/// How sources are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long a document that vanished from its directory is kept.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { grace: Duration::from_hours(24) }
    }
}

/// Called after each document, with what was done so far and its file or URL.
pub type Progress<'a> = &'a mut dyn FnMut(&Report, &str);

/// The kind and the location of a source as the index stores them.
pub(in crate::index) fn stored(source: &Source) -> (&'static str, String) {
    match &source.kind {
        SourceKind::Path(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            // `manifests/` and `manifests` are one source.
            let path: PathBuf = path.components().collect();
            ("path", path.to_string_lossy().into_owned())
        }
        SourceKind::Url(url) => ("url", url.clone()),
    }
}

/// Whether two sources are one and the same place.
pub(in crate::index) fn is_same(one: &Source, other: &Source) -> bool {
    stored(one).1 == stored(other).1
}

/// Sources as configured, then those that `index add` brought, each once.
pub(in crate::index) fn with_added(
    conn: &Connection,
    sources: &[Source],
) -> rusqlite::Result<Vec<(Source, bool)>> {
    let mut all: Vec<(Source, bool)> = Vec::new();
    let mut select = conn.prepare("SELECT kind, location FROM sources WHERE added = 1 ORDER BY id")?;
    let added: Vec<(Source, bool)> = select
        .query_map([], |row| {
            let (kind, location): (String, String) = (row.get(0)?, row.get(1)?);
            Ok((if kind == "url" { Source::url(location) } else { Source::path(location) }, true))
        })?
        .collect::<Result<_, _>>()?;
    for (source, is_added) in sources.iter().map(|source| (source.clone(), false)).chain(added) {
        if !all.iter().any(|(other, _)| is_same(other, &source)) {
            all.push((source, is_added));
        }
    }
    Ok(all)
}

impl Index {
    /// Adds sources to be looked at besides the configured ones from now on; `refresh` reads them.
    pub fn add(&self, sources: &[Source]) -> Result<(), IndexError> {
        self.write(|conn| {
            for source in sources {
                let (kind, location) = stored(source);
                writer::source_row(conn, kind, &location, true)?;
            }
            Ok(())
        })
    }

    /// Looks for what changed in these sources, in place: each changed file is one transaction, and lookups
    /// see it at once. Sources that are not named are left as they are.
    pub fn refresh(
        &self,
        sources: &[Source],
        options: &Options,
        progress: Progress<'_>,
    ) -> Result<Report, IndexError> {
        self.is_read_by_these_bases()?;
        let mut report = Report::default();
        for source in sources {
            match &source.kind {
                SourceKind::Url(url) => self.refresh_url(source, url, options, &mut report, progress)?,
                SourceKind::Path(path) => self.refresh_path(source, path, options, &mut report, progress)?,
            }
        }
        Ok(report)
    }

    /// What `serve` does at its start and from time to time: an empty index is built in bulk, any other is
    /// refreshed in place. `configured` and added sources.
    pub fn update(
        &self,
        configured: &[Source],
        options: &Options,
        progress: Progress<'_>,
    ) -> Result<Report, IndexError> {
        if self.is_empty()? {
            return self.build(configured, options, progress);
        }
        self.refresh(&self.sources(configured)?, options, progress)
    }

    /// Whether it knows no document yet.
    pub fn is_empty(&self) -> Result<bool, IndexError> {
        Ok(self.read(|conn| rows::number_of_documents(conn, 1))? == 0)
    }

    /// The configured sources and the added ones, but for those that are switched off.
    pub fn sources(&self, configured: &[Source]) -> Result<Vec<Source>, IndexError> {
        let all = self.read(|conn| with_added(conn, configured))?;
        Ok(all.into_iter().map(|(source, _)| source).filter(|source| source.enabled).collect())
    }

    pub(in crate::index) fn refresh_path(
        &self,
        source: &Source,
        path: &Path,
        options: &Options,
        report: &mut Report,
        progress: Progress<'_>,
    ) -> Result<(), IndexError> {
        let (kind, location) = stored(source);
        let row = self.write(|conn| Ok(writer::source_row(conn, kind, &location, false)?))?;
        let mut gone = self.read(|conn| rows::ids_of_source(conn, row))?;
        let (mut complete, mut passed_over) = (true, 0);
        for found in directory::find(Path::new(&location)) {
            match found {
                Found::Document(file) => {
                    self.refresh_file(row, &file, &mut gone, report)?;
                    progress(report, &file.to_string_lossy());
                }
                Found::PassedOver => passed_over += 1,
                Found::Problem(problem) => {
                    complete = false;
                    report.problems.push(problem);
                }
            }
        }
        report.passed_over += passed_over;
        if complete && !self.read(|conn| rows::has_images(conn, row))? {
            report.warnings.push(Problem::no_images(&location, passed_over));
        }
        tracing::debug!(source = %path.display(), gone = gone.len(), "source looked at");
        // A directory that cannot be seen whole (a disk that is not mounted) proves nothing about its files.
        if complete { self.drop_vanished(row, &gone, options, report) } else { Ok(()) }
    }

    pub(in crate::index) fn refresh_file(
        &self,
        source: i64,
        file: &Path,
        gone: &mut BTreeSet<i64>,
        report: &mut Report,
    ) -> Result<(), IndexError> {
        report.files += 1;
        let origin = file.to_string_lossy();
        let known = self.read(|conn| known_file(conn, source, &origin))?;
        if let Some(known) = &known {
            gone.remove(&known.id);
            if let Some(looks) = known.unchanged(file) {
                report.unchanged += 1;
                return self.touch(known, looks);
            }
        }
        // Read first, then write: the write lock is never held while a disk or a network file system dawdles.
        let mut canvases = Vec::new();
        let bases = self.image_bases();
        let read = match directory::read(file, &bases, &mut |canvas| canvases.push(canvas)) {
            Ok(read) => read,
            Err(problem) => {
                report.problems.push(problem);
                return Ok(());
            }
        };
        let counts = self.write(|conn| {
            let names = self.names.load();
            let mut writer = Writer::direct(conn, &names)?;
            for canvas in &canvases {
                writer.canvas(canvas)?;
            }
            let facts = facts(source, &origin, read.looks, read.hash);
            writer.finish(&read.document, &facts)
        })?;
        report.count(read.document.kind, counts);
        report.warnings.extend(Problem::unclaimed(&origin, &read.document));
        Ok(())
    }

    /// The file is as it was, but was touched, or is back after it had vanished.
    fn touch(&self, known: &Known, looks: Looks) -> Result<(), IndexError> {
        if known.vanished.is_none() && known.looks == Some(looks) && !known.is_fresh() {
            return Ok(());
        }
        self.write(|conn| {
            conn.prepare_cached(
                "UPDATE manifests SET size = ?2, modified = ?3, seen = ?4, vanished = NULL WHERE id = ?1",
            )?
            .execute(params![known.id, looks.size, looks.modified, now()])?;
            Ok(())
        })
    }

    pub(in crate::index) fn drop_vanished(
        &self,
        source: i64,
        gone: &BTreeSet<i64>,
        options: &Options,
        report: &mut Report,
    ) -> Result<(), IndexError> {
        let all: Vec<i64> = gone.iter().copied().collect();
        for some in all.chunks(AT_ONCE) {
            let (kept, dropped) = self.write(|conn| {
                let (mut kept, mut dropped) = (0, 0);
                for id in some {
                    match self.vanishes(conn, source, *id, options)? {
                        None => {}
                        Some(true) => dropped += 1,
                        Some(false) => kept += 1,
                    }
                }
                Ok((kept, dropped))
            })?;
            report.vanished += kept;
            report.dropped += dropped;
        }
        self.write(|conn| {
            conn.prepare_cached("UPDATE sources SET seen = ?2 WHERE id = ?1")?.execute([source, now()])?;
            Ok(())
        })
    }

    /// Notes since when a document is gone, or forgets it; true: it is forgotten. `None`: another process has refreshed the
    /// same source meanwhile.
    fn vanishes(
        &self,
        conn: &Connection,
        source: i64,
        id: i64,
        options: &Options,
    ) -> Result<Option<bool>, IndexError> {
        let since: Option<Option<i64>> = conn
            .prepare_cached("SELECT vanished FROM manifests WHERE id = ?1 AND source = ?2")?
            .query_row(params![id, source], |row| row.get(0))
            .optional()?;
        let Some(since) = since else { return Ok(None) };
        if is_over(since, options) {
            writer::remove(conn, &self.names.load(), id)?;
            return Ok(Some(true));
        }
        if since.is_none() {
            conn.prepare_cached("UPDATE manifests SET vanished = ?2 WHERE id = ?1")?
                .execute(params![id, now()])?;
        }
        Ok(Some(false))
    }
}

impl Report {
    pub(in crate::index) fn count(&mut self, kind: DocumentKind, counts: writer::Counts) {
        match kind {
            DocumentKind::Collection | DocumentKind::Other => self.skipped += 1,
            _ => self.manifests += 1,
        }
        self.canvases += u64::try_from(counts.canvases).unwrap_or(0);
        self.images += u64::try_from(counts.images).unwrap_or(0);
    }
}

/// Whether a document that is gone since then is to be forgotten; one that was there last time never is.
pub(in crate::index) fn is_over(since: Option<i64>, options: &Options) -> bool {
    let grace = i64::try_from(options.grace.as_secs()).unwrap_or(i64::MAX);
    since.is_some_and(|since| now().saturating_sub(since) >= grace)
}

pub(in crate::index) fn facts(source: i64, origin: &str, looks: Looks, hash: [u8; 32]) -> Facts {
    Facts {
        source,
        origin: origin.to_owned(),
        size: Some(looks.size),
        modified: Some(looks.modified),
        hash: Some(hash),
        seen: now(),
        ..Facts::default()
    }
}

/// A file as the index knows it.
struct Known {
    id: i64,
    looks: Option<Looks>,
    hash: Option<[u8; 32]>,
    seen: i64,
    vanished: Option<i64>,
}

impl Known {
    /// How the file looks now, if its content is what it was.
    fn unchanged(&self, file: &Path) -> Option<Looks> {
        let looks = Looks::of(file).ok()?;
        let same = self.looks == Some(looks) && !self.is_fresh();
        let size = self.looks.map(|looks| looks.size);
        let same = same
            || (size == Some(looks.size) && self.hash.is_some() && directory::hash(file).ok() == self.hash);
        same.then_some(looks)
    }

    /// Read so soon after it was written that a second change may bear the same time.
    fn is_fresh(&self) -> bool {
        self.looks.is_some_and(|looks| looks.modified / 1_000_000_000 >= self.seen - 2)
    }
}

fn known_file(conn: &Connection, source: i64, origin: &str) -> rusqlite::Result<Option<Known>> {
    conn.prepare_cached(
        "SELECT id, size, modified, hash, seen, vanished FROM manifests WHERE source = ?1 AND origin = ?2",
    )?
    .query_row(params![source, origin], |row| {
        let (size, modified): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
        let looks = size.zip(modified).map(|(size, modified)| Looks { size, modified });
        Ok(Known { id: row.get(0)?, looks, hash: row.get(3)?, seen: row.get(4)?, vanished: row.get(5)? })
    })
    .optional()
}
