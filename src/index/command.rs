//! The work behind `iiif-mender index …`: results on `out`, progress and problems on stderr.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::cluster::Cluster;
use crate::config::Settings;
use crate::config::settings::{IndexStore, SourceSettings};
use crate::iiif::CanvasUrl;
use crate::iiif::canvas::uri;
use crate::index::learn::file_urls::{self, RequestPace};
use crate::index::shared::publisher;
use crate::index::shared::publisher::PublishError;
use crate::index::sources::build::Build;
use crate::index::sources::problem::SourceProblem;
use crate::index::sources::refresh::Refresh;
use crate::index::sources::{RefreshOptions, RefreshReport, is_same, remove};
use crate::index::{Index, IndexError, sources};
use crate::observe::{Metrics, counted};
use crate::upstream::TlsError;
use crate::upstream::fetch::FetcherFactory;

mod show;

/// Command on the index.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum IndexCommand {
    /// Build the index anew from the configured and the added sources; lookups go on meanwhile
    Build {
        /// Sources to add: directories, files, URLs of manifests, collections or streams of changes
        #[arg(value_name = "SOURCE")]
        sources: Vec<String>,
    },
    /// Add sources and read them
    Add {
        /// Directories, files, URLs of manifests, collections or streams of changes
        #[arg(value_name = "SOURCE", required = true)]
        sources: Vec<String>,
    },
    /// Read the documents of the sources that changed
    Refresh {
        /// Only these sources (default: all)
        #[arg(value_name = "SOURCE")]
        sources: Vec<String>,
    },
    /// Forget sources that were added, with all that is known from them
    Remove {
        /// Directories, files, URLs
        #[arg(value_name = "SOURCE", required = true)]
        sources: Vec<String>,
    },
    /// Request the file URLs of identifiers from the canvas service, while it knows them
    LearnFiles {
        /// Requests at once at most
        #[arg(long, default_value_t = 2)]
        concurrency: usize,
        /// Requests in a second at most; 0: as many as come
        #[arg(long, default_value_t = 10)]
        rate: u32,
    },
    /// List the canvases that own an image; exit 1 if there is none
    Lookup {
        /// Identifier, image URL, info.json URL or canvas URL
        #[arg(value_name = "IMAGE")]
        image: String,
    },
    /// List the manifests in the index
    List,
    /// Count documents, canvases and images of the index
    Stats,
    /// Write every image with its canvas and manifest, one a line
    Export,
    /// List the last heals, newest first: image, time, rung and result
    History {
        /// Most heals to list
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
}

/// Result of a command; its number is the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Well = 0,
    /// Broken or unknown.
    Broken = 1,
    /// Wrong usage or configuration.
    Usage = 2,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Reasons why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Error of the index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Error of publishing to the other nodes.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// TLS settings that keep documents from being fetched.
    #[error(transparent)]
    Upstream(#[from] TlsError),
    /// Results could not be written.
    #[error("cannot write the results: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// The exit status: 2 where the configuration names a wrong file, else 1.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Index(IndexError::Foreign { .. } | IndexError::Newer { .. }) | Self::Upstream(_) => {
                Exit::Usage
            }
            _ => Exit::Broken,
        }
    }
}

