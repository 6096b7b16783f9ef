//! Answer to one canvas request, and its result.

use bytes::Bytes;
use http::StatusCode;

/// `CanvasReply` is an answer of a canvas service.
#[derive(Debug)]
pub(in crate::heal) struct CanvasReply {
    /// Target that was answered: the requested one, or the one that a redirect led to.
    pub(in crate::heal) target: String,
    pub(in crate::heal) status: StatusCode,
    /// Empty where the body is too long, or broke.
    pub(in crate::heal) body: Bytes,
}

/// `CanvasResponse` is the result of a canvas request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum CanvasResponse {
    /// The canvas, built for this request, with the image: its key is written.
    Built,
    /// Canvas with the image; it may be an old one.
    Carries,
    /// The canvas without the image: poisoned, or the file is gone.
    Lacks,
    /// JSON without a statement about the image, or no JSON.
    Unclear,
    /// Refused: the service does not know the canvas, or cannot build it, which is evidence against this canvas only.
    Refused,
    /// The service requires a pause.
    Busy,
    /// No answer, or one that speaks against the service.
    Unwell,
    /// Not sent: the breaker is open.
    Withheld,
    /// Not sent: the image is back already.
    Needless,
}

/// `CacheStatus` says whether the canvas was built for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum CacheStatus {
    /// Built for this request for certain.
    Now,
    /// Built for this request, or from the service's cache.
    NowOrLongAgo,
}

impl CanvasResponse {
    /// True if the answer speaks against the service, and not against the canvas or the rung.
    pub(in crate::heal) fn is_about_the_service(self) -> bool {
        matches!(self, Self::Busy | Self::Unwell | Self::Withheld | Self::Needless)
    }

    pub(in crate::heal) fn as_str(self) -> &'static str {
        match self {
            Self::Built | Self::Carries => "carries",
            Self::Lacks => "lacks",
            Self::Unclear => "unclear",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Unwell => "unwell",
            Self::Withheld => "withheld",
            Self::Needless => "needless",
        }
    }
}

/// Classifies an answer by its status alone.
pub(in crate::heal) fn classify(status: StatusCode) -> CanvasResponse {
    match status {
        StatusCode::TOO_MANY_REQUESTS => CanvasResponse::Busy,
        // UPSTREAM: an unknown canvas and a Fedora that answers 4xx or 5xx are both 500 (upstream.md "Errors").
        StatusCode::INTERNAL_SERVER_ERROR => CanvasResponse::Refused,
        status if status.is_server_error() => CanvasResponse::Unwell,
        status if status.is_success() => CanvasResponse::Unclear,
        _ => CanvasResponse::Refused,
    }
}
