//! Log lines of events: secrets blacked out, control characters made visible, written by another thread.
//!
//! A line of JSON is JSON and a line of text is one line, whatever stands in their values. In text [`ValueWriter`] cleans
//! each value as it is written; in JSON each string is cleaned when the object is whole.

use std::borrow::Cow;
use std::fmt::{self, Debug, Write as _};
use std::io;

use tracing::field::{Field, Visit};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};

use super::redact::redacted;

/// Formats events as lines and queues them. Lines that do not fit into the queue are dropped and counted.
#[derive(Debug, Clone)]
pub(super) struct LogWriter {
    pub(super) queue: NonBlocking,
    pub(super) form: LineForm,
}

/// Format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineForm {
    /// Text without colours.
    Plain,
    /// Text with colours of our own.
    Coloured,
    /// A JSON object.
    Json,
}

/// A log event that is being written.
#[derive(Debug)]
pub(super) struct LogLine<'a>(&'a LogWriter);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LogLine(self)
    }
}

impl io::Write for LogLine<'_> {
    /// `event` is a whole event: tracing-subscriber writes each in one piece.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut out = match self.0.form {
            LineForm::Json => json(line),
            form => visible_line(line, form == LineForm::Coloured).into_owned(),
        };
        out.push('\n');
        self.0.queue.clone().write_all(out.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An object of JSON as a line: each string without its secrets, and no character in it that is not seen.
fn json(object: &str) -> String {
    let mut out = String::with_capacity(object.len() + 16);
    let (mut rest, mut name) = (object, String::new());
    while let Some((before, from)) = rest.split_once('"') {
        out.push_str(before);
        let Some(end) = end_of_string(from) else { return whole(object) };
        let (raw, after) = from.split_at(end);
        let Ok(text) = serde_json::from_str::<String>(&format!("\"{raw}\"")) else { return whole(object) };
        rest = &after[1..];
        if rest.trim_start().starts_with(':') {
            push_string(&mut out, &text);
            name = text;
        } else {
            push_string(&mut out, &redacted(&name, &text));
        }
    }
    out.push_str(rest);
    // Outside of strings a JSON object is ASCII.
    if out.is_ascii() || out.chars().all(|c| !is_hidden(c)) { out } else { whole(object) }
}

/// Wraps a line that is no JSON object as the message of one. tracing-subscriber writes none such.
fn whole(line: &str) -> String {
    let mut out = "{\"message\":".to_owned();
    push_string(&mut out, &redacted("message", line));
    out.push('}');
    out
}

/// Position of the quote that ends the JSON string at the start of this text.
fn end_of_string(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_hidden(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// SECURITY: a client that can put a line break into a log can forge lines, and an escape sequence can attack the reader's
/// terminal. In text both are shown as Rust writes them.
fn visible_line(line: &str, coloured: bool) -> Cow<'_, str> {
    // Escapes in values were replaced before; the rest are our own colours.
    let stays = |c: char| !is_hidden(c) || (coloured && c == '\u{1b}');
    if line.chars().all(stays) {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        if stays(c) { out.push(c) } else { out.extend(c.escape_default()) }
    }
    Cow::Owned(out)
}

/// Text of others for a terminal: control characters are escaped.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    visible_line(text, false)
}

/// True for control characters, line and paragraph separators, and those that turn the direction of text or have no width.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Writes the fields of events as text.
#[derive(Debug)]
pub(super) struct ValueWriter;

impl<'writer> FormatFields<'writer> for ValueWriter {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut pairs = FieldWriter { writer, is_first: true, result: Ok(()) };
        fields.record(&mut pairs);
        pairs.result
    }
}

/// Formats fields, one after the other: `name=value`, the message without its name.
struct FieldWriter<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    result: fmt::Result,
}

