//! The work behind `iiif-mender index …`: results on `out`, progress and problems on stderr.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::history::{Entry, Filter, Page};
use super::sources::{Options, Report};
use super::{Index, IndexError, Owner};
use crate::config::settings::{self, Source};
use crate::iiif::image_url::{identifier_in_image_url, identifier_in_service_id};
use crate::iiif::{CanvasUrl, Identifier};

/// What to do with the index.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum IndexCommand {
    /// Build the index anew from the configured and the added sources; lookups go on meanwhile
    Build {
        /// Sources to add: directories, files
        #[arg(value_name = "SOURCE")]
        sources: Vec<String>,
    },
    /// Add sources and read them
    Add {
        /// Directories, files
        #[arg(value_name = "SOURCE", required = true)]
        sources: Vec<String>,
    },
    /// Read what changed in the sources
    Refresh {
        /// Only these sources (default: all)
        #[arg(value_name = "SOURCE")]
        sources: Vec<String>,
    },
    /// Tell which canvases own an image; exit 1 when nobody does
    Lookup {
        /// Identifier, image URL, info.json URL or canvas URL
        #[arg(value_name = "IMAGE")]
        image: String,
    },
    /// List the manifests in the index
    List,
    /// Count what the index holds
    Stats,
    /// Write every image with its canvas and manifest, one a line
    Export,
    /// Tell which images were healed, when and how, newest first
    History {
        /// So many heals at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
}

/// How a command ended; its number is the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Well = 0,
    /// Something is broken or unknown.
    Broken = 1,
    /// Wrong usage or configuration.
    Usage = 2,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The index said no.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Results could not be written.
    #[error("cannot write the results: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// The exit status: 2 where the configuration names a wrong file, else 1.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Index(IndexError::Foreign { .. } | IndexError::Newer { .. }) => Exit::Usage,
            _ => Exit::Broken,
        }
    }
}