/// Carries out one command; `json`: results for machines.
pub fn run(
    command: &IndexCommand,
    settings: &Settings,
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, CommandError> {
    let open = || Index::open(&settings.index.path, settings.index.cache);
    match command {
        IndexCommand::Lookup { image } => {
            return show::lookup(&open()?.with_names(settings), image, json, out);
        }
        IndexCommand::List => return show::list(&open()?, json, out),
        IndexCommand::Stats => return show::stats(&open()?, json, out),
        IndexCommand::Export => return show::export(&open()?, json, out),
        IndexCommand::History { limit } => return show::history(&open()?, *limit, json, out),
        _ => {}
    }
    // Only commands that may fetch documents start a runtime.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = work(command, settings, &runtime, json, out);
    let done = done.and_then(|exit| match settings.index.store {
        IndexStore::Sqlite => Ok(exit),
        IndexStore::Redis => runtime.block_on(publish(settings)).map(|()| exit).map_err(CommandError::from),
    });
    // Name resolution cannot be cancelled.
    runtime.shutdown_background();
    done
}

fn work(
    command: &IndexCommand,
    settings: &Settings,
    runtime: &Runtime,
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, CommandError> {
    let (index, aside) = match command {
        IndexCommand::Build { .. } => Index::open_for_build(&settings.index.path, settings.index.cache)?,
        _ => (Index::open(&settings.index.path, settings.index.cache)?, None),
    };
    if let Some(aside) = aside {
        tell_aside(&aside);
    }
    let web = FetcherFactory::new(Arc::new(settings.clone()))?;
    let fit_out = |index: Index| index.with_names(settings).with_web(web.clone(), runtime.handle().clone());
    let index = fit_out(index);
    let configured = &settings.index.sources;
    let options = RefreshOptions { grace: settings.index.grace };
    match command {
        IndexCommand::Build { sources } => {
            let mut build = |index: &Index| {
                sources::add(index, &named(sources, configured))?;
                with_progress(json, out, |progress| Build::new(index, &options).run(configured, progress))
            };
            match build(&index) {
                // The damaged page was read only now: recover as at the start.
                Err(CommandError::Index(IndexError::Damaged { .. })) => {
                    let (index, aside) = Index::start_over(&settings.index.path, settings.index.cache)?;
                    tell_aside(&aside);
                    build(&fit_out(index))
                }
                other => other,
            }
        }
        IndexCommand::Add { sources } => {
            let sources = named(sources, configured);
            sources::add(&index, &sources)?;
            with_progress(json, out, |progress| Refresh::new(&index, &options).run(&sources, progress))
        }
        IndexCommand::Refresh { sources } => {
            let sources =
                if sources.is_empty() { index.sources(configured)? } else { named(sources, configured) };
            with_progress(json, out, |progress| Refresh::new(&index, &options).run(&sources, progress))
        }
        IndexCommand::Remove { sources } => {
            remove(&index, &named(sources, configured), configured, json, out)
        }
        IndexCommand::LearnFiles { concurrency, rate } => {
            learn_files(&index, RequestPace { concurrency: *concurrency, rate: *rate }, json, out)
        }
        _ => Ok(Exit::Usage),
    }
}

/// Publishes the changes to the other nodes.
async fn publish(settings: &Settings) -> Result<(), PublishError> {
    let index = Arc::new(Index::open(&settings.index.path, settings.index.cache)?);
    let cluster = Cluster::start(&settings.cluster, &Arc::new(Metrics::new())).ok_or(PublishError::Alone)?;
    let mut joined = cluster.changes();
    let patience = settings.cluster.connect_timeout * 3;
    let _ = tokio::time::timeout(patience, joined.wait_for(|joined| *joined)).await;
    publisher::publish(&index, &cluster, settings.cluster.edition_max).await.map(drop)
}

fn tell_aside(aside: &Path) {
    let _ = writeln!(io::stderr(), "the old index was damaged; it is kept as {}", aside.display());
}

fn remove(
    index: &Index,
    sources: &[SourceSettings],
    configured: &[SourceSettings],
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, CommandError> {
    let bar = spinner();
    let mut all = Vec::new();
    for source in sources {
        all.push(remove::remove(index, source, configured, &mut |documents| {
            bar.set_message(format!("{} forgotten", counted(documents, "document")));
        })?);
    }
    bar.finish_and_clear();
    for removed in &all {
        if !removed.is_known {
            writeln!(io::stderr(), "{} is no source of the index: name it as it was added", removed.source)?;
        }
        if removed.is_configured {
            let text = "stands in the configuration and is read again from there: take it out there, or give it \
                        enabled = false";
            writeln!(io::stderr(), "{} {text}", removed.source)?;
        }
    }
    if json {
        write_json(out, &all)?;
    } else {
        for removed in all.iter().filter(|removed| removed.is_known) {
            writeln!(out, "{:>23}  {}", counted(removed.documents, "document"), removed.source)?;
        }
    }
    let is_well = all.iter().all(|removed| removed.is_known && !removed.is_configured);
    Ok(if is_well { Exit::Well } else { Exit::Broken })
}

fn learn_files(
    index: &Index,
    pace: RequestPace,
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, CommandError> {
    let bar = spinner();
    let done = file_urls::learn_files(index, pace, &mut |done| {
        bar.set_message(format!("{} asked, {} learned", HumanCount(done.asked), HumanCount(done.learned)));
        bar.inc(1);
    });
    bar.finish_and_clear();
    let done = done?;
    if json {
        write_json(out, &done)?;
    } else {
        let counts = [
            ("asked", done.asked),
            ("learned", done.learned),
            ("expired", done.expired),
            ("silent", done.silent),
            ("wrong", done.wrong),
        ];
        for (name, count) in counts {
            writeln!(out, "{name:<10} {:>13}", HumanCount(count).to_string())?;
        }
    }
    tell_problems(&done.problems)?;
    Ok(if done.problems.is_empty() { Exit::Well } else { Exit::Broken })
}

/// Does the work with a progress line, then prints the report.
fn with_progress(
    json: bool,
    out: &mut dyn Write,
    work: impl FnOnce(crate::index::sources::ProgressCallback<'_>) -> Result<RefreshReport, IndexError>,
) -> Result<Exit, CommandError> {
    let started = Instant::now();
    let bar = spinner();
    let report = work(&mut |report, name| {
        bar.set_message(format!(
            "{}, {}  {}",
            counted(report.files, "document"),
            counted(report.images, "image"),
            name.rsplit('/').find(|part| !part.is_empty()).unwrap_or(name)
        ));
        bar.inc(1);
    });
    bar.finish_and_clear();
    let report = report?;
    if json {
        write_json(out, &report)?;
    } else {
        write_report(out, &report, started.elapsed())?;
    }
    tell_problems(&report.problems)?;
    tell_problems(&report.warnings)?;
    Ok(if report.problems.is_empty() { Exit::Well } else { Exit::Broken })
}

fn write_report(out: &mut dyn Write, report: &RefreshReport, took: Duration) -> io::Result<()> {
    let lines = [
        ("documents", report.files, true),
        ("manifests", report.manifests, true),
        ("canvases", report.canvases, true),
        ("images", report.images, true),
        ("unchanged", report.unchanged, false),
        ("skipped", report.skipped, false),
        ("passed over", report.passed_over, false),
        ("vanished", report.vanished, false),
        ("dropped", report.dropped, false),
        ("problems", u64::try_from(report.problems.len()).unwrap_or(u64::MAX), false),
        ("warnings", u64::try_from(report.warnings.len()).unwrap_or(u64::MAX), false),
    ];
    for (name, count, always) in lines {
        if always || count > 0 {
            writeln!(out, "{name:<11} {:>12}", HumanCount(count).to_string())?;
        }
    }
    let took = if took < Duration::from_mins(1) {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        HumanDuration(took).to_string()
    };
    writeln!(out, "{:<10} {took:>13}", "took")
}

fn tell_problems(problems: &[SourceProblem]) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    for problem in problems {
        let place = match (problem.line, problem.column) {
            (Some(line), Some(column)) => format!(":{line}:{column}"),
            _ => String::new(),
        };
        writeln!(stderr, "{}{place}: {}\n  {}", problem.path, problem.message, problem.hint)?;
    }
    Ok(())
}

/// Finds sources by their names; configured ones with their settings.
fn named(names: &[String], configured: &[SourceSettings]) -> Vec<SourceSettings> {
    let source = |name: &String| match uri(name).filter(|url| CanvasUrl::parse(url).is_some()) {
        Some(url) => SourceSettings::url(url),
        None => SourceSettings::path(name),
    };
    let all = names.iter().map(source);
    all.map(|source| configured.iter().find(|other| is_same(other, &source)).cloned().unwrap_or(source))
        .collect()
}

fn spinner() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {per_sec} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

fn write_json_line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}
