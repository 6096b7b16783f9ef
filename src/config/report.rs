//! Collects mistakes with their places.

use super::error::ConfigError;
use super::sources::ConfigSources;
use super::spanned::SpannedToml;

/// Collects mistakes with their places, and ignores keys that are already known to be wrong: their values are only
/// stand-ins, and a mistake that follows from a mistake helps no reader.
pub(super) struct Validator<'a> {
    pub(super) tree: &'a SpannedToml<'a>,
    pub(super) sources: &'a ConfigSources,
    pub(super) wrong: Vec<String>,
    pub(super) errors: Vec<ConfigError>,
}

impl Validator<'_> {
    /// Reports a mistake between the keys at `paths`; shown at the first that is written.
    pub(super) fn at(&mut self, paths: &[&str], message: &str, help: &str) {
        let within = |inner: &str, outer: &str| {
            outer.is_empty()
                || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let known = |path: &&str| self.wrong.iter().any(|wrong| within(path, wrong) || within(wrong, path));
        if paths.iter().any(known) {
            return;
        }
        let written = paths.iter().find(|path| self.tree.get(path).is_some());
        let Some(path) = written.or_else(|| paths.first()) else { return };
        self.errors.push(self.sources.error(self.tree.span_of(path), message, help));
    }

    /// Reports a missing key.
    pub(super) fn missing(&mut self, path: &str, message: &str, help: &str) {
        self.at(&[path], message, help);
        self.wrong.push(path.to_owned());
    }
}
