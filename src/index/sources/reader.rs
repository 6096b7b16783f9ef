//! Reads one source and emits its documents as events: for a build, for a refresh, and for a path that changed.

use std::path::Path;

use crate::config::settings::{SourceKind, SourceSettings};
use crate::index::Index;
use crate::index::sources::directory;
use crate::index::sources::event::{EventCallback, KnownUrl, SourceEvent};
use crate::index::sources::problem::SourceProblem;
use crate::index::sources::{RefreshOptions, crawler, is_over, stored};
use crate::index::store::error::IndexError;

/// Canvases handed over at once: memory stays bounded by these.
const BATCH: usize = 256;

/// Reads sources.
#[derive(Clone, Copy)]
pub(crate) struct DocumentReader<'a> {
    pub(crate) index: &'a Index,
    pub(crate) options: &'a RefreshOptions,
    /// Files that are as the index knows them are not read.
    pub(crate) passes_known: bool,
}

impl DocumentReader<'_> {
    /// Reads a source from its beginning to its end. Blocks for as long as that takes; never call it in the runtime that
    /// fetches.
    pub(crate) fn read(self, source: &SourceSettings, each: EventCallback<'_>) -> Result<(), IndexError> {
        let location = stored(source).1;
        let SourceKind::Url(url) = source.kind() else {
            return self.read_path(&location, Path::new(&location), each);
        };
        let Some(mut walk) = crawler::walk(self.index, source, url, self.options) else {
            return each(SourceEvent::Incomplete(Some(SourceProblem::not_fetched(url)))).map(drop);
        };
        while let Some(event) = walk.blocking_recv() {
            if matches!(event, SourceEvent::End) || !each(event)? {
                return Ok(());
            }
        }
        // The walk was broken off, so documents that it did not meet may exist.
        each(SourceEvent::Incomplete(None)).map(drop)
    }

    /// Reads the files at a path or below it, as those of the source at `location`.
    pub(crate) fn read_path(
        self,
        location: &str,
        path: &Path,
        each: EventCallback<'_>,
    ) -> Result<(), IndexError> {
        for found in directory::find(path) {
            let goes_on = match found {
                directory::CrawlEvent::Document(file) => self.read_file(location, &file, each)?,
                directory::CrawlEvent::PassedOver => each(SourceEvent::PassedOver)?,
                directory::CrawlEvent::Problem(problem) => each(SourceEvent::Incomplete(Some(problem)))?,
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    fn read_file(self, location: &str, file: &Path, each: EventCallback<'_>) -> Result<bool, IndexError> {
        let origin = directory::origin(file);
        let find = || self.index.read(|conn| KnownUrl::find(conn, location, &origin));
        let known = if self.passes_known { find()? } else { None };
        if let Some(looks) = known.and_then(|known| known.unchanged(file)) {
            return each(SourceEvent::Unchanged(Box::new(looks)));
        }
        let (mut batch, mut handed, mut images) = (Vec::new(), Ok(true), 0);
        let read = directory::read(file, &self.index.image_bases(), &mut |canvas| {
            images += canvas.images.len();
            batch.push(canvas);
            if batch.len() >= BATCH && matches!(handed, Ok(true)) {
                handed = each(SourceEvent::Canvases(std::mem::take(&mut batch)));
            }
        });
        if !handed? {
            return Ok(false);
        }
        // A mirror stores the error of a service, or its empty manifest during a fault, over the good one.
        if images == 0
            && read.is_ok()
            && let Some(known) = find()?.filter(|known| known.images > 0)
            && !is_over(known.facts.vanished, self.options)
        {
            let problem = SourceProblem::emptied(&origin, known.images);
            return each(SourceEvent::Poorer(origin.into_owned(), problem));
        }
        match read {
            Ok(read) if each(SourceEvent::Canvases(batch))? => each(SourceEvent::Document(Box::new(read))),
            Ok(_) => Ok(false),
            Err(problem) => each(SourceEvent::Failed(origin.into_owned(), problem)),
        }
    }
}
