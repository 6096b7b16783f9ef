//! The way from text to [`Settings`]: parse, lay the environment over it, read, resolve, check. Each step goes on after a
//! mistake, so that one run shows them all.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, ValueDeserializer};

use super::check::{check, tables};
use super::environment::overlay;
use super::error::{ConfigError, ConfigErrors};
use super::report::Validator;
use super::schema;
use super::settings::Settings;
use super::sources::{ConfigSources, PREFIX};
use super::spanned::SpannedToml;
use super::value::ValueError;

const SYNTAX: &str =
    "see https://toml.io for how TOML is written: text needs quotes, [table] stands alone on its line";

/// More mistakes than anyone reads at once; each one costs a pass over the file.
const MOST: usize = 100;

impl Settings {
    /// Reads the file at `path` and lays `env` over it (`std::env::vars_os()`; foreign variables are ignored).
    pub fn load<K, V>(path: &Path, env: impl IntoIterator<Item = (K, V)>) -> Result<Self, ConfigErrors>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let text = read(path)?;
        Self::from_text(path, &text, env)
    }

    /// Loads `text` instead of a file; `path` is its name, and relative paths begin in the folder of `path`.
    pub fn from_text<K, V>(
        path: &Path,
        text: &str,
        env: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigErrors>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let sources = gather(path, text, env)?;
        let (mut settings, _) = settings(path, &sources)?;
        sort(&mut settings);
        Ok(settings)
    }
}

/// Longest prefix first; among equal prefixes those with hosts first. Stable: else the file's order stays.
pub(super) fn sort(settings: &mut Settings) {
    settings.routes.sort_by_key(|route| (Reverse(route.prefix.len()), route.hosts.is_empty()));
}

/// The text of the file.
pub(super) fn read(path: &Path) -> Result<String, ConfigErrors> {
    let failed = |message: String, help: &str| ConfigErrors::new(vec![ConfigError::new(None, message, help)]);
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "name the file with --config, or begin with the config.toml that comes with iiif-mender"
            }
            std::io::ErrorKind::PermissionDenied => "let the user that runs iiif-mender read it",
            _ => "name a readable file with --config",
        };
        failed(format!("cannot read {shown}: {error}"), help)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
        failed(format!("{shown} is not UTF-8 text: line {line}"), "save it as UTF-8")
    })
}

/// File and variables; ours must be UTF-8.
pub(super) fn gather<K, V>(
    path: &Path,
    text: &str,
    env: impl IntoIterator<Item = (K, V)>,
) -> Result<ConfigSources, ConfigErrors>
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    let mut variables = Vec::new();
    let mut errors = Vec::new();
    for (name, value) in env {
        let name = name.into().to_string_lossy().into_owned();
        match value.into().into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with(PREFIX) => errors.push(ConfigError::new(
                None,
                format!("the environment variable {name} is not UTF-8 text"),
                "set it anew or unset it",
            )),
            Err(_) => {}
        }
    }
    if !errors.is_empty() {
        return Err(ConfigErrors::new(errors));
    }
    Ok(ConfigSources::new(path.display().to_string(), text, variables))
}

/// Settings with routes in the order of the file, and the tree with the origin of each value.
pub(super) fn settings<'s>(
    path: &Path,
    sources: &'s ConfigSources,
) -> Result<(Settings, SpannedToml<'s>), ConfigErrors> {
    let (table, syntax) = DeTable::parse_recoverable(&sources.file.text);
    let is_sound = syntax.is_empty();
    let mut errors = Vec::new();
    let mut one_of_many: Option<usize> = None;
    for error in &syntax {
        let span = error.span().unwrap_or(0..0);
        // The keys below such a header are no mistakes of their own.
        let below = one_of_many.and_then(|header| sources.file.text.get(header..span.start));
        if below.is_some_and(|below| !below.contains("\n[")) {
            continue;
        }
        let help = single_brackets(&sources.file.text, &span);
        one_of_many = help.as_ref().map(|_| span.end);
        errors.push(sources.error(span, error.message(), help.unwrap_or_else(|| SYNTAX.to_owned())));
    }
    let told = errors.len();
    let mut tree = SpannedToml::new(table);
    errors.extend(overlay(&mut tree, sources));
    let (mut settings, wrong) = shape(&mut tree, sources, &mut errors);
    settings.resolve(path.parent().unwrap_or(Path::new("")));
    let mut report = Validator { tree: &tree, sources, wrong, errors };
    tables(&settings, &mut report);
    if is_sound {
        check(&settings, &mut report);
    }
    let mut errors = report.errors;
    if !is_sound {
        errors = without_echoes(errors, told);
    }
    if errors.is_empty() { Ok((settings, tree)) } else { Err(ConfigErrors::new(errors)) }
}

