//! The work behind `iiif-mender check` and `iiif-mender heal`: options, settings, exit status.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::foreign::ForeignFetcher;
use super::job::JobShare;
use super::journal::{self, Journal, JournalError};
use super::manifest_pages::ManifestsInWork;
use super::progress::RunProgress;
use super::read::{ExpectedCounts, SourceReader};
use super::remote::{RemoteHealer, RemoteHealerError};
use super::report::{self, ReportFormat, table};
use super::run::BatchRun;
use super::summary::Summary;
use super::worker::{CanvasWorker, RunMode, RunPlan};
use crate::cluster::{Cluster, JobError};
use crate::config::Settings;
use crate::config::settings::{RouteKind, Rung};
use crate::heal::Healer;
use crate::index::Index;
use crate::index::command::Exit;
use crate::setup;
use crate::upstream::fetch::FetcherFactory;

/// Options that `check` and `heal` share.
#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
pub struct Selection {
    /// Directories, files, manifest, collection, canvas or image URLs, identifiers, viewer links with iiif-content;
    /// none: everything indexed
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Write a report: .json, .csv, .html, or .xml (JUnit); may be given several times
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,
    /// Request a small tile of every image, which also finds files that are gone
    #[arg(long)]
    tiles: bool,
    /// Also fetch the manifests named by files and the index, and check that each is served with all its images
    #[arg(long)]
    manifests: bool,
    /// Images probed at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    probes: u16,
    /// Manifests fetched at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    manifest_parallelism: u16,
    /// How long one request may take (default: [heal] timeout; 30 s for a probe)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Continue an interrupted run of the same command and sources
    #[arg(long)]
    resume: bool,
    /// Journal of the run, which --resume reads (default: beside the index)
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// No progress, and no table where all is well
    #[arg(long, short)]
    quiet: bool,
}

/// Options of `check`.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    selection: Selection,
    /// Check only the deployment: servers, public @id, /resources, clock, routes
    #[arg(long)]
    setup: bool,
}

/// Options of `heal`.
#[derive(Debug, Clone, clap::Args)]
pub struct HealArgs {
    #[command(flatten)]
    selection: Selection,
    /// Request every canvas, broken or not
    #[arg(long)]
    all: bool,
    /// Only these rungs of the ladder: register, variant, visit, rebuild (which comes only after a visit that did not help)
    #[arg(long, value_name = "RUNG", value_delimiter = ',', value_parser = parse_rung)]
    rung: Vec<Rung>,
    /// Canvas requests at once (default: [heal] concurrency)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: Option<u16>,
    /// Most canvas requests in a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Most canvas requests in all
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// List what would be requested, and request no canvas
    #[arg(long)]
    dry_run: bool,
    /// URL of a running iiif-mender, which heals in place of this process
    #[arg(long, value_name = "URL", conflicts_with_all = ["all", "rung", "dry_run"])]
    via: Option<String>,
    /// Share the work with every other run that names this job, by way of [cluster]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["via", "dry_run", "limit", "resume", "journal"])]
    job: Option<String>,
}

