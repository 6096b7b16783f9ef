//! Client of the admin listener.

use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use serde::de::DeserializeOwned;

use super::stats::{BrokenList, TopHeals, TopStats};
use crate::config::Settings;
use crate::config::settings::Timeouts;
use crate::iiif::CanvasUrl;
use crate::upstream::{Body, ErrorChain, TlsError, Upstream, internal_request, server_of, whole};

/// Errors of a request to the admin listener.
#[derive(Debug, thiserror::Error)]
pub enum AdminClientError {
    /// `--url`.
    #[error("--url {0}: not an http(s) URL; write e.g. http://127.0.0.1:9090")]
    Url(String),
    /// No listener to ask.
    #[error(
        "[admin] listen is \"off\" in the configuration; name the listener of a running iiif-mender with --url"
    )]
    Off,
    /// Error of TLS to the listener.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No answer.
    #[error("{name} gives no answer: {why}; does iiif-mender run there? ([admin] listen, or --url)")]
    Silent {
        /// Name of the admin listener.
        name: String,
        /// Description of the error.
        why: String,
    },
    /// An answer with another status.
    #[error("{name} answers {status}; {advice}")]
    Status {
        /// Name of the admin listener.
        name: String,
        /// Status of the answer.
        status: StatusCode,
        /// Advice: what to do, or the detail of the answer.
        advice: String,
    },
    /// An answer that is not iiif-mender's.
    #[error("{name} does not answer as an iiif-mender does: {why}")]
    Strange {
        /// Name of the admin listener.
        name: String,
        /// Description of the fault.
        why: String,
    },
}

/// Variable with the token of the admin listener.
const TOKEN: &str = "IIIF_MENDER_TOKEN";

/// The longest answer.
const MAX_ANSWER: usize = 1 << 20;

/// Number of heals requested.
const HEALS: usize = 8;

/// Time limit of an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The admin listener of a running iiif-mender.
#[derive(Debug)]
pub(super) struct AdminClient {
    upstream: Upstream,
    /// Path before that of an endpoint.
    base: String,
    name: String,
    us: String,
    token: Option<HeaderValue>,
    times: Timeouts,
}

impl AdminClient {
    pub(super) fn new(url: Option<&str>, settings: &Settings) -> Result<Self, AdminClientError> {
        let url = match (url, settings.admin.listen) {
            (Some(url), _) => url.to_owned(),
            (None, Some(address)) => format!("http://{address}"),
            (None, None) => return Err(AdminClientError::Off),
        };
        let refuse = || AdminClientError::Url(url.clone());
        let parsed = CanvasUrl::parse(&url).ok_or_else(refuse)?;
        let server = server_of(&parsed).ok_or_else(refuse)?;
        let base = parsed.path.trim_end_matches('/').to_owned();
        let upstream = Upstream::excluding(&server, &settings.upstream)?;
        let token = std::env::var(TOKEN).ok().and_then(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let times = settings.upstream.timeouts().first_byte(TIMEOUT);
        Ok(Self { upstream, base, name: url, us: settings.server.name.clone(), token, times })
    }

    /// Name of the admin listener, as it was written.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Statistics, as they came.
    pub(super) async fn stats(&self) -> Result<serde_json::Value, AdminClientError> {
        self.get("stats").await
    }

    /// Statistics and the last heals.
    pub(super) async fn stats_with_heals(&self) -> Result<TopStats, AdminClientError> {
        let stats: TopStats = self.get("stats").await?;
        // Without a readable index there are no heals, and all else can be shown.
        let heals = self.get::<TopHeals>(&format!("heals?limit={HEALS}")).await.unwrap_or_default();
        Ok(TopStats { heals: heals.items, ..stats })
    }

    /// Images that readers do not get, as they came: all pages of the list.
    pub(super) async fn broken(&self) -> Result<Vec<serde_json::Value>, AdminClientError> {
        let (mut all, mut last) = (Vec::new(), None);
        loop {
            let before = last.map_or_else(String::new, |last| format!("?before={last}"));
            let page: BrokenList = self.get(&format!("broken{before}")).await?;
            all.extend(page.items);
            // Each page is older than the one before it: a list without an end is none.
            let Some(next) = page.next.filter(|next| last.is_none_or(|last| *next < last)) else {
                return Ok(all);
            };
            last = Some(next);
        }
    }

    /// Has the admin listener do something with this JSON.
    pub(super) async fn act<T: DeserializeOwned>(
        &self,
        action: &str,
        about: &serde_json::Value,
    ) -> Result<T, AdminClientError> {
        self.ask(Method::POST, action, about.to_string().into()).await
    }

    async fn get<T: DeserializeOwned>(&self, endpoint: &str) -> Result<T, AdminClientError> {
        self.ask(Method::GET, endpoint, Body::Empty).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        endpoint: &str,
        body: Body,
    ) -> Result<T, AdminClientError> {
        let name = || self.name.clone();
        let silent = |why: String| AdminClientError::Silent { name: name(), why };
        let head = internal_request(self.upstream.authority().as_str(), &self.us);
        let mut head = head.map_err(|error| silent(error.to_string()))?;
        head.method = method;
        head.uri =
            format!("{}/api/v1/{endpoint}", self.base).parse().map_err(|_| AdminClientError::Url(name()))?;
        if let Some(token) = &self.token {
            head.headers.insert(header::AUTHORIZATION, token.clone());
        }
        if let Body::Full(text) = &body {
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        }
        let answer = self.upstream.send(&head, body, self.times).await;
        let (head, body) = answer.map_err(|error| silent(ErrorChain(&error).to_string()))?.into_parts();
        let body = whole::read(body, MAX_ANSWER).await.map_err(|error| silent(error.to_string()))?;
        if head.status != StatusCode::OK {
            let advice = advice(head.status, &head.headers, &body);
            return Err(AdminClientError::Status { name: name(), status: head.status, advice });
        }
        serde_json::from_slice(&body)
            .map_err(|error| AdminClientError::Strange { name: name(), why: error.to_string() })
    }
}

/// Advice about an answer with this status: its own detail, where the answer is one of ours.
fn advice(status: StatusCode, fields: &HeaderMap, body: &[u8]) -> String {
    let fixed = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "set IIIF_MENDER_TOKEN to the token of [admin]",
        StatusCode::NOT_FOUND => "--url must name the admin listener, not the one for viewers",
        _ => "see its log",
    };
    let is_ours = fields.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json");
    let says =
        || serde_json::from_slice::<serde_json::Value>(body).ok()?["detail"].as_str().map(str::to_owned);
    let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    says().filter(|_| is_ours && !is_refused).unwrap_or_else(|| fixed.to_owned())
}
