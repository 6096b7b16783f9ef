//! Upgrades: requests of plain routes that ask for another protocol, such as WebSocket, and their limits.
//!
//! Image and presentation routes never switch: there `Upgrade` is one of the hop-by-hop fields, and goes no further.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use super::refusal::Refusal;
use super::sender::Sender;
use super::{Exchange, ProxyInner, ProxyResponse, headers};
use crate::config::settings::{RouteKind, ServerSettings};
use crate::observe::{EventKind, GaugeGuard, Metrics, Span};
use crate::upstream::{ClientUpgrade, Upgrade, UpstreamError};

const SWITCHES: HeaderValue = HeaderValue::from_static("upgrade");

/// Count of connections that speak another protocol.
#[derive(Debug, Clone, Default)]
pub(super) struct Upgrades {
    open: Arc<AtomicUsize>,
}

/// A permit for a connection that speaks another protocol. Free again when dropped.
#[derive(Debug)]
pub(super) struct UpgradePermit {
    open: Arc<AtomicUsize>,
    _client: ClientUpgrade,
    _counted: GaugeGuard,
}

impl Upgrades {
    /// Takes a permit for this client, if it may have one.
    fn take(&self, sender: &Sender, server: &ServerSettings, metrics: &Metrics) -> Option<UpgradePermit> {
        let each = if sender.is_trusted { usize::MAX } else { server.max_upgrades_per_client };
        let own = sender.client().upgrade(each)?;
        let fits = |open: usize| (open < server.max_upgrades).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, fits).ok()?;
        let counted = GaugeGuard::inc(&metrics.upstream.upgraded);
        Some(UpgradePermit { open: Arc::clone(&self.open), _client: own, _counted: counted })
    }
}

impl Drop for UpgradePermit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// The words of a list field, in small letters.
fn words(headers: &HeaderMap, name: http::HeaderName) -> impl Iterator<Item = String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(',')).map(|word| word.trim().to_ascii_lowercase());
    words.filter(|word| !word.is_empty())
}

/// True for a protocol that is still HTTP, or one that the proxy itself would have to implement.
///
/// SECURITY: behind `h2c` requests would go upstream unread.
fn is_ours(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default();
    matches!(name, "h2c" | "h2" | "h3" | "http" | "tls")
}

impl ProxyInner {
    /// Protocols of the request that may pass; `None`: it stays in HTTP.
    pub(super) fn protocols(&self, kind: RouteKind, head: &Parts, has_body: bool) -> Option<HeaderValue> {
        let may = kind == RouteKind::Plain && head.headers.contains_key(UPGRADE);
        if !may || has_body || head.version != Version::HTTP_11 || head.method != Method::GET {
            return None;
        }
        let is_meant = words(&head.headers, CONNECTION).any(|word| word == "upgrade");
        if !is_meant || self.settings.server.max_upgrades == 0 {
            return None;
        }
        let values = head.headers.get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
        let asked = values.flat_map(|value| value.split(',')).map(str::trim);
        let asked: Vec<_> =
            asked.filter(|one| !one.is_empty() && !is_ours(&one.to_ascii_lowercase())).collect();
        (!asked.is_empty()).then(|| HeaderValue::try_from(asked.join(", ")).ok())?
    }

    /// Sends the request on; returns a 101 with the upstream's side of the connection, or another answer.
    pub(super) async fn upgrade(
        &self,
        exchange: &Exchange<'_>,
        protocols: HeaderValue,
        head: &mut Parts,
    ) -> Result<ProxyResponse, Refusal> {
        let Exchange { sender, asked, .. } = exchange;
        let Some(permit) = self.upgrades.take(sender, &self.settings.server, &self.metrics) else {
            self.metrics.event(EventKind::UpgradeRefused);
            return Err(Refusal::Upgrades);
        };
        let caller = sender.caller(asked.route_kind, head.version);
        headers::prepare_upstream_head(head, asked, &sender.viewer, &self.onward_rules())?;
        head.headers.insert(CONNECTION, SWITCHES);
        head.headers.insert(UPGRADE, protocols);
        let (times, started) = (self.settings.timeouts(asked.route), Instant::now());
        let mut span = Span::call(asked.trace, head);
        let sent = self.upstreams[asked.route].upgrade(&caller, &span.inject(head), times).await;
        span.answered(&sent);
        let answer = sent.and_then(|answer| {
            let is_switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            if is_switched && !is_among_those(answer.headers(), &head.headers) {
                return Err(UpstreamError::Switched);
            }
            Ok(answer)
        });
        let answer = answer.map_err(|error| {
            self.metrics.upstream_error(error.kind());
            Refusal::Upstream(error)
        })?;
        self.metrics.upstream_answered(asked.kind(), started.elapsed());
        if let Some(upgrade) = answer.extensions().get::<Upgrade>() {
            upgrade.keep(permit);
        }
        Ok(ProxyResponse::served(answer))
    }
}

/// True if the answer switches to requested protocols, and to no other (RFC 9110 section 7.8).
fn is_among_those(answer: &HeaderMap, asked: &HeaderMap) -> bool {
    let asked: Vec<_> = words(asked, UPGRADE).collect();
    let mut chosen = words(answer, UPGRADE).peekable();
    chosen.peek().is_some() && chosen.all(|protocol| asked.contains(&protocol))
}

/// Takes the fields of one hop off by `strip`, all but those that announce another protocol.
pub(super) fn announced(status: StatusCode, fields: &mut HeaderMap, strip: impl FnOnce(&mut HeaderMap)) {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return strip(fields);
    }
    let chosen = fields.get(UPGRADE).cloned();
    strip(fields);
    fields.remove(CONTENT_LENGTH);
    if let Some(chosen) = chosen {
        fields.insert(CONNECTION, SWITCHES);
        fields.insert(UPGRADE, chosen);
    }
}
