//! What the people who run it ask: is it alive, is it ready, what does it count.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::config::{Reload, ReloadError};
use crate::heal::Healer;
use crate::observe::{Format, Metrics};
use crate::upstream::Body;

/// The admin pages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    metrics: Arc<Metrics>,
    healer: Healer,
    reload: Option<Reload>,
}

impl Admin {
    /// Admin pages over these metrics and this healer; `reload` has the configuration read anew.
    pub fn new(metrics: Arc<Metrics>, healer: Healer, reload: Option<Reload>) -> Self {
        Self { metrics, healer, reload }
    }

    /// Answers one request.
    pub async fn handle(&self, request: &Request<Incoming>) -> Response<Body> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_reset = *request.method() == Method::POST && request.uri().path() == "/breakers/reset";
        let (status, kind, text) = match (is_read, request.uri().path()) {
            _ if is_reset => {
                tracing::info!("breakers reset by hand");
                self.healer.reset_breakers();
                (StatusCode::OK, TEXT, "reset\n".to_owned())
            }
            (false, "/reload") if *request.method() == Method::POST => {
                let (status, text) = self.reload().await;
                (status, TEXT, text)
            }
            (false, _) => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned()),
            (true, "/livez") => (StatusCode::OK, TEXT, "alive\n".to_owned()),
            // A proxy whose sockets are bound passes traffic from the first moment, index or not.
            (true, "/readyz") => (StatusCode::OK, TEXT, "ready\n".to_owned()),
            (true, "/metrics") => {
                let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
                let format = Format::accepted(accept.unwrap_or_default());
                (StatusCode::OK, format.content_type(), self.metrics.scrape_as(format))
            }
            (true, "/api/v1/stats") => (
                StatusCode::OK,
                "application/json",
                serde_json::to_string(&self.metrics.snapshot()).unwrap_or_default(),
            ),
            (true, _) => (StatusCode::NOT_FOUND, TEXT, "try /livez, /readyz or /metrics\n".to_owned()),
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            fields.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }

    async fn reload(&self) -> (StatusCode, String) {
        let read = match &self.reload {
            Some(reload) => reload.reload().await,
            None => Err(ReloadError::Nobody),
        };
        match read {
            Ok(changes) => {
                let restart = changes.after_restart.iter().map(|key| format!("after a restart: {key}\n"));
                let lines = changes.keys.iter().map(|key| format!("changed: {key}\n")).chain(restart);
                (StatusCode::OK, lines.chain(["reloaded\n".to_owned()]).collect())
            }
            Err(error @ ReloadError::Nobody) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
            Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
