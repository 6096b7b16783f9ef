//! Environment variables, put into the tree: `IIIF_MENDER__HEAL__WAIT=10s`, `IIIF_MENDER__ROUTES__0__UPSTREAM=…`.
//!
//! A value is read as TOML where that gives a type that may stand there, else as text; where a list is expected, text is
//! split at commas. The schema has the types.

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::ConfigError;
use super::schema;
use super::sources::{ConfigSources, PREFIX, SourceText};
use super::spanned::SpannedToml;

/// Puts every variable into the tree; a variable without a place there is a mistake.
pub(super) fn overlay<'s>(tree: &mut SpannedToml<'s>, sources: &'s ConfigSources) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for part in &sources.variables {
        let known = check_keys(part, tree).and_then(|()| {
            let path = part.keys.join(".");
            schema::at(&path).ok_or_else(|| "no such key".to_owned())
        });
        match known {
            Ok(schema) => {
                let value = read(&part.text, part.start, schema);
                put(&mut tree.root, &part.keys, value);
            }
            Err(help) => errors.push(sources.error(
                part.start..part.start + part.text.len(),
                format!("unknown environment variable {}", part.name),
                help,
            )),
        }
    }
    errors
}

/// Follows the variable's name through the schema; returns advice where it leads nowhere.
fn check_keys(part: &SourceText, tree: &SpannedToml<'_>) -> Result<(), String> {
    let mut path = String::new();
    for key in &part.keys {
        let here = schema::at(&path).unwrap_or(&Value::Null);
        if let Some(items) = schema::items(here) {
            if items.get("properties").is_none() {
                return Err(format!("`{path}` is set as a whole: {}=\"one,two\"", variable(&path)));
            }
            let length = match tree.get(&path).map(Spanned::get_ref) {
                Some(DeValue::Array(array)) => array.len(),
                _ => 0,
            };
            if !key.parse::<usize>().is_ok_and(|index| index <= length) {
                return Err(format!(
                    "`{path}` has {length} elements: a number from 0 to {length} must stand here"
                ));
            }
        } else if schema::any_key(here).is_none()
            && here.get("properties").and_then(|known| known.get(key)).is_none()
        {
            return Err(schema::help_for_unknown(&path, key, variable));
        }
        path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
    }
    Ok(())
}

/// The variable that sets the key at `path`.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// Puts a value where the keys lead, making tables and elements on the way.
fn put<'s>(here: &mut Spanned<DeValue<'s>>, keys: &[String], value: Spanned<DeValue<'s>>) {
    let span = value.span();
    let Some((key, rest)) = keys.split_first() else {
        *here = value;
        return;
    };
    let table = || {
        let is_list = rest.first().is_some_and(|next| next.parse::<usize>().is_ok());
        let empty = if is_list { DeValue::Array(DeArray::new()) } else { DeValue::Table(DeTable::new()) };
        Spanned::new(span.clone(), empty)
    };
    match here.get_mut() {
        DeValue::Table(entries) => {
            let key = Spanned::new(span.clone(), std::borrow::Cow::Owned(key.clone()));
            put(entries.entry(key).or_insert_with(table), rest, value);
        }
        DeValue::Array(elements) => {
            let Ok(index) = key.parse::<usize>() else { return };
            if index == elements.len() {
                elements.push(table());
            }
            if let Some(element) = elements.get_mut(index) {
                put(element, rest, value);
            }
        }
        // A value stands where a table must; the check of the file reports it.
        _ => {}
    }
}

/// Reads the value of a variable.
fn read<'s>(text: &'s str, start: usize, schema: &Value) -> Spanned<DeValue<'s>> {
    let span = start..start + text.len();
    let wants_text = schema::allows(schema, "string");
    let wants_list = schema::allows(schema, "array");
    if let Ok(value) = DeValue::parse(text)
        && (schema::allows(schema, kind(value.get_ref())) || !(wants_text || wants_list))
    {
        return shifted(value, start);
    }
    if !wants_list || wants_text && !text.contains(',') {
        return Spanned::new(span, DeValue::String(text.into()));
    }
    let none = Value::Null;
    let items = schema::items(schema).unwrap_or(&none);
    let mut list = DeArray::new();
    let mut at = start;
    for piece in text.split(',') {
        let inner = piece.trim();
        if !inner.is_empty() {
            list.push(read(inner, at + (piece.len() - piece.trim_start().len()), items));
        }
        at += piece.len() + 1;
    }
    Spanned::new(span, DeValue::Array(list))
}

/// The JSON type of a TOML value.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
        DeValue::Datetime(_) => "date",
    }
}

/// The value with all its places moved to where the variable stands in the whole.
fn shifted(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = value.span().start + by..value.span().end + by;
    let inner = match value.into_inner() {
        DeValue::Array(array) => {
            DeValue::Array(array.into_iter().map(|element| shifted(element, by)).collect())
        }
        DeValue::Table(table) => {
            let moved = table.into_iter().map(|(key, value)| {
                let place = key.span().start + by..key.span().end + by;
                (Spanned::new(place, key.into_inner()), shifted(value, by))
            });
            DeValue::Table(moved.collect())
        }
        plain => plain,
    };
    Spanned::new(span, inner)
}
