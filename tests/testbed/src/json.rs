//! JSON as the canvas service writes it: Jackson's layout (` : `, `[ {`), keys in recorded order, and labels that are
//! not fully escaped (upstream.md "Errors of the canvas service": only quotes are; backslash, newline and tab go out raw).

use std::fmt::Write as _;

/// A value to be written.
#[derive(Debug, Clone)]
pub(crate) enum Json {
    Text(String),
    Number(u32),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

/// A text.
pub(crate) fn text(text: impl Into<String>) -> Json {
    Json::Text(text.into())
}

/// A label and its context identifier, or any list of texts.
pub(crate) fn texts(all: &[&str]) -> Json {
    Json::List(all.iter().map(|one| text(*one)).collect())
}

impl Json {
    /// The document.
    pub(crate) fn written(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        match self {
            // UPSTREAM: quotes alone are escaped.
            Self::Text(text) => {
                let _infallible = write!(out, "\"{}\"", text.replace('"', "\\\""));
            }
            Self::Number(number) => {
                let _infallible = write!(out, "{number}");
            }
            Self::List(list) if list.is_empty() => out.push_str("[ ]"),
            Self::List(list) => {
                out.push_str("[ ");
                for (at, one) in list.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { ", " });
                    one.write(out, depth);
                }
                out.push_str(" ]");
            }
            Self::Object(fields) => {
                out.push('{');
                for (at, (key, value)) in fields.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    let _infallible = write!(out, "{comma}\n{}\"{key}\" : ", "  ".repeat(depth + 1));
                    value.write(out, depth + 1);
                }
                let _infallible = write!(out, "\n{}}}", "  ".repeat(depth));
            }
        }
    }
}
