//! Reports of a run, for machines (JSON, CSV, JUnit) and for people (HTML, and the table on stdout).

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::summary::Summary;

pub(crate) mod csv;
mod html;
mod junit;
pub(crate) mod table;

#[cfg(test)]
mod tests;

/// Format of a report, told by the extension of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    /// `.json`
    Json,
    /// `.csv`
    Csv,
    /// `.html`
    Html,
    /// `.xml`: JUnit, which build servers read.
    Junit,
}

impl ReportFormat {
    /// The format of a file with this name.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "html" | "htm" => Some(Self::Html),
            "xml" => Some(Self::Junit),
            _ => None,
        }
    }

    /// Writes the report.
    pub fn write(self, summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Json => json(summary, out),
            Self::Csv => csv::write(summary, out),
            Self::Html => html::write(summary, out),
            Self::Junit => junit::write(summary, out),
        }
    }
}

/// Writes the report into a file; the old one stays until the new one is whole.
pub fn write_file(format: ReportFormat, summary: &Summary, path: &Path) -> io::Result<()> {
    let mut partial = path.to_path_buf().into_os_string();
    partial.push(".part");
    let mut out = BufWriter::new(std::fs::File::create(&partial)?);
    format.write(summary, &mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
    std::fs::rename(&partial, path)
}

/// The whole summary as one JSON object.
pub(crate) fn json(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, summary)?;
    writeln!(out)
}
