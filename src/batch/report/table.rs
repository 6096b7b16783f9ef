//! Table on stdout: a line for each manifest, those that need attention first; then each broken image, with reason and
//! advice.
//!
//! On a terminal the table is as wide as the terminal, and long lists end with a count. Elsewhere nothing is cut.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, IsTerminal as _, Write};

use indicatif::HumanCount;

use crate::batch::ImageVerdict;
use crate::batch::check::FORGOTTEN;
use crate::batch::summary::{ImageCounts, ManifestSummary, Summary};
use crate::observe::counted;
use crate::setup::FindingState;

/// Default width in columns, and the least one that a table is made for.
const WIDTH: usize = 80;

/// Manifests with nothing broken that are shown before they are only counted.
const HEALTHY: usize = 12;

/// Manifests in the table at most, on a terminal.
const ROWS: usize = 60;

/// Broken images that are listed at most, on a terminal.
const LISTED: usize = 20;

/// Column of the text beside a verdict.
const INDENT: usize = 12;

/// Width of the terminal that stdout is. `None`: stdout is a pipe or a file.
pub(crate) fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    let width = || terminal_size::terminal_size_of(&stdout).map_or(WIDTH, |(width, _)| usize::from(width.0));
    stdout.is_terminal().then(|| width().max(WIDTH))
}

/// Writes the table; `terminal`: as wide as that.
pub(crate) fn write(summary: &Summary, terminal: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
    let heals = summary.command == "heal";
    let is_well = |row: &&ManifestSummary| row.counts.broken == 0 && row.trouble.is_none();
    let (well, broken): (Vec<_>, Vec<_>) = summary.manifests.iter().partition(is_well);
    let most = if terminal.is_some() { ROWS } else { usize::MAX };
    let healthy = HEALTHY.min(most.saturating_sub(broken.len()));
    let rows: Vec<_> = broken.into_iter().take(most).chain(well.into_iter().take(healthy)).collect();
    let width = terminal.unwrap_or(usize::MAX);
    let names = names(&rows);
    let columns = Columns::of(&names, width, heals);
    columns.head(out)?;
    for (row, name) in rows.iter().zip(&names) {
        columns.row(name, &row.counts, out)?;
        if let Some(trouble) = &row.trouble {
            let mended = if row.mended { " (mended)" } else { "" };
            paragraph(2, &format!("! {trouble}{mended}"), width, out)?;
        }
    }
    let hidden = summary.manifests.len() - rows.len();
    if hidden > 0 {
        writeln!(out, "… and {}", counted(hidden, "more manifest"))?;
    }
    if summary.manifests.len() != 1 {
        columns.row("all", &summary.totals, out)?;
    }
    listed(summary, terminal, out)?;
    setup(summary, width, out)?;
    for problem in &summary.problems {
        paragraph(0, &format!("not read: {}", problem.source), width, out)?;
        paragraph(2, &problem.message, width, out)?;
    }
    writeln!(out, "\n{}", last_line(summary, heals))
}

/// Names of manifests; equal names have the end of their ids beside them.
fn names(rows: &[&ManifestSummary]) -> Vec<String> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for row in rows {
        *times.entry(row.name()).or_default() += 1;
    }
    let name = |row: &&ManifestSummary| match (row.name(), row.tail()) {
        (name, tail) if times[name] > 1 && name != tail => format!("{} ({})", clean(name), clean(tail)),
        (name, _) => clean(name),
    };
    rows.iter().map(name).collect()
}

struct Columns {
    names: usize,
    heals: bool,
}

impl Columns {
    fn of(names: &[String], width: usize, heals: bool) -> Self {
        let numbers = if heals { 4 } else { 5 };
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        Self { names: longest.clamp(12, width - numbers * 9), heals }
    }

    fn numbers(&self, counts: &ImageCounts) -> Vec<(&'static str, u64)> {
        let mut all = vec![("images", counts.images)];
        if self.heals {
            all.extend([("broken", counts.broken), ("healed", counts.healed), ("left", counts.left())]);
        } else {
            all.extend([("expired", counts.expired), ("missing", counts.missing)]);
            all.extend([("poisoned", counts.poisoned), ("error", counts.error)]);
        }
        all
    }

    fn head(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{:<1$}", "manifest", self.names)?;
        for (name, _) in self.numbers(&ImageCounts::default()) {
            write!(out, " {name:>8}")?;
        }
        writeln!(out)
    }

