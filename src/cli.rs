//! Command line: parses the arguments and calls the module of the command.
//!
//! Results go to stdout, progress and problems to stderr. Exit status: 0 all well, 1 something is broken or
//! unknown, 2 wrong usage or configuration.

mod init;
mod setup;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use tokio::runtime::Runtime;

use crate::app;
use crate::app::process::{self, ServeEnd};
use crate::batch::command::{BatchCommand, CheckArgs, HealArgs};
use crate::config::command::ConfigCommand;
use crate::config::{ConfigDraft, ConfigErrors, ConfigOrigin, Settings};
use crate::index::command::{self, Exit, IndexCommand};
use crate::manual;
use crate::observe;
use crate::top::{self, LiveArgs, PurgeArgs, TopArgs, TopError};
use init::InitArgs;

/// A self-healing reverse proxy for IIIF images.
///
/// Stands in front of an image server and the canvas service behind it. When an image answers 404 although a manifest says
/// it exists, iiif-mender asks for the canvas that owns the image, which brings the image back, and answers the viewer's
/// own request with the picture.
#[derive(Debug, Parser)]
#[command(name = "iiif-mender", version, max_term_width = 100)]
pub struct Cli {
    /// Configuration file (default: config.toml, then /etc/iiif-mender/config.toml)
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print results as JSON: check, heal, index, top, purge, config check|show|schema
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a configuration, check it, and build the index; asks what is not given
    Init(InitArgs),
    /// Run the proxy; with --upstream no configuration file is needed
    Serve(ConfigDraft),
    /// Work with the index: which canvas owns which image
    #[command(subcommand)]
    Index(IndexCommand),
    /// List broken images; requests no rebuild
    Check(CheckCommand),
    /// Heal broken images, in batch
    Heal(HealArgs),
    /// Show the state of a running iiif-mender
    Top(TopArgs),
    /// Remove cached answers from a running iiif-mender
    Purge(PurgeArgs),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    Completions {
        /// Shell
        shell: Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Write `iiif-mender.1`, `iiif-mender-serve.1` and so on into this directory
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

/// `check` looks by itself, or asks a running iiif-mender.
#[derive(Debug, clap::Args)]
struct CheckCommand {
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    live: LiveArgs,
}

impl Command {
    /// True for commands that print data, which `--json` makes readable for machines. The others run, or print a file in a
    /// language of its own.
    fn prints_data(&self) -> bool {
        match self {
            Self::Index(_) | Self::Check(_) | Self::Heal(_) | Self::Top(_) | Self::Purge(_) => true,
            Self::Config(command) => command.prints_data(),
            Self::Init(_) | Self::Serve(_) | Self::Completions { .. } | Self::Man { .. } => false,
        }
    }
}

/// Parses the command line and runs the command.
pub fn run() -> ExitCode {
    let (Ok(code) | Err(code)) = run_command();
    code
}

/// Runs the command. `Err`: the exit code of a failure that stderr tells of.
fn run_command() -> Result<ExitCode, ExitCode> {
    let cli = manual::with_exit_status(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&cli).unwrap_or_else(|error| error.exit());
    if cli.json && !cli.command.prints_data() {
        return Err(fail("--json: this command prints no data; leave the option out", Exit::Usage));
    }
    let mut out = io::stdout().lock();
    let done = match &cli.command {
        Command::Init(args) => return init::run(args, cli.config.as_deref(), &mut out),
        Command::Serve(draft) => return serve(&cli, draft),
        Command::Index(command) => return index(&cli, command, &mut out),
        Command::Check(args) if args.live.live => {
            return ask(&cli, Exit::Usage, |settings| {
                let is_broken = top::broken(&args.live, settings, cli.json, &mut out)?;
                Ok(if is_broken { Exit::Broken } else { Exit::Well })
            });
        }
        Command::Check(args) => return batch(&cli, BatchCommand::Check(&args.check), &mut out),
        Command::Heal(args) => return batch(&cli, BatchCommand::Heal(args), &mut out),
        Command::Top(args) => {
            return ask(&cli, Exit::Broken, |settings| {
                top::run(args, settings, cli.json, &mut out).map(|()| Exit::Well)
            });
        }
        Command::Purge(args) => {
            return ask(&cli, Exit::Broken, |settings| {
                top::purge(args, settings, cli.json, &mut out).map(|()| Exit::Well)
            });
        }
        Command::Config(command) => {
            let origin = cli.origin();
            let done = command.run(origin.clone(), std::env::vars_os(), cli.json, &mut out);
            match origin {
                Ok(origin) if *command == ConfigCommand::Check && !cli.json && matches!(done, Ok(0)) => {
                    setup::tell_of_all(&origin, false, &mut out).map(|()| 0)
                }
                _ => done,
            }
        }
        Command::Completions { shell } => {
            // clap_complete panics where it cannot write, as in `| head`: write to memory first.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "iiif-mender", &mut script);
            out.write_all(&script).map(|()| 0)
        }
        Command::Man { to: None } => manual::print(&Cli::command(), &mut out).map(|()| 0),
        Command::Man { to: Some(folder) } => {
            return manual::write_all(Cli::command(), folder)
                .map(|()| ExitCode::SUCCESS)
                .map_err(|error| fail(&format!("cannot write {}: {error}", folder.display()), Exit::Broken));
        }
    };
    match done.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => Ok(ExitCode::from(code)),
        // `iiif-mender … | head` closes the pipe early: no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(fail(&format!("cannot write the results: {error}"), Exit::Broken)),
    }
}

impl Cli {
    fn origin(&self) -> Result<ConfigOrigin, ConfigErrors> {
        ConfigOrigin::find(self.config.as_deref())
    }

