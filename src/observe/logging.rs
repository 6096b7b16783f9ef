//! Log lines: text on a terminal, JSON otherwise, written by a thread of their own.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use super::log_writer::{LineForm, LogWriter, ValueWriter};
use crate::config::settings::{LogFormat, LogSettings};

/// Errors of setting up logging.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("[log] filter: {0}; write e.g. \"info\" or \"iiif_mender=debug,warn\"")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Subscriber of this process, installed already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The subscriber is gone.
    #[error("the filter cannot be changed: {0}")]
    Reload(#[from] tracing_subscriber::reload::Error),
}

/// Guard that writes the queued lines on drop, unless the pipe is not read.
#[derive(Debug)]
#[must_use = "what is queued is lost without it"]
pub struct LogGuard {
    _worker: WorkerGuard,
}

/// Counts lines that the queue did not hold.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Starts logging to stderr for the whole process. stdout is for results. A log call never blocks: not for a pipe
/// without a reader, not for a slow journal.
pub fn install(log: &LogSettings) -> Result<LogGuard, LoggingError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let is_terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let queue = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(log.queue);
    let (queue, worker) = queue.thread_name("log").finish(std::io::stderr());
    let lost = queue.error_counter();
    let form = match (json, is_terminal) {
        (true, _) => LineForm::Json,
        (false, true) => LineForm::Coloured,
        (false, false) => LineForm::Plain,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(LogWriter { queue, form });
    let set: SetFilter = if json {
        let lines = lines.json().flatten_event(true).with_current_span(false).with_filter_reloading();
        let filter = lines.reload_handle();
        lines.finish().try_init()?;
        Box::new(move |new| filter.reload(new))
    } else {
        let lines = lines.with_target(false).with_ansi(is_terminal).fmt_fields(ValueWriter);
        let lines = lines.with_filter_reloading();
        let filter = lines.reload_handle();
        lines.finish().try_init()?;
        Box::new(move |new| filter.reload(new))
    };
    // Only the first call installs a subscriber, so these are set once.
    let _ = SET_FILTER.set(set);
    let _ = LOST.set(lost);
    Ok(LogGuard { _worker: worker })
}

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// Changes the filter of the one subscriber of this process.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Sets the log filter. Without a subscriber, nothing changes.
pub fn set_filter(filter: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(filter)?;
    match SET_FILTER.get() {
        Some(set) => Ok(set(filter)?),
        None => Ok(()),
    }
}

/// Lines that were lost so far.
pub(super) fn lost_lines() -> u64 {
    LOST.get().map_or(0, |lost| u64::try_from(lost.dropped_lines()).unwrap_or(u64::MAX))
}
