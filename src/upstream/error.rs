//! Errors of upstream requests and bodies. The failing side and the kind of failure are a variant, never a string.

use std::error::Error;
use std::{fmt, io};

/// Reason why an upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The name could not be resolved, the connection was refused or TLS failed.
    #[error("cannot connect")]
    Connect(#[source] Box<dyn Error + Send + Sync>),
    /// TCP and TLS took too long.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The HTTP/2 handshake on a new connection failed.
    #[error("the connection broke before a request was sent")]
    Handshake(#[source] hyper::Error),
    /// The request was sent; no answer came in time.
    #[error("no answer in time")]
    FirstByteTimeout,
    /// The connection was closed before an answer.
    #[error("the connection was closed before an answer")]
    Closed,
    /// The answer was not HTTP, or broke in its head.
    #[error("the answer broke")]
    Exchange(#[source] io::Error),
    /// The answer's transfer codings are not understood here.
    #[error("the answer comes in a transfer coding other than chunked")]
    Coding,
    /// The answer's lengths contradict each other, or are none.
    #[error("the length of the answer is in doubt")]
    Length,
    /// The upstream switches to another protocol, although the request named none.
    #[error("the answer switches protocols unasked")]
    Switched,
    /// The viewer did not send the whole request.
    #[error("the viewer did not send the whole request")]
    Viewer(#[source] BodyError),
    /// All permits are taken and none became free in time.
    #[error("too many requests in flight")]
    Busy,
    /// The target cannot be written into a request.
    #[error("not a request target")]
    Target,
}

/// Reason why a body broke off. The peer sees an aborted message, never a clean short one.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream cut the body.
    #[error("the upstream cut the body")]
    Upstream(#[source] io::Error),
    /// The viewer cut the body.
    #[error("the viewer cut the body")]
    Viewer(#[source] hyper::Error),
    /// The viewer cut the body; the connection does not tell the cause.
    #[error("the viewer cut the body")]
    ViewerCut,
    /// The viewer sends more than is taken.
    #[error("the body is longer than this server takes")]
    ViewerTooLong,
    /// The viewer was silent for too long in the middle.
    #[error("the viewer stalled in the middle of a body")]
    ViewerStalled,
    /// The upstream was silent for too long in the middle.
    #[error("the upstream stalled in the middle of a body")]
    Stalled,
    /// Other clients waited for the permit of this request, and its own client did not move.
    #[error("the client did not move while others waited")]
    Ended,
    /// The request that several readers share broke.
    #[error("the request that several readers share broke")]
    Shared,
    /// The body cannot be unpacked, or its file cannot be read to the end.
    #[error("the body cannot be read to its end")]
    Unreadable(#[source] std::io::Error),
}

/// `SendFailure` says how a request failed before the head of an answer.
#[derive(Debug)]
pub(super) enum SendFailure {
    /// Not written; the body is whole again.
    Unsent,
    /// The connection was closed under a request without a body before any byte of an answer.
    Stale,
    /// The connection was closed after some bytes of an answer.
    Ended,
    /// No answer in time.
    Late,
    /// The viewer did not send its whole body.
    Viewer(BodyError),
    /// The target cannot be written as a request of HTTP/2.
    Target,
    /// The end of the answer is not stated once and clearly.
    Framing(UpstreamError),
    /// Other error.
    Broken(io::Error),
}

/// An error with its causes, in one line.
#[derive(Debug)]
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl UpstreamError {
    /// The error type of RFC 9209 section 2.3, for `Proxy-Status` and the metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) if self.is_refused() => "connection_refused",
            Self::Connect(_) if self.is_distrust() => "tls_certificate_error",
            Self::Connect(_) | Self::Handshake(_) => "destination_unavailable",
            Self::ConnectTimeout => "connection_timeout",
            Self::FirstByteTimeout => "http_response_timeout",
            Self::Closed => "connection_terminated",
            Self::Exchange(_) | Self::Switched | Self::Length => "http_protocol_error",
            Self::Coding => "http_response_transfer_coding",
            Self::Busy => "connection_limit_reached",
            Self::Target | Self::Viewer(_) => "http_request_error",
        }
    }

    /// True if the viewer failed and not the upstream.
    pub fn is_the_viewers(&self) -> bool {
        matches!(self, Self::Viewer(_))
    }

    /// True if the connection was refused: no process listens there.
    pub fn is_refused(&self) -> bool {
        self.is_caused_by(io::ErrorKind::ConnectionRefused)
    }

    /// True if each address had its share of the time, and none answered.
    pub(super) fn is_timeout(&self) -> bool {
        self.is_caused_by(io::ErrorKind::TimedOut)
    }

    fn is_caused_by(&self, kind: io::ErrorKind) -> bool {
        self.causes().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == kind))
    }

    /// True if we do not trust the upstream's certificate.
    fn is_distrust(&self) -> bool {
        self.causes().any(|cause| {
            matches!(cause.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidCertificate(_)))
        })
    }

    /// Iterates over the error and its causes. An error inside an I/O error is a cause as well, though `source` skips it.
    fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        std::iter::successors(Some(self as &(dyn Error + 'static)), |&error| {
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source())
        })
    }
}
