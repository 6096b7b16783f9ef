//! What the people who run it ask: is it alive, is it ready, what does it count.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::heal::Healer;
use crate::observe::{Format, Metrics};
use crate::upstream::Body;

/// The admin pages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    metrics: Arc<Metrics>,
    healer: Healer,
}

impl Admin {
    /// Admin pages over these metrics and this healer.
    pub fn new(metrics: Arc<Metrics>, healer: Healer) -> Self {
        Self { metrics, healer }
    }

    /// Answers one request.
    pub fn handle(&self, request: &Request<Incoming>) -> Response<Body> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_reset = *request.method() == Method::POST && request.uri().path() == "/breakers/reset";
        let (status, kind, text) = match (is_read, request.uri().path()) {
            _ if is_reset => {
                tracing::info!("breakers reset by hand");
                self.healer.reset_breakers();
                (StatusCode::OK, TEXT, "reset\n".to_owned())
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
}

const TEXT: &str = "text/plain; charset=utf-8";