impl FieldWriter<'_> {
    fn pair(&mut self, name: &str, value: &str) {
        // Fields of the `log` crate's records: source location, not wanted.
        if name.starts_with("log.") || self.result.is_err() {
            return;
        }
        let space = if std::mem::take(&mut self.is_first) { "" } else { " " };
        let value = visible_line(value, false);
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.result = if name == "message" {
            write!(self.writer, "{space}{value}")
        } else if self.writer.has_ansi_escapes() {
            write!(self.writer, "{space}\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}")
        } else {
            write!(self.writer, "{space}{name}={value}")
        };
    }
}

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = redacted(field.name(), value);
        if field.name() == "message" {
            self.pair("message", &value);
        } else {
            self.pair(field.name(), &format!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        self.pair(field.name(), &redacted(field.name(), &text));
    }
}

/// Formats one value as the log would; for fuzzing.
#[doc(hidden)]
pub fn line_of(name: &str, value: &str, as_json: bool) -> String {
    if as_json {
        let pair = serde_json::json!({ "before": 1, name: value, "zlast": "end" });
        return json(&pair.to_string());
    }
    visible_line(&format!("before=1 {name}={:?} zlast=\"end\"", redacted(name, value)), false).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_line_stays_one_line_and_cannot_speak_to_the_terminal() {
        let evil = "a\nb\r\u{1b}[2Jc\u{9b}d\u{202e}e\u{2028}f\tg\u{85}h";
        let shown = visible_line(evil, false);
        assert_eq!(shown, r"a\nb\r\u{1b}[2Jc\u{9b}d\u{202e}e\u{2028}f\tg\u{85}h");
        assert_eq!(visible_line("\u{1b}[32m INFO\u{1b}[0m x\ny", true), "\u{1b}[32m INFO\u{1b}[0m x\\ny");
        assert!(matches!(visible_line("Æ 漢 plain", false), Cow::Borrowed(_)));
    }

    #[test]
    fn in_json_what_is_not_seen_is_escaped_as_json_does_it() {
        let path = "/a\u{202e}\u{2028}\u{85}\u{1b}\u{e0041}\"\\Æ漢";
        let line = json(&serde_json::json!({ "path": path, "status": 200 }).to_string());
        assert!(line.contains(r"\u202e\u2028\u0085\u001b\udb40\udc41"), "{line}");
        let read: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&read["path"], &read["status"]), (&path.into(), &200.into()));
    }

    #[test]
    fn a_value_hides_nothing_of_what_stands_behind_it() {
        for value in ["/authorization:", "/token=", "/password\":\"", "cookie=\\", "authorization: x"] {
            let line = json(&serde_json::json!({ "path": value, "zstatus": 404 }).to_string());
            let read: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(read["zstatus"], 404, "{line}");
            assert!(line_of("path", value, false).ends_with(" zlast=\"end\""), "{value}");
        }
        assert_eq!(json(r#"{"password":"a b","x":["y"]}"#), r#"{"password":"[redacted]","x":["y"]}"#);
    }

    #[test]
    fn what_is_no_object_becomes_the_message_of_one() {
        for line in ["panicked at \"x", "\"\\x\"", "\u{202e}", ""] {
            let read = serde_json::from_str::<Value>(&whole(line)).expect("JSON");
            assert_eq!(read["message"], line);
        }
        assert!(serde_json::from_str::<Value>(&json("{\"a\":\"\\ud800\"}")).is_ok());
    }

    proptest! {
        #[test]
        fn every_value_gives_one_line_of_json(name in ".*", value in any::<String>()) {
            let line = line_of(&name, &value, true);
            prop_assert!(line.chars().all(|c| !is_hidden(c)), "{line:?}");
            let read: Value = serde_json::from_str(&line).expect("JSON");
            prop_assert!(read.is_object());
            if name != "zlast" {
                prop_assert_eq!(&read["zlast"], "end");
            }
        }

        #[test]
        fn every_bytes_give_one_line_of_text(bytes in any::<Vec<u8>>()) {
            let line = line_of("path", &String::from_utf8_lossy(&bytes), false);
            prop_assert!(line.chars().all(|c| !is_hidden(c)), "{line:?}");
            prop_assert!(line.starts_with("before=1 path=\"") && line.ends_with("\" zlast=\"end\""));
        }
    }
}
