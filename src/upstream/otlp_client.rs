//! OTLP client of a span collector: one URL that batches are posted to.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use tokio::time::timeout;

use super::{Body, ErrorChain, TlsError, Upstream, UpstreamError, internal_request};
use crate::config::Settings;
use crate::config::settings::{Timeouts, UpstreamUrl};

/// The longest answer that is read, so that its connection is kept.
const LONGEST: usize = 64 << 10;

/// Takes batches of spans (OTLP over HTTP, binary).
#[derive(Debug)]
pub struct OtlpClient {
    upstream: Upstream,
    target: String,
    name: String,
    fields: HeaderMap,
    patience: Duration,
}

impl OtlpClient {
    /// Makes a client of the collector at `url`, by the settings of `[telemetry]` and `[upstream]`. Does not dial.
    pub fn new(url: &UpstreamUrl, settings: &Settings) -> Result<Self, TlsError> {
        let mut fields = settings.telemetry.headers.clone();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Ok(Self {
            upstream: Upstream::excluding(url, &settings.upstream)?,
            target: format!("{}/v1/traces", url.path.trim_end_matches('/')),
            name: settings.server.name.clone(),
            fields,
            patience: settings.telemetry.timeout,
        })
    }

    /// Posts one batch; `Err` says why it was not taken. A batch lost with an old connection is sent once more: a collector
    /// knows a repeated span by its id.
    pub async fn post(&self, batch: Bytes) -> Result<(), String> {
        self.upstream.prune();
        let both = async {
            match self.once(batch.clone()).await {
                Err(UpstreamError::Closed | UpstreamError::Exchange(_)) => self.once(batch).await,
                first => first,
            }
        };
        match timeout(self.patience, both).await {
            Err(_) => Err("no answer in time".to_owned()),
            Ok(Err(error)) => Err(ErrorChain(&error).to_string()),
            Ok(Ok(status)) if status.is_success() => Ok(()),
            Ok(Ok(status)) => Err(format!("it answers {status}")),
        }
    }

    async fn once(&self, batch: Bytes) -> Result<StatusCode, UpstreamError> {
        let mut head = internal_request(self.upstream.authority().as_str(), &self.name)?;
        head.method = Method::POST;
        head.uri = self.target.parse::<Uri>().map_err(|_| UpstreamError::Target)?;
        head.headers.extend(self.fields.clone());
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(batch.len()));
        let patience = self.patience;
        let times = Timeouts { connect: patience, first_byte: patience, body: patience };
        let answer = self.upstream.send(&head, Body::Full(batch), times).await?;
        let status = answer.status();
        // A body that is too long or breaks only costs the connection.
        let _read = answer.into_body().collect(LONGEST).await;
        Ok(status)
    }
}