    fn settings(&self) -> Result<Settings, ExitCode> {
        self.origin().and_then(|origin| origin.load(std::env::vars_os())).map_err(refuse)
    }
}

fn runtime() -> Result<Runtime, ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| fail(&format!("cannot start: {error}"), Exit::Broken))
}

fn index(cli: &Cli, command: &IndexCommand, out: &mut dyn Write) -> Result<ExitCode, ExitCode> {
    let settings = cli.settings()?;
    match command::run(command, &settings, cli.json, out) {
        Ok(exit) => {
            if matches!(command, IndexCommand::Build { .. }) {
                setup::tell_of_index(settings);
            }
            Ok(exit.into())
        }
        Err(command::CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(fail(&error.to_string(), error.exit())),
    }
}

fn batch(cli: &Cli, batch: BatchCommand<'_>, out: &mut dyn Write) -> Result<ExitCode, ExitCode> {
    let mut settings = cli.settings()?;
    batch.adjust(&mut settings);
    let runtime = runtime()?;
    let entered = runtime.enter();
    let services = app::batch_services(settings).map_err(|error| fail(&error.to_string(), Exit::Usage))?;
    drop(entered);
    let done = batch.run(&runtime, services, cli.json, out);
    // A file system that hangs must not keep a run from ending.
    runtime.shutdown_background();
    match done {
        Ok(exit) => {
            // A failed write does not change the exit status of the result.
            let _ = out.flush();
            Ok(exit.into())
        }
        Err(error) if error.exit() == Exit::Well => Ok(ExitCode::SUCCESS),
        Err(error) => Err(fail(&error.to_string(), error.exit())),
    }
}

/// Asks a running iiif-mender. `failure`: the exit status where it cannot be asked.
fn ask(
    cli: &Cli,
    failure: Exit,
    ask: impl FnOnce(&Settings) -> Result<Exit, TopError>,
) -> Result<ExitCode, ExitCode> {
    // With a URL no configuration is needed: the proxy may run on another machine.
    let has_file = cli.origin().is_ok_and(|origin| origin.path().exists());
    let settings = if has_file { cli.settings()? } else { Settings::default() };
    match ask(&settings) {
        Ok(exit) => Ok(exit.into()),
        Err(TopError::Terminal(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(fail(&error.to_string(), failure)),
    }
}

fn serve(cli: &Cli, draft: &ConfigDraft) -> Result<ExitCode, ExitCode> {
    let origin = match (draft.is_given(), &cli.config) {
        (false, _) => cli.origin().map_err(refuse)?,
        (true, Some(_)) => {
            let advice = "name either a file with --config or the options of `serve`, not both";
            return Err(fail(advice, Exit::Usage));
        }
        (true, None) => {
            let text = draft.to_toml().map_err(|error| fail(&error.to_string(), Exit::Usage))?;
            ConfigOrigin::Options(text)
        }
    };
    let settings = origin.load(std::env::vars_os()).map_err(refuse)?;
    // Held until the end: dropping the guard writes what is queued.
    let _log =
        observe::install_logging(&settings.log).map_err(|error| fail(&error.to_string(), Exit::Usage))?;
    // Viewers are served by the workers' own runtimes; heals and background tasks run here.
    match runtime()?.block_on(process::serve(&origin, settings)) {
        Ok(ServeEnd::Drained) => Ok(ExitCode::SUCCESS),
        Ok(ServeEnd::AtOnce) => Ok(Exit::Broken.into()),
        Err(error) => Err(fail(&error.to_string(), Exit::Usage)),
    }
}

fn refuse(errors: ConfigErrors) -> ExitCode {
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "{:?}", miette::Report::new(errors));
    Exit::Usage.into()
}

fn fail(message: &str, exit: Exit) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "iiif-mender: {message}");
    exit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_live_refuses_every_option_that_only_a_check_of_its_own_reads() {
        let cli = Cli::command();
        let check = cli.find_subcommand("check").expect("a command");
        let live = check.get_arguments().find(|option| option.get_id() == "live").expect("an option");
        let refused = check.get_arg_conflicts_with(live);
        let options = check.get_arguments().map(clap::Arg::get_id);
        let accepted: Vec<_> =
            options.filter(|id| refused.iter().all(|other| other.get_id() != *id)).collect();
        assert_eq!(accepted, ["quiet", "live", "url"]);
    }
}
