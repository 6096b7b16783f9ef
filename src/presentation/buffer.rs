//! Documents that are held as a whole, up to a bound; beyond it they only stream by.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header, response};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::PresentationResponse;
use crate::outcome::Outcome;
use crate::upstream::coding::ContentCoding;
use crate::upstream::{Body, MemoryBudget};

/// A whole answer.
#[derive(Debug, Clone)]
pub(super) struct BufferedDocument {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
    pub(super) outcome: Outcome,
    /// Duration of the rebuild, where one was needed.
    pub(super) cured: Option<Duration>,
}

impl BufferedDocument {
    pub(super) fn new(head: response::Parts, body: Bytes) -> Self {
        Self { head, body, outcome: Outcome::Served, cured: None }
    }

    /// The answer for one viewer.
    pub(super) fn answer(&self) -> PresentationResponse {
        let response = Response::from_parts(self.head.clone(), self.body.clone().into());
        PresentationResponse { response, outcome: self.outcome, cured: self.cured }
    }

    /// Replaces the body, and the fields that describe it.
    pub(super) fn replace(&mut self, body: Bytes) {
        mark_changed(&mut self.head.headers);
        self.head.headers.remove(header::CONTENT_ENCODING);
        self.head.headers.insert(header::CONTENT_LENGTH, body.len().into());
        self.body = body;
    }

    /// The document without its coding; `None`: a coding that is not read here, or longer than `most`.
    pub(super) fn plain(&self, most: usize) -> Option<Bytes> {
        ContentCoding::of(&self.head.headers).ok()?.unpack(&self.body, most).ok()
    }
}

/// Removes the fields that describe the exact bytes.
///
/// The validator stays as a weak one (RFC 9110 section 8.8.1): the upstream still tells by it whether the document changed,
/// but no parts of two versions are put together.
pub(super) fn mark_changed(fields: &mut HeaderMap) {
    for name in ["content-length", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"]
    {
        fields.remove(name);
    }
    let weak = match text(fields, header::ETAG) {
        "" => None,
        tag if tag.starts_with("W/") => return,
        tag => HeaderValue::try_from(format!("W/{tag}")).ok(),
    };
    fields.remove(header::ETAG);
    if let Some(weak) = weak {
        fields.insert(header::ETAG, weak);
    }
}

/// Result of buffering a body.
pub(super) enum BufferResult {
    Whole(Bytes),
    /// Longer than allowed: everything that came, and the rest.
    Longer(Body),
    /// The body broke: everything that came, and the error.
    Cut(Body),
    /// Not buffered, because memory is short: everything that came, and the rest.
    Refused(Body),
}

/// Buffers a body of at most `most` bytes, out of `budget`; of a longer one no byte is lost.
pub(super) async fn gather(mut body: Body, most: usize, budget: &MemoryBudget) -> BufferResult {
    let fits = |size: u64| usize::try_from(size).is_ok_and(|size| size <= most);
    if !fits(body.size_hint().lower()) {
        return BufferResult::Longer(body);
    }
    // Each piece has its own permit: a piece that is passed on in the end still counts.
    let (mut begun, mut size) = (VecDeque::new(), 0);
    loop {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => {
                let Ok(bytes) = frame.into_data() else { continue };
                size += bytes.len();
                let Some(share) = budget.take(bytes.len()) else {
                    begun.push_back(bytes);
                    return BufferResult::Refused(Body::Chain(begun, Box::new(body)));
                };
                begun.push_back(share.keep(bytes));
                if size > most {
                    return BufferResult::Longer(Body::Chain(begun, Box::new(body)));
                }
            }
            // The viewer sees an aborted message and not a clean short one.
            Some(Err(error)) => {
                return BufferResult::Cut(Body::Chain(begun, Box::new(Body::broken(error))));
            }
        }
    }
    if begun.len() <= 1 {
        return BufferResult::Whole(begun.pop_front().unwrap_or_default());
    }
    let mut whole = Vec::with_capacity(size);
    for bytes in begun {
        whole.extend_from_slice(&bytes);
    }
    BufferResult::Whole(budget.count(size).keep(whole.into()))
}

/// The value of a field, where it has just one.
pub(super) fn text(fields: &HeaderMap, name: http::HeaderName) -> &str {
    fields.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
