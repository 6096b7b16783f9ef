//! What is told of requests: lines and spans; and header fields, which may be secrets.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::super::check::Report;
use super::super::file;
use super::super::leaf::Text;
use super::super::settings::{Log, Telemetry};
use super::{count, or};

pub(super) fn log(file: file::Log) -> Log {
    let default = Log::default();
    Log {
        filter: file.filter.map_or(default.filter, |filter| filter.0.0),
        format: or(file.format, default.format),
        access: or(file.access, default.access),
        sample: file.sample.map_or(default.sample, |sample| sample.0.0),
        client: or(file.client, default.client),
        queue: count(file.queue, default.queue),
    }
}

pub(super) fn telemetry(file: file::Telemetry, report: &mut Report<'_>) -> Telemetry {
    let default = Telemetry::default();
    let telemetry = Telemetry {
        otlp: file.otlp.map(|otlp| otlp.0),
        headers: headers(file.headers.unwrap_or_default(), "telemetry", report),
        sample: file.sample.map_or(default.sample, |sample| sample.0.0),
        timeout: or(file.timeout, default.timeout),
        queue: count(file.queue, default.queue),
    };
    let zero = [
        ("telemetry.sample", telemetry.sample == 0),
        ("telemetry.timeout", telemetry.timeout.is_zero()),
        ("telemetry.queue", telemetry.queue == 0),
    ];
    for (path, _) in zero.into_iter().filter(|(_, is_zero)| *is_zero) {
        report.at(
            &[path],
            &format!("`{path}` is zero"),
            "write more than zero; there are no spans where telemetry.otlp is not given",
        );
    }
    telemetry
}

/// The fields that a source's requests carry; those that are HTTP's own business are mistakes.
pub(super) fn headers(
    file: BTreeMap<String, Text<HeaderValue>>,
    source: &str,
    report: &mut Report<'_>,
) -> HeaderMap {
    const OURS: [HeaderName; 7] = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::ACCEPT_ENCODING,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
    ];
    let mut fields = HeaderMap::new();
    for (name, value) in file {
        let path = format!("{source}.headers.{name}");
        match HeaderName::try_from(&name) {
            Ok(known) if OURS.contains(&known) => report.at(
                &[&path],
                &format!("`{name}` cannot be chosen: every request has its own"),
                "take it out",
            ),
            Ok(known) => {
                fields.append(known, value.0);
            }
            Err(_) => report.at(
                &[&path],
                &format!("`{name}` is not the name of a header"),
                "write the name alone, such as authorization = \"Bearer 1234\"",
            ),
        }
    }
    fields
}
