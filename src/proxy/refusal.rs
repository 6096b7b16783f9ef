//! Refusals: why the proxy answers a request itself, and the text of that answer.

use std::time::Duration;

use http::StatusCode;

use crate::outcome::Outcome;
use crate::upstream::{BodyError, UpstreamError};

/// Marks the substitute request for a malformed head, with the status of its answer.
#[derive(Debug, Clone, Copy)]
pub struct MalformedHead(pub StatusCode);

/// Reasons for an answer of our own.
#[derive(Debug)]
pub enum Refusal {
    /// The request is not one that may be passed on.
    BadRequest(&'static str),
    /// The head cannot be read, or is too long.
    Malformed(StatusCode),
    /// CONNECT or TRACE.
    Method,
    /// `Expect` with something else than `100-continue`.
    Expectation,
    /// OPTIONS for this server itself.
    Options,
    /// The target is too long.
    UriTooLong,
    /// The body is longer than this server takes, or the route takes none.
    TooLong,
    /// No route is for the request.
    NoRoute,
    /// The request came back to us twice.
    Loop,
    /// The upstream gave no answer.
    Upstream(UpstreamError),
    /// The image is being healed, but not within this viewer's patience.
    Pending(Duration),
    /// Too many viewers wait already.
    Crowded(Duration),
    /// The client exceeds its rate (`server.rate`).
    TooOften(Duration),
    /// Too many connections speak another protocol already.
    Upgrades,
}

impl Refusal {
    /// Outcome of a refused request.
    pub(super) fn outcome(&self) -> Outcome {
        if matches!(self, Self::Pending(_)) { Outcome::Pending } else { Outcome::Refused }
    }

    /// True if the image could not be got: the cause is neither the reader nor the load.
    pub(super) fn is_about_the_image(&self) -> bool {
        match self {
            Self::Pending(_) => true,
            Self::Upstream(error) => !error.is_the_viewers() && !matches!(error, UpstreamError::Busy),
            _ => false,
        }
    }

    /// True if the image server or a heal failed, and not the viewer.
    pub(super) fn is_failure(&self) -> bool {
        match self {
            Self::Upstream(error) => !error.is_the_viewers(),
            Self::Pending(_) | Self::Crowded(_) => true,
            _ => false,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(status) => *status,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Options => StatusCode::NO_CONTENT,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Pending(_) | Self::Crowded(_) | Self::Upgrades | Self::Upstream(UpstreamError::Busy) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Upstream(UpstreamError::ConnectTimeout | UpstreamError::FirstByteTimeout) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Upstream(UpstreamError::Viewer(BodyError::ViewerStalled)) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLong | Self::Upstream(UpstreamError::Viewer(BodyError::ViewerTooLong)) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::BadRequest(_) | Self::Upstream(UpstreamError::Viewer(_)) => StatusCode::BAD_REQUEST,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The error type of RFC 9209 section 2.3.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::BadRequest(_)
            | Self::Malformed(_)
            | Self::Method
            | Self::Expectation
            | Self::Options
            | Self::UriTooLong
            | Self::TooLong => "http_request_error",
            Self::NoRoute => "destination_not_found",
            Self::Loop => "proxy_loop_detected",
            Self::Upstream(error) => error.kind(),
            Self::Pending(_) => "http_response_timeout",
            Self::Crowded(_) | Self::Upgrades => "connection_limit_reached",
            Self::TooOften(_) => "http_request_denied",
        }
    }

    pub(super) fn detail(&self) -> String {
        match self {
            Self::BadRequest(why) => format!("{why}."),
            Self::Malformed(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => {
                "The head of the request is longer than this server takes.".to_owned()
            }
            Self::Malformed(_) => {
                "The head of the request cannot be read: its first line or one of its fields breaks the rules of HTTP."
                    .to_owned()
            }
            Self::Method => "CONNECT and TRACE are not served here.".to_owned(),
            Self::Expectation => "Of expectations only 100-continue is met.".to_owned(),
            Self::Options => String::new(),
            Self::UriTooLong => "The target is longer than this server takes.".to_owned(),
            Self::TooLong => "The body is longer than is taken here; image routes take none.".to_owned(),
            Self::NoRoute => "No route of this server is for this host and path.".to_owned(),
            Self::Loop => "The request came back to this proxy: an upstream points at it.".to_owned(),
            Self::Upstream(UpstreamError::Viewer(error)) => {
                format!("The request did not arrive whole: {error}.")
            }
            Self::Upstream(error) => format!("The server behind this one gave no answer: {error}."),
            Self::Pending(after) => format!(
                "The image is being brought back, which takes longer than usual. Ask again in {} s.",
                after.as_secs()
            ),
            Self::Upgrades => "Too many connections speak another protocol already.".to_owned(),
            Self::TooOften(after) => {
                format!("Too many requests from this address. Ask again in {} s.", after.as_secs().max(1))
            }
            Self::Crowded(after) => format!(
                "Too many requests wait for images that are being brought back. Ask again in {} s.",
                after.as_secs()
            ),
        }
    }

    pub(super) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Pending(after) | Self::Crowded(after) | Self::TooOften(after) => {
                Some(after.as_secs().max(1))
            }
            Self::Upgrades | Self::Upstream(UpstreamError::Busy) => Some(1),
            _ => None,
        }
    }
}
