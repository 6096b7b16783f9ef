//! `[log]` and `[telemetry]`: what is told of requests.

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
    /// What is logged: a level, or a level per target such as `info,iiif_mender=debug`.
    #[default("info".to_owned())]
    #[serde(with = "As::<LogFilter>")]
    pub filter: String,
    /// How lines look; "auto" is text on a terminal and JSON otherwise.
    #[serde(with = "As::<LogFormat>")]
    #[schemars(extend("x-reload" = "restart"))]
    pub format: LogFormat,
    /// Which requests have a line: "off", "errors" (healed, or not well), "sampled" (those, and one in `sample` of the
    /// rest) or "all".
    #[serde(with = "As::<AccessLog>")]
    pub access: AccessLog,
    /// One of so many requests that went well has a line, where `access` is "sampled".
    #[default(100)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub sample: u32,
    /// The client's address in the line of its request: "none", "masked" (24 bits of IPv4, 48 of IPv6) or "full".
    #[serde(with = "As::<LogClient>")]
    pub client: LogClient,
    /// Lines that may wait to be written; beyond that they are dropped and counted.
    // Some MB when it is full.
    #[default(8192)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0", "x-reload" = "restart"))]
    pub queue: usize,
}

impl LogSettings {
    /// What holds only after a restart stays as it was.
    pub(in crate::config) fn keep_until_restart(&mut self, old: &Self) {
        self.format = old.format;
        self.queue = old.queue;
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

impl WordList for LogFormat {
    const WHAT: &'static str = "a log format";
    const EXPECTED: &'static str = "a log format such as \"auto\"";
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}

/// Which requests have a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that were healed, or did not go well.
    Errors,
    /// Those, and some of the rest.
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

/// How much of a client's address is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogClient {
    /// Nothing.
    None,
    /// Its network: 24 bits of an IPv4 address, 48 of an IPv6 address.
    #[default]
    Masked,
    /// All of it.
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
    /// One of so many requests has spans, where no trusted proxy decided that by its `traceparent`.
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
    // About a MB when it is full.
    #[default(2048)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub queue: usize,
}
