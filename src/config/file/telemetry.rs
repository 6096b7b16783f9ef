//! `[telemetry]`: where the spans of requests go.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::leaf::Text;
use crate::config::settings::UpstreamUrl;
use crate::config::values::Count;

/// `[telemetry]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Telemetry {
    /// A collector that takes OTLP over HTTP; spans go to `/v1/traces` below it. Not given: there are none.
    pub otlp: Option<Text<UpstreamUrl>>,
    /// Header fields for requests to the collector, such as a key.
    pub headers: Option<BTreeMap<String, Text<HeaderValue>>>,
    /// One of so many requests has spans, where no trusted proxy decided that by its `traceparent`.
    pub sample: Option<Text<Count>>,
    /// How long the collector may take for one batch; then it is lost.
    pub timeout: Option<Text<Duration>>,
    /// Spans that may wait to be sent; beyond that they are dropped and counted.
    pub queue: Option<Text<Count>>,
}
