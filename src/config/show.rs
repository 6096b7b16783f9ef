//! The effective settings as a file, each value with a comment that says where it came from.

use std::cmp::Reverse;

use http::{HeaderMap, HeaderValue};
use toml::Spanned;
use toml_edit::{DocumentMut, InlineTable, Item, Value};

use super::load::sort;
use super::settings::{Secret, Settings, SourceSettings};
use super::sources::ConfigSources;
use super::spanned::SpannedToml;

/// Writes `settings` (routes still in the order of the file).
pub(super) fn show(mut settings: Settings, tree: &SpannedToml<'_>, sources: &ConfigSources) -> String {
    // Positions of the routes in the tree before they were sorted.
    let mut order: Vec<usize> = (0..settings.routes.len()).collect();
    order.sort_by_key(|number| {
        settings.routes.get(*number).map(|route| (Reverse(route.prefix.len()), route.hosts.is_empty()))
    });
    sort(&mut settings);
    for source in &mut settings.index.sources {
        redact(source);
    }
    hide(&mut settings.telemetry.headers);
    settings.cluster.password = settings.cluster.password.map(|_| Secret("***".to_owned()));
    let Ok(text) = toml::to_string(&settings) else { return String::new() };
    let Ok(mut document) = text.parse::<DocumentMut>() else { return text };
    for (name, item) in document.iter_mut() {
        if let Item::ArrayOfTables(tables) = item {
            for (number, table) in tables.iter_mut().enumerate() {
                let written = order.get(number).copied().unwrap_or(number);
                annotate(table, &format!("{}.{written}", name.get()), tree, sources);
            }
        } else if let Some(table) = item.as_table_mut() {
            annotate(table, name.get(), tree, sources);
        }
    }
    document.to_string()
}

/// SECURITY: a source's URL may carry a key in its query, its fields are likely to be one, and the output ends up in
/// tickets.
fn redact(source: &mut SourceSettings) {
    hide(&mut source.headers);
    if let Some(url) = &mut source.url
        && let Some((page, _)) = url.split_once('?')
    {
        *url = format!("{page}?…");
    }
}

fn hide(fields: &mut HeaderMap) {
    fields.values_mut().for_each(|value| *value = HeaderValue::from_static("***"));
}

fn annotate(table: &mut toml_edit::Table, path: &str, tree: &SpannedToml<'_>, sources: &ConfigSources) {
    for (mut key, item) in table.iter_mut() {
        let path = format!("{path}.{}", key.get());
        match item {
            Item::Table(inner) if matches!(key.get(), "tls" | "mass_expiry" | "canvas_rule" | "headers") => {
                let mut inline = std::mem::take(inner).into_inline_table();
                inline.fmt();
                comment(&mut inline, &path, tree, sources);
                *item = Item::Value(Value::InlineTable(inline));
                key.leaf_decor_mut().set_suffix(" ");
            }
            Item::Table(inner) => annotate(inner, &path, tree, sources),
            Item::ArrayOfTables(tables) => {
                for (number, table) in tables.iter_mut().enumerate() {
                    if table.contains_key("path") {
                        for key in SourceSettings::FOR_URLS {
                            table.remove(key);
                        }
                    }
                    annotate(table, &format!("{path}.{number}"), tree, sources);
                }
            }
            Item::Value(value) => {
                value.decor_mut().set_suffix(format!("  # {}", origin(&path, tree, sources)));
            }
            Item::None => {}
        }
    }
}

fn comment(table: &mut InlineTable, path: &str, tree: &SpannedToml<'_>, sources: &ConfigSources) {
    let origins: Vec<(&str, String)> =
        table.iter().map(|(key, _)| (key, origin(&format!("{path}.{key}"), tree, sources))).collect();
    let first = origins.first().map(|(_, origin)| origin.clone()).unwrap_or_default();
    let suffix = if origins.iter().all(|(_, origin)| *origin == first) {
        first
    } else {
        origins.iter().map(|(key, origin)| format!("{key}: {origin}")).collect::<Vec<_>>().join(", ")
    };
    table.decor_mut().set_suffix(format!("  # {suffix}"));
}

/// `default`, the line of the file, or the name of the variable.
fn origin(path: &str, tree: &SpannedToml<'_>, sources: &ConfigSources) -> String {
    match tree.get(path).map(Spanned::span) {
        None => "default".to_owned(),
        Some(span) => {
            let place = sources.place(span);
            if place.is_variable { place.name } else { format!("line {}", place.line_column().0) }
        }
    }
}
