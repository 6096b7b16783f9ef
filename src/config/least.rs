//! The least that a key may say: for the check, and for the reference.

use std::time::Duration;

use serde_json::Value;

use super::check::Report;
use super::file::File;
use super::settings::Settings;

/// The shortest times that make sense. Leases are renewed three times in theirs; shorter ones would be nothing but
/// renewals.
pub(super) const LEAST_TIMES: [(&str, Duration); 6] = [
    ("cluster.connect_timeout", Duration::from_millis(1)),
    ("cluster.command_timeout", Duration::from_millis(1)),
    ("cluster.lease", Duration::from_millis(100)),
    ("cluster.jobs", Duration::from_mins(1)),
    ("cluster.edition_lasts", Duration::from_mins(1)),
    ("cluster.edition_every", Duration::from_millis(100)),
];

/// hyper panics below this.
pub(super) const LEAST_HEAD: usize = 8 * 1024;

/// Keys whose values must be more than zero; `*` stands for the number of an element.
const MORE_THAN_ZERO: [&str; 50] = [
    "admin.acts",
    "admin.max_connections",
    "admin.max_entries",
    "admin.max_live",
    "heal.backoff_max",
    "heal.breaker_failures",
    "heal.breaker_open",
    "heal.concurrency",
    "heal.document_concurrency",
    "heal.hang_after",
    "heal.mass_expiry.ids",
    "heal.mass_expiry.within",
    "heal.max_flights",
    "heal.max_waiting",
    "heal.per_client",
    "heal.resources_recheck",
    "heal.sweep_rate",
    "heal.timeout",
    "index.sources.*.concurrency",
    "log.queue",
    "log.sample",
    "presentation.max_body",
    "presentation.max_flights",
    "routes.*.body_timeout",
    "routes.*.connect_timeout",
    "routes.*.first_byte_timeout",
    "server.head_timeout",
    "server.http2.max_resets",
    "server.http2.max_streams",
    "server.http2.ping",
    "server.http2.ping_timeout",
    "server.idle_timeout",
    "server.max_connections",
    "server.max_uri_bytes",
    "server.rate_burst",
    "server.request_timeout",
    "server.tls_timeout",
    "upstream.body_timeout",
    "upstream.connect_timeout",
    "upstream.first_byte_timeout",
    "upstream.health.failures",
    "upstream.health.healthy_after",
    "upstream.health.interval",
    "upstream.health.out",
    "upstream.health.out_max",
    "upstream.health.timeout",
    "upstream.health.unhealthy_after",
    "upstream.http2_streams",
    "upstream.max_requests",
    "upstream.pool_max_age",
];

/// The least value of the key at `path`, where zero or less than this makes no sense.
pub(super) fn least(path: &str) -> Option<String> {
    let time = |(_, least): &(&str, Duration)| humantime::format_duration(*least).to_string();
    let times = LEAST_TIMES.iter().find(|(key, _)| *key == path).map(time);
    let head = || (path == "server.max_head_bytes").then(|| format!("{}KiB", LEAST_HEAD / 1024));
    let zero = || MORE_THAN_ZERO.contains(&path).then(|| "more than 0".to_owned());
    times.or_else(head).or_else(zero)
}

/// Reports every key that must not be zero and is.
pub(super) fn nothing_is_zero(settings: &Settings, report: &mut Report<'_>) {
    let written = serde_json::to_value(File::from(settings)).unwrap_or_default();
    for path in MORE_THAN_ZERO.iter().flat_map(|pattern| zeros(&written, pattern)) {
        let help = if path.starts_with("heal.") {
            "write more than zero; healing is switched off with heal.enabled = false"
        } else if path.starts_with("presentation.") {
            "write more than zero; presentation.collapse, .repair and .watch are switched off by themselves"
        } else if path.starts_with("routes.") {
            "write more than zero, or leave it out: then that of [upstream] holds"
        } else {
            "write more than zero: with none nothing could ever be served"
        };
        report.at(&[&path], &format!("`{path}` is zero"), help);
    }
}

/// The paths that `pattern` stands for and whose values are zero.
fn zeros(written: &Value, pattern: &str) -> Vec<String> {
    let Some((list, key)) = pattern.split_once(".*.") else {
        let value = pattern.split('.').try_fold(written, |here, key| here.get(key));
        return value.filter(|value| is_zero(value)).map(|_| pattern.to_owned()).into_iter().collect();
    };
    let elements = list.split('.').try_fold(written, |here, key| here.get(key)).and_then(Value::as_array);
    let elements = elements.into_iter().flatten().enumerate();
    let zeros = elements.filter(|(_, element)| element.get(key).is_some_and(is_zero));
    zeros.map(|(number, _)| format!("{list}.{number}.{key}")).collect()
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => humantime::parse_duration(text).is_ok_and(|time| time.is_zero()),
        _ => false,
    }
}
