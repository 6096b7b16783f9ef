//! Self-contained HTML page: no script, no fonts, no external style; only the thumbnails are the public ones.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use askama::Template;
use indicatif::HumanCount;

use crate::batch::summary::{ManifestSummary, Summary};
use crate::batch::{ImageResult, ImageVerdict};
use crate::iiif::image_path::{Slashes, path_of_key};
use crate::observe::counted;
use crate::setup::{FindingState, SetupFinding};

#[derive(Template)]
#[template(path = "batch_report.html")]
struct ReportPage<'a> {
    summary: &'a Summary,
    title: &'static str,
    subtitle: String,
    left: String,
    /// Number, name, class.
    tiles: Vec<(String, &'static str, &'static str)>,
    /// Findings about the deployment: the bad ones, and the rest.
    findings: [Vec<(&'static str, &'static str, &'a SetupFinding)>; 2],
    /// Images that need attention; and healed ones, folded under a heading.
    groups: [(Option<String>, Vec<ReportSection<'a>>); 2],
    needs_attention: bool,
    columns: &'static [&'static str],
    all: (String, Vec<ReportRow<'a>>),
}

/// A manifest with some of its images.
struct ReportSection<'a> {
    row: &'a ManifestSummary,
    link: Option<&'a str>,
    cards: Vec<ReportCard<'a>>,
}

struct ReportCard<'a> {
    entry: &'a ImageResult,
    label: &'a str,
    link: Option<&'a str>,
    /// Base of its image URLs; `None`: there is none that the public could open.
    base: Option<String>,
    /// Verdict as it was found, where that has changed.
    before: Option<&'static str>,
    now: &'static str,
    how: String,
}

/// A manifest in the table of all.
struct ReportRow<'a> {
    row: &'a ManifestSummary,
    numbers: Vec<String>,
}

pub(super) fn write(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let heals = summary.command == "heal";
    let (mut open, mut healed) = (Vec::new(), Vec::new());
    for (row, entries) in summary.by_manifest() {
        let (well, left): (Vec<&ImageResult>, Vec<&ImageResult>) =
            entries.into_iter().partition(|entry| entry.now() == ImageVerdict::Ok);
        if !left.is_empty() || row.is_troubled() {
            open.push(section(summary, row, left));
        }
        if !well.is_empty() || row.mended {
            healed.push(section(summary, row, well));
        }
    }
    let started = UNIX_EPOCH + Duration::from_secs(summary.started);
    let started =
        humantime::format_rfc3339_seconds(started).to_string().replace('T', " ").replace('Z', " UTC");
    let (took, command, sources) = (summary.took, &summary.command, summary.sources.join(" "));
    let page = ReportPage {
        summary,
        title: if heals { "Images mended" } else { "Images checked" },
        subtitle: format!("{started}, {took:.1} s, iiif-mender {command} {sources}"),
        left: HumanCount(summary.totals.left()).to_string(),
        tiles: tiles(summary, heals),
        findings: findings(summary),
        needs_attention: !open.is_empty(),
        groups: [(None, open), (Some(counted(summary.totals.healed, "healed image")), healed)],
        columns: if heals { &["images", "broken", "healed", "left"] } else { &["images", "broken"] },
        all: (
            counted(summary.manifests.len(), "manifest"),
            summary.manifests.iter().map(|row| row_of(row, heals)).collect(),
        ),
    };
    page.write_into(out)?;
    writeln!(out)
}

fn section<'a>(
    summary: &Summary,
    row: &'a ManifestSummary,
    entries: Vec<&'a ImageResult>,
) -> ReportSection<'a> {
    let cards = entries.into_iter().map(|entry| card(summary, entry)).collect();
    ReportSection { row, link: link(&row.manifest), cards }
}

/// SECURITY: only http(s) becomes a link; a manifest may call its canvas `javascript:…`.
fn link(url: &str) -> Option<&str> {
    Some(url).filter(|url| url.starts_with("http://") || url.starts_with("https://"))
}

fn row_of(row: &ManifestSummary, heals: bool) -> ReportRow<'_> {
    let counts = &row.counts;
    let all = [counts.images, counts.broken, counts.healed, counts.left()];
    let numbers = all[..if heals { 4 } else { 2 }].iter().map(|number| HumanCount(*number).to_string());
    ReportRow { row, numbers: numbers.collect() }
}

fn tiles(summary: &Summary, heals: bool) -> Vec<(String, &'static str, &'static str)> {
    let totals = &summary.totals;
    let mut all = vec![(totals.images, "images", "")];
    if heals {
        all.extend([(totals.broken, "broken", ""), (totals.healed, "healed", "ok")]);
    }
    let left = [
        (totals.expired, "expired"),
        (totals.missing, "missing"),
        (totals.poisoned, "poisoned"),
        (totals.error, "error"),
    ];
    all.extend(left.map(|(count, name)| (count, name, if count > 0 { name } else { "" })));
    all.extend(summary.asked.filter(|_| heals).map(|asked| (asked, "canvas requests", "")));
    let all = all.into_iter().map(|(count, name, class)| match name {
        "images" | "canvas requests" if count == 1 => ("1".to_owned(), name.trim_end_matches('s'), class),
        _ => (HumanCount(count).to_string(), name, class),
    });
    all.collect()
}

/// Class, word and finding, the bad ones apart from the rest.
fn findings(summary: &Summary) -> [Vec<(&'static str, &'static str, &SetupFinding)>; 2] {
    let (bad, rest): (Vec<_>, Vec<_>) = summary.setup.iter().partition(|finding| finding.is_bad());
    [bad, rest].map(|part| {
        let words = part.into_iter().map(|finding| match finding.state {
            FindingState::Good => ("ok", "ok", finding),
            FindingState::Note => ("expired", "note", finding),
            FindingState::Bad => ("error", "bad", finding),
        });
        words.collect()
    })
}

fn card<'a>(summary: &Summary, entry: &'a ImageResult) -> ReportCard<'a> {
    let path = path_of_key(&entry.image, Slashes::Encoded).filter(|path| !path.is_empty());
    let rung = entry.rung.as_deref().map(|rung| format!(" by {rung}")).unwrap_or_default();
    let took = entry.duration_ms.map(|ms| format!(", {} ms", HumanCount(ms))).unwrap_or_default();
    ReportCard {
        entry,
        label: entry.label.as_deref().unwrap_or(&entry.image),
        link: link(&entry.canvas),
        base: path
            .filter(|_| !summary.image_base.is_empty())
            .map(|path| format!("{}{path}", summary.image_base)),
        before: (entry.before != entry.now()).then(|| entry.before.as_str()),
        now: entry.now().as_str(),
        how: if entry.is_healed() { format!("{rung}{took}") } else { String::new() },
    }
}