/// Batch command to run.
#[derive(Debug, Clone, Copy)]
pub enum BatchCommand<'a> {
    /// `check`: probe only.
    Check(&'a CheckArgs),
    /// `heal`: probe, and heal broken images.
    Heal(&'a HealArgs),
}

/// Services that a batch command needs.
#[derive(Debug)]
pub struct BatchServices {
    /// The configuration, as [`BatchCommand::adjust`] left it.
    pub settings: Arc<Settings>,
    /// The index.
    pub index: Arc<Index>,
    /// The ladder.
    pub healer: Healer,
    /// The other nodes.
    pub cluster: Option<Arc<Cluster>>,
    /// Fetchers of documents that belong to no route.
    pub web: FetcherFactory,
}

/// Multiple of `heal.backoff_max` after which a service that only fails is given up.
const MAX_BACKOFFS: u32 = 3;

/// Timeout of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Canvases read ahead of the work.
const READ_AHEAD: usize = 256;

impl BatchCommand<'_> {
    fn selection(&self) -> &Selection {
        match self {
            Self::Check(args) => &args.selection,
            Self::Heal(args) => &args.selection,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Check(_) => "check",
            Self::Heal(_) => "heal",
        }
    }

    /// Lays the options over the configuration.
    pub fn adjust(&self, settings: &mut Settings) {
        let heal = &mut settings.heal;
        // No reader is there, so no page is "ahead"; and a flush is what this command is for.
        (heal.enabled, heal.sweep, heal.ahead) = (true, false, 0);
        // Every image is asked about once: a memory of images that are alive would only grow.
        heal.alive_for = Duration::from_millis(1);
        if let Some(timeout) = self.selection().timeout {
            heal.timeout = timeout;
        }
        let look = self.selection().timeout.unwrap_or(PROBE_TIMEOUT);
        settings.upstream.first_byte_timeout = settings.upstream.first_byte_timeout.min(look);
        for route in settings.routes.iter_mut().filter(|route| route.kind == RouteKind::Image) {
            route.first_byte_timeout = route.first_byte_timeout.map(|own| own.min(look));
        }
        let Self::Heal(args) = self else { return };
        if let Some(concurrency) = args.concurrency {
            heal.concurrency = usize::from(concurrency);
        }
        if !args.rung.is_empty() {
            let wants = |rung: &Rung| {
                args.rung.contains(rung) || (*rung == Rung::Visit && args.rung.contains(&Rung::Rebuild))
            };
            let all = [Rung::Register, Rung::Variant, Rung::Visit, Rung::Rebuild];
            heal.ladder = all.into_iter().filter(wants).collect();
        }
    }

    /// Runs the command on `runtime`, with results on `out`.
    pub fn run(
        &self,
        runtime: &Runtime,
        services: BatchServices,
        json: bool,
        out: &mut dyn Write,
    ) -> Result<Exit, BatchError> {
        let selection = self.selection();
        let reports = formats(&selection.report)?;
        let started = Instant::now();
        let mut summary = runtime.block_on(async {
            let run = self.prepare(services).await?;
            Ok::<_, BatchError>(run.run().await)
        })?;
        summary.took = started.elapsed().as_secs_f64();
        summary.complete();
        for (format, path) in reports {
            report::write_file(format, &summary, path)
                .map_err(|error| BatchError::Report(path.to_path_buf(), error))?;
        }
        if json {
            report::json(&summary, out).map_err(BatchError::Output)?;
        } else if !selection.quiet || summary.is_broken() || summary.is_misused() {
            table::write(&summary, table::terminal_width(), out).map_err(BatchError::Output)?;
        }
        Ok(match (summary.is_misused(), summary.is_broken()) {
            (true, _) => Exit::Usage,
            (false, true) => Exit::Broken,
            (false, false) => Exit::Well,
        })
    }

    /// Canvases worked on at once.
    fn width(&self, settings: &Settings) -> usize {
        let (probes, concurrency) = (usize::from(self.selection().probes), settings.heal.concurrency);
        match self {
            Self::Check(_) => probes,
            // Through a proxy every request may be a heal.
            Self::Heal(args) if args.via.is_some() => args.concurrency.map_or(concurrency, usize::from),
            // Requests in the lanes, and as many probes before and after them.
            Self::Heal(_) => (concurrency * 2).max(probes),
        }
    }

    async fn prepare(&self, services: BatchServices) -> Result<BatchRun, BatchError> {
        let share = self.share(services.cluster.as_deref()).await?;
        let BatchServices { settings, index, healer, web, .. } = services;
        let selection = self.selection();
        let heal = match self {
            Self::Check(_) => None,
            Self::Heal(args) => Some(*args),
        };
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let via = heal
            .and_then(|args| args.via.as_deref())
            .map(|url| RemoteHealer::new(url, &settings))
            .transpose()?;
        let mut summary = Summary {
            command: self.name().to_owned(),
            sources: selection.sources.clone(),
            started,
            image_base: setup::image_base(&settings),
            asked: via.is_none().then_some(0),
            ..Summary::default()
        };
        let path =
            selection.journal.clone().unwrap_or_else(|| journal::path(&settings.index.path, self.name()));
        let journal = match &share {
            Some(_) => Journal::unwritten(),
            None => Journal::open(&path, selection.resume, &mut summary)?,
        };
        let (send, items) = mpsc::channel(READ_AHEAD);
        let expected = Arc::new(ExpectedCounts::default());
        let elsewhere = Arc::new(ForeignFetcher::new(&web, &selection.sources));
        let reader = SourceReader {
            index,
            elsewhere,
            healer: healer.clone(),
            settings: Arc::clone(&settings),
            expected: Arc::clone(&expected),
            fetch_all: selection.manifests,
            parallelism: usize::from(selection.manifest_parallelism),
            out: send,
        };
        tokio::spawn(reader.read(selection.sources.clone()));
        let width = self.width(&settings);
        let only_setup = matches!(self, Self::Check(args) if args.setup);
        Ok(BatchRun {
            worker: worker(healer, heal, selection.tiles, journal, &settings),
            via,
            share,
            items,
            expected,
            summary,
            progress: RunProgress::new(selection.quiet, heal.is_some()),
            width,
            with_setup: heal.is_none(),
            only_setup,
            settings,
        })
    }
}

