//! Writes what a walk through a URL source found, in place.

use std::collections::BTreeSet;

use rusqlite::params;

use crate::config::settings::Source;
use crate::index::sources::crawler::Found;
use crate::index::sources::http_client::{Reading, Validators};
use crate::index::sources::problem::Problem;
use crate::index::sources::{Options, Progress, Report, http_client, stored};
use crate::index::store::error::IndexError;
use crate::index::store::writer::{Facts, Writer};
use crate::index::store::{rows, writer};
use crate::index::{Index, now};
use crate::upstream::fetch::without_query;

/// One look at a source, as far as it got.
struct Look {
    /// The source's location and row.
    location: String,
    row: i64,
    /// Documents that were not met yet.
    unseen: BTreeSet<i64>,
    /// Documents of which the source says that they are no more.
    gone: BTreeSet<i64>,
    only_changes: bool,
    is_whole: bool,
    has_ended: bool,
}

impl Index {
    /// Fetches what changed in a URL source. Blocks for as long as that takes; never call it in the runtime
    /// that fetches.
    pub(in crate::index) fn refresh_url(
        &self,
        source: &Source,
        url: &str,
        options: &Options,
        report: &mut Report,
        progress: Progress<'_>,
    ) -> Result<(), IndexError> {
        let Some(mut found) = self.crawl(source, url, options) else {
            report.problems.push(Problem::not_fetched(url));
            return Ok(());
        };
        let (kind, location) = stored(source);
        let row = self.write(|conn| Ok(writer::source_row(conn, kind, &location, false)?))?;
        let mut look = Look {
            unseen: self.read(|conn| rows::ids_of_source(conn, row))?,
            gone: BTreeSet::new(),
            location,
            row,
            only_changes: false,
            is_whole: true,
            has_ended: false,
        };
        while let Some(one) = found.blocking_recv() {
            self.take(one, &mut look, report, progress)?;
        }
        let Look { unseen, mut gone, only_changes, is_whole, has_ended, .. } = look;
        if only_changes {
            // What vanished earlier is looked at again, so that the grace can end.
            gone.extend(self.read(|conn| rows::vanished_of_source(conn, row))?.intersection(&unseen));
        } else {
            gone = unseen;
        }
        if has_ended && is_whole && !self.read(|conn| rows::has_images(conn, row))? {
            report.warnings.push(Problem::no_images(&without_query(url), 0));
        }
        if has_ended && is_whole { self.drop_vanished(row, &gone, options, report) } else { Ok(()) }
    }

    fn take(
        &self,
        found: Found,
        look: &mut Look,
        report: &mut Report,
        progress: Progress<'_>,
    ) -> Result<(), IndexError> {
        let id = |url: &str| -> Result<Option<http_client::Known>, IndexError> {
            self.read(|conn| http_client::known(conn, &look.location, url))
        };
        let url = match found {
            Found::OnlyChanges => {
                look.only_changes = true;
                return Ok(());
            }
            Found::End => {
                look.has_ended = true;
                return Ok(());
            }
            Found::Incomplete(problem) => {
                look.is_whole = false;
                report.problems.push(problem);
                return Ok(());
            }
            Found::Gone(url) => {
                look.gone.extend(id(&url)?.map(|known| known.id));
                return Ok(());
            }
            Found::Document(url, reading) => {
                let known = id(&url)?.map(|known| known.id);
                self.put(look.row, &url, &reading, report)?;
                known.map(|id| look.unseen.remove(&id));
                url
            }
            Found::Unchanged(url, validators) => {
                report.unchanged += 1;
                if let Some(known) = id(&url)? {
                    look.unseen.remove(&known.id);
                    self.still_there(&known, &validators)?;
                }
                url
            }
            Found::Poorer(url, problem) => {
                report.problems.push(problem);
                report.vanished += 1;
                if let Some(known) = id(&url)? {
                    look.unseen.remove(&known.id);
                    self.doubt(&known)?;
                }
                url
            }
            Found::Failed(url, problem) => {
                report.problems.push(problem);
                id(&url)?.map(|known| look.unseen.remove(&known.id));
                url
            }
        };
        report.files += 1;
        progress(report, &url);
        Ok(())
    }

    fn put(&self, row: i64, url: &str, reading: &Reading, report: &mut Report) -> Result<(), IndexError> {
        let counts = self.write(|conn| {
            let names = self.names.load();
            let mut writer = Writer::direct(conn, &names)?;
            for canvas in &reading.canvases {
                writer.canvas(canvas)?;
            }
            writer.finish(&reading.document, &facts(row, url, reading))
        })?;
        report.count(reading.document.kind, counts);
        report.warnings.extend(Problem::unclaimed(&without_query(url), &reading.document));
        Ok(())
    }

    /// The document is as it was; perhaps it is back, or has other validators.
    fn still_there(&self, known: &http_client::Known, validators: &Validators) -> Result<(), IndexError> {
        if known.vanished.is_none() && known.validators == *validators {
            return Ok(());
        }
        let Validators { etag, last_modified } = validators;
        self.write(|conn| {
            conn.prepare_cached(
                "UPDATE manifests SET etag = ?2, last_modified = ?3, seen = ?4, vanished = NULL WHERE id = ?1",
            )?
            .execute(params![known.id, etag, last_modified, now()])?;
            Ok(())
        })
    }

    /// The document lost images: if that lasts for the grace, it is believed.
    fn doubt(&self, known: &http_client::Known) -> Result<(), IndexError> {
        if known.vanished.is_some() {
            return Ok(());
        }
        self.write(|conn| {
            conn.prepare_cached("UPDATE manifests SET vanished = ?2 WHERE id = ?1")?
                .execute(params![known.id, now()])?;
            Ok(())
        })
    }
}

/// How a document looked where it was fetched.
pub(in crate::index) fn facts(source: i64, url: &str, reading: &Reading) -> Facts {
    Facts {
        source,
        origin: url.to_owned(),
        etag: reading.validators.etag.clone(),
        last_modified: reading.validators.last_modified.clone(),
        hash: Some(reading.hash),
        seen: now(),
        ..Facts::default()
    }
}
