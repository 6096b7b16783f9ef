//! Requests of the proxy itself, on behalf of no client.

use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, header};

use super::{TlsError, Upstream, UpstreamError, client_tls};
use crate::config::settings::{self, UpstreamUrl};
use crate::iiif::CanvasUrl;
use crate::observe::UpstreamMetrics;

/// `User-Agent` of our own requests.
const AGENT: &str = concat!("iiif-mender/", env!("CARGO_PKG_VERSION"));

/// Head of a GET of our own to `host`, with our `User-Agent`; `name` in `Via` reveals a loop. The target is `/`.
///
/// UPSTREAM: never `Authorization`: with one the canvas service answers 500 (upstream.md "Ways back to life").
pub fn internal_request(host: &str, name: &str) -> Result<Parts, UpstreamError> {
    let text = |text: &str| HeaderValue::from_str(text).map_err(|_| UpstreamError::Target);
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::GET;
    head.headers.insert(header::HOST, text(host)?);
    head.headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
    head.headers.insert(header::VIA, text(&format!("1.1 {name}"))?);
    Ok(head)
}

/// Server that a URL names; `None`: the authority is invalid. The path is `/`: the caller chooses the target.
pub fn server_of(url: &CanvasUrl<'_>) -> Option<UpstreamUrl> {
    let scheme = if url.scheme.eq_ignore_ascii_case("https") { Scheme::HTTPS } else { Scheme::HTTP };
    Some(UpstreamUrl { scheme, authority: url.authority.parse().ok()?, path: "/".to_owned() })
}

impl Upstream {
    /// Makes an upstream for a server that no viewer's request goes to: a collector of spans, another iiif-mender. Its
    /// requests are not in the metrics of the viewers' upstreams.
    pub fn excluding(url: &UpstreamUrl, bounds: &settings::UpstreamSettings) -> Result<Self, TlsError> {
        Ok(Self::new(url, &[], bounds, &client_tls(bounds)?, &UpstreamMetrics::default()))
    }
}
