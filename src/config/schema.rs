//! JSON schema of the file, and queries about a key: which ones exist, which values are allowed.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::settings::Settings;
use super::value::similar;

/// The schema with descriptions and defaults, and with the notes that begin with `x-`.
pub(super) fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<Settings>().to_value();
        forget(&mut schema, |name| name == "default");
        let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
        insert_defaults(&mut schema, &defaults);
        schema
    });
    &SCHEMA
}

/// The schema for editors: without our own notes.
pub(super) fn printed() -> Value {
    let mut schema = schema().clone();
    forget(&mut schema, |name| name.starts_with("x-"));
    schema
}

/// Removes keywords of the schema itself that `is_one` selects; a key of the file may have such a name.
fn forget(schema: &mut Value, is_one: fn(&str) -> bool) {
    match schema {
        Value::Object(object) => {
            object.retain(|name, _| !is_one(name));
            for (name, value) in object {
                match value.as_object_mut().filter(|_| name == "properties") {
                    Some(keys) => keys.values_mut().for_each(|key| forget(key, is_one)),
                    None => forget(value, is_one),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| forget(value, is_one)),
        _ => {}
    }
}

fn insert_defaults(schema: &mut Value, defaults: &Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (name, property) in properties {
        match defaults.get(name) {
            None | Some(Value::Null) => {}
            Some(value) if property.get("properties").is_some() => insert_defaults(property, value),
            Some(value) => {
                if let Some(property) = property.as_object_mut() {
                    property.insert("default".to_owned(), value.clone());
                }
            }
        }
    }
}

/// Schema of the key at `path` (see [`tree`](super::tree)).
pub(super) fn at(path: &str) -> Option<&'static Value> {
    path.split('.').filter(|segment| !segment.is_empty()).try_fold(schema(), |here, segment| {
        match items(here) {
            Some(items) => segment.parse::<usize>().ok().map(|_| items),
            None => here.get("properties").and_then(|known| known.get(segment)).or_else(|| any_key(here)),
        }
    })
}

/// The schema of every value, where a table takes keys of one's own choice.
pub(super) fn any_key(schema: &Value) -> Option<&Value> {
    schema.get("additionalProperties").filter(|any| any.is_object())
}

/// The schema of the elements, where a list may stand.
pub(super) fn items(schema: &Value) -> Option<&Value> {
    let listed = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    std::iter::once(schema).chain(listed).find_map(|choice| choice.get("items"))
}

/// Table of this schema, and whether there may be several.
pub(super) fn part(schema: &Value) -> Option<(&Value, bool)> {
    let has_keys = |schema: &&Value| schema.get("properties").is_some();
    let several = || schema.get("items").filter(has_keys).map(|items| (items, true));
    Some(schema).filter(has_keys).map(|schema| (schema, false)).or_else(several)
}

/// True if the schema allows a value of this JSON type.
pub(super) fn allows(schema: &Value, kind: &str) -> bool {
    let listed = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    std::iter::once(schema).chain(listed).any(|choice| match choice.get("type") {
        Some(Value::String(only)) => only == kind,
        Some(Value::Array(several)) => several.iter().any(|one| one == kind),
        _ => false,
    })
}

/// True if a table must stand at `path`.
pub(super) fn is_table(path: &str) -> bool {
    at(path).is_some_and(|node| node.get("properties").is_some())
}

/// True if several tables may stand at `path`.
pub(super) fn is_list_of_tables(path: &str) -> bool {
    at(path).and_then(part).is_some_and(|(_, several)| several)
}

/// The keys of the table at `path`.
fn keys(path: &str) -> impl Iterator<Item = &'static str> {
    let properties = at(path).and_then(|node| node.get("properties")).and_then(Value::as_object);
    properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str))
}

/// The key of the table at `parent` that was probably meant.
pub(super) fn meant(parent: &str, key: &str) -> Option<&'static str> {
    similar(key, keys(parent))
}

/// Advice about a key that the table at `parent` does not have; `spell` writes a path as the reader would.
pub(super) fn help_for_unknown(parent: &str, key: &str, spell: impl Fn(&str) -> String) -> String {
    let below = |key: &str| if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
    if let Some(meant) = meant(parent, key) {
        return format!("did you mean `{}`?", spell(&below(meant)));
    }
    let sections = keys("").filter(|section| keys(section).any(|known| known == key));
    let homes: Vec<String> =
        sections.map(|section| format!("`{}`", spell(&format!("{section}.{key}")))).collect();
    if !homes.is_empty() {
        return format!("it belongs elsewhere: {}", homes.join(" or "));
    }
    if let Some(meant) = keys("")
        .filter(|_| parent.is_empty())
        .find_map(|section| similar(key, keys(section)).map(|key| spell(&format!("{section}.{key}"))))
    {
        return format!("did you mean `{meant}`?");
    }
    let known: Vec<String> = keys(parent).map(|key| format!("`{key}`")).collect();
    if known.is_empty() {
        return "take it out: it is a single value and has no parts".to_owned();
    }
    format!("take it out, or use one of {}", known.join(", "))
}

/// The description of the key at `path`, to stand as help under a mistake in it.
pub(super) fn description(path: &str) -> Option<String> {
    // Elements of a list have no description of their own.
    let owner = |path: &str| at(path)?.get("description")?.as_str().map(|text| format!("`{path}`: {text}"));
    owner(path).or_else(|| owner(path.rsplit_once('.')?.0))
}