impl BatchCommand<'_> {
    /// The job, if the work is to be shared. All runs of it must mean the same.
    async fn share(&self, cluster: Option<&Cluster>) -> Result<Option<JobShare>, BatchError> {
        let Self::Heal(HealArgs { job: Some(name), all, rung, selection, .. }) = self else {
            return Ok(None);
        };
        let Some(cluster) = cluster else { return Err(JobError::Alone.into()) };
        let mut words = vec!["heal"];
        words.extend(all.then_some("--all"));
        words.extend(selection.tiles.then_some("--tiles"));
        words.extend(rung.iter().map(|rung| rung.as_str()));
        words.extend(selection.sources.iter().map(String::as_str));
        Ok(Some(JobShare::join(cluster, name, &words.join(" ")).await?))
    }
}

fn worker(
    healer: Healer,
    heal: Option<&HealArgs>,
    tiles: bool,
    journal: Journal,
    settings: &Settings,
) -> CanvasWorker {
    let rate = heal.and_then(|args| args.rate);
    CanvasWorker {
        healer,
        plan: RunPlan {
            aim: match heal {
                None => RunMode::Look,
                Some(args) if args.dry_run => RunMode::Tell,
                Some(args) if args.all => RunMode::MendAll,
                Some(_) => RunMode::Mend,
            },
            tiles,
            limit: heal.and_then(|args| args.limit),
            books: heal.is_some_and(|args| args.limit.is_none() && args.rate.is_none()),
        },
        pace: rate.map(|rate| tokio::sync::Mutex::new(tokio::time::interval(Duration::from_secs(1) / rate))),
        journal: RefCell::new(journal),
        patience: settings.heal.backoff_max * MAX_BACKOFFS,
        places: tokio::sync::Semaphore::new(settings.heal.concurrency * 3 / 2),
        stopping: Cell::new(false),
        begun: Cell::new(0),
        stalled: Cell::new(None),
        broken_journal: RefCell::new(None),
        books: ManifestsInWork::default(),
        reported_requests: Cell::new(0),
    }
}

/// Errors that keep a command from being carried out.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The journal.
    #[error("{0}")]
    Journal(String),
    /// `--via`.
    #[error("{0}")]
    Via(String),
    /// `--job`.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Report file without a known extension.
    #[error("--report {0}: its name must end in .json, .csv, .html or .xml")]
    Format(PathBuf),
    /// A report that cannot be written.
    #[error("the report {0} cannot be written: {1}")]
    Report(PathBuf, #[source] io::Error),
    /// Results could not be written.
    #[error("cannot write the results: {0}")]
    Output(#[source] io::Error),
}

impl From<JournalError> for BatchError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error.to_string())
    }
}

impl From<RemoteHealerError> for BatchError {
    fn from(error: RemoteHealerError) -> Self {
        Self::Via(error.to_string())
    }
}

impl BatchError {
    /// The exit status.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Journal(_) | Self::Via(_) | Self::Job(_) | Self::Format(_) => Exit::Usage,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Well,
            Self::Report(..) | Self::Output(_) => Exit::Broken,
        }
    }
}

fn formats(paths: &[PathBuf]) -> Result<Vec<(ReportFormat, &Path)>, BatchError> {
    let of = |path: &PathBuf| ReportFormat::of(path).ok_or_else(|| BatchError::Format(path.clone()));
    paths.iter().map(|path| of(path).map(|format| (format, path.as_path()))).collect()
}

fn parse_rung(text: &str) -> Result<Rung, String> {
    match text {
        "register" => Ok(Rung::Register),
        "variant" => Ok(Rung::Variant),
        "visit" => Ok(Rung::Visit),
        "rebuild" => Ok(Rung::Rebuild),
        "direct" => Err("`direct` answers viewers and mends nothing".to_owned()),
        _ => Err("one of register, variant, visit, rebuild".to_owned()),
    }
}
