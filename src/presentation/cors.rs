//! CORS: a viewer on any web site may read manifests, canvases and info.json.
//!
//! IIIF asks for it: Presentation 3.0 section 7.3, Image 2.1 section 7.3 and 3.0 section 7.2. What the servers behind
//! us say stays as it is; only where they say nothing is `*` added, and only preflights (Fetch standard, "CORS-preflight
//! request") that they do not answer are answered here.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::collapse::text;
use crate::config::settings::RouteKind;
use crate::upstream::Body;

/// What may be asked for here.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// How long a browser may remember its permission: as long as the longest of them do.
const A_DAY: &str = "86400";

/// Is this OPTIONS one that is answered here if the upstream does not?
pub fn concerns(kind: RouteKind, asked: &Parts) -> bool {
    asked.method == Method::OPTIONS
        && match kind {
            RouteKind::Presentation => true,
            RouteKind::Image => is_preflight(&asked.headers),
            RouteKind::Plain => false,
        }
}

/// The upstream's answer to an OPTIONS if it gives permission, else ours.
pub fn options(asked: &Parts, answer: Option<Response<Body>>) -> Response<Body> {
    match answer {
        Some(answer)
            if answer.status().is_success()
                && (!is_preflight(&asked.headers)
                    || answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)) =>
        {
            answer
        }
        _ => permission(&asked.headers),
    }
}

/// Permission to read, for everybody and with any field.
pub(super) fn permission(asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    fields.insert(header::ALLOW, HeaderValue::from_static(METHODS));
    open(fields);
    if is_preflight(asked) {
        fields.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        fields.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(A_DAY));
        // `*` would not cover Authorization (Fetch standard, "CORS non-wildcard request-header name").
        if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            fields.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        fields.insert(header::VARY, HeaderValue::from_static(vary));
    }
    response
}

/// Lets everybody read, unless the upstream said who may.
pub fn open(fields: &mut HeaderMap) {
    fields.entry(header::ACCESS_CONTROL_ALLOW_ORIGIN).or_insert(HeaderValue::from_static("*"));
}

fn is_preflight(asked: &HeaderMap) -> bool {
    asked.contains_key(header::ORIGIN) && !text(asked, header::ACCESS_CONTROL_REQUEST_METHOD).is_empty()
}
