//! Log lines: text on a terminal, JSON otherwise.

use std::io::IsTerminal;
use std::sync::OnceLock;

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
    /// The subscriber is gone.
    #[error("the filter cannot be changed: {0}")]
    Reload(#[from] tracing_subscriber::reload::Error),
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
    let set: SetFilter = if json {
        let lines = lines.json().flatten_event(true).with_current_span(false).with_filter_reloading();
        let filter = lines.reload_handle();
        lines.finish().try_init()?;
        Box::new(move |new| filter.reload(new))
    } else {
        let lines = lines.with_target(false).with_ansi(std::io::stderr().is_terminal());
        let lines = lines.with_filter_reloading();
        let filter = lines.reload_handle();
        lines.finish().try_init()?;
        Box::new(move |new| filter.reload(new))
    };
    // The first subscriber is the only one.
    let _ = SET_FILTER.set(set);
    Ok(())
}

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// Changes the filter of the one subscriber of this process.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Logs what this filter says from now on. Where nothing logs, nothing changes.
pub fn set_filter(filter: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(filter)?;
    match SET_FILTER.get() {
        Some(set) => Ok(set(filter)?),
        None => Ok(()),
    }
}

/// Lines that were lost so far.
pub(super) fn lost_lines() -> u64 {
    0
}
