//! A page that stands alone: no script, no fonts, no style from elsewhere; only the thumbnails are the public ones.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use indicatif::HumanCount;

use super::escaped;
use crate::batch::summary::{ManifestSummary, Summary};
use crate::batch::{ImageResult, ImageVerdict};
use crate::iiif::image_path::{Slashes, path_of_key};
use crate::setup::FindingState;

pub(super) fn write(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let heals = summary.command == "heal";
    let title = if heals { "Images mended" } else { "Images checked" };
    let started = UNIX_EPOCH + Duration::from_secs(summary.started);
    let started =
        humantime::format_rfc3339_seconds(started).to_string().replace('T', " ").replace('Z', " UTC");
    write!(
        out,
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">
<title>{title}: {} broken</title><style>{STYLE}</style></head><body><main>
<h1>{title}</h1><p class="quiet">{started}, {:.1} s, iiif-mender {} {}</p>
"#,
        HumanCount(summary.totals.left()),
        summary.took,
        escaped(&summary.command),
        escaped(&summary.sources.join(" ")),
    )?;
    if summary.interrupted {
        writeln!(
            out,
            r#"<p class="note bad">Stopped before the end: this is what was done until then.</p>"#
        )?;
    }
    tiles(summary, heals, out)?;
    problems(summary, out)?;
    setup(summary, out)?;
    overview(summary, heals, out)?;
    let mut by_manifest: BTreeMap<&str, Vec<&ImageResult>> = BTreeMap::new();
    for entry in &summary.images {
        by_manifest.entry(&entry.manifest).or_default().push(entry);
    }
    for (number, row) in summary.manifests.iter().enumerate() {
        let entries = by_manifest.get(row.manifest.as_str()).map(Vec::as_slice).unwrap_or_default();
        manifest(summary, number, row, entries, out)?;
    }
    writeln!(out, "</main></body></html>")
}

