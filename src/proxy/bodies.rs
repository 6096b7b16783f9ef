//! Limits of request bodies.

use http::Method;
use hyper::body::{Body as _, Incoming};

use super::refusal::Refusal;
use super::route::RoutedRequest;
use crate::config::settings::{RouteKind, ServerSettings};
use crate::upstream::Body;

/// Body of the viewer's request, as far as the route allows one.
pub(super) fn request_body(
    asked: &RoutedRequest<'_>,
    method: &Method,
    body: Incoming,
    server: &ServerSettings,
) -> Result<Body, Refusal> {
    let most = match asked.route_kind {
        // SECURITY: no image request needs a body, and the image server may leave one unread that it does not expect.
        RouteKind::Image => 0,
        RouteKind::Presentation | RouteKind::Plain => server.max_body_bytes,
    };
    let is_short = body.size_hint().lower() <= u64::try_from(most).unwrap_or(u64::MAX);
    let is_taken = body.is_end_stream() || most > 0 && is_short;
    is_taken.then(|| Body::from_viewer(method, body, most, server.min_rate)).ok_or(Refusal::TooLong)
}
