//! JUnit XML: a suite for each manifest, a failure for each image that is not well. Build servers show it.

use std::io::{self, Write};

use super::escaped;
use crate::batch::ImageResult;
use crate::batch::summary::{ManifestSummary, Summary};
use crate::setup::FindingState;

pub(super) fn write(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let troubles = summary.manifests.iter().filter(|row| is_troubled(row)).count();
    let bad = summary.setup.iter().filter(|finding| finding.is_bad()).count();
    let more = u64::try_from(summary.problems.len() + troubles + bad).unwrap_or(0);
    let failures = summary.totals.left() + more;
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(
        out,
        r#"<testsuites name="iiif-mender {}" tests="{}" failures="{failures}" time="{:.3}">"#,
        escaped(&summary.command),
        summary.totals.images + more,
        summary.took
    )?;
    let mut left: Vec<&ImageResult> =
        summary.images.iter().filter(|entry| entry.now() != super::super::ImageVerdict::Ok).collect();
    left.sort_by(|one, other| one.manifest.cmp(&other.manifest));
    for row in &summary.manifests {
        let from = left.partition_point(|entry| entry.manifest < row.manifest);
        let to = left.partition_point(|entry| entry.manifest <= row.manifest);
        suite(row, &left[from..to], out)?;
    }
    others(summary, out)?;
    writeln!(out, "</testsuites>")
}

fn is_troubled(row: &ManifestSummary) -> bool {
    row.trouble.is_some() && !row.mended
}

fn suite(row: &ManifestSummary, left: &[&ImageResult], out: &mut dyn Write) -> io::Result<()> {
    let name = escaped(row.label.as_deref().unwrap_or(&row.manifest));
    let trouble = u64::from(is_troubled(row));
    writeln!(
        out,
        r#"  <testsuite name="{name}" id="{}" tests="{}" failures="{}">"#,
        escaped(&row.manifest),
        row.counts.images + trouble,
        row.counts.left() + trouble
    )?;
    if let (1, Some(text)) = (trouble, &row.trouble) {
        failure(out, "manifest", &row.manifest, "manifest", text)?;
    }
    for entry in left {
        let name = entry.label.as_deref().unwrap_or(if entry.image.is_empty() {
            &entry.canvas
        } else {
            &entry.image
        });
        let reason = entry.reason.as_deref().unwrap_or_default();
        let text = format!("{reason}\nimage {}\ncanvas {}", entry.image, entry.canvas);
        failure(out, name, &entry.manifest, entry.now().as_str(), &text)?;
    }
    writeln!(out, "  </testsuite>")
}

fn others(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    if !summary.problems.is_empty() {
        let count = summary.problems.len();
        writeln!(out, r#"  <testsuite name="sources" tests="{count}" failures="{count}">"#)?;
        for problem in &summary.problems {
            failure(out, &problem.source, "source", "unreadable", &problem.message)?;
        }
        writeln!(out, "  </testsuite>")?;
    }
    let bad: Vec<_> = summary.setup.iter().filter(|finding| finding.state == FindingState::Bad).collect();
    if !bad.is_empty() {
        let count = bad.len();
        writeln!(out, r#"  <testsuite name="deployment" tests="{count}" failures="{count}">"#)?;
        for finding in bad {
            failure(out, finding.about, "deployment", "bad", &finding.text)?;
        }
        writeln!(out, "  </testsuite>")?;
    }
    Ok(())
}

fn failure(out: &mut dyn Write, name: &str, class: &str, kind: &str, text: &str) -> io::Result<()> {
    let message = text.lines().next().unwrap_or_default();
    writeln!(out, r#"    <testcase name="{}" classname="{}">"#, escaped(name), escaped(class))?;
    writeln!(
        out,
        r#"      <failure type="{}" message="{}">{}</failure>"#,
        escaped(kind),
        escaped(message),
        escaped(text)
    )?;
    writeln!(out, "    </testcase>")
}
