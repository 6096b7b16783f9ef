//! Learns the file URLs of UUIDs: while an identifier is alive, the canvas service returns its file URL.
//!
//! A run can be stopped at any time: learned URLs are kept, and the next run asks for the rest only.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use http::HeaderMap;
use rusqlite::params;
use tokio::sync::Mutex;
use tokio::time::Interval;
use uuid::Uuid;

use crate::config::Settings;
use crate::config::settings::RouteKind;
use crate::iiif::identifier::uuid_of_file_url;
use crate::iiif::registration::{self, Registration};
use crate::index::Index;
use crate::index::sources::http_client::pace;
use crate::index::sources::problem::SourceProblem;
use crate::index::store::error::IndexError;
use crate::index::store::{keys, writer};
use crate::upstream::fetch::{FetchRequest, Fetcher};

/// Canvases read at once, and so about the number of identifiers between two commits.
const CANVASES: i64 = 200;

/// Answers in a row without a file URL after which `/resources` counts as closed.
const SILENT: u64 = 20;

/// Limits on the requests to the canvas service.
#[derive(Debug, Clone, Copy)]
pub struct RequestPace {
    /// Requests at once.
    pub concurrency: usize,
    /// Requests in a second; zero: as many as come.
    pub rate: u32,
}

/// Report of learned files.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct LearnFilesReport {
    /// Requested identifiers.
    pub asked: u64,
    /// Files learned.
    pub learned: u64,
    /// Identifiers that the canvas service has forgotten: their files are known once they are healed.
    pub expired: u64,
    /// Answers without a statement.
    pub silent: u64,
    /// Answers that cannot be true, because the UUID is not made of their URL. They are dropped.
    pub wrong: u64,
    /// Problems on the way.
    pub problems: Vec<SourceProblem>,
}

/// Requests the file of every UUID without a known one from the canvas service. Blocks for as long as that takes; never
/// call it in the runtime that fetches.
pub fn learn_files(
    index: &Index,
    manners: RequestPace,
    progress: &mut dyn FnMut(&LearnFilesReport),
) -> Result<LearnFilesReport, IndexError> {
    let mut done = LearnFilesReport::default();
    let Some((web, handle)) = index.web.load_full().as_deref().cloned() else {
        done.problems.push(SourceProblem::not_fetched("/resources"));
        return Ok(done);
    };
    let bases = bases(&web.settings());
    if bases.is_empty() {
        let hint = "add a route with kind = \"presentation\"";
        done.problems.push(SourceProblem::answer(
            "/resources",
            "no route leads to a canvas service".to_owned(),
            hint,
        ));
        return Ok(done);
    }
    let fetcher = web.fetcher();
    let pace = handle.block_on(async { pace(manners.rate) });
    let (mut after, mut silent) = (0, 0);
    while let Some((last, uuids)) = without_file(index, after)? {
        after = last;
        let asking = futures_util::stream::iter(uuids)
            .map(|uuid| ask(&fetcher, pace.as_ref(), &bases, uuid))
            .buffer_unordered(manners.concurrency.max(1));
        let answers: Vec<(Uuid, Registration)> = handle.block_on(asking.collect());
        silent = receive(index, answers, silent, &mut done)?;
        progress(&done);
        if silent >= SILENT {
            let message = format!("{SILENT} answers in a row said nothing");
            let hint =
                "/resources seems to be closed, or the canvas service is not well; healing works without";
            done.problems.push(SourceProblem::answer(&bases[0], message, hint));
            break;
        }
    }
    Ok(done)
}

/// UUIDs without a known file among the canvases after `after`, and the last canvas read; `None`: there are no more
/// canvases.
fn without_file(index: &Index, after: i64) -> Result<Option<(i64, BTreeSet<Uuid>)>, IndexError> {
    let found = index.read(|conn| {
        let mut select =
            conn.prepare_cached("SELECT id, keys FROM canvases WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let mut rows = select.query(params![after, CANVASES])?;
        let (mut last, mut uuids) = (None, BTreeSet::new());
        while let Some(row) = rows.next()? {
            last = Some(row.get(0)?);
            let keys = writer::read_keys(row.get_ref(1)?.as_str()?);
            uuids.extend(keys.iter().filter_map(|key| keys::uuid_of_key(key)).map(|(uuid, _)| uuid));
        }
        Ok(last.map(|last| (last, uuids)))
    })?;
    let Some((last, uuids)) = found else { return Ok(None) };
    let mut without = BTreeSet::new();
    for uuid in uuids {
        if index.file_url(uuid)?.is_none() {
            without.insert(uuid);
        }
    }
    Ok(Some((last, without)))
}

/// Takes in some answers; returns how many in a row had no statement.
fn receive(
    index: &Index,
    answers: Vec<(Uuid, Registration)>,
    mut silent: u64,
    done: &mut LearnFilesReport,
) -> Result<u64, IndexError> {
    let mut good: Vec<(Uuid, String)> = Vec::new();
    for (uuid, said) in answers {
        done.asked += 1;
        match said {
            Registration::Nothing => {
                done.silent += 1;
                silent += 1;
                continue;
            }
            Registration::Expired => done.expired += 1,
            // SECURITY: an answer is believed only if the identifier is made of it.
            Registration::Alive(url) if uuid_of_file_url(&url) == uuid => good.push((uuid, url)),
            Registration::Alive(_) => done.wrong += 1,
        }
        silent = 0;
    }
    done.learned += u64::try_from(good.len()).unwrap_or(0);
    if !good.is_empty() {
        index.learn_file_urls(&good)?;
    }
    Ok(silent)
}

/// URLs of `resources/`, for each canvas service.
fn bases(settings: &Settings) -> Vec<String> {
    let routes = settings.routes.iter().filter(|route| route.kind == RouteKind::Presentation);
    routes
        .map(|route| {
            let url = &route.upstream;
            let slash = if url.path.ends_with('/') { "" } else { "/" };
            format!("{}://{}{}{slash}resources/", url.scheme, url.authority, url.path)
        })
        .collect()
}

/// Asks one canvas service after the other, until one knows the file.
async fn ask(
    fetcher: &Fetcher,
    pace: Option<&Mutex<Interval>>,
    bases: &[String],
    uuid: Uuid,
) -> (Uuid, Registration) {
    let mut said = Registration::Nothing;
    for base in bases {
        if let Some(pace) = pace {
            pace.lock().await.tick().await;
        }
        let url = format!("{base}{uuid}");
        let ask = FetchRequest {
            url: &url,
            // UPSTREAM: asking for JSON gives 406.
            accept: "text/plain, */*;q=0.5",
            headers: &HeaderMap::new(),
            home: &url,
            validators: (None, None),
            may_follow: &|_| false,
        };
        let Ok(answer) = fetcher.fetch(&ask).await else { continue };
        let Ok(body) = answer.plain() else { continue };
        match registration::read(uuid, answer.status.as_u16(), &body) {
            Registration::Nothing => {}
            Registration::Expired => said = Registration::Expired,
            alive @ Registration::Alive(_) => return (uuid, alive),
        }
    }
    (uuid, said)
}
