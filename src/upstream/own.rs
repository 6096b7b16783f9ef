//! Requests of our own, in nobody's name.

use http::request::Parts;
use http::{HeaderValue, Method, Request, header};

use super::UpstreamError;

/// What we call ourselves.
const AGENT: &str = concat!("iiif-mender/", env!("CARGO_PKG_VERSION"));

/// The head of a GET of our own to `host`: it says who asks, and `name` in `Via` shows a circle. The target is `/`.
///
/// UPSTREAM: never `Authorization`: with one the canvas service answers 500 (upstream.md "Ways back to life").
pub fn own_request(host: &str, name: &str) -> Result<Parts, UpstreamError> {
    let text = |text: &str| HeaderValue::from_str(text).map_err(|_| UpstreamError::Target);
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::GET;
    head.headers.insert(header::HOST, text(host)?);
    head.headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
    head.headers.insert(header::VIA, text(&format!("1.1 {name}"))?);
    Ok(head)
}
