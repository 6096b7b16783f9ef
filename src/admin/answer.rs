//! Answers: text, JSON, and problems (RFC 9457).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use crate::upstream::Body;

pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
pub(super) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
pub(super) const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");

/// SECURITY: labels of manifests are foreign text; with this policy even an unescaped one cannot run a script.
pub(super) const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// An answer of this type.
pub(super) fn typed(kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// 303 redirect to another admin page.
pub(super) fn see_other(path: &str) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let path = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, path);
    response
}

/// Plain text.
pub(super) fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = typed("text/plain; charset=utf-8", text.to_owned());
    *response.status_mut() = status;
    response
}

/// JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response<Body>, ApiProblem> {
    let text = serde_json::to_string(value).map_err(|error| ApiProblem::internal(&error.to_string()))?;
    let mut response = typed("application/json", text);
    *response.status_mut() = status;
    Ok(response)
}

/// Error answer of the API, as problem details (RFC 9457).
#[derive(Debug)]
pub(super) struct ApiProblem {
    status: StatusCode,
    detail: String,
    field: Option<(header::HeaderName, HeaderValue)>,
}

impl ApiProblem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None }
    }

    pub(super) fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn internal(detail: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// 405: names the allowed method.
    pub(super) fn method(allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("this page is for {allowed}"))
            .with(header::ALLOW, HeaderValue::from_static(allowed))
    }

    /// No token, or a wrong one.
    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "show the token of [admin] token_file (Authorization: Bearer …, or in a browser as the password), or a \
             certificate of [admin] client_ca",
        )
        .with(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(
                "Basic realm=\"iiif-mender\", charset=\"UTF-8\", Bearer realm=\"iiif-mender\"",
            ),
        )
    }

    /// Too many of these.
    pub(super) fn too_many() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests of this kind: come back in a second")
            .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Sets `Retry-After` to `wait`.
    pub(super) fn after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(1);
        let detail = format!("too many wrong tokens came from this address: come back in {seconds} s");
        Self { detail, ..self }.with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    fn with(self, name: header::HeaderName, value: HeaderValue) -> Self {
        Self { field: Some((name, value)), ..self }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let title = self.status.canonical_reason().unwrap_or_default();
        let body = json!({ "title": title, "status": self.status.as_u16(), "detail": self.detail });
        self.on(typed("application/problem+json", body.to_string()))
    }

    /// Replaces the JSON by this page, where there is one.
    pub(super) fn with_page(self, page: Option<Response<Body>>) -> Response<Body> {
        match page {
            Some(page) => self.on(page),
            None => self.into_response(),
        }
    }

    fn on(self, mut response: Response<Body>) -> Response<Body> {
        *response.status_mut() = self.status;
        if let Some((name, value)) = self.field {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<crate::index::IndexError> for ApiProblem {
    fn from(error: crate::index::IndexError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("the index cannot be read: {error}"))
    }
}