/// Reads the tree into the settings. serde stops at its first error: so the wrong value is taken out of the tree, until the
/// rest can be read. The paths taken out are returned, too.
fn shape(
    tree: &mut SpannedToml<'_>,
    sources: &ConfigSources,
    errors: &mut Vec<ConfigError>,
) -> (Settings, Vec<String>) {
    let mut wrong = Vec::new();
    for (path, span) in tree.remove_lists_for_tables() {
        let help = "write a single [table] here, with its keys below it";
        errors.push(sources.error(span, format!("wrong type: list, expected a table for `{path}`"), help));
        wrong.push(path);
    }
    for _ in 0..MOST {
        let error = match Settings::deserialize(ValueDeserializer::from(tree.root.clone())) {
            Ok(settings) => return (settings, wrong),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        let path = tree.remove_at(&span);
        let (message, help) = ValueError::split(error.message());
        let (message, help) = explain(&message, help, path.as_deref());
        errors.push(sources.error(span, message, help));
        match path {
            Some(path) => {
                // Suppress "missing key" where the key is present but misspelt.
                let (parent, key) = path.rsplit_once('.').unwrap_or(("", &path));
                wrong.extend(schema::meant(parent, key).map(|meant| format!("{parent}.{meant}")));
                wrong.push(path);
            }
            None => return (Settings::default(), vec![String::new()]),
        }
    }
    let help = "mend those above first, then ask again";
    errors.push(ConfigError::new(None, format!("there are more than {MOST} mistakes"), help));
    (Settings::default(), vec![String::new()])
}

/// Rewrites serde's message, with help.
fn explain(message: &str, help: Option<String>, path: Option<&str>) -> (String, String) {
    let path = path.unwrap_or_default();
    if message.starts_with("unknown field") {
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
        let table = generic(parent);
        let place =
            if parent.is_empty() { "at the top of the file".to_owned() } else { format!("in `{table}`") };
        return (format!("unknown key `{key}` {place}"), schema::help_for_unknown(parent, key, generic));
    }
    let is_one_of_many = message.starts_with("invalid type: map") && schema::is_list_of_tables(path);
    let help = help
        .or_else(|| is_one_of_many.then(|| in_two_brackets(path)))
        .or_else(|| schema::description(path))
        .unwrap_or_else(|| "`iiif-mender config schema` says what may stand here".to_owned());
    let ours = [
        ("invalid type: map", "wrong type: table"),
        ("invalid type: sequence", "wrong type: list"),
        ("invalid type: ", "wrong type: "),
        ("expected a sequence", "expected a list"),
    ];
    (ours.iter().fold(message.to_owned(), |message, (serde, toml)| message.replace(serde, toml)), help)
}

/// Advice for a table that begins with `[` and may occur several times.
fn in_two_brackets(path: &str) -> String {
    format!(
        "write [[{path}]], in two pairs of brackets: there may be several, and each begins with that line"
    )
}

/// Help where the header of such a table stands in a single pair of brackets.
fn single_brackets(text: &str, span: &Range<usize>) -> Option<String> {
    let begins = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(begins..)?.lines().next()?.trim();
    let path = line.strip_prefix('[')?.split(']').next()?.trim();
    schema::is_list_of_tables(path).then(|| in_two_brackets(path))
}

/// A path without the numbers of list elements.
fn generic(path: &str) -> String {
    path.split('.').filter(|segment| segment.parse::<usize>().is_err()).collect::<Vec<_>>().join(".")
}

/// Removes mistakes that follow from a line with broken syntax. The syntax errors come first.
fn without_echoes(errors: Vec<ConfigError>, syntax: usize) -> Vec<ConfigError> {
    let line = |error: &ConfigError| {
        error.place.as_ref().filter(|place| !place.is_variable).map(|place| place.line_column().0)
    };
    let broken: Vec<Option<usize>> = errors.iter().take(syntax).map(line).collect();
    let is_echo = |number: usize, error: &ConfigError| {
        number >= syntax && line(error).is_some() && broken.contains(&line(error))
    };
    errors
        .into_iter()
        .enumerate()
        .filter(|(number, error)| !is_echo(*number, error))
        .map(|(_, error)| error)
        .collect()
}
