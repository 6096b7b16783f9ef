//! Values below the least that their keys take (`x-min` at the field).

use std::time::Duration;

use serde_json::Value;

use crate::config::report::Validator;
use crate::config::schema::schema;
use crate::config::settings::Settings;

pub(super) fn ranges(settings: &Settings, report: &mut Validator<'_>) {
    below(schema(), &serde_json::to_value(settings).unwrap_or_default(), "", report);
}

/// Checks the keys of the table at `path` and of those within it.
fn below(schema: &Value, table: &Value, path: &str, report: &mut Validator<'_>) {
    if let (Some(items), Some(elements)) = (schema.get("items"), table.as_array()) {
        for (number, element) in elements.iter().enumerate() {
            below(items, element, &format!("{path}.{number}"), report);
        }
    }
    for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let Some(value) = table.get(key) else { continue };
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match property.get("x-min").and_then(Value::as_str) {
            Some(">0") if is_zero(value) => report.at(&[&path], &format!("`{path}` is zero"), help(&path)),
            Some(least)
                if time(value)
                    .zip(humantime::parse_duration(least).ok())
                    .is_some_and(|(is, least)| is < least) =>
            {
                report.at(
                    &[&path],
                    &format!("`{path}` is too short"),
                    &format!("write at least \"{least}\""),
                );
            }
            _ => below(property, value, &path, report),
        }
    }
}

fn help(path: &str) -> &'static str {
    match path.split('.').next() {
        Some("heal") => "write more than zero; healing is switched off with heal.enabled = false",
        Some("presentation") => {
            "write more than zero; presentation.collapse, .repair and .watch are switched off by themselves"
        }
        Some("routes") => "write more than zero, or leave it out: then that of [upstream] holds",
        Some("telemetry") => "write more than zero; there are no spans where telemetry.otlp is not given",
        _ => "write more than zero: with none nothing could ever be served",
    }
}

fn is_zero(value: &Value) -> bool {
    value.as_u64() == Some(0) || time(value).is_some_and(|time| time.is_zero())
}

fn time(value: &Value) -> Option<Duration> {
    humantime::parse_duration(value.as_str()?).ok()
}