    fn row(&self, name: &str, counts: &ImageCounts, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{:<1$}", cut(name, self.names), self.names)?;
        for (_, number) in self.numbers(counts) {
            // Zero is written as a dot, so that other numbers stand out.
            let text = if number == 0 { "·".to_owned() } else { HumanCount(number).to_string() };
            write!(out, " {text:>8}")?;
        }
        writeln!(out)
    }
}

/// Writes every broken image, below its manifest, and at the end the advice once.
fn listed(summary: &Summary, terminal: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
    let width = terminal.unwrap_or(usize::MAX);
    let (mut room, mut hidden) = (if terminal.is_some() { LISTED } else { usize::MAX }, 0);
    let mut advices = BTreeSet::new();
    for (row, mut entries) in summary.by_manifest() {
        entries.retain(|entry| entry.now() != ImageVerdict::Ok);
        let shown = entries.len().min(room);
        (room, hidden) = (room - shown, hidden + entries.len() - shown);
        if shown > 0 {
            writeln!(out)?;
            paragraph(0, row.name(), width, out)?;
            writeln!(out, "{}", clean(&row.manifest))?;
        }
        for entry in &entries[..shown] {
            let verdict = entry.now().as_str();
            let image = if entry.image.is_empty() { &entry.canvas } else { &entry.image };
            let label = entry.label.as_deref().map(|label| format!("{label} · ")).unwrap_or_default();
            write!(out, "  {verdict:<8}")?;
            beside(INDENT, &format!("{label}{image}"), width, out)?;
            // "expired" says as much in one word.
            if let Some(reason) = entry.reason.as_deref().filter(|reason| *reason != FORGOTTEN) {
                paragraph(INDENT, reason, width, out)?;
            }
        }
        advices.extend(
            entries.iter().filter_map(|entry| Some((entry.now().as_str(), entry.advice.as_deref()?))),
        );
    }
    if hidden > 0 {
        writeln!(out, "… and {} (--report FILE lists all)", counted(hidden, "more image"))?;
    }
    if !advices.is_empty() {
        writeln!(out, "\nwhat to do")?;
    }
    for (verdict, advice) in advices {
        write!(out, "  {verdict:<8}")?;
        beside(INDENT, advice, width, out)?;
    }
    Ok(())
}

fn setup(summary: &Summary, width: usize, out: &mut dyn Write) -> io::Result<()> {
    if !summary.setup.is_empty() {
        writeln!(out)?;
    }
    for finding in &summary.setup {
        let mark = match finding.state {
            FindingState::Good => "ok",
            FindingState::Note => "note",
            FindingState::Bad => "BAD",
        };
        write!(out, "{mark:<5}{:<11}", finding.about)?;
        beside(18, &finding.text, width, out)?;
    }
    Ok(())
}

fn last_line(summary: &Summary, heals: bool) -> String {
    let totals = &summary.totals;
    let took = if summary.took < 60.0 {
        format!("{:.1} s", summary.took)
    } else {
        indicatif::HumanDuration(std::time::Duration::from_secs_f64(summary.took)).to_string()
    };
    let images = counted(totals.images, "image");
    let mut line = match (heals, totals.broken, totals.left()) {
        (_, 0, _) => format!("{images}, nothing broken"),
        (false, _, left) => format!("{images}, {} broken", HumanCount(left)),
        (true, broken, left) => format!(
            "{images}, {} broken, {} healed, {} left",
            HumanCount(broken),
            HumanCount(totals.healed),
            HumanCount(left)
        ),
    };
    match summary.asked {
        None | Some(0) => {}
        Some(asked) => line = format!("{line}, {}", counted(asked, "canvas request")),
    }
    if summary.interrupted {
        line.push_str(", stopped before the end");
    }
    format!("{line} ({took})")
}

/// Control characters of a label never reach the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

/// Cuts to `most` characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Writes lines that begin at this column.
fn paragraph(indent: usize, text: &str, width: usize, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{:indent$}", "")?;
    lines(indent, text, width, out)
}

/// Writes text beside the one on the line already, two columns from it.
fn beside(indent: usize, text: &str, width: usize, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "  ")?;
    lines(indent, text, width, out)
}

/// Breaks lines between words only: a URL is whole, so that it can be copied.
fn lines(indent: usize, text: &str, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut at = indent;
    for word in clean(text).split_whitespace() {
        let long = word.chars().count();
        if at > indent && at + 1 + long > width {
            write!(out, "\n{:indent$}", "")?;
            at = indent;
        }
        let space = if at > indent { " " } else { "" };
        write!(out, "{space}{word}")?;
        at += space.len() + long;
    }
    writeln!(out)
}
