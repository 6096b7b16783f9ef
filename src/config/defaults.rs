//! Every key with its default, as a file to begin with: `config defaults`.

use std::fmt::Write as _;

use serde_json::Value;

use super::reference::default_values;
use super::schema::{any_key, items, part, schema};

const HEAD: &str = "\
# Every key of iiif-mender with its default: `iiif-mender config defaults`. Your own file needs only what differs.
# Keys that begin with # have no default, and stand here with an example. docs/CONFIG.md has the same as a page.
#
# Durations: \"500ms\", \"25s\", \"10m\", \"1h\". Sizes: \"64KiB\". Relative paths begin at the folder of the file.
# Any key can be set by the environment: IIIF_MENDER__HEAL__WAIT=10s, IIIF_MENDER__ROUTES__0__CONNECT=10.1.2.3:443.
";

/// The file.
pub(super) fn defaults() -> String {
    let mut file = HEAD.to_owned();
    table(&mut file, schema(), &default_values(), "", "");
    file
}

/// Writes the keys of the table at `path`, then the tables within it. `off` stands before lines that are comments.
fn table(file: &mut String, schema: &Value, defaults: &Value, path: &str, off: &str) {
    let properties = || schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    for (key, schema) in properties().filter(|(_, schema)| part(schema).is_none()) {
        comment(file, schema);
        let line = match defaults.get(key).filter(|value| !value.is_null()) {
            Some(value) => format!("{off}{key} = {}", toml(value)),
            None => format!("#{key} = {}", example(schema)),
        };
        let _infallible = writeln!(file, "{line}");
    }
    for (key, schema) in properties() {
        let Some((inner, is_list)) = part(schema) else { continue };
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let nothing = Value::Null;
        let own = defaults.get(key).unwrap_or(&nothing);
        let own = if is_list { own.get(0).unwrap_or(&nothing) } else { own };
        // A list of tables is empty by default, and a table without defaults is absent.
        let off = if is_list || own.is_null() { "#" } else { off };
        let title = if is_list { format!("[[{path}]]") } else { format!("[{path}]") };
        file.push('\n');
        comment(file, schema);
        let _infallible = writeln!(file, "{off}{title}");
        table(file, inner, own, &path, off);
    }
}

fn comment(file: &mut String, schema: &Value) {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let mut width = 0;
    for word in text.split_whitespace() {
        let is_next = width > 0 && width + word.len() < 118;
        file.push_str(match (width, is_next) {
            (_, true) => " ",
            (0, _) => "# ",
            _ => "\n# ",
        });
        width = if is_next { width + 1 + word.len() } else { word.len() + 2 };
        file.push_str(word);
    }
    file.push_str(if width > 0 { "\n" } else { "" });
}

/// A value as a file would have it: JSON's, with TOML's way to write a table.
fn toml(value: &Value) -> String {
    let list = |values: Vec<String>| values.join(", ");
    match value {
        Value::Array(values) => format!("[{}]", list(values.iter().map(toml).collect())),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| format!("{key} = {}", toml(value));
            format!("{{ {} }}", list(fields.iter().map(field).collect()))
        }
        plain => plain.to_string(),
    }
}

/// Example of a value.
fn example(schema: &Value) -> String {
    if let Some(value) = any_key(schema) {
        return format!("{{ name = {} }}", example(value));
    }
    let one = items(schema).unwrap_or(schema);
    let known = ["examples", "enum"].into_iter().find_map(|list| one.get(list)?.get(0));
    let title = one.get("title").and_then(Value::as_str).unwrap_or_default();
    match (known, title.split_once(" such as ")) {
        (Some(known), _) => toml(known),
        (None, Some((_, example))) => example.to_owned(),
        (None, None) if title.ends_with("URL") => "\"https://iiif.example.edu\"".to_owned(),
        _ if title.ends_with("path") => "\"a/file\"".to_owned(),
        _ => "\"…\"".to_owned(),
    }
}
