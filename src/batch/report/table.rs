//! The table on stdout: a line for each manifest, within 80 columns, then what is broken and why.

use std::io::{self, Write};

use indicatif::HumanCount;

use crate::batch::ImageVerdict;
use crate::batch::check::FORGOTTEN;
use crate::batch::summary::{ImageCounts, ManifestSummary, Summary};
use crate::setup::FindingState;

/// Columns.
const WIDTH: usize = 80;

/// Manifests with nothing broken that are shown before they are only counted.
const HEALTHY: usize = 12;

/// Manifests in the table at most.
const ROWS: usize = 60;

/// Broken images that are listed.
const LISTED: usize = 20;

pub(crate) fn write(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let heals = summary.command == "heal";
    let columns = Columns::of(summary, heals);
    columns.head(out)?;
    let (mut hidden, mut healthy, mut shown) = (0u64, 0, 0);
    for row in &summary.manifests {
        let is_well = row.counts.broken == 0 && row.trouble.is_none();
        healthy += usize::from(is_well);
        if shown == ROWS || (is_well && healthy > HEALTHY) {
            hidden += 1;
            continue;
        }
        shown += 1;
        columns.row(&name(row), &row.counts, out)?;
        if let Some(trouble) = &row.trouble {
            let mended = if row.mended { " (mended)" } else { "" };
            writeln!(out, "{}", cut(&format!("  ! {trouble}{mended}"), WIDTH))?;
        }
    }
    if hidden > 0 {
        writeln!(out, "… and {} more manifests", HumanCount(hidden))?;
    }
    if summary.manifests.len() != 1 {
        columns.row("all", &summary.totals, out)?;
    }
    listed(summary, out)?;
    setup(summary, out)?;
    for problem in &summary.problems {
        writeln!(out, "{}", cut(&format!("not read: {}", problem.source), WIDTH))?;
        writeln!(out, "  {}", cut(&problem.message, WIDTH - 2))?;
    }
    writeln!(out, "\n{}", last_line(summary, heals))
}

struct Columns {
    names: usize,
    heals: bool,
    with_poisoned: bool,
}

impl Columns {
    fn of(summary: &Summary, heals: bool) -> Self {
        let numbers = if heals { 4 } else { 5 };
        let longest = summary.manifests.iter().map(|row| name(row).chars().count()).max().unwrap_or(0);
        let names = longest.clamp(12, WIDTH - numbers * 9);
        Self { names, heals, with_poisoned: !heals }
    }

    fn numbers(&self, counts: &ImageCounts) -> Vec<(&'static str, u64)> {
        let mut all = vec![("images", counts.images)];
        if self.heals {
            all.extend([("broken", counts.broken), ("healed", counts.healed), ("left", counts.left())]);
        } else {
            all.extend([("expired", counts.expired), ("missing", counts.missing)]);
        }
        if self.with_poisoned {
            all.extend([("poisoned", counts.poisoned), ("error", counts.error)]);
        }
        all
    }

    fn head(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}", pad("manifest", self.names))?;
        for (name, _) in self.numbers(&ImageCounts::default()) {
            write!(out, " {name:>8}")?;
        }
        writeln!(out)
    }

    fn row(&self, name: &str, counts: &ImageCounts, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}", pad(&cut(name, self.names), self.names))?;
        for (_, number) in self.numbers(counts) {
            // A zero is a dot: what is not zero is seen at once.
            let text = if number == 0 { "·".to_owned() } else { HumanCount(number).to_string() };
            write!(out, " {text:>8}")?;
        }
        writeln!(out)
    }
}

fn name(row: &ManifestSummary) -> String {
    let uri = row.manifest.trim_end_matches('/');
    let tail = || uri.rsplit("/presentation/").next().unwrap_or(uri);
    let tail = if uri.contains("/presentation/") { tail() } else { uri.rsplit('/').next().unwrap_or(uri) };
    row.label.clone().filter(|label| !label.trim().is_empty()).unwrap_or_else(|| tail.to_owned())
}

fn listed(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let broken: Vec<_> = summary.images.iter().filter(|entry| entry.now() != ImageVerdict::Ok).collect();
    if broken.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    for entry in broken.iter().take(LISTED) {
        let label = entry.label.as_deref().map(|label| format!("  {label}")).unwrap_or_default();
        let image = if entry.image.is_empty() { &entry.canvas } else { &entry.image };
        writeln!(out, "{}", cut(&format!("{:<8} {image}{label}", entry.now().as_str()), WIDTH))?;
        // "expired" says as much in one word.
        if let Some(reason) = entry.reason.as_deref().filter(|reason| *reason != FORGOTTEN) {
            writeln!(out, "         {}", cut(reason, WIDTH - 9))?;
        }
    }
    if broken.len() > LISTED {
        writeln!(out, "… and {} more (--report FILE lists all)", broken.len() - LISTED)?;
    }
    Ok(())
}

fn setup(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    if !summary.setup.is_empty() {
        writeln!(out)?;
    }
    for finding in &summary.setup {
        let mark = match finding.state {
            FindingState::Good => "ok",
            FindingState::Note => "note",
            FindingState::Bad => "BAD",
        };
        for (at, line) in wrapped(&finding.text, WIDTH - 18).iter().enumerate() {
            let (mark, about) = if at == 0 { (mark, finding.about) } else { ("", "") };
            writeln!(out, "{mark:<5}{about:<13}{line}")?;
        }
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
    let images = HumanCount(totals.images);
    let mut line = match (heals, totals.broken, totals.left()) {
        (_, 0, _) => format!("{images} images, nothing broken"),
        (false, _, left) => format!("{images} images, {} broken", HumanCount(left)),
        (true, broken, left) => format!(
            "{images} images, {} broken, {} healed, {} left",
            HumanCount(broken),
            HumanCount(totals.healed),
            HumanCount(left)
        ),
    };
    match summary.asked {
        None | Some(0) => {}
        Some(1) => line.push_str(", 1 canvas request"),
        Some(asked) => line = format!("{line}, {} canvas requests", HumanCount(asked)),
    }
    if summary.interrupted {
        line.push_str(", stopped before the end");
    }
    format!("{line} ({took})")
}

/// Cuts to `most` characters; control characters of a label never reach the terminal.
fn cut(text: &str, most: usize) -> String {
    let clean = text.chars().map(|one| if one.is_control() { ' ' } else { one });
    let mut cut: String = clean.take(most + 1).collect();
    if cut.chars().count() > most {
        cut = cut.chars().take(most.saturating_sub(1)).collect();
        cut.push('…');
    }
    cut
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut()
            && (line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width)
        {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
