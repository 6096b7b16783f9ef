//! Progress on stderr: a bar on a terminal, a plain line now and then elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::summary::ImageCounts;
use crate::observe::counted;

/// A plain line at least this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Progress of one run.
#[derive(Debug)]
pub(crate) struct RunProgress {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    started: Instant,
    last_line: Instant,
    heals: bool,
}

impl RunProgress {
    pub(crate) fn new(quiet: bool, heals: bool) -> Self {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            // 80 columns: the bar shrinks before the words do.
            let template = "{wide_bar} {human_pos}/{human_len} {per_sec:>8} {msg} {eta:>4} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸ ").with_key(
                    "per_sec",
                    |state: &indicatif::ProgressState, text: &mut dyn std::fmt::Write| {
                        let _ = write!(text, "{}/s", short(state.per_sec()));
                    },
                ));
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let now = Instant::now();
        Self { bar, is_quiet: quiet, started: now, last_line: now, heals }
    }

    /// Shows `counts` of `expected` images.
    pub(crate) fn at(&mut self, counts: &ImageCounts, expected: u64) {
        let expected = expected.max(counts.images);
        if let Some(bar) = &self.bar {
            if bar.length() != Some(expected) {
                bar.set_length(expected);
            }
            bar.set_position(counts.images);
            return;
        }
        if !self.is_quiet && self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let _ = writeln!(io::stderr().lock(), "{}", self.line(counts, expected));
        }
    }

    /// Sets the text beside the bar, a few times in a second.
    pub(crate) fn words(&self, counts: &ImageCounts) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.broken(counts));
        }
    }

    fn broken(&self, counts: &ImageCounts) -> String {
        let broken = format!("{} broken", HumanCount(counts.broken));
        if self.heals { format!("{broken}, {} healed", HumanCount(counts.healed)) } else { broken }
    }

    fn line(&self, counts: &ImageCounts, expected: u64) -> String {
        let took = self.started.elapsed().as_secs_f64();
        let (done, all) = (as_float(counts.images), as_float(expected));
        let left =
            if done > 0.0 { Duration::from_secs_f64(took * (all - done) / done) } else { Duration::ZERO };
        format!(
            "{} of {}, {}, {}/s, {} left",
            HumanCount(counts.images),
            counted(expected, "image"),
            self.broken(counts),
            short(done / took.max(0.001)),
            indicatif::HumanDuration(left),
        )
    }

    /// Prints a line above the progress bar.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| drop(writeln!(io::stderr().lock(), "{text}"))),
            None => drop(writeln!(io::stderr().lock(), "{text}")),
        }
    }

    /// The end.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people needs no more than 52 bits")]
fn as_float(number: u64) -> f64 {
    number as f64
}

fn short(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}
