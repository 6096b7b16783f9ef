//! The command line: reads it, and hands the work to the room that does it.
//!
//! Results go to stdout, progress and problems to stderr. Exit status: 0 all well, 1 something is broken or
//! unknown, 2 wrong usage or configuration.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::app;
use crate::app::process::{self, ServeEnd};
use crate::batch::command::{BatchCommand, CheckArgs, HealArgs};
use crate::config::command::ConfigCommand;
use crate::config::{ConfigErrors, Settings};
use crate::index::command::{self, Exit, IndexCommand};
use crate::manual;
use crate::observe;
use crate::top::{self, PurgeArgs, TopArgs, TopError};

/// A self-healing reverse proxy for IIIF images.
///
/// It stands in front of an image server and the canvas service behind it. When an image answers 404 although a
/// manifest says it exists, it asks for the canvas that owns the image, which brings the image back, and answers
/// the viewer's own request with the picture.
#[derive(Debug, Parser)]
#[command(name = "iiif-mender", version, max_term_width = 100)]
pub struct Cli {
    /// Configuration file
    #[arg(long, short, global = true, value_name = "FILE", default_value = "config.toml")]
    config: PathBuf,
    /// Print results for machines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Serve,
    /// Work with the index: which canvas owns which image
    #[command(subcommand)]
    Index(IndexCommand),
    /// Tell which images are broken; asks nothing to be rebuilt
    Check(CheckArgs),
    /// Mend what is broken, in batch
    Heal(HealArgs),
    /// Show how a running iiif-mender is doing
    Top(TopArgs),
    /// Have a running iiif-mender remove what it keeps of images (the cache)
    Purge(PurgeArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Write `iiif-mender.1`, `iiif-mender-serve.1` and so on into this directory
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let cli = manual::with_exit_status(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&cli).unwrap_or_else(|error| error.exit());
    let mut out = io::stdout().lock();
    let done = match &cli.command {
        Command::Serve => return serve(&cli.config),
        Command::Index(command) => return index(&cli, command, &mut out),
        Command::Check(args) => return batch(&cli, BatchCommand::Check(args), &mut out),
        Command::Heal(args) => return batch(&cli, BatchCommand::Heal(args), &mut out),
        Command::Top(args) => return top(&cli.config, |settings| top::run(args, settings, &mut out)),
        Command::Purge(args) => {
            return top(&cli.config, |settings| top::purge(args, settings, cli.json, &mut out));
        }
        Command::Config(command) => command.run(&cli.config, std::env::vars_os(), &mut out),
        Command::Completions { shell } => {
            // clap_complete panics where it cannot write, and `| head` is no reason to panic.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "iiif-mender", &mut script);
            out.write_all(&script).map(|()| 0)
        }
        Command::Man { to: None } => manual::print(&Cli::command(), &mut out).map(|()| 0),
        Command::Man { to: Some(folder) } => {
            return match manual::write_all(Cli::command(), folder) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("cannot write {}: {error}", folder.display()), Exit::Broken),
            };
        }
    };
    match done.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        // `iiif-mender … | head` closes the pipe early; that is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write the results: {error}"), Exit::Broken),
    }
}

fn index(cli: &Cli, command: &IndexCommand, out: &mut dyn Write) -> ExitCode {
    let settings = match load(&cli.config) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match command::run(command, &settings, cli.json, out) {
        Ok(exit) => exit.into(),
        Err(command::CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string(), error.exit()),
    }
}

fn batch(cli: &Cli, batch: BatchCommand<'_>, out: &mut dyn Write) -> ExitCode {
    let mut settings = match load(&cli.config) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    batch.adjust(&mut settings);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), Exit::Broken),
    };
    let entered = runtime.enter();
    let rooms = match app::batch_rooms(settings) {
        Ok(rooms) => rooms,
        Err(error) => return fail(&error.to_string(), Exit::Usage),
    };
    drop(entered);
    let done = batch.run(&runtime, rooms, cli.json, out);
    // A file system that hangs must not keep a run from ending.
    runtime.shutdown_background();
    match done {
        Ok(exit) => {
            // What could not be written is not worth another exit status than what was found.
            let _ = out.flush();
            exit.into()
        }
        Err(error) if error.exit() == Exit::Well => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), error.exit()),
    }
}

/// Asks a running iiif-mender.
fn top(config: &Path, ask: impl FnOnce(&Settings) -> Result<(), TopError>) -> ExitCode {
    // With a URL no configuration is needed: it may run on another machine.
    let settings = if config.exists() { load(config) } else { Ok(Settings::default()) };
    let settings = match settings {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match ask(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(TopError::Terminal(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), Exit::Broken),
    }
}

fn serve(config: &Path) -> ExitCode {
    let settings = match load(config) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    // Until the end: what is queued is written when it goes.
    let _log = match observe::install_logging(&settings.log) {
        Ok(log) => log,
        Err(error) => return fail(&error.to_string(), Exit::Usage),
    };
    // Viewers are served by the workers' own runtimes; heals and chores run here.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), Exit::Broken),
    };
    match runtime.block_on(process::serve(config, settings)) {
        Ok(ServeEnd::Drained) => ExitCode::SUCCESS,
        Ok(ServeEnd::AtOnce) => Exit::Broken.into(),
        Err(error) => fail(&error.to_string(), Exit::Usage),
    }
}

fn load(config: &Path) -> Result<Settings, ExitCode> {
    Settings::load(config, std::env::vars_os()).map_err(|errors: ConfigErrors| {
        let mut stderr = io::stderr().lock();
        let _ = writeln!(stderr, "{:?}", miette::Report::new(errors));
        Exit::Usage.into()
    })
}

fn fail(message: &str, exit: Exit) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "iiif-mender: {message}");
    exit.into()
}
