//! CSV report (RFC 4180): a line for each image that was broken or requested, and for each problem.

use std::io::{self, Write};

use crate::batch::summary::Summary;

pub(super) fn write(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "manifest,canvas,label,image,before,after,rung,duration_ms,reason\r\n")?;
    for entry in &summary.images {
        let duration = entry.duration_ms.map(|ms| ms.to_string()).unwrap_or_default();
        let fields = [
            &*entry.manifest,
            &entry.canvas,
            entry.label.as_deref().unwrap_or_default(),
            &entry.image,
            entry.before.as_str(),
            entry.now().as_str(),
            entry.rung.as_deref().unwrap_or_default(),
            &duration,
            entry.reason.as_deref().unwrap_or_default(),
        ];
        line(out, &fields)?;
    }
    for row in &summary.manifests {
        if let Some(trouble) = &row.trouble {
            let label = row.label.as_deref().unwrap_or_default();
            let after = if row.mended { "ok" } else { "error" };
            line(out, &[&row.manifest, "", label, "", "error", after, "", "", trouble])?;
        }
    }
    for problem in &summary.problems {
        line(out, &[&problem.source, "", "", "", "error", "error", "", "", &problem.message])?;
    }
    Ok(())
}

/// Writes one line.
pub(crate) fn line(out: &mut dyn Write, fields: &[&str]) -> io::Result<()> {
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            write!(out, ",")?;
        }
        write!(out, "{}", quoted(field))?;
    }
    write!(out, "\r\n")
}

/// SECURITY: spreadsheets run a field that begins like a formula; an apostrophe keeps it text.
fn quoted(field: &str) -> String {
    let guard = if field.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if guard.is_empty() && !field.contains([',', '"', '\n', '\r']) {
        return field.to_owned();
    }
    format!("\"{guard}{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn fields_are_quoted_where_they_must_be_and_no_label_is_a_formula() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a,b \"c\"\n"), "\"a,b \"\"c\"\"\n\"");
        assert_eq!(quoted("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
    }
}
