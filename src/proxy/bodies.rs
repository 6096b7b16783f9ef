//! Which request bodies are taken, and how much of them.

use http::Method;
use hyper::body::{Body as _, Incoming};

use super::refusal::Refusal;
use super::route::RoutedRequest;
use crate::config::settings::{RouteKind, ServerSettings};
use crate::upstream::Body;

/// What the viewer sends, as far as the route takes it.
pub(super) fn request_body(
    asked: &RoutedRequest<'_>,
    method: &Method,
    body: Incoming,
    server: &ServerSettings,
) -> Result<Body, Refusal> {
    let most = match asked.route_kind {
        // SECURITY: no image request needs one, and what the image server does not expect it may leave unread.
        RouteKind::Image => 0,
        RouteKind::Presentation | RouteKind::Plain => server.max_body_bytes,
    };
    let is_short = body.size_hint().lower() <= u64::try_from(most).unwrap_or(u64::MAX);
    let is_taken = body.is_end_stream() || most > 0 && is_short;
    is_taken.then(|| Body::from_viewer(method, body, most, server.min_rate)).ok_or(Refusal::TooLong)
}
