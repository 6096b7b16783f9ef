//! Mistakes of a configuration: all at once, each with its place and what to do.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// Place of a mistake: a piece of the file, or of an environment variable's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpan {
    /// Path of the file or name of the variable.
    pub name: String,
    /// Whole text of the file or variable.
    pub text: Arc<str>,
    /// The piece of it, in bytes.
    pub span: Range<usize>,
    /// True for an environment variable.
    pub is_variable: bool,
}

impl SourceSpan {
    /// Line and column, both from 1; columns count characters.
    pub fn line_column(&self) -> (usize, usize) {
        let before = self.text.get(..self.span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (before.matches('\n').count() + 1, column)
    }
}

/// `config.toml:12:8`, or the name of the variable.
impl fmt::Display for SourceSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_variable {
            return f.write_str(&self.name);
        }
        let (line, column) = self.line_column();
        write!(f, "{}:{line}:{column}", self.name)
    }
}

/// A mistake in the configuration.
#[derive(Debug, Clone)]
pub struct ConfigError {
    /// Place; `None` when there is no text to point at (the file cannot be read).
    pub place: Option<SourceSpan>,
    /// Message.
    pub message: String,
    /// Advice: what to do.
    pub help: String,
    source: Option<NamedSource<Arc<str>>>,
}

impl ConfigError {
    pub(super) fn new(
        place: Option<SourceSpan>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let source = place.as_ref().map(|place| NamedSource::new(&place.name, Arc::clone(&place.text)));
        Self { place, message: message.into(), help: help.into(), source }
    }

    /// Sort key, also against repetition: file before variables, first line first.
    pub(super) fn key(&self) -> (bool, String, usize, String) {
        let place = self.place.as_ref();
        (
            place.is_some_and(|place| place.is_variable),
            place.map_or_else(String::new, |place| place.name.clone()),
            place.map_or(0, |place| place.span.start),
            self.message.clone(),
        )
    }
}

/// The mistake alone; miette shows place and help beside it.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

impl Diagnostic for ConfigError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.place.as_ref()?.span.clone();
        Some(Box::new(std::iter::once(LabeledSpan::underline(span))))
    }
}

/// Mistakes of a configuration; never empty.
#[derive(Debug, Clone)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// Sorted by place, without repetitions.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_cached_key(ConfigError::key);
        errors.dedup_by_key(|error| error.key());
        Self(errors)
    }
}

/// `{}` is one line that counts the mistakes; `{:#}` writes each mistake on its own line, with place and help.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has one mistake")?,
            count => write!(f, "the configuration has {count} mistakes")?,
        }
        if f.alternate() {
            for error in &self.0 {
                write!(f, "\n  ")?;
                if let Some(place) = &error.place {
                    write!(f, "{place}: ")?;
                }
                write!(f, "{} ({})", error.message, error.help)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Diagnostic for ConfigErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.0.iter().map(|error| error as &dyn Diagnostic)))
    }
}
