//! Sources of the configuration: one file and any number of environment variables, laid end to end so that one byte range
//! names a place in any of them. toml's spans and serde's errors then work for variables, too.

use std::ops::Range;
use std::sync::Arc;

use super::error::{ConfigError, SourceSpan};

/// A source of configuration text: the file, or the value of a variable.
#[derive(Debug)]
pub(super) struct SourceText {
    pub(super) name: String,
    pub(super) text: Arc<str>,
    /// Offset of the source in the whole.
    pub(super) start: usize,
    /// The variable's name behind `IIIF_MENDER__`, taken apart; empty for the file.
    pub(super) keys: Vec<String>,
}

/// The prefix of our variables.
pub(super) const PREFIX: &str = "IIIF_MENDER__";

/// The file and the variables.
#[derive(Debug)]
pub(super) struct ConfigSources {
    pub(super) file: SourceText,
    pub(super) variables: Vec<SourceText>,
}

impl ConfigSources {
    /// Lays the texts end to end. Foreign variables are ignored; whole tables come before their parts, so that the narrower
    /// variable wins.
    pub(super) fn new(
        name: String,
        text: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let file = SourceText { name, text: Arc::from(text), start: 0, keys: Vec::new() };
        let mut variables: Vec<SourceText> = variables
            .into_iter()
            .filter_map(|(name, value)| {
                let keys = name.strip_prefix(PREFIX)?.split("__").map(str::to_ascii_lowercase).collect();
                Some(SourceText { name, text: Arc::from(value), start: 0, keys })
            })
            .collect();
        variables.sort_by_cached_key(|part| {
            let number = |key: &String| (key.parse::<usize>().unwrap_or(0), key.clone());
            (part.keys.iter().map(number).collect::<Vec<_>>(), part.name.clone())
        });
        let mut start = text.len() + 1;
        for part in &mut variables {
            part.start = start;
            start += part.text.len() + 1;
        }
        Self { file, variables }
    }

    /// Place of a byte range of the whole.
    pub(super) fn place(&self, span: Range<usize>) -> SourceSpan {
        let later = self.variables.iter().rev().find(|part| part.start <= span.start);
        let part = later.unwrap_or(&self.file);
        let start = (span.start - part.start).min(part.text.len());
        let end = span.end.saturating_sub(part.start).clamp(start, part.text.len());
        SourceSpan {
            name: part.name.clone(),
            text: Arc::clone(&part.text),
            span: start..end,
            is_variable: later.is_some(),
        }
    }

    pub(super) fn error(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> ConfigError {
        ConfigError::new(Some(self.place(span)), message, help)
    }
}