fn tiles(summary: &Summary, heals: bool, out: &mut dyn Write) -> io::Result<()> {
    let totals = &summary.totals;
    let mut all = vec![("images", totals.images, "")];
    if heals {
        all.extend([("broken", totals.broken, ""), ("healed", totals.healed, "ok")]);
    }
    let of = |count: u64, class: &'static str| if count > 0 { class } else { "" };
    all.extend([
        ("expired", totals.expired, of(totals.expired, "expired")),
        ("missing", totals.missing, of(totals.missing, "missing")),
        ("poisoned", totals.poisoned, of(totals.poisoned, "poisoned")),
        ("error", totals.error, of(totals.error, "error")),
    ]);
    if heals {
        all.extend(summary.asked.map(|asked| ("canvas requests", asked, "")));
    }
    writeln!(out, r#"<ul class="tiles">"#)?;
    for (name, count, class) in all {
        writeln!(out, r#"<li class="{class}"><b>{}</b> {name}</li>"#, HumanCount(count))?;
    }
    writeln!(out, "</ul>")
}

fn problems(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    if summary.problems.is_empty() {
        return Ok(());
    }
    writeln!(out, r#"<h2>Not read</h2><ul class="list">"#)?;
    for problem in &summary.problems {
        writeln!(out, "<li><code>{}</code> {}</li>", escaped(&problem.source), escaped(&problem.message))?;
    }
    writeln!(out, "</ul>")
}

fn setup(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    if summary.setup.is_empty() {
        return Ok(());
    }
    writeln!(out, r#"<h2>Deployment</h2><ul class="list">"#)?;
    for finding in &summary.setup {
        let (class, word) = match finding.state {
            FindingState::Good => ("ok", "ok"),
            FindingState::Note => ("expired", "note"),
            FindingState::Bad => ("error", "bad"),
        };
        let (about, text) = (escaped(finding.about), escaped(&finding.text));
        writeln!(out, r#"<li><span class="word {class}">{word}</span> <b>{about}</b> {text}</li>"#)?;
    }
    writeln!(out, "</ul>")
}

fn overview(summary: &Summary, heals: bool, out: &mut dyn Write) -> io::Result<()> {
    if summary.manifests.is_empty() {
        return Ok(());
    }
    let healed = if heals { "<th>healed</th>" } else { "" };
    writeln!(
        out,
        r#"<h2>Manifests</h2><div class="wide"><table><thead><tr><th>manifest</th><th>images</th><th>broken</th>{healed}<th>left</th></tr></thead><tbody>"#
    )?;
    for (number, row) in summary.manifests.iter().enumerate() {
        let (name, counts) = (escaped(row.label.as_deref().unwrap_or(&row.manifest)), &row.counts);
        let name = if counts.broken > 0 || row.trouble.is_some() {
            format!("<a href=\"#m{number}\">{name}</a>")
        } else {
            name
        };
        let healed = if heals { format!("<td>{}</td>", HumanCount(counts.healed)) } else { String::new() };
        let class = if counts.left() > 0 { " class=\"error\"" } else { "" };
        writeln!(
            out,
            "<tr><th>{name}</th><td>{}</td><td>{}</td>{healed}<td{class}>{}</td></tr>",
            HumanCount(counts.images),
            HumanCount(counts.broken),
            HumanCount(counts.left())
        )?;
    }
    writeln!(out, "</tbody></table></div>")
}

fn manifest(
    summary: &Summary,
    number: usize,
    row: &ManifestSummary,
    entries: &[&ImageResult],
    out: &mut dyn Write,
) -> io::Result<()> {
    if entries.is_empty() && row.trouble.is_none() {
        return Ok(());
    }
    let name = escaped(row.label.as_deref().unwrap_or(&row.manifest));
    writeln!(
        out,
        r#"<section id="m{number}"><h2>{name}</h2><p class="quiet">{}</p>"#,
        linked(&row.manifest)
    )?;
    if let Some(trouble) = &row.trouble {
        let (class, mended) = if row.mended { ("ok", " It is mended.") } else { ("bad", "") };
        writeln!(out, r#"<p class="note {class}">{}.{mended}</p>"#, escaped(trouble))?;
    }
    if !entries.is_empty() {
        writeln!(out, r#"<ul class="cards">"#)?;
        // What is still broken first.
        let (left, well): (Vec<&ImageResult>, Vec<&ImageResult>) =
            entries.iter().partition(|entry| entry.now() != ImageVerdict::Ok);
        for entry in left.into_iter().chain(well) {
            card(summary, entry, out)?;
        }
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "</section>")
}

fn card(summary: &Summary, entry: &ImageResult, out: &mut dyn Write) -> io::Result<()> {
    let label = entry.label.as_deref().unwrap_or(&entry.image);
    let base =
        format!("{}{}", summary.image_base, path_of_key(&entry.image, Slashes::Encoded).unwrap_or_default());
    let picture = if summary.image_base.is_empty() || entry.image.is_empty() {
        r#"<span class="thumb"></span>"#.to_owned()
    } else {
        let base = escaped(&base);
        // Its alternative text shows in place of a picture that is still broken.
        format!(
            r#"<a class="thumb" href="{base}/info.json"><img loading="lazy" src="{base}/full/,120/0/default.jpg" alt="no picture"></a>"#
        )
    };
    let word = |verdict: ImageVerdict| format!(r#"<span class="word {0}">{0}</span>"#, verdict.as_str());
    let change = match entry.after {
        Some(after) if after != entry.before => format!("{} → {}", word(entry.before), word(after)),
        _ => word(entry.now()),
    };
    let rung = entry.rung.as_deref().map(|rung| format!(" by {}", escaped(rung))).unwrap_or_default();
    let took = entry.duration_ms.map(|ms| format!(", {} ms", HumanCount(ms))).unwrap_or_default();
    let how =
        if entry.is_healed() { format!(r#"<span class="quiet">{rung}{took}</span>"#) } else { String::new() };
    let reason =
        entry.reason.as_deref().map(|reason| format!("<p>{}</p>", escaped(reason))).unwrap_or_default();
    writeln!(
        out,
        r#"<li class="card">{picture}<div><h3>{}</h3><p>{change}{how}</p>{reason}<p class="quiet">{}<br><code>{}</code></p></div></li>"#,
        escaped(label),
        linked(&entry.canvas),
        escaped(&entry.image),
    )
}

/// SECURITY: only http(s) becomes a link; a manifest may call its canvas `javascript:…`.
fn linked(url: &str) -> String {
    let text = escaped(url);
    if url.starts_with("http://") || url.starts_with("https://") {
        format!(r#"<a href="{text}">{text}</a>"#)
    } else {
        text
    }
}

const STYLE: &str = "
:root{--ink:#1d2327;--quiet:#5b6670;--paper:#fff;--card:#f5f6f7;--line:#dde1e5;--link:#0b57a4;
--ok:#1a7f37;--expired:#9a6700;--missing:#8250df;--poisoned:#bc4c00;--error:#cf222e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--quiet:#9aa5b1;--paper:#14181b;--card:#1e2327;--line:#343b42;
--link:#79b8ff;--ok:#56d364;--expired:#e3b341;--missing:#d2a8ff;--poisoned:#ffa657;--error:#ff7b72}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1.5rem 1rem 4rem}h1{margin:0;font-size:1.7rem}h2{margin:2.2rem 0 .4rem;font-size:1.2rem}
h3{margin:0;font-size:1rem}p{margin:.15rem 0}a{color:var(--link);overflow-wrap:anywhere}code{font-size:.85em;overflow-wrap:anywhere}
.quiet{color:var(--quiet);font-size:.88rem}ul{list-style:none;padding:0;margin:.6rem 0}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin-top:1.2rem}.tiles li{background:var(--card);border:1px solid var(--line);
border-radius:.5rem;padding:.5rem .9rem;color:var(--quiet)}.tiles b{display:block;font-size:1.4rem;line-height:1.2;color:var(--ink)}
.list li{padding:.35rem 0;border-bottom:1px solid var(--line)}.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right;
font-variant-numeric:tabular-nums}th:first-child{text-align:left;font-weight:400;overflow-wrap:anywhere}thead th{color:var(--quiet);font-weight:400}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,28rem),1fr));gap:.7rem}
.card{display:flex;gap:.9rem;background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.7rem;min-width:0}
.card div{min-width:0}.thumb{flex:none;width:90px;height:120px;display:grid;place-items:center;overflow:hidden;
background:var(--paper);border:1px dashed var(--line);border-radius:.3rem;color:var(--quiet);font-size:.75rem;text-align:center;text-decoration:none}
.thumb img{max-width:100%;max-height:100%}.word{font-weight:600}.note{padding:.5rem .8rem;border-left:4px solid;background:var(--card)}
.ok,.tiles .ok b{color:var(--ok)}.expired,.tiles .expired b{color:var(--expired)}.missing,.tiles .missing b{color:var(--missing)}
.poisoned,.tiles .poisoned b{color:var(--poisoned)}.error,.bad,.tiles .error b{color:var(--error)}
";
