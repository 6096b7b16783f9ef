//! Log lines: text on a terminal, JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::settings::{Log, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("[log] filter: {0}; write e.g. \"info\" or \"iiif_mender=debug,warn\"")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in the process logs already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging to stderr for the whole process. stdout is for results.
pub fn install(log: &Log) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let json = match log.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        lines.json().flatten_event(true).with_current_span(false).finish().try_init()?;
    } else {
        lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).finish().try_init()?;
    }
    Ok(())
}

/// Lines that were lost so far.
pub(super) fn lost_lines() -> u64 {
    0
}
