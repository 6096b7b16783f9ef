//! CSV report (RFC 4180): a line for each image that was broken or requested, and for each problem.

use std::io::{self, Write};

use csv::{Terminator, WriterBuilder};

use crate::batch::summary::Summary;

/// Columns. New ones come last, for readers that use positions.
const COLUMNS: [&str; 11] = [
    "manifest",
    "canvas",
    "label",
    "image",
    "before",
    "after",
    "rung",
    "duration_ms",
    "reason",
    "manifest_label",
    "advice",
];

pub(super) fn write(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = CsvTable::new(COLUMNS, out)?;
    let mut line = |fields: [&str; 11]| csv.line(fields);
    for entry in &summary.images {
        let duration = entry.duration_ms.map(|ms| ms.to_string()).unwrap_or_default();
        line([
            &entry.manifest,
            &entry.canvas,
            entry.label.as_deref().unwrap_or_default(),
            &entry.image,
            entry.before.as_str(),
            entry.now().as_str(),
            entry.rung.as_deref().unwrap_or_default(),
            &duration,
            entry.reason.as_deref().unwrap_or_default(),
            entry.manifest_label.as_deref().unwrap_or_default(),
            entry.advice.as_deref().unwrap_or_default(),
        ])?;
    }
    for row in &summary.manifests {
        if let Some(trouble) = &row.trouble {
            let label = row.label.as_deref().unwrap_or_default();
            let after = if row.mended { "ok" } else { "error" };
            line([&row.manifest, "", label, "", "error", after, "", "", trouble, label, ""])?;
        }
    }
    for problem in &summary.problems {
        line([&problem.source, "", "", "", "error", "error", "", "", &problem.message, "", ""])?;
    }
    csv.end()
}

/// `CsvTable` writes a table (RFC 4180) of so many columns.
pub(crate) struct CsvTable<W: Write, const COLUMNS: usize>(csv::Writer<W>);

impl<W: Write, const COLUMNS: usize> CsvTable<W, COLUMNS> {
    /// Begins a table with its names.
    pub(crate) fn new(names: [&str; COLUMNS], out: W) -> io::Result<Self> {
        let mut csv = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
        csv.write_record(names)?;
        Ok(Self(csv))
    }

    pub(crate) fn line(&mut self, fields: [&str; COLUMNS]) -> io::Result<()> {
        Ok(self.0.write_record(fields.map(guarded))?)
    }

    pub(crate) fn end(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// SECURITY: spreadsheets run a field that begins like a formula; an apostrophe keeps it text.
fn guarded(field: &str) -> String {
    let guard = if field.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("{guard}{field}")
}
