//! Every key as a page for readers, made from the schema: `docs/CONFIG.md`.

use std::fmt::Write as _;

use serde_json::Value;

use super::schema::{any_key, items, part, schema};
use super::settings::{IndexSettings, RouteSettings, Settings, SourceSettings};

const HEAD: &str = "\
# Configuration

Every key of the configuration file. This page is made by `iiif-mender config reference` from what the program reads; a test
compares it. [`config.toml`](../config.toml) is a short file to begin with; `iiif-mender config defaults` prints every key with
its default, as a file.

- Any key can be set by the environment, which wins over the file: `heal.wait` is `IIIF_MENDER__HEAL__WAIT`, the first route's
  `connect` is `IIIF_MENDER__ROUTES__0__CONNECT`. Lists are written `one,two`.
- A duration is a number with a unit (`500ms`, `25s`, `10m`, `1h`, `30d`), at most a year. A size is a number of bytes, or a number
  with a unit (`64KiB`, `16MiB`), at most 1 TiB. Relative paths begin at the folder of the file.
- *Reload*: `yes`, a changed file is taken up while serving ([how](OPERATIONS.md#changing-the-configuration-while-serving)); times
  and bounds of connections hold for new ones. `restart`: it holds after the next start, and the log says so.
- Unknown keys, bad values and contradictions are refused, all of them at once: `iiif-mender config check`.
";

/// The page, as Markdown.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    table(&mut page, schema(), &default_values(), "", "yes");
    page
}

/// Default values: the settings of a file with the required keys alone, which are then left out.
pub(super) fn default_values() -> Value {
    let index = IndexSettings { sources: vec![SourceSettings::url("")], ..IndexSettings::default() };
    let settings = Settings { routes: vec![RouteSettings::default()], index, ..Settings::default() };
    let mut written = serde_json::to_value(settings).unwrap_or_default();
    for (list, keys) in
        [("/routes/0", ["prefix", "upstream", "kind"].as_slice()), ("/index/sources/0", &["url"])]
    {
        if let Some(element) = written.pointer_mut(list).and_then(Value::as_object_mut) {
            element.retain(|key, _| !keys.contains(&key.as_str()));
        }
    }
    written
}

/// A section for the table at `path` and for those within it.
fn table(page: &mut String, schema: &Value, defaults: &Value, path: &str, reload: &str) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let is_table = |schema: &Value| part(schema).is_some();
    let mut rows = properties.iter().filter(|(_, schema)| !is_table(schema)).peekable();
    if rows.peek().is_some() {
        page.push_str("\n| key | type | default | range | reload | meaning |\n|---|---|---|---|---|---|\n");
    }
    for (key, schema) in rows {
        let default = defaults.get(key).map_or_else(String::new, written);
        let (kind, range, reload) = (kind(schema), range(schema), reload_of(schema, reload));
        let _infallible =
            writeln!(page, "| `{key}` | {kind} | {default} | {range} | {reload} | {} |", meaning(schema));
    }
    for (key, schema) in properties {
        let Some((part, is_list)) = part(schema) else { continue };
        let path = below(key);
        let title = if is_list { format!("[[{path}]]") } else { format!("[{path}]") };
        let _infallible = writeln!(page, "\n## `{title}`\n\n{}", meaning(schema));
        let reload = reload_of(schema, reload);
        let nothing = Value::Null;
        let defaults = defaults.get(key).unwrap_or(&nothing);
        let defaults = if is_list { defaults.get(0).unwrap_or(&nothing) } else { defaults };
        table(page, part, defaults, &path, reload);
    }
}

fn meaning(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.replace('\n', " ").replace('|', "\\|")
}

fn kind(schema: &Value) -> String {
    if let Some(value) = any_key(schema) {
        return format!("table of {}", kind(value));
    }
    let one = items(schema).unwrap_or(schema);
    let words = one.get("enum").and_then(Value::as_array);
    let words = words.map(|words| words.iter().map(written).collect::<Vec<_>>().join(", "));
    let title = one.get("title").and_then(Value::as_str).map(|title| {
        let title = title.split(" such as ").next().unwrap_or_default();
        title.strip_prefix("a ").or_else(|| title.strip_prefix("an ")).unwrap_or(title).to_owned()
    });
    let name = words.or(title).unwrap_or_else(|| "`true` or `false`".to_owned());
    match (items(schema).is_some(), schema.get("items").is_some()) {
        (false, _) => name,
        (true, true) => format!("list: {name}"),
        (true, false) => format!("{name}; one or a list"),
    }
}

/// Range of a key's values; empty where the type says it all.
fn range(schema: &Value) -> String {
    match schema.get("x-min").and_then(Value::as_str) {
        Some(">0") => return "more than 0".to_owned(),
        Some(least) => return format!("at least {least}"),
        None => {}
    }
    let one = items(schema).unwrap_or(schema);
    let end = |name| one.get(name).and_then(Value::as_u64);
    match (end("minimum"), end("maximum")) {
        (Some(least), Some(most)) if most < u64::from(u32::MAX) => format!("{least} to {most}"),
        (Some(least), _) => format!("{least} or more"),
        _ => String::new(),
    }
}

/// Reload class of a key: its own, or that of its table.
fn reload_of<'s>(schema: &'s Value, table: &'s str) -> &'s str {
    schema.get("x-reload").and_then(Value::as_str).unwrap_or(table)
}

/// A value as the file has it.
fn written(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        value => format!("`{value}`"),
    }
}
