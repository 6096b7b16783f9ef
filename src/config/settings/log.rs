//! `[log]` and `[telemetry]`: log lines and spans of requests.

use std::time::Duration;

use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use crate::config::addresses::UpstreamUrl;
use crate::config::headers::Headers;
use crate::config::value::{As, WordList};
use crate::config::values::{LogFilter, WholeNumber, secs};

/// `[log]`
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct LogSettings {
    /// Level of the log, or a level per target such as `info,iiif_mender=debug`.
    #[default("info".to_owned())]
    #[serde(with = "As::<LogFilter>")]
    pub filter: String,
    /// Format of lines; "auto" is text on a terminal and JSON otherwise.
    #[serde(with = "As::<LogFormat>")]
    #[schemars(extend("x-reload" = "restart"))]
    pub format: LogFormat,
    /// Requests that have a line: "off", "errors" (healed, or not well), "sampled" (those, and one in `sample` of the rest)
    /// or "all".
    #[serde(with = "As::<AccessLog>")]
    pub access: AccessLog,
    /// Sample: one in this number of requests that went well has a line, where `access` is "sampled".
    #[default(100)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub sample: u32,
    /// The client's address in the line of its request: "none", "masked" (24 bits of IPv4, 48 of IPv6) or "full".
    #[serde(with = "As::<LogClient>")]
    pub client: LogClient,
    /// Lines that may wait to be written; beyond that they are dropped and counted.
    // A full queue takes some MB.
    #[default(8192)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0", "x-reload" = "restart"))]
    pub queue: usize,
}

impl LogSettings {
    /// Keeps the old values of keys that hold only after a restart.
    pub(in crate::config) fn keep_until_restart(&mut self, old: &Self) {
        self.format = old.format;
        self.queue = old.queue;
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// JSON, one object a line.
    Json,
}

impl WordList for LogFormat {
    const WHAT: &'static str = "a log format";
    const EXPECTED: &'static str = "a log format such as \"auto\"";
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}

/// Requests that have a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// No requests.
    Off,
    /// Requests that were healed, or did not go well.
    Errors,
    /// Requests that were healed or did not go well, and some of the rest.
    #[default]
    Sampled,
    /// Every one.
    All,
}

impl WordList for AccessLog {
    const WHAT: &'static str = "a choice of requests for the log";
    const EXPECTED: &'static str = "\"off\", \"errors\", \"sampled\" or \"all\"";
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("errors", Self::Errors), ("sampled", Self::Sampled), ("all", Self::All)];
}

/// Part of a client's address that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogClient {
    /// No address.
    None,
    /// Network: 24 bits of an IPv4 address, 48 of an IPv6 address.
    #[default]
    Masked,
    /// Full address.
    Full,
}

impl WordList for LogClient {
    const WHAT: &'static str = "how much of an address is told";
    const EXPECTED: &'static str = "\"none\", \"masked\" or \"full\"";
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("masked", Self::Masked), ("full", Self::Full)];
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct TelemetrySettings {
    /// A collector that takes OTLP over HTTP; spans go to `/v1/traces` below it. Not given: there are none.
    #[serde(with = "As::<Option<UpstreamUrl>>")]
    pub otlp: Option<UpstreamUrl>,
    /// Header fields for requests to the collector, such as a key.
    #[serde(with = "As::<Headers>", skip_serializing_if = "HeaderMap::is_empty")]
    pub headers: HeaderMap,
    /// Sample: one in this number of requests has spans, where no trusted proxy decided that by its `traceparent`.
    #[default(10)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub sample: u32,
    /// How long the collector may take for one batch; then it is lost.
    #[default(secs(10))]
    #[serde(with = "As::<Duration>")]
    #[schemars(extend("x-min" = ">0"))]
    pub timeout: Duration,
    /// Spans that may wait to be sent; beyond that they are dropped and counted.
    // A full queue takes about a MB.
    #[default(2048)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub queue: usize,
}