/// Carries out one command; `json`: results for machines.
pub fn run(
    command: &IndexCommand,
    settings: &settings::Index,
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, CommandError> {
    if let IndexCommand::Build { sources } = command {
        return build(settings, &parse_all(sources), json, out);
    }
    let index = Index::open(&settings.path, settings.cache)?;
    match command {
        IndexCommand::Build { .. } => Ok(Exit::Well),
        IndexCommand::Add { sources } => {
            let sources = parse_all(sources);
            index.add(&sources)?;
            refresh(&index, &sources, json, out)
        }
        IndexCommand::Refresh { sources } if sources.is_empty() => {
            refresh(&index, &index.sources(&settings.sources)?, json, out)
        }
        IndexCommand::Refresh { sources } => refresh(&index, &parse_all(sources), json, out),
        IndexCommand::Lookup { image } => lookup(&index, image, json, out),
        IndexCommand::List => list(&index, json, out),
        IndexCommand::Stats => stats(&index, json, out),
        IndexCommand::Export => export(&index, json, out),
        IndexCommand::History { limit } => history(&index, *limit, json, out),
    }
}

fn build(
    settings: &settings::Index,
    more: &[Source],
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, CommandError> {
    let build = |index: &Index, out: &mut dyn Write| {
        index.add(more)?;
        told(json, out, |progress| index.build(&settings.sources, &Options::default(), progress))
    };
    let (index, aside) = Index::open_for_build(&settings.path, settings.cache)?;
    if let Some(aside) = aside {
        tell_aside(&aside);
        return build(&index, out);
    }
    match build(&index, out) {
        // Only now was the damaged page read: the cure must be one all the same.
        Err(CommandError::Index(IndexError::Damaged { .. })) => {
            let (index, aside) = Index::start_over(&settings.path, settings.cache)?;
            tell_aside(&aside);
            build(&index, out)
        }
        other => other,
    }
}

fn tell_aside(aside: &Path) {
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "the old index was damaged; it is kept as {}", aside.display());
}

fn refresh(index: &Index, sources: &[Source], json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    told(json, out, |progress| index.refresh(sources, &Options::default(), progress))
}

/// Does the work with a progress line, then tells what was done.
fn told(
    json: bool,
    out: &mut dyn Write,
    work: impl FnOnce(super::sources::Progress<'_>) -> Result<Report, IndexError>,
) -> Result<Exit, CommandError> {
    let started = Instant::now();
    let bar = spinner();
    let report = work(&mut |report, path| {
        bar.set_message(format!(
            "{} files, {} images  {}",
            HumanCount(report.files),
            HumanCount(report.images),
            path.file_name().unwrap_or(path.as_os_str()).display()
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
    tell_problems(&report)?;
    Ok(if report.problems.is_empty() { Exit::Well } else { Exit::Broken })
}

fn write_report(out: &mut dyn Write, report: &Report, took: Duration) -> io::Result<()> {
    let lines = [
        ("files", report.files, true),
        ("manifests", report.manifests, true),
        ("canvases", report.canvases, true),
        ("images", report.images, true),
        ("unchanged", report.unchanged, false),
        ("skipped", report.skipped, false),
        ("vanished", report.vanished, false),
        ("dropped", report.dropped, false),
        ("problems", u64::try_from(report.problems.len()).unwrap_or(u64::MAX), false),
    ];
    for (name, count, always) in lines {
        if always || count > 0 {
            writeln!(out, "{name:<10} {:>13}", HumanCount(count).to_string())?;
        }
    }
    let took = if took < Duration::from_mins(1) {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        HumanDuration(took).to_string()
    };
    writeln!(out, "{:<10} {took:>13}", "took")
}

fn tell_problems(report: &Report) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    for problem in &report.problems {
        let place = match (problem.line, problem.column) {
            (Some(line), Some(column)) => format!(":{line}:{column}"),
            _ => String::new(),
        };
        writeln!(stderr, "{}{place}: {}\n  {}", problem.path, problem.message, problem.hint)?;
    }
    Ok(())
}

fn lookup(index: &Index, image: &str, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let owners = find(index, image)?;
    if json {
        write_json(out, &owners)?;
    } else {
        for owner in &owners {
            writeln!(out, "canvas    {}\nmanifest  {}", owner.canvas, owner.manifest)?;
            if let Some(label) = &owner.label {
                writeln!(out, "label     {label}")?;
            }
            writeln!(out)?;
        }
    }
    if owners.is_empty() {
        let _ = writeln!(io::stderr().lock(), "no manifest in the index names {image}");
        return Ok(Exit::Broken);
    }
    Ok(Exit::Well)
}

/// Reads what a person may paste: a canvas, an image or info.json URL, or the identifier alone.
fn find(index: &Index, image: &str) -> Result<Vec<Owner>, IndexError> {
    let image = image.trim();
    let canvases = index.canvas(image.split('#').next().unwrap_or(image))?;
    if !canvases.is_empty() {
        return Ok(canvases);
    }
    let identifier = identifier_in_image_url(image)
        .or_else(|| identifier_in_service_id(image))
        .unwrap_or_else(|| Identifier::new(image));
    // An identifier may be given as it stands in a path or as it is kept.
    for key in [identifier.key(), Cow::Borrowed(image)] {
        let owners = index.owners(&key)?;
        if !owners.is_empty() {
            return Ok(owners.to_vec());
        }
    }
    Ok(Vec::new())
}

fn list(index: &Index, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let all = index.list()?;
    if json {
        write_json(out, &all)?;
        return Ok(Exit::Well);
    }
    writeln!(out, "{:>10} {:>10}  manifest", "canvases", "images")?;
    for listed in &all {
        let (canvases, images) = (HumanCount(listed.canvases), HumanCount(listed.images));
        let label = listed.label.as_deref().map(|label| format!("  {label}")).unwrap_or_default();
        let gone = if listed.vanished.is_some() { "  (gone from its source)" } else { "" };
        writeln!(
            out,
            "{:>10} {:>10}  {}{label}{gone}",
            canvases.to_string(),
            images.to_string(),
            listed.uri
        )?;
    }
    Ok(Exit::Well)
}

fn stats(index: &Index, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let stats = index.stats()?;
    if json {
        write_json(out, &stats)?;
        return Ok(Exit::Well);
    }
    let counts = [
        ("manifests", stats.manifests),
        ("canvases", stats.canvases),
        ("images", stats.images),
        ("files", stats.files),
        ("sources", stats.sources),
        ("vanished", stats.vanished),
    ];
    for (name, count) in counts {
        writeln!(out, "{name:<10} {:>13}", HumanCount(count).to_string())?;
    }
    writeln!(out, "{:<10} {:>13}  {}", "size", HumanBytes(stats.bytes).to_string(), stats.path.display())?;
    Ok(Exit::Well)
}

fn export(index: &Index, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let mut failed = None;
    index.export(&mut |exported| {
        let written = if json {
            write_json_line(out, &exported)
        } else {
            writeln!(out, "{}\t{}\t{}", exported.image, exported.canvas, exported.manifest)
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    match failed {
        // `| head` has seen enough.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Well),
        Some(error) => Err(error.into()),
        None => Ok(Exit::Well),
    }
}

fn history(index: &Index, limit: u32, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let entries = index.history(&Filter::default(), Page { limit, ..Page::default() })?;
    if json {
        write_json(out, &entries)?;
        return Ok(Exit::Well);
    }
    for Entry { heal, .. } in &entries {
        let ended = UNIX_EPOCH + Duration::from_millis(u64::try_from(heal.at).unwrap_or(0));
        writeln!(
            out,
            "{}  {:<7}  {:<8}  {:<6}  {:>7} ms  {:>3} waiting  {}  {}",
            humantime::format_rfc3339_seconds(ended),
            heal.verdict,
            heal.rung.as_deref().unwrap_or("-"),
            heal.lane,
            heal.duration_ms,
            heal.waiting,
            heal.identifier,
            heal.canvas.as_deref().unwrap_or("-"),
        )?;
    }
    Ok(Exit::Well)
}

fn parse_all(sources: &[String]) -> Vec<Source> {
    sources
        .iter()
        .map(|source| match CanvasUrl::parse(source) {
            Some(_) => Source::Url(source.clone()),
            None => Source::Path(PathBuf::from(source)),
        })
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
