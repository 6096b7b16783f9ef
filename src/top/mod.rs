//! Commands on a running iiif-mender: `top` shows its state, `check --live` the images that readers do not get, `purge`
//! removes cached answers.

mod broken;
mod client;
mod purge;
mod stats;
mod ui;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::config::Settings;
pub use broken::{LiveArgs, broken};
use client::AdminClient;
pub use client::AdminClientError;
pub use purge::{PurgeArgs, purge};
use stats::TopStats;
use ui::draw;

/// Options of `top`
#[derive(Debug, Args)]
pub struct TopArgs {
    /// URL of the admin listener (default: the one of the configuration)
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Seconds between two requests
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Print the state once, as text, and end
    #[arg(long)]
    once: bool,
}

/// Errors that end `top`.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The admin listener gave nothing that can be shown.
    #[error(transparent)]
    Ask(#[from] AdminClientError),
    /// Error of the terminal.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
    /// No terminal to draw on.
    #[error("this is not a terminal; `iiif-mender top --once` prints the state once, as text")]
    NoTerminal,
}

/// Size of the output of `--once`.
const PAGE: (u16, u16) = (80, 24);

/// Shows the screen until `q`, Escape or Ctrl-C.
///
/// `json`: prints the admin listener's answer once.
pub fn run(args: &TopArgs, settings: &Settings, json: bool, out: &mut dyn Write) -> Result<(), TopError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = AdminClient::new(args.url.as_deref(), settings)?;
    if json {
        let stats = runtime.block_on(admin.stats())?;
        return Ok(writeln!(out, "{stats:#}")?);
    }
    let ask = || runtime.block_on(admin.stats_with_heals());
    if args.once {
        return once(&ask()?, admin.name(), out);
    }
    if !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    // An error of the first request is printed in words, not in a full screen.
    let mut stats = Ok(ask()?);
    let mut terminal = ratatui::try_init()?;
    let ended = loop {
        if let Err(error) = terminal.draw(|frame| draw(frame, &stats, admin.name())) {
            break Err(error);
        }
        match leaves(Duration::from_secs(args.every)) {
            Ok(false) => stats = ask(),
            Ok(true) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    ratatui::try_restore()?;
    Ok(ended?)
}

/// Waits for the next refresh. True: the user wants to leave.
fn leaves(pause: Duration) -> io::Result<bool> {
    if !event::poll(pause)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read()? else { return Ok(false) };
    let leaves = match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    };
    Ok(leaves && key.kind == KeyEventKind::Press)
}

fn once(stats: &TopStats, name: &str, out: &mut dyn Write) -> Result<(), TopError> {
    let text = page(stats, name);
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// Renders a snapshot as text.
fn page(stats: &TopStats, name: &str) -> String {
    let (width, height) = PAGE;
    // Drawing into memory cannot fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let stats = Ok(stats.clone());
    let Ok(drawn) = terminal.draw(|frame| draw(frame, &stats, name));
    let lines = drawn.buffer.content().chunks(usize::from(width));
    let mut text = String::new();
    for line in lines {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
