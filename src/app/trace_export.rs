//! Export of spans to a collector.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::StartError;
use crate::config::Settings;
use crate::observe::Metrics;
use crate::upstream::OtlpClient;

/// Time limit for the last spans after everything else has ended.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Task that sends spans. Dropping `more` makes it send the rest, and end.
#[derive(Debug)]
pub(super) struct TraceExport {
    more: oneshot::Sender<()>,
    sending: JoinHandle<()>,
}

impl TraceExport {
    /// Begins, where there is a collector.
    pub(super) fn start(settings: &Settings, metrics: &Metrics) -> Result<Option<Self>, StartError> {
        let telemetry = &settings.telemetry;
        let Some(url) = &telemetry.otlp else { return Ok(None) };
        let collector = Arc::new(OtlpClient::new(url, settings)?);
        let Some(export) = metrics.spans.open(telemetry.sample, telemetry.queue) else { return Ok(None) };
        let (more, last) = oneshot::channel();
        let post = move |batch| {
            let collector = Arc::clone(&collector);
            async move { collector.post(batch).await }
        };
        Ok(Some(Self { more, sending: tokio::spawn(export.run(post, last)) }))
    }

    /// Sends the remaining spans, within a time limit.
    pub(super) async fn end(self) {
        drop(self.more);
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, self.sending).await;
    }
}
